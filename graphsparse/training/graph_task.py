"""Labels of whole graphs as a task of the training loop."""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import BatchSampler, RandomSampler, Sampler, SequentialSampler, Subset
from torch_geometric.data import Batch, Data, Dataset
from torch_geometric.data.data import BaseData
from torch_geometric.loader import DataLoader

from graphsparse.ops.check import check_count, check_edge_index
from graphsparse.ops.digest import digest
from graphsparse.training.check import check_callable, check_finite, check_graph, check_one_graph, check_part, has_label
from graphsparse.training.checkpoint import name_of
from graphsparse.training.target import Target, check_target, read_labels, read_metric, target_loss
from graphsparse.training.task import Evaluation, add_extra
from graphsparse.utils.call_model import Call, call_model, eval_mode, forward_arguments


class GraphTask:
    """Labels of whole graphs: what is learned on the training graphs and judged on the validation graphs.

    The loss is the mean over all known labels of a batch: binary cross-entropy with logits, cross-entropy, or squared
    error; labels that are NaN, of classes also -1 or -100, are not known and left out of loss and metric. Batches are
    shuffled in every epoch and drawn as PyG's ``DataLoader`` draws, but a last batch of a single graph joins the one
    before, because batch normalisation in training has nothing to normalise in one graph.

    The model is called as ``model(x, edge_index, batch=batch)``, and by name with ``edge_attr``, ``edge_weight``,
    ``pos`` (as far as the graphs have them) and ``batch_size`` if its ``forward`` takes an argument of that name. It
    returns one row of logits per graph: ``[G, T]`` for ``T`` binary questions or numbers, ``[G, C]`` for classes.

    Args:
        dataset: The graphs, such as what :func:`~graphsparse.datasets.load_ogb` returns for ``"ogbg-..."``, or a list
            of ``Data``. Labels ``y`` are ``[1, T]`` or ``[T]`` in each graph.
        split: Graphs, as integers or a bool mask, under ``"train"``, ``"val"`` (or ``"valid"``) and, if known,
            ``"test"``; ``dataset.get_idx_split()`` when ``None``.
        target: ``"binary"``, ``"multiclass"`` or ``"regression"``; when ``None``, what ``dataset.task_type`` says, as
            OGB's data sets do.
        metric: Figure of merit ``(logits, y) -> float``, with ``y`` ``[G, T]``, for classes ``[G]``, or an evaluator of
            OGB. When ``None``: mean AUROC, accuracy, or root mean square error, of which less is better.
        maximize: Whether more is better with a function as ``metric``; yes when ``None``.
        batch_size: Graphs in a batch.
        call: ``(model, batch) -> logits`` for a model with another signature.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If the split or an option is out of range.

    Example:
        ::

            graphs, evaluator = load_ogb("ogbg-molbace")
            result = fit(model, GraphTask(graphs, metric=evaluator, batch_size=64), epochs=50, lr=1e-3)
            result.test  # ROC-AUC
    """

    unit = "graph"
    generators: Sequence[torch.Generator] = ()

    def __init__(
        self,
        dataset: Dataset | Sequence[Data],
        *,
        split: Mapping[str, Tensor | Sequence[int]] | None = None,
        target: Target | None = None,
        metric: Any = None,
        maximize: bool | None = None,
        batch_size: int = 32,
        call: Call | None = None,
    ) -> None:
        check_count(batch_size, "batch_size")
        if call is not None:
            check_callable(call, "call")
        check_dataset(dataset, says_target=target is not None)
        self.target = check_target(target, dataset)
        self.metric, self._judge, self.maximize = read_metric(self.target, metric, maximize)
        self.dataset, self.split, self.batch_size = dataset, graph_split(split, dataset), batch_size
        self.call, self._given_metric = call, metric
        self._labels: dict[str, Tensor] = {}
        self._sizes: list[tuple[int, int]] = []
        self._device = torch.device("cpu")
        self._loader: Any = graph_loader(dataset, self.split["train"], batch_size, shuffle=True)

    def without_test(self) -> "GraphTask":
        """Return the same task without its test graphs."""
        new = copy.copy(self)
        new.split = {name: self.split[name] for name in ("train", "val")}
        return new

    def with_graphs(self, change: Callable[[Data], Data]) -> "GraphTask":
        """Return the same task on changed graphs; each is changed once, when it is first asked for."""
        new = copy.copy(self)
        new.dataset = ChangedGraphs(self.dataset, change)
        new._loader = graph_loader(new.dataset, self.split["train"], self.batch_size, shuffle=True)
        return new

    def check(self, model: nn.Module) -> None:
        """Find out before training starts whether the model and the graphs fit, and whether labels are in range."""
        check_one_graph(model)
        self._labels, self._sizes = {}, []
        parts = {}
        for part, index in self.split.items():
            labels = _stack([self._checked(int(i)).get("y") for i in index], self.target, index)
            check_part(labels, f"'split[{part!r}]'", "graph", self.target)
            parts[part] = labels
        self._device = next(model.parameters()).device
        batch = Batch.from_data_list([self.dataset[int(i)] for i in self.split["val"][: self.batch_size]])
        if self.call is None and "batch" not in (taken := forward_arguments(model)):
            raise ValueError(
                f"'model' must take an argument named 'batch', the graph of every node (the forward of "
                f"{type(model).__name__} takes {list(taken)}); for any other signature give 'call'"
            )
        with eval_mode(model), torch.no_grad():
            self._check_output(call_model(model, batch.to(self._device), self.call), batch, parts)
        parts.pop("test", None)  # what they are is read at the end
        self._labels = parts

    def _checked(self, index: int) -> Data:
        graph = self.dataset[index]
        name = f"dataset[{index}]"
        check_graph(graph, name)
        edges = graph.get("edge_index")
        num_nodes = graph.num_nodes
        if not num_nodes:
            raise ValueError(f"'{name}' is an empty graph: it has no nodes")
        if edges is None:
            raise ValueError(f"'{name}' must hold 'edge_index' (got {sorted(graph.keys())})")
        check_edge_index(edges, num_nodes, f"{name}.edge_index")
        check_finite(graph, name)
        self._sizes.append((num_nodes, edges.size(1)))
        return graph

    def _check_output(self, logits: Any, batch: Batch, parts: Mapping[str, Tensor]) -> None:
        """Refuse what a model returned unless it is one row per graph, as wide as the labels ask for."""
        if not isinstance(logits, Tensor):
            raise TypeError(f"'model' must return a tensor of logits (got {type(logits).__name__})")
        labels = parts["train"]
        width = "C" if self.target == "multiclass" else str(labels.size(1))
        fits = logits.dim() == 2 and logits.size(0) == batch.num_graphs
        if not fits or (self.target != "multiclass" and logits.size(1) != labels.size(1)):
            raise ValueError(
                f"'model' must return one row of logits per graph, [{batch.num_graphs}, {width}] "
                f"(got {list(logits.shape)})"
            )
        if self.target == "multiclass":
            for part, classes in parts.items():
                check_part(classes, f"'split[{part!r}]'", "graph", self.target, logits.size(1))

    def identity(self) -> dict[str, Any]:
        """Describe the data and what is asked of them; call it after :meth:`check`."""
        first = [self.dataset[int(i)] for i in self.split["train"][: self.batch_size]]
        keys = ("x", "edge_index", "edge_attr", "edge_weight", "pos")
        features = [graph[key] for graph in first for key in keys if graph.get(key) is not None]
        return {
            "target": self.target,
            "batch_size": self.batch_size,
            "metric": name_of(self._given_metric) or self.metric,
            "maximize": self.maximize,
            "call": name_of(self.call),
            **{f"split[{part!r}]": index for part, index in self.split.items()},
            **{f"labels of {part!r}": labels for part, labels in self._labels.items()},
            "sizes of the graphs": torch.tensor(self._sizes),
            "first training graphs": digest(features),
        }

    @property
    def steps_per_epoch(self) -> int:
        """Most steps of an epoch."""
        return len(self._loader)

    def batches(self) -> Iterable[Batch]:
        """Return the shuffled batches of an epoch, on the device of the model."""
        return (batch.to(self._device) for batch in self._loader)

    def loss(self, model: nn.Module, batch: Batch, extra: Callable[[Tensor], Tensor] | None) -> Tensor | None:
        """Return the loss over the known labels of a batch, plus the further term."""
        y = read_labels(batch.get("y"), batch.num_graphs, self.target, "dataset.y")
        known = has_label(y, self.target).any()
        if extra is None and not known:
            return None
        logits = call_model(model, batch, self.call)
        loss = target_loss(logits, y, self.target) if known else None
        return add_extra(logits.sum() * 0 if loss is None else loss, extra, logits)

    def evaluate(self, model: nn.Module, epoch: int) -> Evaluation:
        """Return the metric over the validation graphs."""
        logits, _ = self._outputs(model, "val")
        if logits.isnan().any():
            raise FloatingPointError(f"a logit is not a number after epoch {epoch}; a smaller 'lr' may help")
        return Evaluation(self._score(logits, self._labels["val"]), logits)

    def finish(self, model: nn.Module, best: Evaluation) -> tuple[Tensor, float, float | None]:
        """Read the test graphs, once, and the training graphs."""
        val = best.logits
        logits = val.new_full((len(self.dataset), val.size(1)), torch.nan)
        logits[self.split["val"].to(val.device)] = val
        scores: dict[str, float] = {}
        for part in self.split:
            if part == "val":
                continue
            found, labels = self._outputs(model, part)
            logits[self.split[part].to(val.device)] = found
            scores[part] = self._score(found, labels)
        return logits, scores["train"], scores.get("test")

    def _score(self, logits: Tensor, y: Tensor) -> float:
        y = y.to(logits.device)
        known = has_label(y, self.target)
        return float(self._judge(logits[known], y[known]))

    def _outputs(self, model: nn.Module, part: str) -> tuple[Tensor, Tensor]:
        """Return logits and labels of a part, in its order."""
        logits, labels = [], []
        with eval_mode(model), torch.no_grad():
            for batch in graph_loader(self.dataset, self.split[part], self.batch_size, shuffle=False):
                moved = batch.to(self._device)
                logits.append(call_model(model, moved, self.call))
                if part not in self._labels:
                    labels.append(read_labels(moved.get("y"), moved.num_graphs, self.target, "dataset.y"))
        return torch.cat(logits), self._labels[part] if part in self._labels else torch.cat(labels)


