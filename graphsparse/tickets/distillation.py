"""Learning from the predictions of the dense model."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from graphsparse.metrics.labels import is_labelled
from graphsparse.ops.check import check_number
from graphsparse.training import NodeTask, distillation_loss
from graphsparse.training.node_task import observed_nodes


@dataclass(frozen=True, kw_only=True, eq=False)
class Distillation:
    r"""How the trained weights of a ticket learn from the dense model, beside the labels.

    .. math::
        \mathrm{CE}(\mathrm{train}) + \lambda \,
        \mathrm{KL}(\mathrm{softmax}(Z_T / \tau) \,\|\, \mathrm{softmax}(Z_S / \tau)) \, \tau^2

    .. warning::
        ``nodes="all"`` is the published protocol of TEDDY and there for replication only. The teacher's predictions for
        validation and test nodes, made on the dense graph, are then targets of the student: on Cora a student without
        any edge gets as accurate as the dense model, so the accuracy says nothing about the edges that were kept.
        Judge edges without distillation, with ``"train"``, or on an inductive task, and compare with an empty graph.

    Args:
        weight: Weight :math:`\lambda` of the term.
        nodes: Nodes whose teacher predictions the student sees: ``"train"``, ``"observed"`` (all but the validation and
            test nodes) or ``"all"`` (see the warning).
        temperature: Temperature :math:`\tau` of both softmaxes.
        teacher: Logits ``[N, C]`` of a dense model for all nodes of the graph; trained with the settings of the ticket
            when ``None``, once for all tickets of a call. On an inductive task only the rows of observed nodes count.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If one is out of range.

    Example:
        >>> Distillation(nodes="observed").weight
        10.0

    Source: Seo et al., *TEDDY*, arXiv 2402.01261, Section 4.
    """

    weight: float = 10.0
    nodes: Literal["train", "observed", "all"] = "train"
    temperature: float = 1.0
    teacher: Tensor | None = None

    def __post_init__(self) -> None:
        check_number(self.weight, "weight", least=0)
        if not self.temperature > 0:
            raise ValueError(f"'temperature' must be positive (got {self.temperature!r})")
        if self.nodes not in get_args(type(self).__annotations__["nodes"]):
            raise ValueError(f"'nodes' must be 'train', 'observed' or 'all' (got {self.nodes!r})")
        if self.teacher is not None and self.teacher.dim() != 2:
            raise ValueError(
                f"'teacher' must hold one row of logits per node, [N, C] (got shape {list(self.teacher.shape)})"
            )

    def check(self, task: object) -> None:
        """Refuse a task that has no whole graph to be trained on, or another number of nodes than the teacher."""
        if not isinstance(task, NodeTask) or task.loader is not None:
            raise ValueError("'distillation' needs a graph that is trained on as a whole: a NodeTask without 'loader'")
        if task.inductive and self.nodes == "all":
            raise ValueError("'nodes' cannot be 'all' on an inductive task: hidden nodes have no teacher prediction")
        num_nodes = task.nodes(task.whole).num_nodes
        if self.teacher is not None and self.teacher.size(0) != num_nodes:
            raise ValueError(
                f"'teacher' must hold one row of logits per node, [{num_nodes}, C] "
                f"(got shape {list(self.teacher.shape)})"
            )

    def term(self, data: Any, targets: Tensor) -> "DistillationTerm":
        """Return the term of the loss for the nodes of a training graph with labels and the teacher's logits."""
        nodes: Tensor = data.train_mask & is_labelled(data.y)
        if self.nodes == "observed":
            nodes = observed_nodes(data)
        elif self.nodes == "all":
            nodes = torch.ones_like(nodes)
        if not nodes.any():
            raise ValueError(f"there is no node to distil on with nodes={self.nodes!r}")
        return DistillationTerm(targets, nodes, self.weight, self.temperature)


@dataclass(frozen=True, eq=False)
class DistillationTerm:
    """The term of the loss that holds a student to the predictions of its teacher."""

    targets: Tensor
    nodes: Tensor
    weight: float
    temperature: float

    def __call__(self, logits: Tensor, batch: Any, epoch: int) -> Tensor:
        """Return the term."""
        return self.weight * distillation_loss(logits[self.nodes], self.targets[self.nodes], self.temperature)
