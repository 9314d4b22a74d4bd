"""How many entries of each of several tensors are kept where something is chosen by chance."""

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Literal, TypeAlias

from graphsparse.ops.select import num_removed

#: ``"uniform"``: the same share of every tensor; ``"erk"``: more of small ones, see :func:`kept_counts`.
Ratio: TypeAlias = Literal["uniform", "erk"]


def kept_counts(shapes: Sequence[Sequence[int]], sparsity: float, ratio: Ratio) -> list[int]:
    r"""Return how many entries of each tensor are kept, :math:`D - \lfloor s D \rfloor` of all :math:`D` together.

    .. math:: k_l \approx \min(n_l, \varepsilon w_l), \qquad \sum_l k_l = D - \lfloor s D \rfloor

    With ``"uniform"`` the weight :math:`w_l` of a tensor is its number of entries :math:`n_l`, with ``"erk"``
    (Erdos-Renyi kernel) the sum of its sizes: the density :math:`\varepsilon \sum d / \prod d` is high where a tensor
    is small, as a last layer is. Whole numbers come of it by Webster's rule, one entry after another to the tensor with
    the largest :math:`w_l / (k_l + 1/2)`, ties to the first. So a lower sparsity never keeps less of any tensor, which
    the rule of largest remainders does not promise.

    Args:
        shapes: The sizes of the tensors.
        sparsity: Fraction to remove of all entries, in ``[0, 1)``.
        ratio: Which ratio.

    Example:
        >>> kept_counts([(1433, 256), (256, 7)], 0.98, "erk"), kept_counts([(1433, 256), (256, 7)], 0.98, "uniform")
        ([6380, 993], [7337, 36])

    Source: Mocanu et al., *Scalable training of artificial neural networks with adaptive sparse connectivity*, Nature
    Communications 9, 2018; Evci et al., *Rigging the lottery*, arXiv 1911.11134, Section 3 (with kernels, capped at 1).
    """
    sizes = [math.prod(shape) for shape in shapes]
    weights = sizes if ratio == "uniform" else [max(sum(shape), 1) for shape in shapes]
    total = sum(sizes) - num_removed(sparsity, sum(sizes))
    # Tensors of which the factor would keep more than there is are kept whole, and the others share what is left.
    whole: set[int] = set()
    while True:
        free = [i for i in range(len(sizes)) if i not in whole]
        left = total - sum(sizes[i] for i in whole)
        factor = Fraction(left, max(sum(weights[i] for i in free), 1))
        full = {i for i in free if factor * weights[i] >= sizes[i]}
        if not full:
            break
        whole |= full
    kept = [
        size if i in whole else min(size, math.floor(factor * weight + Fraction(1, 2)))
        for i, (size, weight) in enumerate(zip(sizes, weights, strict=True))
    ]
    while (missing := total - sum(kept)) != 0:  # at most one for each tensor
        step = 1 if missing > 0 else -1
        able = [i for i in range(len(sizes)) if 0 <= kept[i] + step <= sizes[i]]
        worth = {i: Fraction(2 * weights[i], 2 * kept[i] + step) for i in able}
        kept[(max if missing > 0 else min)(able, key=lambda i: (worth[i], -i))] += step
    return kept
