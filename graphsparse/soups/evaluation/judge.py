"""The judged nodes, and counting those that several candidates get right."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch_geometric.data import Data

from graphsparse.metrics.labels import is_labelled
from graphsparse.training.check import check_finite, check_graph, check_part


@dataclass(frozen=True, eq=False)
class Judged:
    """A private graph and the nodes on which models are judged.

    Args:
        data: The graph without masks; ``y`` is hidden but for the judged nodes, which ``mask`` marks.
        nodes: The judged nodes in ascending order, ``[n]``: those with a label.
        y: Their labels, ``[n]`` or ``[n, T]``.
    """

    data: Data
    nodes: Tensor
    y: Tensor


def judged_nodes(data: Data, mask: str | Tensor) -> Judged:
    """Copy a graph so that no label and no mask is left but those that judge.

    Args:
        data: A graph with ``x``, edges and ``y``.
        mask: Bool mask ``[N]``, or the name of one that the graph holds.

    Raises:
        TypeError: If the mask is none of bools, or ``data`` is no graph.
        ValueError: If the mask is missing, has another length, or marks no node with a label.
    """
    check_graph(data)
    found = data.get(mask) if isinstance(mask, str) else mask
    if found is None:
        raise ValueError(f"'data' has no {mask!r} to judge models on (it holds {sorted(data.keys())})")
    if not isinstance(found, Tensor) or found.dtype != torch.bool:
        kind = found.dtype if isinstance(found, Tensor) else type(found).__name__
        raise TypeError(f"'mask' must be a bool tensor [N] (got {kind})")
    y = data.get("y")
    if not isinstance(y, Tensor) or found.shape != y.shape[:1]:
        raise ValueError(f"'data.y' and 'mask' must have one entry per node (mask has {list(found.shape)})")
    if not bool(found.any()):
        raise ValueError("'mask' marks no node")
    check_finite(data, "data")
    if data.y.is_floating_point() and bool(data.y[found.to(y.device)].isinf().any()):
        raise ValueError("'data.y' holds infinity")
    found = found.to(y.device)
    check_part(y[found], "'mask'", "node", "binary" if y.is_floating_point() or y.dim() > 1 else "multiclass")
    return _restrict(data, y, (found & is_labelled(y)).nonzero().view(-1))


def halves(judged: Judged, seed: int) -> tuple[Judged, Judged]:
    """Cut the judged nodes into two halves with about the same classes.

    Args:
        judged: The nodes.
        seed: Two calls with the same one give the same halves.

    Raises:
        ValueError: If there are fewer than two nodes.
    """
    count = judged.nodes.numel()
    if count < 2:
        raise ValueError(f"'mask' must mark at least two nodes to be cut into halves (got {count})")
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    if judged.y.dim() == 1:  # classes one after another, dealt out in turn
        order = order[judged.y.cpu()[order].argsort(stable=True)]
    first = torch.zeros(count, dtype=torch.bool)
    first[order[::2]] = True
    first = first.to(judged.nodes.device)
    return tuple(_restrict(judged.data, judged.data.y, judged.nodes[part]) for part in (first, ~first))  # type: ignore[return-value]


def _restrict(data: Data, y: Tensor, nodes: Tensor) -> Judged:
    hidden = torch.full_like(y, torch.nan if y.is_floating_point() else -1)
    hidden[nodes] = y[nodes]
    mask = torch.zeros(y.size(0), dtype=torch.bool, device=y.device)
    mask[nodes] = True
    data = copy.copy(data)
    for name in list(data.keys()):
        if name.endswith("_mask"):
            del data[name]
    data.y, data.mask = hidden, mask
    return Judged(data, nodes, y[nodes])


def correct(logits: Tensor, y: Tensor) -> Tensor:
    """Say for each node whether its largest logit is that of its class; never where a logit is not a number.

    Args:
        logits: ``[n, C]``; of equal logits the first counts.
        y: Classes ``[n]``.
    """
    largest, found = logits.max(dim=1)  # not a number where one of them is none
    return (found == y) & ~largest.isnan()


class Judge:
    """Scores candidates from their logits, which come in blocks of nodes.

    Args:
        y: Labels of the judged nodes, ``[n]``.
        num: Number of candidates.
        floor: A score that must be exceeded, else a candidate does not matter.
        metric: Of the logits of all nodes and ``y``; accuracy when ``None``. Only accuracy can give up early.

    Example:
        >>> judge = Judge(torch.tensor([0, 1, 1]), 2, floor=0.5)
        >>> judge.add(0, slice(0, 2), torch.eye(2))
        >>> judge.add(1, slice(0, 2), torch.eye(2).flip(0))  # both wrong: one of three is all that is left
        >>> judge.hopeful()
        [0]
        >>> judge.add(0, slice(2, 3), torch.tensor([[1.0, 0.0]]))
        >>> judge.scores()
        [0.6666666666666666, None]
    """

    def __init__(
        self, y: Tensor, num: int, floor: float = -math.inf, metric: Callable[[Tensor, Tensor], float] | None = None
    ) -> None:
        self.y, self.floor, self.metric = y, floor, metric
        self._largest = -1 if metric is not None else int(y.max())
        self._correct = [0] * num
        self._seen = [0] * num
        self._logits: list[list[Tensor]] = [[] for _ in range(num)]

    def add(self, candidate: int, rows: slice, logits: Tensor) -> None:
        """Take in the logits of a candidate on the next rows."""
        if logits.size(1) <= self._largest:
            raise ValueError(
                f"labels of the judged nodes run to {self._largest}, but the model returns {logits.size(1)} classes: "
                "either the labels are out of range or the model has the wrong width"
            )
        if self.metric is not None:
            self._logits[candidate].append(logits)
        else:
            self._correct[candidate] += int(correct(logits, self.y[rows]).count_nonzero())
        self._seen[candidate] += logits.size(0)

    def hopeful(self) -> list[int]:
        """Return the candidates that can still exceed the floor."""
        if self.metric is not None:
            return list(range(len(self._seen)))
        size = self.y.size(0)
        most = [right + size - seen for right, seen in zip(self._correct, self._seen, strict=True)]
        return [i for i, count in enumerate(most) if count / size > self.floor]

    def scores(self) -> list[float | None]:
        """Return the score of every candidate, ``None`` for those that were given up."""
        size = self.y.size(0)
        done = [seen == size for seen in self._seen]
        if self.metric is None:
            return [c / size if whole else None for c, whole in zip(self._correct, done, strict=True)]
        found = (torch.cat(parts) if whole else None for parts, whole in zip(self._logits, done, strict=True))
        return [None if logits is None else float(self.metric(logits, self.y)) for logits in found]
