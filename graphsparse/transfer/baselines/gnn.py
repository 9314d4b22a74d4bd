"""Graph neural networks that are trained on one graph of a pair and score the target."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.nn import MessagePassing

from graphsparse.training.result import FitResult
from graphsparse.transfer.baselines.options import BaselineOptions
from graphsparse.transfer.data.queries import check_queries, check_split
from graphsparse.transfer.models.decoders import score_in_chunks
from graphsparse.transfer.models.link_model import LinkModel, build_link_model, encode
from graphsparse.transfer.models.link_task import LinkTask, check_link_model
from graphsparse.transfer.models.node_table import featured
from graphsparse.transfer.models.validation import Validation

if TYPE_CHECKING:
    from graphsparse.transfer.data.pair import SharedNodePair
    from graphsparse.transfer.data.split import LinkSplit

#: What is trained on after a source: nothing, all weights, or those of the last layer.
FINE_TUNE = (None, "all", "last")


class GraphLinkPredictor:
    """A graph neural network trained on one graph of a pair, and perhaps on a second one afterwards.

    Held-out links are in none of the graphs. The epoch is chosen on the validation pairs of the target, scored with the
    vectors that the encoder makes on ``messages``. Where the pair has no features, a vector per node is trained
    instead.

    Args:
        train_on: Graph that it learns the links of: ``"target"``, ``"union"``, ``"enriched_target"``,
            ``"enriched_intersection"`` or ``"source"``.
        messages: Graph whose vectors score the target: ``"target"``, ``"enriched_target"`` or ``"union"``.
        fine_tune: Learn the links of the target afterwards, with the messages of ``messages``: with ``"all"`` weights,
            or those of the ``"last"`` layer; not when ``None``.
        options: Width, epochs and the like.

    Attributes:
        results: Course of each training, once fitted.

    Raises:
        ValueError: If a name is none.

    Example:
        >>> import torch
        >>> from graphsparse.testing import random_graph
        >>> from graphsparse.transfer.data.split import split_links
        >>> from graphsparse.transfer.data.pair import SharedNodePair
        >>> data, early, late = random_graph(), torch.arange(45), torch.arange(15, 60)
        >>> pair = SharedNodePair(data.subgraph(early), data.subgraph(late), early, late)
        >>> split = split_links(pair)
        >>> from graphsparse.transfer.models.link_training import LinkTraining
        >>> options = BaselineOptions(hidden=16, training=LinkTraining(epochs=10))
        >>> found = GraphLinkPredictor("source", "target", fine_tune="last", options=options).fit(pair, split)
        >>> found.score(torch.tensor([[0, 1], [2, 3]])).shape
        torch.Size([2])
    """

    def __init__(
        self,
        train_on: str,
        messages: str,
        fine_tune: str | None = None,
        options: BaselineOptions | None = None,
    ) -> None:
        known = ("target", "union", "enriched_target", "enriched_intersection", "source")
        if train_on not in known:
            raise ValueError(f"'train_on' must be one of {known} (got {train_on!r})")
        if messages not in ("target", "enriched_target", "union"):
            raise ValueError(f"'messages' must be 'target', 'enriched_target' or 'union' (got {messages!r})")
        if fine_tune not in FINE_TUNE:
            raise ValueError(f"'fine_tune' must be one of {FINE_TUNE} (got {fine_tune!r})")
        self.train_on, self.messages, self.fine_tune = train_on, messages, fine_tune
        self.options = BaselineOptions() if options is None else options
        self.results: list[FitResult] = []
        self.model: LinkModel | None = None
        self._h: Tensor | None = None
        self._num_target = 0

    def fit(self, pair: "SharedNodePair", split: "LinkSplit", seed: int = 0) -> "GraphLinkPredictor":
        """Learn the links that the split leaves.

        Raises:
            ValueError: If the split is that of another pair, or there is no link to learn from.
        """
        check_split(pair, split)
        options = self.options
        pair, table = featured(pair, options.hidden, seed)
        graph, messages = (pair.graph(name, without=split) for name in (self.train_on, self.messages))
        model = build_link_model(
            options.make_encoder(),
            "bilinear" if pair.directed else "dot",
            graph,
            seed=seed,
            input_dropout=options.input_dropout,
            directed=pair.directed,
            table=table,
        )
        check_link_model(model, [graph, messages], options.num_neighbors)
        self.results = [self._train(model, graph, messages, pair, split, seed)]
        if self.fine_tune is not None:
            target = pair.graph("target", without=split)
            parameters = None if self.fine_tune == "all" else list(last_layer(model.encoder).parameters())
            self.results.append(self._train(model, target, messages, pair, split, seed, parameters))
        self._h = encode(model, messages, layerwise=options.num_neighbors is not None)
        self.model, self._num_target = model, pair.num_nodes
        return self

    def _train(
        self,
        model: LinkModel,
        graph: Data,
        messages: Data,
        pair: "SharedNodePair",
        split: "LinkSplit",
        seed: int,
        parameters: Iterable[nn.Parameter] | None = None,
    ) -> FitResult:
        options = self.options
        task = LinkTask(
            graph,
            messages,
            Validation(split.val, split.val_neg, options.training.metric),
            seed=seed,
            num_neg=options.num_neg,
            links_per_epoch=options.training.links_per_epoch,
            directed=pair.directed,
            num_neighbors=options.num_neighbors,
            batch_size=options.batch_size,
        )
        return options.training.run(
            model, task, seed=seed, parameters=parameters, progress=options.progress, log=options.log
        )

    def score(self, pairs: Tensor) -> Tensor:
        """Return the logits ``[Q]`` of pairs ``[2, Q]`` of target nodes.

        Raises:
            RuntimeError: If nothing has been fitted.
            ValueError: If a node is not in the target, or a pair is a self-loop.
        """
        if self.model is None or self._h is None:
            raise RuntimeError("nothing has been learned yet: call 'fit(pair, split)' first")
        return score_in_chunks(self.model.decoder, self._h, check_queries(pairs, self._num_target))


def last_layer(encoder: nn.Module) -> nn.Module:
    """Return the message passing layer with weights that comes last in the order of registration.

    Raises:
        ValueError: If there is none.

    Example:
        >>> from torch_geometric.nn import GraphSAGE
        >>> model = GraphSAGE(4, 8, 2)
        >>> last_layer(model) is model.convs[1]
        True
    """
    layers = [m for m in encoder.modules() if isinstance(m, MessagePassing) and next(m.parameters(), None) is not None]
    if not layers:
        raise ValueError("'encoder' has no message passing layer of PyG: there is no last layer to fine-tune")
    last: nn.Module = layers[-1]
    return last
