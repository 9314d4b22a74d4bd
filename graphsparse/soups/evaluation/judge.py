"""Count correct nodes of several candidates at once, and give up those that can no longer win."""

import math
from collections.abc import Callable

import torch
from torch import Tensor


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
        self._correct = [0] * num
        self._seen = [0] * num
        self._logits: list[list[Tensor]] = [[] for _ in range(num)]

    def add(self, candidate: int, rows: slice, logits: Tensor) -> None:
        """Take in the logits of a candidate on the next rows."""
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
