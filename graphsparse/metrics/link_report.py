"""All figures of merit of link prediction at once, also by how cold the pairs are."""

import math
from collections.abc import Sequence
from fractions import Fraction

import torch
from torch import Tensor

from graphsparse.metrics.ranking import Ranked, check_scores
from graphsparse.ops.blocks import blocks, row_blocks
from graphsparse.ops.check import check_count, check_edge_index

#: Ratios of the recall.
_RATIOS = (Fraction(4, 5), Fraction(1), Fraction(5, 4))
#: Bins by the degrees of both ends: one of them is 0, they add up to at most 3, or to more.
_COLD_BINS = ("an end of degree 0", "degrees 1 to 3", "degrees above 3")
_FEW = 3


def link_report(
    pos: Tensor,
    neg: Tensor,
    pos_pairs: Tensor | None = None,
    neg_pairs: Tensor | None = None,
    degree: Tensor | tuple[Tensor, Tensor] | None = None,
    *,
    ks: Sequence[int] = (20, 50, 100),
) -> dict[str, float]:
    r"""Return AUROC, average precision, recall at ratios, Hits@K and, where it applies, MRR.

    Every metric is exact and sorts the scores once, so that 10^8 of them take seconds and little memory. With :math:`P`
    links and :math:`N` non-links,

    * ``auroc`` and ``average precision`` are those of :func:`auroc` and :func:`average_precision`;
    * ``recall@1.25``, also at 0.8 and 1, is the fraction of the links among the :math:`\lfloor 1.25 P \rfloor` highest
      scores of one ranking of links and non-links; of equal scores non-links come first;
    * ``hits@50`` is the fraction of the links that score higher than the 50th highest non-link; with fewer non-links
      every link is one, as in the evaluator of OGB;
    * ``mrr`` is the mean of :math:`1 / r_i`, where a link of score :math:`p_i` has the rank :math:`r_i = 1 +
      |\{j : n_{ij} > p_i\}| + \tfrac12 |\{j : n_{ij} = p_i\}|` among non-links of its own, as in the evaluator of OGB;
    * ``own hits@50`` is the fraction of the links with :math:`r_i \leq 50`.

    With the degrees of the training graph each is also given for the links and the non-links of three bins by
    themselves: pairs with an end of degree 0, with degrees that add up to at most 3, and to more. So the classes of a
    bin differ in nothing but the link. The MRR of a bin is that of its links, each among all its own non-links. A
    metric of a bin that lacks links, or non-links, is NaN.

    Args:
        pos: Scores of links ``[P]``, higher = more likely a link; infinities are allowed.
        neg: Scores of non-links of the same type, ``[N]``; or ``[P, k]``, those of each link, which gives the MRR and
            the Hits@K among these, too.
        pos_pairs: Ends of the links ``[2, P]``, for the bins.
        neg_pairs: Ends of the non-links ``[2, N]``, of ``neg.flatten()`` if it has two dimensions; for the bins.
        degree: Degree of each node in the training graph ``[N]``, or out- and in-degrees, for the bins.
        ks: Numbers of Hits@K.

    Returns:
        Numbers under the names ``"links"``, ``"non-links"``, ``"auroc"``, ``"average precision"``, ``"recall@1.25"``,
        ``"hits@50"``, ``"mrr"``, ``"own hits@50"``, and the same with the name of a bin after a comma:
        ``"an end of degree 0"``, ``"degrees 1 to 3"``, ``"degrees above 3"``.

    Raises:
        TypeError: If a tensor has the wrong type, or scores of links and of non-links have different ones.
        ValueError: If a shape does not fit, there is no link, a score is NaN, ``ks`` is out of range, or only some of
            ``pos_pairs``, ``neg_pairs`` and ``degree`` are given.

    Example:
        >>> pos, neg = torch.tensor([0.9, 0.4]), torch.tensor([0.6, 0.1])
        >>> ends = torch.tensor([[0, 1], [1, 2]]), torch.tensor([[0, 1], [2, 3]])
        >>> report = link_report(pos, neg, *ends, degree=torch.tensor([0, 2, 2, 3]), ks=[1])
        >>> report["auroc"], report["hits@1"], report["auroc, an end of degree 0"]
        (0.75, 0.5, 1.0)

    Source: Hu et al., *Open Graph Benchmark*, NeurIPS 2020, section 5 (Hits@K, MRR); Zheng et al., arXiv 2302.14189
    (recall at a ratio; in their released code ties fall to the links).
    """
    ks = [check_count(k, "ks") for k in ks]
    check_scores(pos, "pos")
    check_scores(neg, "neg")
    if pos.dtype != neg.dtype:
        raise TypeError(f"'pos' and 'neg' must have the same type (got {pos.dtype} and {neg.dtype})")
    own = neg.dim() == 2 and neg.size(0) == pos.numel()
    if pos.dim() != 1 or pos.numel() == 0 or not (own or neg.dim() == 1):
        raise ValueError(
            f"'pos' must be [P] with P > 0, 'neg' [N] or [P, k] (got {list(pos.shape)} and {list(neg.shape)})"
        )
    ranks = _ranks(pos, neg) if own else None
    flat = neg.reshape(-1)

    def figures(pos: Tensor, neg: Tensor, ranks: Tensor | None) -> dict[str, float]:
        ranked = Ranked(pos, neg) if pos.numel() and neg.numel() else None
        found: dict[str, float] = {"links": pos.numel(), "non-links": neg.numel()}
        found["auroc"] = ranked.auroc() if ranked else math.nan
        found["average precision"] = ranked.average_precision() if ranked else math.nan
        for ratio in _RATIOS:
            found[f"recall@{float(ratio):g}"] = ranked.recall_at_ratio(ratio) if ranked else math.nan
        for k in ks:
            found[f"hits@{k}"] = ranked.hits_at_k(k) if ranked else math.nan
        if ranks is not None:
            found["mrr"] = float(ranks.reciprocal().mean()) if ranks.numel() else math.nan
            for k in ks:
                found[f"own hits@{k}"] = float((ranks <= k).double().mean()) if ranks.numel() else math.nan
        return found

    report = figures(pos, flat, ranks)
    given = [value is not None for value in (pos_pairs, neg_pairs, degree)]
    if not any(given):
        return report
    if pos_pairs is None or neg_pairs is None or degree is None:
        raise ValueError("'pos_pairs', 'neg_pairs' and 'degree' must be given together")
    pos_bin = _cold_bins(pos_pairs, degree, pos.numel(), "pos_pairs")
    neg_bin = _cold_bins(neg_pairs, degree, flat.numel(), "neg_pairs")
    for number, name in enumerate(_COLD_BINS):
        inside = pos_bin == number
        part = figures(pos[inside], flat[neg_bin == number], None if ranks is None else ranks[inside])
        report |= {f"{key}, {name}": value for key, value in part.items()}
    return report


