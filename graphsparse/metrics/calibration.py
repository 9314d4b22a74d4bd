"""Whether a model is right as often as it claims to be."""

import torch
from torch import Tensor

from graphsparse.metrics.accuracy import counted
from graphsparse.ops.check import check_count

#: Logits turned into float64 at once.
_BLOCK = 1 << 19


def expected_calibration_error(
    logits: Tensor, y: Tensor, mask: Tensor | None = None, *, num_bins: int = 15, probabilities: bool = False
) -> float:
    r"""Return the expected calibration error (ECE): the mean gap between confidence and accuracy over bins.

    .. math::
        \mathrm{ECE} = \sum_{b=1}^{B} \frac{n_b}{n} \left| \mathrm{acc}_b - \mathrm{conf}_b \right|

    The confidence of a node is its largest probability. There are exactly :math:`B` bins of equal width, and bin
    :math:`b` holds the :math:`n_b` nodes with a confidence in :math:`((b - 1)/B, b/B]`: the lower edge is outside, the
    upper one inside, and 1 lies in the last bin. Empty bins add nothing. Everything is computed in float64; a float32
    probability that is a little above an edge lies above it.

    Args:
        logits: ``[N, C]`` logits, or probabilities with ``probabilities=True``; of equal ones the first counts.
        y: Classes ``[N]``.
        mask: Nodes to count, bool ``[N]``; all when ``None``.
        num_bins: Number of bins ``B``, at least 1. Numbers with different ``B`` cannot be compared.
        probabilities: Take ``logits`` for probabilities instead of applying a softmax. It is not guessed.

    Returns:
        A number between 0 and 1.

    Raises:
        TypeError: If ``logits`` is not floating point, ``mask`` not a bool tensor, or ``num_bins`` no integer.
        ValueError: If the shapes do not fit, no node is counted, ``num_bins`` is below 1, a logit is NaN or infinite,
            or rows that should be probabilities are negative or do not add up to 1.

    Example:
        >>> probs = torch.tensor([[0.75, 0.25], [0.75, 0.25], [0.5, 0.5]])
        >>> round(expected_calibration_error(probs, torch.tensor([0, 1, 0]), num_bins=2, probabilities=True), 4)
        0.3333

    Source: Guo et al., *On calibration of modern neural networks*, ICML 2017, Section 2.
    """
    num_bins = check_count(num_bins, "num_bins")
    if not isinstance(logits, Tensor) or not logits.is_floating_point():
        kind = getattr(logits, "dtype", type(logits).__name__)
        raise TypeError(f"'logits' must be a floating point tensor (got {kind})")
    logits, y = counted(logits, y, mask)
    correct, confidence = _predictions(logits.detach(), y, probabilities)
    edges = torch.arange(1, int(num_bins), dtype=torch.float64, device=logits.device) / int(num_bins)
    where = torch.bucketize(confidence, edges)  # number of inner edges below the confidence
    # n_b * (acc_b - conf_b) is a sum over the bin, so that no empty bin is divided by.
    gap = torch.zeros(int(num_bins), dtype=torch.float64, device=logits.device)
    gap.index_add_(0, where, correct.double() - confidence)
    return float(gap.abs().sum() / y.numel())


def _predictions(logits: Tensor, y: Tensor, probabilities: bool) -> tuple[Tensor, Tensor]:
    """Return which nodes are classified correctly, and the largest probability of every node in float64."""
    largest = logits.max(dim=1)
    correct = largest.indices == y
    if not logits.isfinite().all():
        raise ValueError("'logits' holds NaN or infinity")
    if not probabilities:
        confidence = torch.empty(y.numel(), dtype=torch.float64, device=logits.device)
        step = max(1, _BLOCK // logits.size(1))
        for start in range(0, y.numel(), step):
            where = slice(start, start + step)
            shifted = logits[where].double() - largest.values[where].double().unsqueeze(1)
            confidence[where] = shifted.exp_().sum(1).reciprocal_()
        return correct, confidence
    total = logits.sum(1, dtype=torch.float64)
    if bool((logits < 0).any()) or bool(((total - 1).abs() > 1e-2).any()):
        raise ValueError(
            "'logits' must hold probabilities, not negative and with rows that add up to 1 "
            f"(got rows that add up to {float(total.min()):.3g} to {float(total.max()):.3g}); for logits leave out "
            "'probabilities'"
        )
    return correct, largest.values.double()
