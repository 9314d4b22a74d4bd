"""Classification and regression of graphs as a task of the training loop."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Batch, Data

from graphsparse.ops.check import check_edge_index
from graphsparse.ops.digest import digest
from graphsparse.training.check import check_one_graph
from graphsparse.training.extra_loss import ExtraLoss, add_extra_loss
from graphsparse.training.graph_batches import graph_loader
from graphsparse.training.graph_call import GraphCall, graph_call
from graphsparse.training.graph_labels import GraphMetric, GraphTarget, graph_labels, graph_loss
from graphsparse.training.loop import Evaluation
from graphsparse.utils.eval_mode import eval_mode


class GraphTask:
    """A loss over batches of graphs, and a metric over all graphs of a part; see :func:`fit_graphs`."""

    unit = "graph"
    nothing_to_train = "no training graph has a label"
    generators: Sequence[torch.Generator] = ()

    def __init__(
        self,
        dataset: Any,
        split: Mapping[str, Tensor],
        target: GraphTarget,
        metric: GraphMetric,
        maximize: bool,
        batch_size: int,
        call: GraphCall | None,
        extra_loss: ExtraLoss | None,
    ) -> None:
        self.dataset, self.split, self.target = dataset, dict(split), target
        self.metric, self.maximize, self.batch_size = metric, maximize, batch_size
        self._given_call, self.extra_loss = call, extra_loss
        self._call: GraphCall = _no_call
        self._labels: dict[str, Tensor] = {}
        self._sizes: list[tuple[int, int]] = []
        self._device = torch.device("cpu")
        self._loader: Any = graph_loader(dataset, self.split["train"], batch_size, shuffle=True)

    def check(self, model: nn.Module) -> None:
        """Find out before training starts whether the model and the graphs fit; no test label is read."""
        check_one_graph(model)
        for part, index in self.split.items():
            labels = [self._checked(int(i)).get("y") for i in index]
            if part != "test":
                self._labels[part] = _stack(labels, self.target, index)
        self._device = next(model.parameters()).device
        batch = Batch.from_data_list([self.dataset[int(i)] for i in self.split["val"][: self.batch_size]])
        self._call = graph_call(model, batch) if self._given_call is None else self._given_call
        with eval_mode(model), torch.no_grad():
            self._check_output(self._call(model, batch.to(self._device)), batch)

    def _checked(self, index: int) -> Data:
        graph = self.dataset[index]
        name = f"dataset[{index}]"
        if not isinstance(graph, Data):
            raise TypeError(f"'{name}' must be a torch_geometric Data (got {type(graph).__name__})")
        x, edges = graph.get("x"), graph.get("edge_index")
        num_nodes = graph.num_nodes
        if not num_nodes:
            raise ValueError(f"'{name}' is an empty graph: it has no nodes")
        if edges is None:
            raise ValueError(f"'{name}' must hold 'edge_index' (got {sorted(graph.keys())})")
        check_edge_index(edges, num_nodes, f"{name}.edge_index")
        if isinstance(x, Tensor) and x.is_floating_point() and not x.isfinite().all():
            raise ValueError(f"'{name}.x' holds NaN or infinity")
        self._sizes.append((num_nodes, edges.size(1)))
        return graph

    def _check_output(self, logits: Any, batch: Batch) -> None:
        """Refuse what a model returned unless it is one row per graph, as wide as the labels ask for."""
        if not isinstance(logits, Tensor):
            raise TypeError(f"'model' must return a tensor of logits (got {type(logits).__name__})")
        labels = torch.cat(list(self._labels.values()))
        width = "C" if self.target == "multiclass" else str(labels.size(1))
        fits = logits.dim() == 2 and logits.size(0) == batch.num_graphs
        if not fits or (self.target != "multiclass" and logits.size(1) != labels.size(1)):
            raise ValueError(
                f"'model' must return one row of logits per graph, [{batch.num_graphs}, {width}] "
                f"(got {list(logits.shape)})"
            )
        if self.target == "multiclass" and int(labels.max()) >= logits.size(1):
            raise ValueError(
                f"labels run from {int(labels.min())} to {int(labels.max())}, but the model returns {logits.size(1)} "
                "classes"
            )

    def identity(self) -> dict[str, Any]:
        """Describe the data and what is asked of them; call it after :meth:`check`."""
        first = [self.dataset[int(i)] for i in self.split["train"][: self.batch_size]]
        keys = ("x", "edge_index", "edge_attr", "edge_weight", "pos")
        features = [graph[key] for graph in first for key in keys if graph.get(key) is not None]
        return {
            "target": self.target,
            "batch_size": self.batch_size,
            "maximize": self.maximize,
            **{f"split[{part!r}]": index for part, index in self.split.items()},
            **{f"labels of {part!r}": labels for part, labels in self._labels.items()},
            "sizes of the graphs": torch.tensor(self._sizes),
            "first training graphs": digest(features),
        }

    def batches(self) -> Iterable[Batch]:
        """Return the shuffled batches of an epoch, on the device of the model."""
        return (batch.to(self._device) for batch in self._loader)

    def loss(self, model: nn.Module, batch: Batch, epoch: int) -> Tensor | None:
        """Return the loss over the known labels of a batch, plus the further term."""
        y = graph_labels(batch.get("y"), batch.num_graphs, self.target)
        if self.extra_loss is None and not (self.target == "multiclass" or (~y.isnan()).any()):
            return None
        logits = self._call(model, batch)
        loss = graph_loss(logits, y, self.target)
        return add_extra_loss(logits.sum() * 0 if loss is None else loss, self.extra_loss, logits, batch, epoch)

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
        return float(self.metric(logits, y.to(logits.device)))

    def _outputs(self, model: nn.Module, part: str) -> tuple[Tensor, Tensor]:
        """Return logits and labels of a part, in its order."""
        logits, labels = [], []
        with eval_mode(model), torch.no_grad():
            for batch in graph_loader(self.dataset, self.split[part], self.batch_size, shuffle=False):
                moved = batch.to(self._device)
                logits.append(self._call(model, moved))
                if part not in self._labels:
                    labels.append(graph_labels(moved.get("y"), moved.num_graphs, self.target))
        return torch.cat(logits), self._labels[part] if part in self._labels else torch.cat(labels)


def _stack(labels: Sequence[Any], target: GraphTarget, index: Tensor) -> Tensor:
    """Return the labels of several graphs as one tensor."""
    rows = []
    for i, y in zip(index.tolist(), labels, strict=True):
        if not isinstance(y, Tensor) or y.numel() == 0:
            raise ValueError(f"'dataset[{i}].y' must hold labels (got {type(y).__name__})")
        rows.append(y.reshape(1, -1))
        if rows[-1].shape != rows[0].shape:
            raise ValueError(f"'dataset[{i}].y' must hold {rows[0].size(1)} labels as the first (got {y.numel()})")
    return graph_labels(torch.cat(rows), len(rows), target)


def _no_call(model: nn.Module, batch: Batch) -> Tensor:
    raise RuntimeError("check() must come first")
