"""Independent seeds that all follow from one."""

import numpy as np

#: What is drawn for an ingredient. The order is part of every seed: add at the end only.
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

    Example:
        >>> stream_seed(0, "data", 1) == stream_seed(0, "data", 1) != stream_seed(0, "data", 2)
        True
    """
    spawned = np.random.SeedSequence(entropy=int(seed), spawn_key=(STREAMS.index(stream), index, part))
    return int(spawned.generate_state(1, np.uint64)[0]) >> 1
