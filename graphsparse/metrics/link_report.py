"""All figures of merit of link prediction at once, also by how cold the pairs are."""

import math
from collections.abc import Sequence

from torch import Tensor

from graphsparse.metrics.cold_bins import COLD_BINS, cold_bins
from graphsparse.metrics.mrr import reciprocal_ranks
from graphsparse.metrics.ranked_links import RankedLinks, check_scores, check_ties
from graphsparse.metrics.recall_at_ratio import check_ratio
from graphsparse.ops.check import check_count
from graphsparse.utils.counter_random import check_seed


def link_report(
    pos: Tensor,
    neg: Tensor,
    pos_pairs: Tensor | None = None,
    neg_pairs: Tensor | None = None,
    degree: Tensor | tuple[Tensor, Tensor] | None = None,
    *,
    ratios: Sequence[float] = (0.8, 1.0, 1.25),
    ks: Sequence[int] = (20, 50, 100),
    ties: str = "pessimistic",
    seed: int = 0,
    require_positive_logit: bool = False,
) -> dict[str, float]:
    """Return AUROC, average precision, recall at ratios, Hits@K and, where it applies, MRR.

    Every metric is exact and sorts the scores once, so that 10^8 of them take seconds and little memory. With the
    degrees of the training graph each is also given for the links and the non-links of every bin of
    :func:`~graphsparse.metrics.cold_bins.cold_bins` by themselves, so that the classes of a bin differ in nothing but
    the link. The MRR of a bin is that of its links, each among all its own non-links. A metric of a bin that lacks
    links, or non-links, is NaN.

    Args:
        pos: Scores of links ``[P]``, higher = more likely a link.
        neg: Scores of non-links, ``[N]``; or ``[P, k]``, those of each link, which gives the MRR too.
        pos_pairs: Ends of the links ``[2, P]``, for the bins.
        neg_pairs: Ends of the non-links ``[2, N]``, of ``neg.flatten()`` if it has two dimensions; for the bins.
        degree: Degree of each node in the training graph ``[N]``, or out- and in-degrees, for the bins.
        ratios: Ratios of :func:`~graphsparse.metrics.recall_at_ratio.recall_at_ratio`.
        ks: Numbers of :func:`~graphsparse.metrics.hits_at_k.hits_at_k`.
        ties: ``"pessimistic"`` or ``"random"``, for the recall.
        seed: Of the random ties.
        require_positive_logit: As in :func:`~graphsparse.metrics.recall_at_ratio.recall_at_ratio`.

    Returns:
        Numbers under the names ``"links"``, ``"non-links"``, ``"auroc"``, ``"average precision"``, ``"recall@1.25"``,
        ``"hits@50"``, ``"mrr"``, and the same with the name of a bin after a comma.

    Raises:
        TypeError: If a tensor has the wrong type.
        ValueError: If a shape does not fit, there is no link, a score is NaN, an option is out of range, or only some
            of ``pos_pairs``, ``neg_pairs`` and ``degree`` are given.

    Example:
        >>> import torch
        >>> pos, neg = torch.tensor([0.9, 0.4]), torch.tensor([0.6, 0.1])
        >>> ends = torch.tensor([[0, 1], [1, 2]]), torch.tensor([[0, 1], [2, 3]])
        >>> report = link_report(pos, neg, *ends, degree=torch.tensor([0, 2, 2, 3]), ks=[1])
        >>> report["auroc"], report["hits@1"], report["auroc, an end of degree 0"]
        (0.75, 0.5, 1.0)
    """
    check_ties(ties)
    options = {"ties": ties, "seed": check_seed(seed), "require_positive_logit": require_positive_logit}
    ratios, ks = [check_ratio(ratio) for ratio in ratios], [check_count(k, "k") for k in ks]
    check_scores(pos, neg)
    if pos.dim() != 1 or pos.numel() == 0:
        raise ValueError(f"'pos' must be [P] with P > 0 (got shape {list(pos.shape)})")
    ranks = reciprocal_ranks(pos, neg) if neg.dim() == 2 else None
    flat = neg.reshape(-1) if neg.dim() == 2 else neg

    def figures(pos: Tensor, neg: Tensor, ranks: Tensor | None) -> dict[str, float]:
        found: dict[str, float] = {"links": pos.numel(), "non-links": neg.numel()}
        ranked = RankedLinks(pos, neg) if pos.numel() and neg.numel() else None
        found["auroc"] = ranked.auroc() if ranked else math.nan
        found["average precision"] = ranked.average_precision() if ranked else math.nan
        for ratio in ratios:
            value = ranked.recall_at_ratio(ratio, **options) if ranked else math.nan  # type: ignore[arg-type]
            found[f"recall@{ratio:g}"] = value
        for k in ks:
            found[f"hits@{k}"] = ranked.hits_at_k(k) if ranked else math.nan
        if ranks is not None:
            found["mrr"] = float(ranks.mean()) if ranks.numel() else math.nan
        return found

    report = figures(pos, flat, ranks)
    given = [value is not None for value in (pos_pairs, neg_pairs, degree)]
    if not any(given):
        return report
    if pos_pairs is None or neg_pairs is None or degree is None:
        raise ValueError("'pos_pairs', 'neg_pairs' and 'degree' must be given together")
    for name, pairs, scores in (("pos_pairs", pos_pairs, pos), ("neg_pairs", neg_pairs, flat)):
        if pairs.shape != (2, scores.numel()):
            raise ValueError(f"'{name}' must be [2, {scores.numel()}], one pair per score (got {list(pairs.shape)})")
    pos_bin, neg_bin = cold_bins(pos_pairs, degree), cold_bins(neg_pairs, degree)
    for number, name in enumerate(COLD_BINS):
        inside = pos_bin == number
        part = figures(pos[inside], flat[neg_bin == number], None if ranks is None else ranks[inside])
        report |= {f"{key}, {name}": value for key, value in part.items()}
    return report