class ChangedGraphs:
    """The graphs of a data set, each after the same change; what was changed is kept.

    Args:
        dataset: Gives a graph for an integer.
        change: Returns another graph; it must leave its argument as it is.

    Example:
        >>> ChangedGraphs([Data(num_nodes=2)], lambda graph: Data(num_nodes=graph.num_nodes + 1))[0].num_nodes
        3
    """

    def __init__(self, dataset: Dataset | Sequence[Data], change: Callable[[Data], Data]) -> None:
        self.dataset, self.change = dataset, change
        self._changed: dict[int, Data] = {}

    def __len__(self) -> int:
        """Return the number of graphs."""
        return len(self.dataset)

    def __getitem__(self, index: int) -> Data:
        """Return a changed graph."""
        if index not in self._changed:
            self._changed[index] = self.change(self.dataset[index])
        return self._changed[index]


def _stack(labels: Sequence[Any], target: Target, index: Tensor) -> Tensor:
    """Return the labels of several graphs as one tensor."""
    rows = []
    for i, y in zip(index.tolist(), labels, strict=True):
        if not isinstance(y, Tensor) or y.numel() == 0:
            raise ValueError(f"'dataset[{i}].y' must hold labels (got {type(y).__name__})")
        rows.append(y.reshape(1, -1))
        if rows[-1].shape != rows[0].shape:
            raise ValueError(f"'dataset[{i}].y' must hold {rows[0].size(1)} labels as the first (got {y.numel()})")
    return read_labels(torch.cat(rows), len(rows), target, "dataset.y")


