"""Rank of each link among non-links of its own."""

import torch
from torch import Tensor

from graphsparse.metrics.ranked_links import check_scores

#: Scores compared at a time.
_BLOCK = 1 << 22


def mrr(pos: Tensor, neg: Tensor) -> float:
    r"""Return the mean reciprocal rank of the links, each among its own non-links.

    .. math::
        \mathrm{MRR} = \frac{1}{P} \sum_i \frac{1}{r_i}, \qquad
        r_i = 1 + |\{j : n_{ij} > p_i\}| + \tfrac12 |\{j : n_{ij} = p_i\}|

    Args:
        pos: Scores of links ``[P]``, higher = more likely a link.
        neg: Scores of the non-links of each link ``[P, k]``, of the same type.

    Returns:
        A number above 0 and at most 1.

    Raises:
        TypeError: If a score is not real-valued, or both have different types.
        ValueError: If a shape is wrong, there is no link, or a score is NaN.

    Example:
        >>> round(mrr(torch.tensor([0.9, 0.5]), torch.tensor([[0.1, 0.2], [0.5, 0.7]])), 4)
        0.7

    Source: Hu et al., *Open Graph Benchmark*, NeurIPS 2020, section 5; ties as its evaluator has them since 1.3.4.
    """
    return float(reciprocal_ranks(pos, neg).mean())


def reciprocal_ranks(pos: Tensor, neg: Tensor) -> Tensor:
    r"""Return :math:`1 / r_i` of every link, float64 ``[P]``; see :func:`mrr`.

    Example:
        >>> reciprocal_ranks(torch.tensor([0.9, 0.5]), torch.tensor([[0.1, 0.2], [0.5, 0.7]]))
        tensor([1.0000, 0.4000], dtype=torch.float64)
    """
    check_scores(pos, neg)
    if pos.dim() != 1 or neg.dim() != 2 or neg.size(0) != pos.numel() or pos.numel() == 0:
        raise ValueError(
            f"'pos' and 'neg' must be [P] with P > 0, and [P, k] (got {list(pos.shape)} and {list(neg.shape)})"
        )
    ranks = torch.empty(pos.numel(), dtype=torch.float64, device=pos.device)
    step = max(1, _BLOCK // max(neg.size(1), 1))
    for start in range(0, pos.numel(), step):
        own, others = pos[start : start + step, None], neg[start : start + step]
        twice = (others > own).sum(1) + (others >= own).sum(1)
        ranks[start : start + step] = twice / 2 + 1
    return ranks.reciprocal_()
