"""What a search and its controls are trained on: nodes of a graph, or graphs of a data set."""

import copy
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch_geometric.data import Data

from graphsparse.metrics import accuracy
from graphsparse.training import FitResult, fit, fit_graphs, predict
from graphsparse.training.graph_task import GraphTask, graph_split
from graphsparse.training.loop import Hook as AfterStep
from graphsparse.training.node_task import Inference
from graphsparse.training.target import Target as GraphTarget
from graphsparse.training.target import check_target as graph_target
from graphsparse.training.target import read_metric
from graphsparse.typing import Log


@dataclass(frozen=True)
class SearchTask:
    """One set of arguments for :func:`~graphsparse.training.fit` or :func:`~graphsparse.training.fit_graphs`.

    Args:
        data: A graph with node labels, or a data set of graphs.
        loader: Training batches of nodes.
        inference: Logits of the whole graph, for nodes.
        evaluator: Judges graphs.
        split: Training, validation and test graphs; what the data set says when ``None``.
        target: What is asked of graphs; what the data set says when ``None``.
        batch_size: Graphs per batch.
        epochs: Number of epochs.
        patience: As in ``fit``.
        eval_every: As in ``fit``.
        seed: Seed of batches and dropout.
        progress: Whether to show a progress bar.
        log: Receives the numbers of every epoch.
    """

    data: Any
    loader: Iterable[Data] | None = None
    inference: Inference = predict
    evaluator: Any = None
    split: Mapping[str, Any] | None = None
    target: GraphTarget | None = None
    batch_size: int = 512
    epochs: int = 400
    patience: int | None = None
    eval_every: int = 1
    seed: int = 0
    progress: bool = False
    log: Log | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Refuse arguments of the other kind of task."""
        for name in ("evaluator", "split", "target"):
            if self.on_nodes and getattr(self, name) is not None:
                raise ValueError(f"'{name}' is for a set of graphs, but 'data' is one graph")
        if not self.on_nodes and (self.loader is not None or self.inference is not predict):
            raise ValueError("'loader' and 'inference' are for the nodes of one graph, but 'data' is a set of graphs")

    @property
    def on_nodes(self) -> bool:
        """Whether nodes are classified."""
        return isinstance(self.data, Data)

    @property
    def metric(self) -> str:
        """Name of the metric, as in the keys of a ticket's metrics."""
        if self.on_nodes:
            return "accuracy"
        if self.evaluator is not None:
            return str(self.evaluator.eval_metric)
        return {"binary": "rocauc", "multiclass": "accuracy", "regression": "rmse"}[
            graph_target(self.target, self.data)
        ]

    def is_better(self, new: float, old: float) -> bool:
        """Say whether one value of the metric is better than another."""
        if self.on_nodes or read_metric(graph_target(self.target, self.data), self.evaluator)[2]:
            return new > old
        return new < old

    def run(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        *,
        scheduler: LRScheduler | None = None,
        after_step: Sequence[AfterStep] = (),
        epochs: int | None = None,
        checkpoint: Path | None = None,
    ) -> FitResult:
        """Train a model and keep the best of it by the validation part."""
        common: dict[str, Any] = {
            "epochs": self.epochs if epochs is None else epochs,
            "optimizer": optimizer,
            "scheduler": scheduler,
            "after_step": after_step,
            "patience": self.patience,
            "eval_every": self.eval_every,
            "checkpoint": checkpoint,
            "seed": self.seed,
            "progress": self.progress,
            "log": self.log,
        }
        if self.on_nodes:
            return fit(model, self.data, loader=self.loader, inference=self.inference, **common)
        return fit_graphs(
            model,
            self.data,
            evaluator=self.evaluator,
            split=self.split,
            target=self.target,
            batch_size=self.batch_size,
            **common,
        )

    def without_test(self) -> "SearchTask":
        """Return the task without its test part, for trainings among which the validation part chooses."""
        if not self.on_nodes:
            parts = graph_split(self.split, self.data)
            return dataclasses.replace(self, split={name: parts[name] for name in ("train", "val")})
        data = copy.copy(self.data)
        if "test_mask" in data:
            del data.test_mask
        return dataclasses.replace(self, data=data)

    def test(self, model: nn.Module, result: FitResult) -> float | None:
        """Read the test part for the result that was chosen; ``model`` is one like that which gave it."""
        if self.on_nodes:
            mask = self.data.get("test_mask")
            return None if mask is None or not mask.any() else accuracy(result.logits, self.data.y, mask)
        options: Any = {"split": self.split, "target": self.target, "metric": self.evaluator}
        task = GraphTask(self.data, batch_size=self.batch_size, **options)
        model.load_state_dict(result.state_dict)
        task.check(model)
        return task.finish(model, task.evaluate(model, result.best_epoch))[2]
