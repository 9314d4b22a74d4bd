"""What was computed from tensors, kept for as long as they live and stay as they are."""

import weakref
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary
from torch_geometric import EdgeIndex
from torch_geometric.data.data import BaseData
from torch_geometric.typing import SparseTensor

from graphsparse.ops.adjacency import Adjacency

T = TypeVar("T")

#: Words that are summed into one number of a checksum.
_ROW = 2048
#: Words that are widened at a time on a device.
_CHUNK = 1 << 24
_WORDS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int32}


class State:
    r"""How a tensor is at a moment: its layout, and a checksum of all its bits.

    The bits are read as words of at most 32 bits, :math:`x_j`, in the order of the memory. Each row of 2,048 of them
    gives :math:`\sum_j w_j x_j \bmod 2^{64}` with fixed pseudo-random odd :math:`w_j` of 64 bits. A change of one word
    always changes it. For a change of several words there is, with the others fixed, at most one in :math:`2^{32}` of
    the weights of the word whose lowest changed bit is the lowest of all that hides it; so permutations, changes of
    sign and the like go unseen with a chance of at most :math:`2^{-32}`, whatever the numbers are.

    Args:
        tensor: Of any layout.

    Source: multilinear hashing, Lemire and Kaser, "Strongly universal string hashing is fast", arXiv 1202.4961.
    """

    def __init__(self, tensor: Tensor) -> None:
        self.version, parts = _version(tensor), _parts(tensor)
        self.kind, self._sums = _kind(tensor, parts), [_checksum(part) for part in parts]

    def fits(self, tensor: Tensor) -> bool:
        """Say whether the tensor still is like that; on a device this waits for all that was asked of it before."""
        parts = _parts(tensor)
        return self.kind == _kind(tensor, parts) and all(
            torch.equal(then, _checksum(part)) for then, part in zip(self._sums, parts, strict=True)
        )


def _parts(tensor: Tensor) -> list[Tensor]:
    """Return the dense tensors that a tensor is made of."""
    if isinstance(tensor, EdgeIndex):
        return [tensor.as_tensor()]
    if tensor.layout == torch.sparse_coo:
        return [tensor._indices(), tensor._values()]
    if tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        return [tensor.crow_indices(), tensor.col_indices(), tensor.values()]
    if tensor.layout in (torch.sparse_csc, torch.sparse_bsc):
        return [tensor.ccol_indices(), tensor.row_indices(), tensor.values()]
    return [tensor]


def _kind(tensor: Tensor, parts: list[Tensor]) -> tuple[Any, ...]:
    kinds = [(part.dtype, part.device, tuple(part.shape), part.stride()) for part in parts]
    return (tensor.layout, tuple(tensor.shape), *kinds)


_WEIGHTS = np.random.default_rng(0).integers(-(2**63), 2**63, _ROW, dtype=np.int64) | 1


