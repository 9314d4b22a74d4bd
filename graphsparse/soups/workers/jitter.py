"""What is drawn for each ingredient: seeds of its own, and options that differ from one to the next."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from graphsparse.ops.check import check_count, check_list, check_number

#: Values to draw from, by the name of an option.
Jitter: TypeAlias = Mapping[str, Sequence[float]]

#: What may be drawn, and what has a seed of its own. The orders are part of every draw: add at the end only.
JITTERED = ("lr", "weight_decay", "epochs", "dropout")
STREAMS = ("weights", "data", "dropout", "jitter")


def stream_seed(seed: int, stream: str, index: int = 0, part: int = 0) -> int:
    """Return the seed of one of many streams that do not depend on each other.

    The streams are those that NumPy's ``SeedSequence`` spawns, which stay the same from release to release.

    Args:
        seed: The one seed that all follow from, not negative.
        stream: ``"weights"``, ``"data"``, ``"dropout"`` or ``"jitter"``.
        index: Number of the ingredient.
        part: Number of what is drawn, where a stream has several parts.

    Returns:
        A seed below 2**63, for any generator of PyTorch, Python or NumPy.
    """
    spawned = np.random.SeedSequence(entropy=int(seed), spawn_key=(STREAMS.index(stream), index, part))
    return int(spawned.generate_state(1, np.uint64)[0]) >> 1


def draw_jitter(jitter: Jitter | None, seed: int, index: int) -> dict[str, Any]:
    """Draw the options of an ingredient, each from its own stream: what is drawn for one does not depend on others."""
    drawn = {}
    for name, values in (jitter or {}).items():
        rng = np.random.default_rng(stream_seed(seed, "jitter", index, JITTERED.index(name)))
        listed = check_list(values, f"jitter[{name!r}]")
        drawn[name] = listed[int(rng.integers(len(listed)))]
    return drawn


def check_jitter(jitter: Jitter | None) -> None:
    """Refuse options that cannot be drawn, and values that a training cannot run with."""
    if jitter is None:
        return
    if not isinstance(jitter, Mapping):
        raise TypeError(f"'jitter' must map names of options to lists of values (got {type(jitter).__name__})")
    for name, values in jitter.items():
        if name not in JITTERED:
            raise ValueError(f"'jitter' can draw {list(JITTERED)} (got {name!r})")
        label = f"jitter[{name!r}]"
        listed = check_list(values, label)
        if not listed:
            raise ValueError(f"'{label}' must hold at least one value (got none)")
        for value in listed:
            if name == "epochs":
                check_count(value, label)
            elif check_number(value, label, least=0, strictly=name == "lr") >= 1 and name == "dropout":
                raise ValueError(f"'{label}' must be in [0, 1) (got {value!r})")
