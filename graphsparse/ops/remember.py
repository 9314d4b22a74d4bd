"""What was computed from tensors, kept for as long as they live and stay as they are."""

import weakref
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

T = TypeVar("T")


@dataclass
class _Entry:
    versions: list[int]
    others: list[weakref.ref[Any]]
    count: int = 0
    found: bool = False
    value: Any = field(default=None, repr=False)
    value_version: int = 0


class _Entries(dict[Hashable, _Entry]):
    """A dictionary that can be referred to weakly."""


# A cache: what it holds can always be recomputed, and is dropped with the first of the tensors it belongs to.
_kept: Any = WeakTensorKeyDictionary()


def remember(inputs: Sequence[Any], key: Hashable, compute: Callable[[], T]) -> T:
    """Compute something from inputs once, and give it back for as long as the inputs are the same objects, unchanged.

    A change in place is seen by the version that torch counts for every tensor; one through NumPy or ``tensor.data`` is
    not. A result that is a tensor is computed anew if it was changed in place. It must not hold the first input, or
    neither would ever be let go.

    Args:
        inputs: Tensors, or other objects that never change. The first one is a tensor, and owns the result.
        key: Tells apart the things that are computed from the same inputs.
        compute: Called without arguments, and without gradients.
    """
    entry = _entry(inputs, key)
    return compute() if entry is None else _value(entry, compute)


def remember_repeated(inputs: Sequence[Any], key: Hashable, compute: Callable[[], T]) -> T | None:
    """Do as :func:`remember` when the same inputs come for the second time, and nothing before: return ``None`` then.

    That is for what does not pay for a single use.
    """
    entry = _entry(inputs, key)
    if entry is None or entry.count < 2:
        return None
    return _value(entry, compute)


def _entry(inputs: Sequence[Any], key: Hashable) -> _Entry | None:
    """Find or make the entry of these inputs as they are now, and count its use; ``None`` if none can be kept."""
    owner, others = inputs[0], inputs[1:]
    tensors = [item for item in inputs if isinstance(item, Tensor)]
    if any(tensor.is_inference() for tensor in tensors):  # torch counts no versions for these
        return None
    versions = [tensor._version for tensor in tensors]
    entries: _Entries = _kept.setdefault(owner, _Entries())
    full_key = (key, *(id(item) for item in others))
    entry = entries.get(full_key)
    alive = entry is not None and all(ref() is item for ref, item in zip(entry.others, others, strict=True))
    if entry is None or not alive or entry.versions != versions:
        entry = entries[full_key] = _Entry(versions, [_reference(item, entries, full_key) for item in others])
    entry.count += 1
    return entry


def _value(entry: _Entry, compute: Callable[[], T]) -> T:
    if not entry.found or entry.value_version != _version(entry.value):
        with torch.inference_mode(False), torch.no_grad():  # what is kept must serve in training, too
            entry.value, entry.found = compute(), True
        entry.value_version = _version(entry.value)
    value: T = entry.value
    return value


def _version(value: Any) -> int:
    """Return the version of a kept tensor, which someone may have changed in place."""
    return value._version if isinstance(value, Tensor) else 0


def _reference(item: Any, entries: _Entries, key: Hashable) -> weakref.ref[Any]:
    """Refer to an input, and drop what was computed from it when it goes."""
    holder = weakref.ref(entries)  # a strong one would be a cycle, which is only let go when Python looks for cycles

    def forget(_: Any) -> None:
        if (held := holder()) is not None:
            held.pop(key, None)

    return weakref.ref(item, forget)
