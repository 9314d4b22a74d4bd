"""How an epoch is judged: on the validation pairs of the target, and on nothing else."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn

from graphsparse.metrics import auroc, average_precision
from graphsparse.training.task import Evaluation
from graphsparse.transfer.models.decoders import score_in_chunks

#: A figure of merit, higher is better, from the scores of links ``[P]`` and of non-links ``[N]``.
LinkMetric: TypeAlias = Callable[[Tensor, Tensor], float]


def link_average_precision(positive: Tensor, negative: Tensor) -> float:
    """Return the average precision of links among links and non-links.

    Example:
        >>> round(link_average_precision(torch.tensor([2.0, 0.0]), torch.tensor([1.0, -1.0])), 4)
        0.8333
    """
    return average_precision(*_joined(positive, negative))


def link_auroc(positive: Tensor, negative: Tensor) -> float:
    """Return the probability that a link scores higher than a non-link; equal scores count half.

    Example:
        >>> link_auroc(torch.tensor([2.0, 0.0]), torch.tensor([1.0, -1.0]))
        0.75
    """
    return auroc(*_joined(positive, negative))


def _joined(positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor]:
    score = torch.cat([positive, negative])
    return score, torch.arange(score.numel(), device=score.device) < positive.numel()


@dataclass(frozen=True)
class Validation:
    """Validation pairs, and what is measured on them.

    Args:
        positive: Links ``[2, P]``, in the numbering of the vectors.
        negative: Non-links ``[2, N]``.
        metric: Figure of merit, higher is better.

    Raises:
        ValueError: If there are no links or no non-links.
    """

    positive: Tensor
    negative: Tensor
    metric: LinkMetric = link_average_precision

    def __post_init__(self) -> None:
        for name, pairs in (("val", self.positive), ("val_neg", self.negative)):
            if pairs.size(1) == 0:
                raise ValueError(f"'split.{name}' is empty: without validation pairs no epoch can be chosen")

    def judge(self, decoder: nn.Module, h: Tensor, epoch: int) -> Evaluation:
        """Return the metric of vectors ``[n, d]``, with the scores of all pairs, links first.

        Raises:
            FloatingPointError: If a score is not a number.
        """
        positive = score_in_chunks(decoder, h, self.positive)
        negative = score_in_chunks(decoder, h, self.negative)
        scores = torch.cat([positive, negative])
        if scores.isnan().any():
            raise FloatingPointError(f"a score is not a number after epoch {epoch}; a smaller 'lr' may help")
        return Evaluation(float(self.metric(positive, negative)), scores)
