"""Randomness that comes from a seed and leaves the caller's generators alone."""

import random
import sys
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.parameter import is_lazy
from torch.utils.weak import WeakTensorKeyDictionary

from graphsparse.typing import MakeModel


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the global generators of PyTorch, Python and NumPy inside the block and restore their state afterwards.

    Models draw from PyTorch's; samplers, loaders and transforms of PyG also from the other two. Generators of GPUs are
    among PyTorch's; no GPU is touched that the process does not use.

    Args:
        seed: The seed.

    Example:
        >>> with seeded(0):
        ...     first = torch.rand(2)
        >>> with seeded(0):
        ...     torch.equal(torch.rand(2), first)
        True
    """
    gpus = _gpus()
    states = [] if gpus is None else [gpus.get_rng_state(index) for index in range(gpus.device_count())]
    with torch.random.fork_rng(devices=()):
        python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002 - kept to restore it
        try:
            torch.manual_seed(seed)
            random.seed(seed)
            np.random.seed(seed % 2**32)  # noqa: NPY002 - code of others draws from the global state
            _forget_forwards()
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)  # noqa: NPY002
            for index, words in enumerate(states):
                gpus.set_rng_state(words, index)
    if gpus is None:  # a GPU that is used from now on, or was for the first time, draws what the caller's seed says
        torch.cuda.manual_seed_all(torch.initial_seed())


#: How many modules of Python there were, and which came last, when :func:`_forget_forwards` looked at all of them.
_looked_at: tuple[int, str] | None = None


def _forget_forwards() -> None:
    """Have the next ``Sequential`` of PyG generate its forward pass.

    PyG keeps it under a number that Python's generator draws: the next one after the same seed would get the same
    forward pass, whatever it holds.
    """
    global _looked_at
    if _looked_at == (len(sys.modules), next(reversed(sys.modules))):
        return
    for name in [name for name in list(sys.modules) if name.startswith("torch_geometric.nn.sequential_")]:
        sys.modules.pop(name, None)
    _looked_at = len(sys.modules), next(reversed(sys.modules))


def _gpus() -> Any:
    """Return the module of the accelerator, such as ``torch.cuda``, once the process uses it, else ``None``."""
    device = torch.accelerator.current_accelerator()
    module: Any = None if device is None else torch.get_device_module(device)
    return module if hasattr(module, "is_initialized") and module.is_initialized() else None


#: What models of :func:`build_model` hold, for as long as anyone holds it: parameters, modules with buffers, and the
#: memory of what is trained.
_parameters: Any = WeakTensorKeyDictionary()
_modules: weakref.WeakSet[nn.Module] = weakref.WeakSet()
_storages: dict[int, StorageWeakRef] = {}
#: Functions that were asked for two models.
_seen: weakref.WeakSet[Any] = weakref.WeakSet()


def build_model(make_model: MakeModel, seed: int) -> nn.Module:
    """Build a model whose initial weights follow from the seed.

    What one model trains must not be where another one starts: every model that is built here has to be a new one,
    down to its last parameter. A function that was not seen before is called twice, so that one that gives out an old
    model is found the first time.

    Args:
        make_model: Builds a fresh model.
        seed: Two calls with the same one return equal weights.

    Raises:
        TypeError: If ``make_model`` is a model instead, or does not return one.
        ValueError: If it returns a model, or one with a part or a weight, that it or another function returned before.

    Example:
        >>> from torch_geometric.nn import GCN
        >>> first, second = (build_model(lambda: GCN(4, 8, 2, 3), seed=0) for _ in range(2))
        >>> all(torch.equal(p, q) for p, q in zip(first.parameters(), second.parameters()))
        True
    """
    if isinstance(make_model, nn.Module) or not callable(make_model):
        raise TypeError(
            "'make_model' must be a function that builds a fresh model, so that a recipe can start twice from the same "
            f"weights (got {type(make_model).__name__})"
        )
    with seeded(seed):
        model = _new_model(make_model)
        if not _was_seen(make_model):
            _new_model(make_model)
    return model


def _was_seen(make_model: MakeModel) -> bool:
    """Say whether the function was asked for before; one that cannot be referred to weakly never was."""
    try:
        seen = make_model in _seen
        _seen.add(make_model)
    except TypeError:
        return False
    return seen


def _new_model(make_model: MakeModel) -> nn.Module:
    """Call the function, and refuse a model with anything in it that was in an earlier one."""
    model = make_model()
    if not isinstance(model, nn.Module):
        raise TypeError(f"'make_model' must return a torch.nn.Module (got {type(model).__name__})")
    for cdata, storage in list(_storages.items()):
        if storage.expired():  # type: ignore[no-untyped-call]
            del _storages[cdata]
    named = dict(model.named_parameters())
    # A module without parameters, such as an activation, may be shared; running statistics may not.
    parts = {name: part for name, part in model.named_modules() if any(True for _ in part.buffers(recurse=False))}
    trained = {name: p for name, p in named.items() if p.requires_grad and not is_lazy(p)}
    memory = {n: StorageWeakRef(p.untyped_storage()) for n, p in trained.items()}  # type: ignore[no-untyped-call]
    old = [name for name, parameter in named.items() if parameter in _parameters]
    old += [name for name, part in parts.items() if part in _modules]
    old += [name for name, storage in memory.items() if storage.cdata in _storages]
    if old:
        raise ValueError(
            f"'make_model' must build a new model each time, but {old[0]!r} is that of a model that was built before: "
            "what is trained there would be where this one starts; build every part inside the function, or copy it "
            "there with copy.deepcopy"
        )
    _parameters.update(dict.fromkeys(named.values()))
    _modules.update(parts.values())
    _storages.update({storage.cdata: storage for storage in memory.values()})
    return model


@contextmanager
def kept_state(generators: Sequence[torch.Generator]) -> Iterator[None]:
    """Give generators, such as those of a loader, the state back that they had before the block.

    Args:
        generators: The generators.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> with kept_state([generator]):
        ...     first = torch.rand(2, generator=generator)
        >>> torch.equal(torch.rand(2, generator=generator), first)
        True
    """
    states = [generator.get_state() for generator in generators]
    try:
        yield
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)


def rng_state(generators: Sequence[torch.Generator] = (), device: torch.device | None = None) -> dict[str, Any]:
    """Return the state of the global generators of PyTorch, Python and NumPy, and of further ones.

    Args:
        generators: Further generators of PyTorch.
        device: Device of the model; where it is not the CPU, its generator is one of PyTorch's global ones.

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
        "device": None if _on_cpu(device) else torch.get_device_module(device).get_rng_state(device),
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(np.asarray(words).astype(np.int64)), *rest),
        "generators": [generator.get_state() for generator in generators],
    }


def restore_rng_state(
    state: dict[str, Any], generators: Sequence[torch.Generator] = (), device: torch.device | None = None
) -> None:
    """Put the generators back into a state that :func:`rng_state` returned.

    Args:
        state: The state.
        generators: The same further generators as before.
        device: Device of the model now: of the same kind, and perhaps another one.

    Raises:
        ValueError: If there is another number of further generators.
    """
    if len(generators) != len(state["generators"]):
        raise ValueError(f"'generators' must be the {len(state['generators'])} of the state (got {len(generators)})")
    torch.set_rng_state(state["torch"])
    if state["device"] is not None and not _on_cpu(device):
        torch.get_device_module(device).set_rng_state(state["device"], device)
    random.setstate(state["python"])
    name, words, *rest = state["numpy"]
    np.random.set_state((name, words.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    for generator, words in zip(generators, state["generators"], strict=True):
        generator.set_state(words)


def _on_cpu(device: torch.device | None) -> bool:
    return device is None or device.type == "cpu"
