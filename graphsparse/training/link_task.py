"""Links between nodes as a task of the training loop."""

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import Data

from graphsparse.loader.batches import cut_out
from graphsparse.loader.neighbor import NeighborBatches
from graphsparse.metrics import average_precision
from graphsparse.nn.link_decoders import DotDecoder, score_in_chunks
from graphsparse.ops.check import check_count
from graphsparse.training.check import check_callable, check_finite, check_graph
from graphsparse.training.checkpoint import graph_tensors, name_of
from graphsparse.training.link_negatives import UniformNegatives, some_of
from graphsparse.training.loader_of import LoaderOf, MakeLoader
from graphsparse.training.node_task import Inference, predict
from graphsparse.training.task import Evaluation, add_extra
from graphsparse.training.training import Training, clipped_adam
from graphsparse.utils.call_model import Call, call_model

#: A figure of merit, higher is better, from the scores of links ``[P]`` and of non-links ``[N]``.
LinkMetric: TypeAlias = Callable[[Tensor, Tensor], float]


@dataclass(frozen=True)
class LinkBatch:
    """Some links and non-links of a graph, or of a part of it.

    Args:
        graph: Features and edges.
        pairs: Pairs of its nodes ``[2, Q]``, links first.
        picked: Which of the links of the epoch these are, ``[P]``, ``P <= Q``.
        weight: Weights of these links in the loss, ``[P]``.
    """

    graph: Data
    pairs: Tensor
    picked: Tensor
    weight: Tensor | None = None


