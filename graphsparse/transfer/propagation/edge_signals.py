"""What label propagation over pairs spreads: three kinds of signal, and how each one changes a score."""

import torch
from torch import Tensor

from graphsparse.ops.blocks import CACHED, blocks

#: What is propagated: outcomes, residuals of the scores, or outcomes together with the evidence for them.
MODES = ("outcome", "residual", "mass")
#: Distance from 0 and 1 that a corrected score keeps, unless the score itself was nearer.
EPS = 1e-6
#: Where each propagated signal is clipped after every round.
BOUNDS = {"outcome": (1e-9, 1 - 1e-9), "residual": (-1.0, 1.0), "mass": (0.0, 1.0)}


def check_mode(mode: str) -> str:
    """Return a mode, or refuse what is none."""
    if mode not in MODES:
        raise ValueError(f"'mode' must be one of {MODES} (got {mode!r})")
    return mode


def check_anchors(mode: str, y: Tensor, p: Tensor, num: int) -> None:
    """Refuse labels or scores of anchors that are no probabilities, or are missing where the mode needs them."""
    for name, values in (("y", y), ("p", p)):
        check_per_pair(values, num, name)
        may_be_nan = name == "y" or mode == "mass"
        for where in blocks(num, CACHED):
            block = values[where]
            fits = (block >= 0) & (block <= 1)
            if may_be_nan:
                fits |= block.isnan()
            if not bool(fits.all()):
                wrong = float(block[~fits][0])
                extra = ", NaN where there is none" if may_be_nan else ""
                raise ValueError(f"'{name}' must hold numbers between 0 and 1{extra} (got {wrong})")


def check_per_pair(values: Tensor, num: int, name: str) -> None:
    """Refuse what is no floating point number per pair."""
    if not isinstance(values, Tensor) or not values.is_floating_point():
        raise TypeError(
            f"'{name}' must be a floating point tensor (got {getattr(values, 'dtype', type(values).__name__)})"
        )
    if values.shape != (num,):
        raise ValueError(f"'{name}' must have one entry per pair, [{num}] (got {list(values.shape)})")


def signals(mode: str, y: Tensor, p: Tensor) -> list[tuple[Tensor, Tensor]]:
    r"""Return what is propagated, as pairs of start :math:`\mathbf{f}^{(0)}` and seed :math:`\mathbf{g}`, float32.

    Args:
        mode: ``"outcome"``: starts at the scores; seeds are the labels, and the scores where there is no label.
            ``"residual"``: start and seed are :math:`y - p`, 0 where there is no label.
            ``"mass"``: two signals. A pair with a label or a score has the evidence 1, others 0; the other signal is
            the label, or the score where there is no label, times the evidence.
        y: Labels ``[C]``, NaN where there is none.
        p: Scores ``[C]``; NaN where there is none, in ``"mass"`` only.

    Example:
        >>> y, p = torch.tensor([1.0, torch.nan]), torch.tensor([0.75, 0.5])
        >>> signals("residual", y, p)[0][1], signals("outcome", y, p)[0][1]
        (tensor([0.2500, 0.0000]), tensor([1.0000, 0.5000]))
    """
    if mode == "residual":
        residual = (y - p).float().nan_to_num_(0.0)
        return [(residual, residual)]
    known = torch.where(y.isnan(), p, y).float()
    if mode == "outcome":
        return [(p.float(), known)]
    evidence = known.isfinite().float()
    known.nan_to_num_(0.0)
    return [(known, known), (evidence, evidence)]


def mix(mode: str, p: Tensor, found: Tensor, lam: float) -> Tensor:
    r"""Return the scores changed by what was found for them, in float64.

    .. math::
        \text{outcome, mass}: (1 - \lambda) p + \lambda f \qquad
        \text{residual}: \mathrm{clip}(p + \lambda f, \epsilon, 1 - \epsilon)

    The clip never moves a score that is nearer to 0 or 1 than :math:`\epsilon` already, so that :math:`f = 0` changes
    nothing. A score that is NaN becomes :math:`f` in ``"mass"``.
    """
    p, found = p.double(), found.double()
    if mode == "residual":
        changed = p + lam * found
        return torch.minimum(torch.maximum(changed, p.clamp(max=EPS)), p.clamp(min=1 - EPS))
    changed = p + lam * (found - p)
    return torch.where(p.isnan(), found, changed) if mode == "mass" else changed
