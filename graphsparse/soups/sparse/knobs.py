"""In what the copies of a sparse soup differ."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

from graphsparse.ops.check import check_integer, check_list, check_real
from graphsparse.utils.counter_random import check_seed

#: What is varied from copy to copy.
Knob: TypeAlias = Literal["seed", "weight_decay", "epochs", "lr"]
KNOBS = ("seed", "weight_decay", "epochs", "lr")


@dataclass(frozen=True)
class Knobs:
    """How one copy is trained.

    Args:
        epochs: Number of epochs.
        lr: Learning rate of Adam.
        weight_decay: L2 coefficient of Adam.
        seed: Seed of dropout and of the order of batches.
    """

    epochs: int
    lr: float
    weight_decay: float
    seed: int = 0


def turn(knobs: Knobs, knob: Knob, copies: int, values: Sequence[float] | None = None) -> list[Knobs]:
    r"""Return the settings of all copies, which differ in one knob.

    Without ``values``, seeds are 0, 1, ...; a learning rate or a weight decay runs from half to twice the given one in
    equal ratios, a number of epochs from half to one and a half times in equal steps.

    Args:
        knobs: What all have in common.
        knob: ``"seed"``, ``"weight_decay"``, ``"epochs"`` or ``"lr"``.
        copies: Number of copies.
        values: One value of the knob for each copy.

    Raises:
        TypeError: If a value has the wrong type.
        ValueError: If the knob is unknown, a value is out of range, or there is another number of them than of copies.

    Example:
        >>> [copy.lr for copy in turn(Knobs(100, 0.01, 5e-4), "lr", 3)]
        [0.005, 0.01, 0.02]
    """
    if knob not in KNOBS:
        raise ValueError(f"'knob' must be one of {KNOBS} (got {knob!r})")
    if values is not None:
        listed = check_list(values, "values")
    else:
        steps = [2 * k / (copies - 1) - 1 if copies > 1 else 0.0 for k in range(copies)]
        centre = getattr(knobs, knob)
        if knob == "seed":
            listed = list(range(copies))
        elif knob == "epochs":
            listed = [max(1, round(centre * (1 + step / 2))) for step in steps]
        else:
            listed = [centre * 2**step for step in steps]
    if len(listed) != copies:
        raise ValueError(f"'values' must hold one value for each of {copies} copies (got {values!r})")
    return [replace(knobs, **{str(knob): _checked(knob, value)}) for value in listed]


def _checked(knob: Knob, value: float) -> Any:
    if knob == "seed":
        return check_seed(value)  # type: ignore[arg-type] # refuses what is no integer
    name = f"values of {knob}"
    number = check_integer(value, name) if knob == "epochs" else check_real(value, name)
    lowest, wanted = {
        "epochs": (1, "at least 1"),
        "lr": (math.ulp(0.0), "finite and positive"),
        "weight_decay": (0, "finite and not negative"),
    }[knob]
    if not lowest <= number < math.inf:
        raise ValueError(f"'{name}' must be {wanted} (got {value!r})")
    return number
