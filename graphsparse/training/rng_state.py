"""The state of every global random generator, as plain tensors and numbers."""

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch


def rng_state(generators: Sequence[torch.Generator] = ()) -> dict[str, Any]:
    """Return the state of the global generators of PyTorch, Python and NumPy, and of further ones.

    Args:
        generators: Further generators of PyTorch.

    Returns:
        Tensors and numbers only, so that ``torch.load`` reads them with ``weights_only=True``.

    Example:
        >>> state = rng_state()
        >>> first = torch.rand(2)
        >>> restore_rng_state(state)
        >>> torch.equal(torch.rand(2), first)
        True
    """
    name, words, *rest = np.random.get_state()  # noqa: NPY002 - code of others draws from the global state
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.device_count() else [],
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(np.asarray(words).astype(np.int64)), *rest),
        "generators": [generator.get_state() for generator in generators],
    }


def restore_rng_state(state: dict[str, Any], generators: Sequence[torch.Generator] = ()) -> None:
    """Put the generators back into a state that :func:`rng_state` returned.

    Args:
        state: The state. That of GPUs which are not there is left out.
        generators: The same further generators as before.

    Raises:
        ValueError: If there is another number of further generators.
    """
    if len(generators) != len(state["generators"]):
        raise ValueError(f"'generators' must be the {len(state['generators'])} of the state (got {len(generators)})")
    torch.set_rng_state(state["torch"])
    for device, words in enumerate(state["cuda"][: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(words, device)
    random.setstate(state["python"])
    name, words, *rest = state["numpy"]
    np.random.set_state((name, words.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    for generator, words in zip(generators, state["generators"], strict=True):
        generator.set_state(words)
