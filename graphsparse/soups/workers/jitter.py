"""Options that differ from ingredient to ingredient."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from graphsparse.ops.check import check_count, check_list, check_real
from graphsparse.soups.workers.seed_streams import stream_seed

#: Values to draw from, by the name of an option.
Jitter: TypeAlias = Mapping[str, Sequence[float]]

#: What may be drawn. The order is part of every draw: add at the end only.
JITTERED = ("lr", "weight_decay", "epochs", "dropout")


def draw_jitter(jitter: Jitter | None, seed: int, index: int) -> dict[str, float]:
    """Draw the options of an ingredient, each from its own stream.

    What is drawn for one option does not depend on whether others are drawn too.

    Args:
        jitter: Values to draw from, by the name of an option: ``lr``, ``weight_decay``, ``epochs``, ``dropout``.
        seed: Seed of all ingredients.
        index: Number of the ingredient.

    Returns:
        One value for each option that is in ``jitter``.

    Example:
        >>> sorted({draw_jitter({"lr": [0.1, 0.01]}, seed=0, index=i)["lr"] for i in range(20)})
        [0.01, 0.1]
    """
    drawn = {}
    for name, values in (jitter or {}).items():
        rng = np.random.default_rng(stream_seed(seed, "jitter", index, JITTERED.index(name)))
        listed = check_list(values, f"jitter[{name!r}]", "a list of values")
        drawn[name] = listed[int(rng.integers(len(listed)))]
    return drawn


def check_jitter(jitter: Jitter | None) -> None:
    """Refuse options that cannot be drawn, and values that a training cannot run with."""
    if jitter is None:
        return
    if not isinstance(jitter, Mapping):
        raise TypeError(f"'jitter' must map names of options to lists of values (got {type(jitter).__name__})")
    unknown = [name for name in jitter if name not in JITTERED]
    if unknown:
        raise ValueError(f"'jitter' can draw {list(JITTERED)} (got {unknown[0]!r})")
    for name, values in jitter.items():
        listed = check_list(values, f"jitter[{name!r}]", "a list of values")
        if not listed:
            raise ValueError(f"'jitter[{name!r}]' must hold at least one value (got none)")
        for value in listed:
            check_option(name, value, f"jitter[{name!r}]")


def check_option(name: str, value: Any, label: str | None = None) -> None:
    """Refuse a value that a training cannot run with.

    Args:
        name: Name of the option, one of those that can be drawn.
        value: Its value.
        label: What the value is called in the message.
    """
    label = name if label is None else label
    if name == "epochs":
        check_count(value, label)
        return
    number = check_real(value, label)
    if name == "dropout":
        if not 0 <= number < 1:
            raise ValueError(f"'{label}' must be in [0, 1) (got {value!r})")
    elif not math.isfinite(number) or number < 0 or (name == "lr" and number == 0):
        raise ValueError(f"'{label}' must be {'positive' if name == 'lr' else 'at least 0'} (got {value!r})")
