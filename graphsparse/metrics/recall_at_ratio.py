"""Recall of links among as many candidates as there are links, in one ranking of all of them."""

import math

from torch import Tensor

from graphsparse.metrics.ranked_links import RankedLinks, check_ties
from graphsparse.ops.check import check_real
from graphsparse.utils.counter_random import check_seed


def recall_at_ratio(
    pos: Tensor,
    neg: Tensor,
    ratio: float = 1.25,
    *,
    ties: str = "pessimistic",
    seed: int = 0,
    require_positive_logit: bool = False,
) -> float:
    r"""Return the fraction of links among the highest scores of one global ranking.

    .. math::
        \mathrm{recall@}\rho = \frac{|\{\text{links among the } K \text{ highest of } R\}|}{P}, \qquad
        K = \lfloor \rho P \rfloor

    with :math:`P` links and :math:`R` the links and non-links together. A ratio above 5 is the number :math:`K` itself,
    and 0 stands for the fraction of links with a score above 0. Random scores give about :math:`\rho P / (P + N)`.

    Args:
        pos: Scores of links ``[P]``, higher = more likely a link.
        neg: Scores of non-links ``[N]``, of the same type.
        ratio: :math:`\rho`.
        ties: What to do where equal scores are cut: ``"pessimistic"`` takes non-links first, ``"random"`` draws
            without replacement. Neither depends on the order of the scores.
        seed: Of the random draw.
        require_positive_logit: Leave links with a score of 0 or less out of :math:`R`, so that they are never found.
            Scores must be logits then; the metric depends on their calibration. For comparison only.

    Returns:
        A number between 0 and 1.

    Raises:
        TypeError: If a score is not real-valued, both have different types, or ``ratio`` is no number.
        ValueError: If a shape is wrong, there is no link, a score is NaN, ``ratio`` is negative or not finite,
            ``ties`` is unknown, or ``seed`` is negative.

    Example:
        >>> import torch
        >>> pos, neg = torch.tensor([3.0, 2.0, 0.5, -1.0]), torch.tensor([2.0, 1.0, 0.0, -2.0])
        >>> recall_at_ratio(pos, neg, 1.0), recall_at_ratio(pos, neg, 0.5), recall_at_ratio(pos, neg, 0)
        (0.5, 0.25, 0.75)

    Source: the metric of the released code of Zheng et al., 2023, arXiv 2302.14189, whose ties fall to the links.
    """
    return RankedLinks(pos, neg).recall_at_ratio(
        check_ratio(ratio), ties=check_ties(ties), seed=check_seed(seed), require_positive_logit=require_positive_logit
    )


def check_ratio(ratio: float) -> float:
    """Return a ratio, or refuse what is none."""
    ratio = check_real(ratio, "ratio")
    if not math.isfinite(ratio) or ratio < 0:
        raise ValueError(f"'ratio' must be finite and not negative (got {ratio!r})")
    return ratio
