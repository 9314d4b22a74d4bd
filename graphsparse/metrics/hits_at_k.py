"""Links that score above all but a few non-links."""

from torch import Tensor

from graphsparse.metrics.ranked_links import check_scores
from graphsparse.ops.check import check_count


def hits_at_k(pos: Tensor, neg: Tensor, k: int) -> float:
    """Return the fraction of links that score higher than the ``k``-th highest non-link (Hits@K).

    Equal scores are no hit. With fewer than ``k`` non-links every link is one, as the evaluator of OGB has it.

    Args:
        pos: Scores of links ``[P]``, higher = more likely a link.
        neg: Scores of non-links ``[N]``, of the same type; all links are compared to the same ones.
        k: At least 1.

    Returns:
        A number between 0 and 1.

    Raises:
        TypeError: If a score is not real-valued, both have different types, or ``k`` is no integer.
        ValueError: If a shape is wrong, there is no link, a score is NaN, or ``k`` is below 1.

    Example:
        >>> import torch
        >>> hits_at_k(torch.tensor([0.9, 0.6, 0.1]), torch.tensor([0.8, 0.6, 0.2]), k=2)
        0.3333333333333333

    Source: Hu et al., *Open Graph Benchmark*, NeurIPS 2020, section 5.
    """
    check_count(k, "k")
    check_scores(pos, neg)
    if pos.dim() != 1 or neg.dim() != 1 or pos.numel() == 0:
        raise ValueError(
            f"'pos' and 'neg' must be [P] with P > 0, and [N] (got {list(pos.shape)} and {list(neg.shape)})"
        )
    if neg.numel() < k:
        return 1.0
    level = neg.kthvalue(neg.numel() - k + 1).values
    return int((pos > level).sum()) / pos.numel()
