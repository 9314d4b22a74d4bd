"""Loss of scored links and non-links."""

import torch.nn.functional as F
from torch import Tensor


def link_loss(positive: Tensor, negative: Tensor, weight: Tensor | None = None) -> Tensor:
    r"""Return the cross-entropy of links and of non-links, each with its own mean.

    .. math::
        \frac{\sum_i w_i \log(1 + e^{-s^+_i})}{\sum_i w_i} + \frac{1}{N} \sum_j \log(1 + e^{s^-_j})

    As the means are taken apart, the number of non-links does not shift the balance of the two classes.

    Args:
        positive: Logits of links ``[P]``.
        negative: Logits of non-links ``[N]``.
        weight: Weights of the links ``[P]``, not negative and not all 0.

    Returns:
        A scalar.

    Example:
        >>> import torch
        >>> link_loss(torch.zeros(2), torch.zeros(6))
        tensor(1.3863)

    Source: separate means as in the released code of GITL (Zheng et al., arXiv 2302.14189); softplus instead of a
    logarithm with a small number added, which saturates.
    """
    losses = F.softplus(-positive)
    mean = losses.mean() if weight is None else (losses * weight).sum() / weight.sum()
    return mean + F.softplus(negative).mean()
