"""Scores that say how much a prediction looks like one for a class the model has never seen."""

import math

import torch
from torch import Tensor

from graphsparse.ops.check import check_real


def max_softmax_score(logits: Tensor) -> Tensor:
    r"""Return one minus the largest softmax probability: higher = more out of distribution.

    .. math::
        s_i = 1 - \max_c p_{ic} = \frac{r_i}{1 + r_i}, \qquad r_i = \sum_{c \neq c^*} e^{z_{ic} - z_{ic^*}}

    It ranks as the negative of the largest probability does. Computed from what the other classes hold, it still tells
    confident predictions apart whose probability rounds to 1.

    Args:
        logits: ``[N, C]``, at least one class, floating point; half precision is computed in float32.

    Returns:
        Scores ``[N]`` between 0 and :math:`1 - 1/C`.

    Raises:
        TypeError: If ``logits`` is not a floating point tensor.
        ValueError: If its shape does not fit, or a logit is NaN or infinite.

    Example:
        >>> max_softmax_score(torch.tensor([[0.0, 0.0], [30.0, 0.0], [40.0, 0.0]]))
        tensor([5.0000e-01, 9.3576e-14, 4.2484e-18])

    Source: Hendrycks and Gimpel, *A baseline for detecting misclassified and out-of-distribution examples in neural
    networks*, ICLR 2017.
    """
    logits = _checked(logits)
    largest = logits.max(dim=1, keepdim=True)
    # Leaving out one of the largest, not all of them: equal ones are other classes.
    others = (logits - largest.values).exp_().scatter_(1, largest.indices, 0).sum(1)
    return others / (1 + others)


def energy_score(logits: Tensor, temperature: float = 1.0) -> Tensor:
    r"""Return the free energy of the logits: higher = more out of distribution.

    .. math::
        s_i = -T \log \sum_c e^{z_{ic} / T}

    Unlike probabilities it changes when all logits of a node grow by the same number. The largest logit is taken out of
    the sum first, so that nothing overflows.

    Args:
        logits: ``[N, C]``, at least one class, floating point; half precision is computed in float32.
        temperature: ``T``, above 0.

    Returns:
        Scores ``[N]`` between :math:`-\max_c z_{ic} - T \log C` and :math:`-\max_c z_{ic}`.

    Raises:
        TypeError: If ``logits`` is not a floating point tensor, or ``temperature`` no number.
        ValueError: If its shape does not fit, a logit is NaN or infinite, or ``temperature`` is not positive.

    Example:
        >>> energy_score(torch.tensor([[0.0, 0.0], [100.0, 0.0]]))
        tensor([  -0.6931, -100.0000])

    Source: Liu et al., *Energy-based out-of-distribution detection*, NeurIPS 2020.
    """
    temperature = check_real(temperature, "temperature")
    if not 0 < temperature < math.inf:
        raise ValueError(f"'temperature' must be above 0 and finite (got {temperature!r})")
    logits = _checked(logits)
    largest = logits.amax(1)
    # Not logsumexp(logits / T): a small T would overflow.
    return -largest - temperature * ((logits - largest.unsqueeze(1)) / temperature).exp_().sum(1).log_()


def _checked(logits: Tensor) -> Tensor:
    if not isinstance(logits, Tensor) or not logits.is_floating_point():
        kind = getattr(logits, "dtype", type(logits).__name__)
        raise TypeError(f"'logits' must be a floating point tensor (got {kind})")
    if logits.dim() != 2 or logits.size(1) == 0:
        raise ValueError(f"'logits' must be [N, C] with at least one class (got {list(logits.shape)})")
    if not logits.isfinite().all():
        raise ValueError("'logits' holds NaN or infinity")
    logits = logits.detach()
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