def _ranks(pos: Tensor, neg: Tensor) -> Tensor:
    """Return the rank of every link among its own non-links, float64 ``[P]``."""
    ranks = torch.empty(pos.numel(), dtype=torch.float64, device=pos.device)
    for where in row_blocks(pos.numel(), neg.size(1)):
        own, others = pos[where, None], neg[where]
        ranks[where] = ((others > own).sum(1) + (others >= own).sum(1)) / 2 + 1
    return ranks


def _cold_bins(pairs: Tensor, degree: Tensor | tuple[Tensor, Tensor], size: int, name: str) -> Tensor:
    """Return the number of the bin of each pair, int8 ``[P]``."""
    first, second = degree if isinstance(degree, tuple) else (degree, degree)
    for values in (first, second):
        if not isinstance(values, Tensor) or values.is_floating_point() or values.is_complex():
            raise TypeError(
                f"'degree' must be an integer tensor (got {getattr(values, 'dtype', type(values).__name__)})"
            )
        if values.dim() != 1:
            raise ValueError(f"'degree' must be [N] (got shape {list(values.shape)})")
    check_edge_index(pairs, (first.numel(), second.numel()), name)
    if pairs.size(1) != size:
        raise ValueError(f"'{name}' must be [2, {size}], one pair per score (got {list(pairs.shape)})")
    bins = torch.empty(size, dtype=torch.int8, device=pairs.device)
    for where in blocks(size):
        u, v = first[pairs[0, where].long()], second[pairs[1, where].long()]
        bins[where] = (2 - (u + v <= _FEW).to(torch.int8)).masked_fill_((u == 0) | (v == 0), 0)
    return bins