def check_dataset(dataset: Any, *, says_target: bool = True) -> None:
    """Refuse what is not several graphs, and a graph of labelled nodes in a list where nothing says what is asked."""
    is_list = hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")
    if not is_list or isinstance(dataset, BaseData | Mapping | Tensor | str):
        raise TypeError(f"'dataset' must be a data set or a list of graphs (got {type(dataset).__name__})")
    if len(dataset) == 0:
        raise ValueError("'dataset' must hold at least one graph (got none)")
    check_graph(dataset[0], "dataset[0]")
    if not says_target and not hasattr(dataset, "task_type") and dataset[0].get("train_mask") is not None:
        check_graph(dataset)


PARTS = ("train", "val", "test")


class JoinedBatches(Sampler[list[int]]):
    """Batches of a size, of which a last one of a single entry joins the one before.

    Batch normalisation has nothing to normalise in a batch of one graph, and PyTorch refuses it in training.

    Args:
        sampler: Gives the entries.
        batch_size: Entries in a batch.

    Example:
        >>> list(JoinedBatches(range(5), 2))
        [[0, 1], [2, 3, 4]]
    """

    def __init__(self, sampler: Any, batch_size: int) -> None:
        self.sampler, self.batch_size = sampler, batch_size

    def __iter__(self) -> Iterator[list[int]]:
        held: list[int] = []
        for batch in BatchSampler(self.sampler, self.batch_size, drop_last=False):
            if held and len(batch) == 1 < self.batch_size:
                batch = held + batch
            elif held:
                yield held
            held = batch
        if held:
            yield held

    def __len__(self) -> int:
        whole, rest = divmod(len(self.sampler), self.batch_size)
        return whole + (rest > 1 or (rest == 1 and whole == 0))