class LinkNeighborBatches(NeighborBatches):
    """Shuffled links, each batch with some random neighbours of the ends of its pairs.

    Sampling is that of :class:`~graphsparse.loader.NeighborBatches` with the ends of the pairs as seeds.

    Args:
        data: The graph.
        num_neighbors: Fan-out of each hop, one per layer of the model; -1 for all.
        batch_size: Links in a batch.
        seed: Seed of the batches.

    Example:
        >>> from graphsparse.testing import random_graph
        >>> loader = LinkNeighborBatches(random_graph(), num_neighbors=[3, 2], batch_size=4)
        >>> links, rest = torch.tensor([[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]), torch.tensor([[0, 1], [9, 8]])
        >>> [(batch.picked.numel(), batch.pairs.size(1)) for batch in loader.epoch(links, rest)]
        [(4, 5), (1, 2)]
    """

    def __init__(self, data: Data, *, num_neighbors: Sequence[int], batch_size: int = 4096, seed: int = 0) -> None:
        data = copy.copy(data)
        data.train_mask = torch.ones(data.num_nodes, dtype=torch.bool)
        super().__init__(data, num_neighbors=num_neighbors, batch_size=batch_size, seed=seed)

    def epoch(self, links: Tensor, non_links: Tensor) -> Iterator[LinkBatch]:
        """Yield shuffled links ``[2, P]``, so many at a time, each time with as large a share of the non-links."""
        device = links.device
        links, non_links = links.cpu(), non_links.cpu()  # where neighbours are drawn
        order = torch.randperm(links.size(1), generator=self.generator)
        total = max(order.numel(), 1)
        for start in range(0, order.numel(), self.batch_size):
            picked = order[start : start + self.batch_size]
            first, last = (non_links.size(1) * end // total for end in (start, start + picked.numel()))
            pairs = torch.cat([links[:, picked], non_links[:, first:last]], 1)
            seeds, place = torch.unique(pairs, return_inverse=True)
            nodes, edge_index, at = self._around(seeds)
            part = cut_out(self.data, nodes, edge_index, self._graph.edge_id(at))
            yield LinkBatch(part, place.to(device), picked.to(device))


def link_training(**fields: Any) -> Training:
    """Return how links are learned where nothing else is said, with other fields of ``Training`` by name.

    That is Adam with a learning rate of 1e-3 and no decay, the gradient of all parameters together shortened to a
    length of 2, and an evaluation every 5 epochs.

    Example:
        >>> link_training(epochs=60).lr
        0.001

    Source: the released code of GITL (Zheng et al., arXiv 2302.14189), but for the number of epochs.
    """
    return Training(**{"lr": 1e-3, "weight_decay": 0.0, "eval_every": 5, "optimizer": clipped_adam, **fields})


def link_average_precision(links: Tensor, non_links: Tensor) -> float:
    """Return the average precision of links among links and non-links, from the scores of both.

    Example:
        >>> round(link_average_precision(torch.tensor([2.0, 0.0]), torch.tensor([1.0, -1.0])), 4)
        0.8333
    """
    score = torch.cat([links, non_links])
    return average_precision(score, torch.arange(score.numel(), device=score.device) < links.numel())


def link_loss(links: Tensor, non_links: Tensor, weight: Tensor | None = None) -> Tensor:
    r"""Return the cross-entropy of links and of non-links, each with its own mean.

    .. math::
        \frac{\sum_i w_i \log(1 + e^{-s^+_i})}{\sum_i w_i} + \frac{1}{N} \sum_j \log(1 + e^{s^-_j})

    As the means are taken apart, the number of non-links does not shift the balance of the two classes.

    Args:
        links: Logits of links ``[P]``.
        non_links: Logits of non-links ``[N]``.
        weight: Weights of the links ``[P]``, not negative and not all 0.

    Returns:
        A scalar.

    Example:
        >>> link_loss(torch.zeros(2), torch.zeros(6))
        tensor(1.3863)

    Source: separate means as in the released code of GITL (Zheng et al., arXiv 2302.14189); softplus instead of a
    logarithm with a small number added, which saturates.
    """
    losses = F.softplus(-links)
    mean = losses.mean() if weight is None else (losses * weight).sum() / weight.sum()
    return mean + F.softplus(non_links).mean()


def links_of(graph: Data, *, directed: bool = False) -> tuple[Tensor, Tensor]:
    """Return the links of a graph ``[2, P]``, each once and no self-loop, and which of its edges they are, ``[P]``.

    Edges are there once, and in both directions unless ``directed``; then the smaller end comes first.

    Example:
        >>> links_of(Data(edge_index=torch.tensor([[0, 1, 2], [1, 0, 2]])))
        (tensor([[0],
                [1]]), tensor([0]))
    """
    source, target = graph.edge_index
    at = (source != target if directed else source < target).nonzero().view(-1)
    return graph.edge_index[:, at], at


class LinkTask:
    """Tells the links of a graph from random pairs of nodes without one, and is judged on pairs that are held out.

    The model is called as ``model(x, edge_index)``, and by name with ``edge_weight`` and the like as far as the graph
    has them and its ``forward`` takes them, and returns vectors ``[N, d]``. Where it has a ``decoder``, that scores
    pairs, as ``decoder(h, pairs)``; inner products do otherwise. All links of the graph are messages and are learned
    from, see :func:`link_loss`; so what is held out must not be in it.

    Args:
        data: The graph that is trained on, with both directions of each link unless ``directed``. Where links are
            between two sides alone, users and items, say, ``side`` may hold that of each node, 0 or 1, and -1 on
            neither, ``[N]``; non-links are then drawn between them.
        split: Links and non-links that are held out, a pair of ``[2, P]`` and ``[2, N]`` under ``"val"`` and, if known,
            ``"test"``.
        eval_data: The graph whose vectors these are scored with; ``data`` when ``None``.
        link_weight: Weight of each edge of ``data`` as a link in the loss, ``[E]``; all 1 when ``None``.
        num_neg: Non-links per link, drawn anew in every epoch among the nodes of ``data``.
        links_per_epoch: Most links that are learned from in an epoch, drawn anew each time; all when ``None``.
        directed: Whether each direction is a link of its own.
        loader: Makes the batches, or a function that makes such a loader of the training graph,
            ``lambda data: LinkNeighborBatches(data, ...)``; one batch of the whole graph when ``None``.
        metric: Figure of merit ``(scores of links, scores of non-links) -> float``, higher is better; average precision
            when ``None``.
        inference: ``(model, data) -> h`` in evaluation mode, for graphs that do not fit into one forward pass.
        call: ``(model, data) -> h`` for a model with another signature.
        seed: Seed of everything that is drawn besides the batches of a loader.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If the graph has no link, or no pair of nodes without one, or no validation pairs are there.

    Example:
        >>> from torch_geometric.nn import GraphSAGE
        >>> from torch_geometric.transforms import RandomLinkSplit
        >>> from graphsparse.testing import random_graph
        >>> from graphsparse.training.fit import fit
        >>> parts = RandomLinkSplit(0.2, 0.2, is_undirected=True, split_labels=True)(random_graph())
        >>> names = ("pos_edge_label_index", "neg_edge_label_index")
        >>> split = {name: tuple(part[key] for key in names) for name, part in zip(("val", "test"), parts[1:])}
        >>> result = fit(GraphSAGE(8, 16, 2), LinkTask(parts[0], split), link_training(epochs=20, lr=0.01))
        >>> result.metric, result.test > 0.4
        ('average precision', True)
    """

    unit, maximize = "link", True
    #: Further text that tells one training from another in a checkpoint.
    tag = ""

    def __init__(
        self,
        data: Data,
        split: Mapping[str, tuple[Tensor, Tensor]],
        *,
        eval_data: Data | None = None,
        link_weight: Tensor | None = None,
        num_neg: int = 3,
        links_per_epoch: int | None = None,
        directed: bool = False,
        loader: LinkNeighborBatches | MakeLoader | None = None,
        metric: LinkMetric | None = None,
        inference: Inference | None = None,
        call: Call | None = None,
        seed: int = 0,
    ) -> None:
        for name, graph in (("data", data), *([] if eval_data is None else [("eval_data", eval_data)])):
            check_graph(graph, name)
        for i, kind in enumerate(("links", "non-links")):
            if split["val"][i].size(1) == 0:
                raise ValueError(
                    f"'split' holds no {kind} under 'val': without validation pairs no epoch can be chosen"
                )
        self.split = dict(split)
        self._judge = link_average_precision if metric is None else metric
        check_callable(self._judge, "metric")
        self.metric = "average precision" if metric is None else str(name_of(metric))
        self.data, self.eval_data = data, data if eval_data is None else eval_data
        self.num_neg = check_count(num_neg, "num_neg")
        self.links_per_epoch = None if links_per_epoch is None else check_count(links_per_epoch, "links_per_epoch")
        self.directed, self.call, self.inference = directed, call, inference
        self._loader = LoaderOf(loader)
        self.links, at = links_of(data, directed=directed)
        self.weight = None if link_weight is None else link_weight[at]
        if self.weight is not None and not bool(self.weight.isfinite().all() & (self.weight >= 0).all()):
            raise ValueError("'link_weight' must be finite and not negative")
        if self.weight is not None and not bool(self.weight.any()):
            raise ValueError("'link_weight' is 0 for every link of the graph: there is nothing to learn from")
        self._generator = torch.Generator().manual_seed(seed)
        self._negatives = UniformNegatives(
            data.num_nodes, self.links, self._generator, directed=directed, side=data.get("side")
        )

    @property
    def graphs(self) -> tuple[Data, Data]:
        """The graphs, which stay as they are while a model is trained."""
        return self.data, self.eval_data

    @property
    def loader(self) -> Any:
        """What makes the batches, itself made of the training graph when it is first asked for."""
        return self._loader.of(self.data)

    @property
    def has_ready_loader(self) -> bool:
        """Whether batches are those of the training graph as it was given, whatever graph the task is put on."""
        return self._loader.is_ready

    @property
    def generators(self) -> Sequence[torch.Generator]:
        """The generators of what is drawn: non-links and batches."""
        return [self._generator, *([] if self.loader is None else [self.loader.generator])]

    def with_graphs(self, data: Data, eval_data: Data) -> "LinkTask":
        """Return the same task, with the same links to learn, on other messages; a ready loader stays.

        Args:
            data: What messages go along while training; its nodes are the same ones.
            eval_data: The graph whose vectors held-out pairs are scored with.
        """
        new = copy.copy(self)
        if data is not self.data:
            new._loader = LoaderOf(self._loader.given)
        new.data, new.eval_data = data, eval_data
        return new

    def check(self, model: nn.Module) -> None:
        """Refuse a graph without links, features that are not finite, and a model without a vector for each node."""
        if self.links.size(1) == 0:
            raise ValueError("the training graph has no link to learn from, besides what is held out")
        for name, graph in (("data", self.data), ("eval_data", self.eval_data)):
            check_features(graph.x, model, f"{name}.x")
            check_finite(graph, name)
        h = self.encode(model)
        if not isinstance(h, Tensor) or h.dim() != 2 or h.size(0) != self.eval_data.num_nodes:
            raise ValueError(
                f"'model' must return one vector per node, [{self.eval_data.num_nodes}, d] "
                f"(got {list(h.shape) if isinstance(h, Tensor) else type(h).__name__})"
            )

    @property
    def steps_per_epoch(self) -> int | None:
        """Most steps of an epoch, where that is known."""
        num = self.links.size(1) if self.links_per_epoch is None else min(self.links_per_epoch, self.links.size(1))
        size = num if self.loader is None else getattr(self.loader, "batch_size", None)
        return None if size is None else -(-num // max(size, 1))

    def batches(self) -> Iterator[LinkBatch]:
        """Draw an epoch."""
        links, weight = self.links, self.weight
        picked = some_of(links, self.links_per_epoch, self._generator)
        if picked is not None:
            links, weight = links[:, picked], None if weight is None else weight[picked]
        non_links = self._negatives(self.num_neg * links.size(1)).to(links.device)
        if self.loader is None:
            every = torch.arange(links.size(1), device=links.device)
            yield LinkBatch(self.data, torch.cat([links, non_links], 1), every, weight)
            return
        for batch in self.loader.epoch(links, non_links):
            yield batch if weight is None else replace(batch, weight=weight[batch.picked])

    def loss(self, model: nn.Module, batch: LinkBatch, extra: Callable[[Tensor], Tensor] | None) -> Tensor | None:
        """Return the loss of a batch, ``None`` where all its links have the weight 0."""
        if batch.weight is not None and not bool(batch.weight.any()):
            return None
        return self.loss_of(model, call_model(model, batch.graph, self.call), batch, extra)

    def loss_of(
        self, model: nn.Module, h: Tensor, batch: LinkBatch, extra: Callable[[Tensor], Tensor] | None
    ) -> Tensor:
        """Return the loss of the vectors that the model makes for the nodes of a batch."""
        scores = decoder_of(model)(h, batch.pairs)
        num = batch.picked.numel()
        return add_extra(link_loss(scores[:num], scores[num:], batch.weight), extra, scores)

    def encode(self, model: nn.Module) -> Tensor:
        """Return the vectors of all nodes of ``eval_data``, in evaluation mode."""
        if self.inference is not None:
            return self.inference(model, self.eval_data)
        return predict(model, self.eval_data, self.call)

    def evaluate(self, model: nn.Module, epoch: int) -> Evaluation:
        """Return the metric on the validation pairs, with the scores of all of them, links first."""
        val, scores = self._measure(model, "val")
        return Evaluation(val, scores)

    def finish(self, model: nn.Module, best: Evaluation) -> tuple[Tensor, float, float | None]:
        """Return the scores of the validation pairs, and the metric on the test pairs, if there are any."""
        return best.logits, math.nan, self._measure(model, "test")[0] if "test" in self.split else None

    def identity(self) -> dict[str, Any]:
        """Return what tells one task from another in a checkpoint."""
        loader = self.loader
        return {
            **graph_tensors(self.data, "data"),
            **graph_tensors(self.eval_data, "eval_data"),
            "links": self.links,
            **{f"{part} {i}": pairs[i] for part, pairs in self.split.items() for i in range(2)},
            "metric": self.metric,
            "directed": self.directed,
            "link_weight": self.weight,
            "num_neg": self.num_neg,
            "side": self.data.get("side"),
            "links_per_epoch": self.links_per_epoch,
            "loader": None if loader is None else f"{loader.num_neighbors}, {loader.batch_size}",
            "tag": self.tag,
        }

    def without_test(self) -> "LinkTask":
        """Return the same task without its test pairs."""
        new = copy.copy(self)
        new.split = {"val": self.split["val"]}
        return new

    def _measure(self, model: nn.Module, part: str) -> tuple[float, Tensor]:
        h = self.encode(model)
        links, rest = (score_in_chunks(decoder_of(model), h, pairs) for pairs in self.split[part])
        scores = torch.cat([links, rest])
        if scores.isnan().any():
            raise FloatingPointError("a score is not a number; a smaller 'lr' may help")
        return float(self._judge(links, rest)), scores


def decoder_of(model: nn.Module) -> nn.Module:
    """Return what scores pairs of vectors of a model: its own decoder, or the inner product."""
    found = getattr(model, "decoder", None)
    if found is None and isinstance(getattr(getattr(model, "model", None), "decoder", None), nn.Module):
        raise ValueError(
            f"'model' has a decoder, which {type(model).__name__} cannot mask: masks act in the forward pass alone"
        )
    return found if isinstance(found, nn.Module) else DotDecoder()


def check_features(x: Any, model: nn.Module, name: str) -> None:
    """Refuse features that hold NaN or infinity, or are of another type than the weights they are multiplied with."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        return
    kind = next((p.dtype for p in model.parameters()), x.dtype)
    if x.dtype != kind:
        raise TypeError(f"'{name}' must be {kind}, as the weights are (got {x.dtype})")
    if not (x.values() if x.layout == torch.sparse_csr else x).isfinite().all():
        raise ValueError(f"'{name}' holds NaN or infinity")