@cache
def _weights(device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return torch.from_numpy(_WEIGHTS).to(device)


@torch.no_grad()
def _checksum(part: Tensor) -> Tensor:
    """Return the checksum of a dense tensor, int64; nothing is copied where it fills its memory without a gap."""
    part = torch.view_as_real(part.detach().resolve_conj()) if part.is_complex() else part.detach()
    part = part.resolve_neg()
    if not part.is_contiguous():
        order = sorted(range(part.dim()), key=part.stride, reverse=True)
        part = part.permute(order).contiguous()
    words = part.view(-1).view(_WORDS[part.element_size()])
    whole = words.numel() // _ROW * _ROW
    if words.device.type == "cpu":  # torch has no product that widens its words, and takes four times as long
        held = np.from_dlpack(words)  # not by `numpy()`, after which torch no longer resizes the memory
        last = np.dot(held[whole:].astype(np.int64), _WEIGHTS[: held.size - whole])
        rows = np.einsum("ij,j->i", held[:whole].reshape(-1, _ROW), _WEIGHTS) if whole else ()
        return torch.from_numpy(np.append(np.asarray(rows, np.int64), last))
    weights = _weights(words.device)
    sums = [(block.long() * weights).sum(1) for block in torch.split(words[:whole].view(-1, _ROW), _CHUNK // _ROW)]
    return torch.cat([*sums, (words[whole:].long() * weights[: words.numel() - whole]).sum().view(1)])


@dataclass(eq=False)
class _Promise:
    """That a tensor stays as it is, and how it was when something was first computed from it."""

    name: str
    tensor: Tensor
    state: State | None = None

    def is_kept(self) -> bool:
        """Whether the tensor is as it was; a change that torch has counted was noticed."""
        state = self.state
        return state is None or state.version != _version(self.tensor) or state.fits(self.tensor)


_promises: ContextVar[dict[int, _Promise]] = ContextVar("_promises", default={})  # noqa: B039 (is never changed)


@contextmanager
def constant(*graphs: Any) -> Iterator[None]:
    """Promise that graphs and tensors stay as they are inside the block, so that nobody looks whether they have.

    Layers of this package keep what they compute from tensors that need no gradient: edges in another form, the sum of
    constant features over the neighbours. Before they use it again, they read all numbers of these tensors to see
    whether any has changed, in whatever way; that is a pass over all of them, and **on a GPU the host waits for the
    device once for each of them**. Inside this block they look once. What was promised is compared at the end of the
    block once more, so that a broken promise is an error and no wrong result without a word.
    :func:`~graphsparse.training.fit` does this for its graphs.

    Changes in place that torch counts (``x.add_(1)``) are seen in the block, too; changes through ``x.data``, NumPy or
    other memory that is shared are what must not happen.

    Args:
        graphs: Tensors of any layout, ``EdgeIndex``, ``SparseTensor``, graphs of PyG, with all their tensors, or
            ``None``. An :class:`~graphsparse.ops.Adjacency` needs no promise: it never changes.

    Raises:
        TypeError: If something else comes.
        RuntimeError: At the end of the block, if a tensor has changed without being counted.

    Example:
        >>> from graphsparse.nn import GCNConv
        >>> from graphsparse.testing import random_graph
        >>> data, conv = random_graph(), GCNConv(8, 3)
        >>> with constant(data):
        ...     for _ in range(5):
        ...         out = conv(data.x, data.edge_index)
    """
    outer = _promises.get()
    own = {id(tensor): _Promise(name, tensor) for name, tensor in _named(graphs) if id(tensor) not in outer}
    token = _promises.set({**outer, **own})
    try:
        yield
    finally:
        _promises.reset(token)
    changed = [promise.name for promise in own.values() if not promise.is_kept()]
    if changed:
        raise RuntimeError(
            f"{', '.join(changed)} changed in a block of constant(), so what is computed there may be wrong; change "
            "it by operations of torch that are counted, not through '.data' or NumPy, or leave it out of constant()"
        )


def _named(graphs: Sequence[Any]) -> Iterator[tuple[str, Tensor]]:
    """Return all tensors that graphs hold, with names."""
    for graph in graphs:
        if isinstance(graph, BaseData):
            for store in graph.stores:
                values = [(key, value) for key, value in store.items() if isinstance(value, Tensor | SparseTensor)]
                for key, value in values:
                    yield from ((repr(key), tensor) for _, tensor in _named([value]))
        elif isinstance(graph, Tensor):
            yield f"a tensor of shape {list(graph.shape)}", graph
        elif isinstance(graph, SparseTensor):
            yield from _named(graph.coo())
        elif graph is not None and not isinstance(graph, Adjacency):
            raise TypeError(f"'graphs' must be tensors or graphs (got {type(graph).__name__})")


@dataclass
class _Entry:
    versions: list[tuple[int, ...]]
    others: list[weakref.ref[Any]]
    states: list[State] = field(default_factory=list)
    count: int = 0
    found: bool = False
    value: Any = field(default=None, repr=False)
    value_version: tuple[int, ...] = ()


class _Entries(dict[Hashable, _Entry]):
    """A dictionary that can be referred to weakly."""


# Caches: what they hold can always be recomputed, and is dropped with the first of the tensors it belongs to.
_kept: Any = WeakTensorKeyDictionary()
_states: Any = WeakTensorKeyDictionary()


def remember(inputs: Sequence[Any], key: Hashable, compute: Callable[[], T]) -> T:
    """Compute something from inputs once, and give it back for as long as the inputs are the same objects, unchanged.

    A change is seen by the version that torch counts for every tensor, or else by a checksum of all its bits, which is
    compared every time but within :func:`constant`. A result that is a tensor is computed anew if it was changed in
    place. It must not hold the first input, or neither would ever be let go.

    Args:
        inputs: Tensors, or other objects that never change. The first one is a tensor, and owns the result.
        key: Tells apart the things that are computed from the same inputs.
        compute: Called without arguments, and without gradients.
    """
    entry = _entry(inputs, key)
    if entry is None:
        return compute()
    states = _states_of(inputs)
    if entry.states != states:
        entry.found, entry.states = False, states
    return _value(entry, compute)


def remember_repeated(inputs: Sequence[Any], key: Hashable, compute: Callable[[], T | None]) -> T | None:
    """Do as :func:`remember` when the same inputs come for the second time, and nothing before: return ``None`` then.

    That is for what does not pay for a single use. Where ``None`` is computed nothing is kept, and nothing compared.
    """
    entry = _entry(inputs, key)
    if entry is None or entry.count < 2 or (entry.found and entry.value is None):
        return None
    if entry.states:
        states = _states_of(inputs)
        if entry.states != states:
            entry.found, entry.value, entry.states, entry.count = False, None, [], 1
            return None
    value = _value(entry, compute)
    if value is not None and not entry.states:
        entry.states = _states_of(inputs)
    return value


def _states_of(inputs: Sequence[Any]) -> list[State]:
    return [_state_of(item) for item in inputs if isinstance(item, Tensor)]


def _state_of(tensor: Tensor) -> State:
    """Return the state of a tensor, the same object for as long as it has not changed."""
    promise, state = _promises.get().get(id(tensor)), _states.get(tensor)
    if state is None or state.version != _version(tensor) or not (_is(promise, state) or state.fits(tensor)):
        state = _states[tensor] = State(tensor)
    if promise is not None:
        promise.state = state
    found: State = state
    return found


def _is(promise: _Promise | None, state: State) -> bool:
    return promise is not None and promise.state is state


def _entry(inputs: Sequence[Any], key: Hashable) -> _Entry | None:
    """Find or make the entry of these inputs as they are now, and count its use; ``None`` if none can be kept."""
    owner, others = inputs[0], inputs[1:]
    tensors = [item for item in inputs if isinstance(item, Tensor)]
    if any(tensor.is_inference() for tensor in tensors):  # torch counts no versions for these
        return None
    versions = [_version(tensor) for tensor in tensors]
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


def _version(value: Any) -> tuple[int, ...]:
    """Return how often torch has counted a change of a tensor in place."""
    if isinstance(value, EdgeIndex):
        return value._version, value.as_tensor()._version
    return (value._version,) if isinstance(value, Tensor) else ()


def _reference(item: Any, entries: _Entries, key: Hashable) -> weakref.ref[Any]:
    """Refer to an input, and drop what was computed from it when it goes."""
    holder = weakref.ref(entries)  # a strong one would be a cycle, which is only let go when Python looks for cycles

    def forget(_: Any) -> None:
        if (held := holder()) is not None:
            held.pop(key, None)

    return weakref.ref(item, forget)
