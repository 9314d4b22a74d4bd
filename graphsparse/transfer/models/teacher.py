"""A graph neural network that learns links where the source helps: among the shared nodes."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch_geometric.data import Data

from graphsparse.ops.check import check_count, check_number
from graphsparse.training.identity import graph_tensors
from graphsparse.training.result import FitResult
from graphsparse.transfer.data.queries import check_queries, check_split
from graphsparse.transfer.models.decoders import CHUNK, check_decoder, score_in_chunks
from graphsparse.transfer.models.link_batches import SAMPLERS
from graphsparse.transfer.models.link_model import Encoder, LinkModel, build_link_model, encode, sage_encoder
from graphsparse.transfer.models.link_task import LinkTask, check_link_model
from graphsparse.transfer.models.link_training import LinkTraining, check_training, split_identity
from graphsparse.transfer.models.node_table import featured
from graphsparse.transfer.models.validation import Validation
from graphsparse.typing import Log

if TYPE_CHECKING:
    from graphsparse.transfer.data.pair import SharedNodePair
    from graphsparse.transfer.data.split import LinkSplit

#: Where a teacher may learn: name of the scope -> name of the graph of the pair.
SCOPES = {"intersection": "enriched_intersection", "enriched_target": "enriched_target"}

#: Where vectors are made: name of the place -> name of the graph of the pair.
PLACES = {"target": "enriched_target", "intersection": "enriched_intersection"}


class LinkTeacher:
    r"""Learns links on the shared nodes, from what both graphs know about them, and scores pairs of the whole target.

    The encoder makes a vector of each node and the decoder a score of two; what is minimised is

    .. math::
        \frac1P \sum_{(u,v) \in \text{links}} \log(1 + e^{-s_{uv}}) + \frac1N \sum_{(u,v) \in \text{non-links}}
        \log(1 + e^{s_{uv}}),

    with the links of the training graph less all that ``split`` holds out, and fresh non-links among its nodes in every
    epoch. The best epoch is that with the best metric on the validation pairs of the target, scored with the vectors
    that the encoder makes on the target with the source's links between shared nodes added. Test pairs are never read.

    Args:
        encoder: A module that is called as ``encoder(x, edge_index)`` and returns vectors ``[N, d]``, which is trained
            in place; or what builds one for a number of features. GraphSAGE of two layers of 256 by default.
        decoder: ``"dot"``, ``"bilinear"``, ``"mlp"`` (on the product of the vectors) or ``"concat"`` (on both,
            symmetric).
        scope: Where it learns: ``"intersection"``, the shared nodes with the links of both graphs among them, or
            ``"enriched_target"``, all target nodes with these links.
        num_neg: Non-links per link.
        mask_supervision_ratio: Learn in each epoch from so large a share of the links only, drawn anew, and leave these
            out of the messages; 0 to learn from all and leave all in.
        source_edge_weight: Weight of what only a source has, in messages and in the loss, from 0 to 1. Other values
            than 1 need an encoder that takes ``edge_weight``.
        normalize: Divide each row of the features by its length first.
        id_channels: Where the pair has no features, a vector of this width is trained for each node in their place.
            Only for ``scope="enriched_target"``: in the intersection the other target nodes would learn none.
        input_dropout: Dropout of the features.
        training: Epochs, learning rate, metric and the like.
        num_neighbors: Fan-out of each hop, one per layer of the encoder, -1 for all: train in batches of links and
            sampled neighbours, and encode layer by layer. The whole graph at once when ``None``. In training a layer
            that divides by degrees, as ``GCNConv`` does, sees those in the sample, as with any of PyG's loaders; with
            -1 everywhere only layers without degrees of neighbours (SAGE, GAT, GIN) give what the whole graph does.
        batch_size: Links in a batch.
        sampler: Who draws the neighbours: ``"graphsparse"``, or ``"pyg"`` for PyG's ``LinkNeighborLoader``.
        accelerate: Use the convolutions of this package for those of PyG that it has.
        chunk_size: Most pairs that are scored at a time.

    Attributes:
        model: Encoder and decoder, once fitted.
        result: Course of the training, once fitted; its ``logits`` are the scores of the validation pairs.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If one is out of range.

    Example:
        >>> import torch
        >>> from graphsparse.testing import random_graph
        >>> from graphsparse.transfer.data.split import split_links
        >>> from graphsparse.transfer.data.pair import SharedNodePair
        >>> data, early, late = random_graph(), torch.arange(45), torch.arange(15, 60)
        >>> pair = SharedNodePair(data.subgraph(early), data.subgraph(late), early, late)
        >>> split = split_links(pair)
        >>> teacher = LinkTeacher(sage_encoder(16), training=LinkTraining(epochs=10)).fit(pair, split)
        >>> teacher.score(torch.tensor([[0, 1], [2, 3]])).shape, teacher.embed("intersection").shape
        (torch.Size([2]), torch.Size([30, 16]))

    Source: Zheng et al., *You Only Transfer What You Share*, arXiv 2302.14189; features in place of trained vectors of
    nodes, softplus, negatives among the nodes of the training graph and no held-out link in any message are ours.
    """

    def __init__(
        self,
        encoder: Encoder | None = None,
        decoder: str = "dot",
        scope: str = "intersection",
        *,
        num_neg: int = 3,
        mask_supervision_ratio: float = 0.0,
        source_edge_weight: float = 1.0,
        normalize: bool = True,
        id_channels: int = 256,
        input_dropout: float = 0.0,
        training: LinkTraining | None = None,
        num_neighbors: Sequence[int] | None = None,
        batch_size: int = 4096,
        sampler: str = "graphsparse",
        accelerate: bool = True,
        chunk_size: int = CHUNK,
    ) -> None:
        check_decoder(decoder)
        if scope not in SCOPES:
            raise ValueError(f"'scope' must be one of {tuple(SCOPES)} (got {scope!r})")
        if sampler not in SAMPLERS:
            raise ValueError(f"'sampler' must be one of {SAMPLERS} (got {sampler!r})")
        for name, count in (
            ("num_neg", num_neg),
            ("id_channels", id_channels),
            ("batch_size", batch_size),
            ("chunk_size", chunk_size),
        ):
            check_count(count, name)
        for name, share in (
            ("mask_supervision_ratio", mask_supervision_ratio),
            ("source_edge_weight", source_edge_weight),
            ("input_dropout", input_dropout),
        ):
            check_number(share, name, least=0, most=1)
        self.encoder = sage_encoder() if encoder is None else encoder
        self.decoder, self.scope = decoder, scope
        self.num_neg, self.mask_supervision_ratio = num_neg, mask_supervision_ratio
        self.source_edge_weight = source_edge_weight
        self.normalize, self.id_channels, self.input_dropout = normalize, id_channels, input_dropout
        self.training = LinkTraining() if training is None else training
        check_training(self.training)
        self.num_neighbors, self.batch_size, self.sampler = num_neighbors, batch_size, sampler
        self.accelerate, self.chunk_size = accelerate, chunk_size
        self.model: LinkModel | None = None
        self.result: FitResult | None = None
        self._pair: SharedNodePair | None = None
        self._split: LinkSplit | None = None
        self._vectors: dict[str, Tensor] = {}

    def fit(
        self,
        pair: "SharedNodePair",
        split: "LinkSplit",
        *,
        seed: int = 0,
        checkpoint: str | Path | None = None,
        progress: bool = False,
        log: Log | None = None,
    ) -> "LinkTeacher":
        """Learn the links that the split leaves.

        Args:
            pair: Source and target.
            split: Links of the target that are held out; those of validation choose the epoch.
            seed: Seed of initial weights, dropout, non-links and batches.
            checkpoint: File from which a killed training goes on, see :func:`graphsparse.training.fit`.
            progress: Whether to show a progress bar.
            log: Receives the entries of the history one by one.

        Returns:
            The teacher itself.

        Raises:
            ValueError: If the split is that of another pair, there is no link to learn from, the pair has no features
                and the scope is the intersection, or the encoder takes no edge weights and ``source_edge_weight`` is
                not 1.
        """
        check_split(pair, split)
        pair, table = featured(pair, self.id_channels, seed)
        if table is not None and self.scope == "intersection":
            raise ValueError(
                "the pair has no features 'x', and no vectors of target nodes outside the intersection can be learned "
                "in it: 'scope' must be 'enriched_target' (got 'intersection'); or give features with 'pair.with_x'"
            )
        directed = pair.directed
        check_decoder(self.decoder, directed)
        self._pair, self._split, self._vectors, self.result = pair, split, {}, None
        graph, target = self._graph(SCOPES[self.scope]), self._graph("enriched_target")
        self.model = build_link_model(
            self.encoder,
            self.decoder,
            graph,
            seed=seed,
            normalize=self.normalize,
            input_dropout=self.input_dropout,
            directed=directed,
            fast=self.accelerate,
            table=table,
        )
        check_link_model(self.model, [graph, target], self.num_neighbors)
        task = LinkTask(
            graph,
            target,
            Validation(split.val, split.val_neg, self.training.metric),
            seed=seed,
            num_neg=self.num_neg,
            mask_ratio=self.mask_supervision_ratio,
            source_weight=self.source_edge_weight,
            links_per_epoch=self.training.links_per_epoch,
            directed=directed,
            num_neighbors=self.num_neighbors,
            batch_size=self.batch_size,
            sampler=self.sampler,
        )
        self.result = self.training.run(
            self.model,
            task,
            seed=seed,
            checkpoint=checkpoint,
            identity={
                **split_identity(pair, split),
                **self.settings(),
                **graph_tensors(graph, "graph"),
                **graph_tensors(target, "target"),
            },
            progress=progress,
            log=log,
        )
        return self

    def settings(self) -> dict[str, str | int | float | bool]:
        """Return all options as plain values, without the encoder and those of the training."""
        return {
            "decoder": self.decoder,
            "scope": self.scope,
            "num_neg": self.num_neg,
            "mask_supervision_ratio": self.mask_supervision_ratio,
            "source_edge_weight": self.source_edge_weight,
            "normalize": self.normalize,
            "id_channels": self.id_channels,
            "input_dropout": self.input_dropout,
            "num_neighbors": str(None if self.num_neighbors is None else list(self.num_neighbors)),
            "batch_size": self.batch_size,
            "sampler": self.sampler,
        }

    def embed(self, where: str = "target") -> Tensor:
        """Return vectors of nodes, in evaluation mode; computed once and kept.

        Args:
            where: ``"target"`` for all target nodes, ``[N_t, d]``, on the target with the source's links between shared
                nodes; ``"intersection"`` for the shared nodes, in the order of their ids, on the graph among them.

        Raises:
            RuntimeError: If nothing has been fitted.
            ValueError: If there is no such place.
        """
        if where not in self._vectors:
            model, graph = self.fitted(), self.graph(where)
            self._vectors[where] = encode(model, graph, layerwise=self.num_neighbors is not None)
        return self._vectors[where]

    def graph(self, where: str = "target") -> Data:
        """Return the graph that the vectors of :meth:`embed` are made on, without what is held out.

        Raises:
            RuntimeError: If nothing has been fitted.
            ValueError: If there is no such place.
        """
        self.fitted()
        if where not in PLACES:
            raise ValueError(f"'where' must be one of {tuple(PLACES)} (got {where!r})")
        return self._graph(PLACES[where])

    def score(self, pairs: Tensor) -> Tensor:
        """Return the logits ``[Q]`` of pairs ``[2, Q]`` of target nodes, so many at a time.

        Raises:
            RuntimeError: If nothing has been fitted.
            ValueError: If a node is not in the target, or a pair is a self-loop.
        """
        model, h = self.fitted(), self.embed("target")
        return score_in_chunks(model.decoder, h, check_queries(pairs, h.size(0)), self.chunk_size)

    def fitted(self) -> LinkModel:
        """Return the model.

        Raises:
            RuntimeError: If nothing has been fitted.
        """
        if self.model is None or self.result is None:
            raise RuntimeError("the teacher has learned nothing yet: call 'fit(pair, split)' first")
        return self.model

    def fitted_on(self, pair: "SharedNodePair", split: "LinkSplit") -> None:
        """Refuse a teacher that was fitted on something else, or on nothing.

        Raises:
            RuntimeError: If nothing has been fitted.
            ValueError: If the target, the split or the links of the source are others; features may be.
        """
        self.fitted()
        assert self._pair is not None
        assert self._split is not None
        if self._pair.fingerprint != pair.fingerprint or self._split.hash != split.hash:
            raise ValueError("'teacher' was fitted on another pair or another split")
        own, other = self._pair.relation().source, pair.relation().source
        if not torch.equal(self._pair.shared, pair.shared) or not torch.equal(own, other):
            raise ValueError("'teacher' was fitted on another source")

    def _graph(self, name: str) -> Data:
        assert self._pair is not None
        weight = None if self.source_edge_weight == 1 else self.source_edge_weight
        return self._pair.graph(name, without=self._split, source_weight=weight)