def graph_loader(dataset: Any, index: Tensor, batch_size: int, *, shuffle: bool) -> Any:
    """Return a loader of the given graphs, in their order, or each time in one drawn as PyG's ``DataLoader`` draws.

    Args:
        dataset: Gives a graph for an integer.
        index: The graphs ``[G]``.
        batch_size: Graphs in a batch; a last one of a single graph joins the one before where ``shuffle`` is set.
        shuffle: Whether to shuffle.

    Returns:
        A loader of ``Batch``.
    """
    subset: Subset[Any] = Subset(dataset, index.tolist())
    if shuffle:
        return DataLoader(subset, batch_sampler=JoinedBatches(RandomSampler(subset), batch_size))
    batches = BatchSampler(SequentialSampler(subset), batch_size, drop_last=False)
    # Every loader draws a number for its workers; an evaluation must not take it from the stream of the training.
    return DataLoader(subset, batch_sampler=batches, generator=torch.Generator())


def graph_split(split: Mapping[str, Any] | None, dataset: Any) -> dict[str, Tensor]:
    """Return the graphs of each part, int64, under ``"train"``, ``"val"`` and, if there is one, ``"test"``.

    Args:
        split: Integers or a bool mask under these names, ``"valid"`` is ``"val"``; when ``None``, what
            ``dataset.get_idx_split()`` returns.
        dataset: The data set.

    Raises:
        TypeError: If the split is no mapping, or a part is no list of integers.
        ValueError: If a part is missing, empty, unknown or out of range.
    """
    if split is None:
        if not hasattr(dataset, "get_idx_split"):
            raise ValueError("'split' is needed: the data set has no get_idx_split()")
        split = dataset.get_idx_split()
    if not isinstance(split, Mapping):
        raise TypeError(f"'split' must be a mapping from names of parts to graphs (got {type(split).__name__})")
    names = {"valid": "val"}
    found = {names.get(name, name): _indices(part, len(dataset), name) for name, part in split.items()}
    unknown = [name for name in found if name not in PARTS]
    if unknown or len(found) < len(split):
        raise ValueError(f"'split' must have the parts 'train', 'val' and perhaps 'test' (got {list(split)})")
    for name in ("train", "val"):
        if name not in found or found[name].numel() == 0:
            raise ValueError(f"'split' must hold graphs under {name!r} (got {list(split)})")
    if "test" in found and found["test"].numel() == 0:
        del found["test"]
    return {name: found[name] for name in PARTS if name in found}


def _indices(part: Sequence[int] | Tensor, num_graphs: int, name: str) -> Tensor:
    index = torch.as_tensor(part)
    if index.dtype == torch.bool and index.shape == (num_graphs,):
        index = index.nonzero().squeeze(1)
    if index.numel() == 0:
        return torch.empty(0, dtype=torch.int64)
    if index.dim() != 1 or index.dtype == torch.bool or index.is_floating_point():
        raise TypeError(
            f"'split[{name!r}]' must hold integers [G] or a bool mask (got {index.dtype} {list(index.shape)})"
        )
    if int(index.min()) < 0 or int(index.max()) >= num_graphs:
        raise ValueError(
            f"'split[{name!r}]' holds {int(index.min())} to {int(index.max())}, but there are {num_graphs} graphs"
        )
    return index.long().cpu()
