"""A graph neural network that learns links where the source helps: among the shared nodes."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch_geometric.data import Data

from graphsparse.ops.check import check_count, check_number
from graphsparse.training import Training, link_training
from graphsparse.training.link_task import LinkMetric, LinkNeighborBatches, LinkTask
from graphsparse.transfer.models.link_model import (
    Encoder,
    LinkModel,
    build_link_model,
    encode,
    encode_layerwise,
    featured,
    message_graph,
    sage_encoder,
)
from graphsparse.transfer.models.predictor import VectorPredictor, check_training, origin_of

if TYPE_CHECKING:
    from graphsparse.transfer.data.pair import SharedNodePair
    from graphsparse.transfer.data.split import LinkSplit

#: Where a teacher may learn -> the graph of the pair that it learns on, and that whose vectors score pairs.
SCOPES = {
    "intersection": ("enriched_intersection", "enriched_target"),
    "enriched_target": ("enriched_target", "enriched_target"),
    "target": ("target", "target"),
}
#: Where vectors are made besides the target: name of the place -> name of the graph of the pair.
PLACES: Mapping[str, str] = {"intersection": "enriched_intersection"}


@dataclass(eq=False)
class LinkTeacher(VectorPredictor):
    r"""Learns links on the shared nodes, from what both graphs know about them, and scores pairs of the whole target.

    The encoder makes a vector of each node; the score of a pair is their inner product, or a bilinear form where links
    have a direction. What is minimised is

    .. math::
        \frac1P \sum_{(u,v) \in \text{links}} \log(1 + e^{-s_{uv}}) + \frac1N \sum_{(u,v) \in \text{non-links}}
        \log(1 + e^{s_{uv}}),

    with the links of the training graph less all that ``split`` holds out, and three times as many fresh non-links
    among its nodes in every epoch. The best epoch is that with the best metric on the validation pairs of the target,
    scored with the vectors that the encoder makes on the target with the source's links between shared nodes added.
    Test pairs are never read. Features are divided by their length first.

    Args:
        encoder: A module that is called as ``encoder(x, edge_index)`` and returns vectors ``[N, d]``, which is trained
            in place; or what builds one for a number of features. GraphSAGE of two layers of 256 by default.
        scope: Where it learns: ``"intersection"``, the shared nodes with the links of both graphs among them;
            ``"enriched_target"``, all target nodes with these links; or ``"target"``, without the source. When
            ``None``, the first, or the second where there are no features or no source.
        source_edge_weight: Weight of what only a source has, in messages and in the loss, from 0 to 1. Other values
            than 1 need an encoder that takes ``edge_weight``.
        id_channels: Where the pair has no features, a vector of this width is trained for each node in their place;
            not for ``scope="intersection"``, in which the other target nodes would learn none.
        input_dropout: Dropout of the features.
        num_neighbors: Fan-out of each hop, one per layer of the encoder, -1 for all: train in batches of links and
            sampled neighbours, and encode layer by layer. The whole graph at once when ``None``. In training a layer
            that divides by degrees, as ``GCNConv`` does, sees those in the sample, as with any of PyG's loaders; with
            -1 everywhere only layers without degrees of neighbours (SAGE, GAT, GIN) give what the whole graph does.
        batch_size: Links in a batch.
        links_per_epoch: Most links that are learned from in an epoch, drawn anew each time; all when ``None``.
        metric: Figure of merit on the validation pairs, ``(scores of links, scores of non-links) -> float``; average
            precision when ``None``.
        training: How to train; :func:`~graphsparse.training.link_training` by default.

    Attributes:
        model: Encoder and decoder, once fitted; not in a file.
        result: Course of the training, once fitted; its ``logits`` are the scores of the validation pairs.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If one is out of range.

    Example:
        >>> import torch
        >>> from graphsparse.testing import random_graph
        >>> from graphsparse.training import link_training
        >>> from graphsparse.transfer import SharedNodePair, split_links
        >>> data, early, late = random_graph(), torch.arange(45), torch.arange(15, 60)
        >>> pair = SharedNodePair(data.subgraph(early), data.subgraph(late), early, late)
        >>> split = split_links(pair)
        >>> teacher = LinkTeacher(sage_encoder(16), training=link_training(epochs=10)).fit(pair, split)
        >>> teacher.score(torch.tensor([[0, 1], [2, 3]])).shape, teacher.embed("intersection").shape
        (torch.Size([2]), torch.Size([30, 16]))

    Source: Zheng et al., *You Only Transfer What You Share*, arXiv 2302.14189; features in place of trained vectors of
    nodes, softplus, negatives among the nodes of the training graph and no held-out link in any message are ours.
    """

    stage = "teacher"
    places = PLACES

    encoder: Encoder = field(default_factory=sage_encoder)
    scope: str | None = None
    _: KW_ONLY
    source_edge_weight: float = 1.0
    id_channels: int = 256
    input_dropout: float = 0.0
    num_neighbors: Sequence[int] | None = None
    batch_size: int = 4096
    links_per_epoch: int | None = None
    metric: LinkMetric | None = None
    training: Training = field(default_factory=link_training)

    def __post_init__(self) -> None:
        if self.scope not in (None, *SCOPES):
            raise ValueError(f"'scope' must be one of {tuple(SCOPES)} (got {self.scope!r})")
        for name in ("id_channels", "batch_size"):
            check_count(getattr(self, name), name)
        for name in ("source_edge_weight", "input_dropout"):
            check_number(getattr(self, name), name, least=0, most=1)
        check_training(self.training)
        self.model: LinkModel | None = None

    def forget(self) -> None:
        """Be as before the first call of ``fit``."""
        super().forget()
        self.model = None

    def learn(self, pair: "SharedNodePair", split: "LinkSplit", seed: int) -> Mapping[str, Any]:
        """Train the model, and encode the target nodes and, for a student, the shared ones."""
        train_on, messages = self.graphs(pair)
        pair, table = featured(pair, self.id_channels, seed)
        weight = None if self.source_edge_weight == 1 else self.source_edge_weight

        @cache
        def graph(name: str) -> Data:
            return message_graph(pair.graph(name, without=split, source_weight=weight))

        data, target = graph(train_on), graph(messages)
        model = build_link_model(
            self.encoder,
            data,
            seed=seed,
            input_dropout=self.input_dropout,
            directed=pair.directed,
            fast=self.training.fast,
            table=table,
        )
        self._check(model, weight)
        encoded = encode if self.num_neighbors is None else encode_layerwise
        for name, part, parameters in self.stages(model, data, graph):
            loader = None
            if self.num_neighbors is not None:
                loader = LinkNeighborBatches(
                    part, num_neighbors=self.num_neighbors, batch_size=self.batch_size, seed=seed
                )
            task = LinkTask(
                part,
                {"val": (split.val, split.val_neg)},
                eval_data=target,
                link_weight=part.get("edge_weight"),
                links_per_epoch=self.links_per_epoch,
                directed=pair.directed,
                loader=loader,
                metric=self.metric,
                inference=encoded,
                seed=seed,
            )
            self.train(model, task, self.training, seed, name, parameters)
        self.model = model
        vectors = encoded(model, target)[: pair.num_nodes]
        state = self.vectors_state(vectors, model.decoder, directed=pair.directed)
        places = self.places if pair.source else {}
        return state | {f"vectors.{place}": encoded(model, graph(name)) for place, name in places.items()}

    def graphs(self, pair: "SharedNodePair") -> tuple[str, str]:
        """Return the names of the graph that is learned on and of that whose vectors score the target."""
        bare = pair.target.get("x") is None
        scope = self.scope or ("enriched_target" if bare or not pair.source else "intersection")
        if bare and scope == "intersection":
            raise ValueError(
                "the pair has no features 'x', and no vectors of target nodes outside the intersection can be learned "
                "in it: 'scope' must be 'enriched_target' (got 'intersection'); or give features with 'pair.with_x'"
            )
        return SCOPES[scope]

    def stages(
        self, model: LinkModel, data: Data, graph: Callable[[str], Data]
    ) -> Iterator[tuple[str, Data, Iterable[nn.Parameter] | None]]:
        """Yield name, graph and parameters of each training; all parameters when ``None``."""
        yield self.stage, data, None

    def _check(self, model: LinkModel, weight: float | None) -> None:
        """Refuse an encoder with another number of layers than fan-outs, or that takes no edge weights."""
        layers = getattr(model.encoder, "num_layers", None)
        if self.num_neighbors is not None and isinstance(layers, int) and len(self.num_neighbors) != layers:
            raise ValueError(
                f"'num_neighbors' must hold one fan-out per layer, {layers} (got {list(self.num_neighbors)})"
            )
        if weight is not None and not model.supports_edge_weight:
            raise ValueError(
                f"'source_edge_weight' needs an encoder that takes edge weights (got {type(model.encoder).__name__}, "
                "whose forward pass has no 'edge_weight')"
            )

    def embed(self, where: str = "target") -> Tensor:
        """Return vectors of nodes, in evaluation mode.

        Args:
            where: ``"target"`` for all target nodes, ``[N_t, d]``, on the target with the source's links between shared
                nodes; ``"intersection"`` for the shared nodes, in the order of their ids, on the graph among them.

        Raises:
            RuntimeError: If nothing has been fitted.
            ValueError: If there is no such place.
        """
        if where not in ("target", *self.places):
            raise ValueError(f"'where' must be one of {('target', *self.places)} (got {where!r})")
        vectors: Tensor = self.state["vectors" if where == "target" else f"vectors.{where}"]
        return vectors

    def fitted_on(self, pair: "SharedNodePair", split: "LinkSplit") -> None:
        """Refuse a teacher that was fitted on another target, split or source, or on nothing; features may be others.

        Raises:
            RuntimeError: If nothing has been fitted.
            ValueError: If it was fitted on something else.
        """
        own, other = self.origin, origin_of(pair, split)
        for name in ("target", "split", "source"):
            if own[name] != other[name]:
                raise ValueError(f"'teacher' was fitted on another {name}")
