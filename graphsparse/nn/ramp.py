"""How the sparsity grows while scores are trained."""

from typing import Literal, TypeAlias

from graphsparse.ops.check import check_count, check_real

#: Shape of a ramp.
Ramp: TypeAlias = Literal["linear", "cubic"]

RAMPS = ("linear", "cubic")


def ramp_factor(step: int, total_steps: int | None, ramp: Ramp | None = "linear", *, end: float = 0.5) -> float:
    r"""Return the fraction of the final sparsity that holds at a step of the training.

    With :math:`t` steps done of :math:`T` and :math:`u = \min(1, t / (e \, T))`, it is :math:`u` on the linear ramp
    and :math:`1 - (1 - u)^3` on the cubic one.

    Args:
        step: Steps done, from 0.
        total_steps: All steps of the training; ``None`` for no ramp.
        ramp: ``"linear"``, ``"cubic"``, or ``None`` for the final sparsity from the first step.
        end: Fraction of the steps after which the final sparsity is reached, in ``(0, 1]``.

    Returns:
        A factor between 0 and 1.

    Raises:
        TypeError: If a number of steps is not an integer.
        ValueError: If an argument is out of range or the ramp is unknown.

    Example:
        >>> [ramp_factor(step, 8) for step in range(6)]
        [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]

    Source: linear: Huang et al., arXiv 2211.15335; cubic: Zhu and Gupta, arXiv 1710.01878.
    """
    if ramp is not None and ramp not in RAMPS:
        raise ValueError(f"'ramp' must be one of {RAMPS} or None (got {ramp!r})")
    end = check_real(end, "end", "a number in (0, 1]")
    if not 0 < end <= 1:
        raise ValueError(f"'end' must be in (0, 1] (got {end!r})")
    check_count(step, "step", 0)
    if total_steps is not None:
        check_count(total_steps, "total_steps")
    if ramp is None or total_steps is None:
        return 1.0
    done = min(1.0, step / (end * total_steps))
    return done if ramp == "linear" else 1 - (1 - done) ** 3
