"""The nodes of a pair of graphs: their keys read and joined, and which of them each derived graph has."""

import numbers
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress
from operator import eq, not_
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from graphsparse.ops.pairs import find_sorted

#: Keys of the nodes of one graph: int64 ``[N]``, or strings.
NodeKeys: TypeAlias = Tensor | list[str]
#: Names of the graphs that can be derived from a pair.
GRAPHS = ("target", "intersection", "enriched_intersection", "enriched_target", "union", "source")
#: Types whose values stand for a key that is not there.
_MISSING = ("NoneType", "NAType", "NaTType")
#: Roles of nodes.
SOURCE_ONLY, TARGET_ONLY, BOTH = 0, 1, 2


@dataclass(frozen=True)
class NodeMatch:
    """The nodes of a pair of graphs under global numbers: the target's first, then those that only sources have.

    Attributes:
        num_target: Number of the target's nodes; they keep their numbers.
        num_nodes: Number of all nodes.
        source_ids: For each source the global numbers of its nodes, int64.
        in_source: Which nodes some source has, bool ``[num_nodes]``.
    """

    num_target: int
    num_nodes: int
    source_ids: list[Tensor]
    in_source: Tensor

    @property
    def shared(self) -> Tensor:
        """Which of the target's nodes some source has too, bool ``[num_target]``."""
        return self.in_source[: self.num_target]

    def nodes(self, graph: str) -> Tensor:
        """Return the global numbers of the nodes of a derived graph, ascending."""
        if graph in ("intersection", "enriched_intersection"):
            return self.shared.nonzero().view(-1)
        if graph == "source":
            return self.in_source.nonzero().view(-1)
        return torch.arange(self.num_nodes if graph == "union" else self.num_target)

    def role(self, nodes: Tensor) -> Tensor:
        """Return 0 for nodes that only sources have, 1 for those that only the target has, 2 for both; int8."""
        role = torch.where(self.in_source[nodes], BOTH, TARGET_ONLY).to(torch.int8)
        return role.masked_fill_(nodes >= self.num_target, SOURCE_ONLY)


def match_nodes(target: NodeKeys, sources: Sequence[NodeKeys]) -> NodeMatch:
    """Match nodes by their keys, each of which is there once in a graph.

    Example:
        >>> match = match_nodes(["a", "b", "c"], [["c", "d"]])
        >>> match.shared, match.role(torch.arange(4))
        (tensor([False, False,  True]), tensor([1, 1, 2, 0], dtype=torch.int8))
    """
    ids, num_nodes = join_keys(target, sources)
    in_source = torch.zeros(num_nodes, dtype=torch.bool)
    for of_source in ids:
        in_source[of_source] = True
    return NodeMatch(len(target), num_nodes, ids, in_source)


def read_keys(keys: Any, store: Any, num_nodes: int, name: str) -> NodeKeys:
    """Return the keys of the nodes of a graph, checked.

    Args:
        keys: ``N`` integers, strings or bytes in UTF-8 as a tensor, an array, a sequence, or a column of pandas or
            Arrow; or the name of the attribute of ``store`` that holds one of these.
        store: The graph.
        num_nodes: Number of its nodes ``N``.
        name: Name of the argument, for the error messages.

    Example:
        >>> read_keys(["ab", "c"], None, 2, "target_key")
        ['ab', 'c']
    """
    if isinstance(keys, str):
        if keys not in store:
            raise ValueError(f"'{name}' names the attribute {keys!r}, which the graph does not have")
        keys = store[keys]
    keys = _as_array(keys, name)
    if isinstance(keys, np.ndarray) and keys.dtype.kind in "USO":
        keys = keys.tolist()
    found = _integers(keys, name) if isinstance(keys, np.ndarray) else _listed(keys, name)
    if len(found) != num_nodes:
        raise ValueError(f"'{name}' must hold one key per node (got {len(found)} keys for {num_nodes} nodes)")
    _refuse_repeated(found, name)
    return found


def join_keys(target: NodeKeys, sources: Sequence[NodeKeys]) -> tuple[list[Tensor], int]:
    """Number all nodes: those of the target keep their numbers, new ones of the sources follow in the order they come.

    Integers are joined by sorting and binary search, strings by one dictionary.

    Returns:
        For each source the global numbers of its nodes, int64, and how many global numbers there are.

    Example:
        >>> join_keys(torch.tensor([7, 5]), [torch.tensor([9, 5])])
        ([tensor([2, 1])], 3)
    """
    kinds = {isinstance(keys, Tensor) for keys in (target, *sources)}
    if len(kinds) > 1:
        raise TypeError("keys must be integers in all graphs, or strings in all graphs (got both)")
    return _join_integers(target, sources) if kinds == {True} else _join_strings(target, sources)  # type: ignore[arg-type]


def _join_integers(target: Tensor, sources: Sequence[Tensor]) -> tuple[list[Tensor], int]:
    known, number = target.sort()
    total = target.numel()
    numbers: list[Tensor] = []
    for keys in sources:
        ids = find_sorted(keys, known)
        new = ids < 0
        ids[~new] = number[ids[~new]]
        count = int(new.count_nonzero())
        ids[new] = torch.arange(total, total + count)
        if count and len(numbers) + 1 < len(sources):  # a later source may have these nodes too
            known, order = torch.cat([known, keys[new]]).sort()
            number = torch.cat([number, ids[new]])[order]
        total += count
        numbers.append(ids)
    return numbers, total


def _join_strings(target: Sequence[str], sources: Sequence[Sequence[str]]) -> tuple[list[Tensor], int]:
    """Join hashes, and compare the strings of those that are equal."""
    hashes = [torch.from_numpy(np.fromiter(map(hash, keys), np.int64, len(keys))) for keys in (target, *sources)]
    numbers, total = _join_integers(hashes[0], hashes[1:])
    names = list(target)
    for keys, ids in zip(sources, numbers, strict=True):
        old = (ids < len(names)).tolist()
        there = map(names.__getitem__, ids[ids < len(names)].tolist())
        if not all(map(eq, there, compress(keys, old))):
            return _join_by_dictionary(target, sources)  # two strings have one hash
        names.extend(compress(keys, map(not_, old)))
    return numbers, total


def _join_by_dictionary(target: Sequence[str], sources: Sequence[Sequence[str]]) -> tuple[list[Tensor], int]:
    number = dict(zip(target, range(len(target)), strict=True))
    add = number.setdefault
    numbers = [torch.tensor([add(key, len(number)) for key in keys], dtype=torch.int64) for keys in sources]
    return numbers, len(number)


#: What is said of keys that are no keys.
_REMEDY = "give integers of at most 64 bits with sign, or write each key as a string"


def _as_array(keys: Any, name: str) -> Any:
    """Return tensors and columns as an array of one dimension, and any other sequence as it is."""
    if isinstance(keys, Tensor):
        if keys.layout != torch.strided:
            raise TypeError(f"'{name}' must be dense (got the layout {keys.layout})")
        if keys.dtype == torch.bfloat16:  # which NumPy does not have
            raise TypeError(f"'{name}' must hold integers or strings (got {keys.dtype}): {_REMEDY}")
        keys = keys.detach().cpu().numpy()
    elif hasattr(keys, "to_pylist"):  # a column of Arrow, whose strings are no NumPy array
        return keys.to_pylist()
    elif hasattr(keys, "to_numpy"):  # a column, an index or categories of pandas
        keys = keys.to_numpy()
    if isinstance(keys, (bytes, bytearray, memoryview)) or not isinstance(keys, (np.ndarray, Sequence)):
        raise TypeError(f"'{name}' must hold integers or strings, or name an attribute (got {type(keys).__name__})")
    if isinstance(keys, np.ndarray):
        if keys.ndim == 2 and keys.shape[1] == 1:  # as OGB keeps what there is one of per node
            keys = keys.reshape(-1)
        if keys.ndim != 1:
            raise ValueError(f"'{name}' must have one dimension (got shape {list(keys.shape)})")
    return keys


def _integers(keys: "np.ndarray[Any, Any]", name: str) -> NodeKeys:
    if keys.dtype.kind == "f" and np.isnan(keys).any():  # as pandas writes integers of which one is missing
        raise ValueError(f"'{name}' holds missing keys (NaN): every node needs one")
    if keys.dtype.kind not in "iu":
        raise TypeError(f"'{name}' must hold integers or strings (got {keys.dtype}): {_REMEDY}")
    if len(keys) and keys.dtype.kind == "u" and int(keys.max()) >= 2**63:
        raise ValueError(f"'{name}' holds {int(keys.max())}, which is more than 64 bits with sign: {_REMEDY}")
    return torch.from_numpy(keys.astype(np.int64))


def _listed(keys: Sequence[Any], name: str) -> NodeKeys:
    """Return integers as int64, strings as a list, bytes as the strings that they are in UTF-8."""
    kinds = set(map(type, keys))
    missing = sorted(kind.__name__ for kind in kinds if kind.__name__ in _MISSING)
    if not missing and any(issubclass(kind, float) for kind in kinds) and any(key != key for key in keys):
        missing.append("NaN")
    if missing:
        raise ValueError(f"'{name}' holds missing keys ({', '.join(missing)}): every node needs one")
    if kinds and bool not in kinds and all(issubclass(kind, numbers.Integral) for kind in kinds):
        try:
            return torch.from_numpy(np.fromiter(map(int, keys), np.int64, len(keys)))
        except OverflowError:
            far = max(map(int, keys), key=abs)
            raise ValueError(f"'{name}' holds {far}, which is more than 64 bits with sign: {_REMEDY}") from None
    if kinds and all(issubclass(kind, bytes) for kind in kinds):
        try:
            return [key.decode() for key in keys]
        except UnicodeDecodeError as error:
            raise ValueError(f"'{name}' holds bytes that are no UTF-8 ({error.object!r}): {_REMEDY}") from None
    if not all(issubclass(kind, str) for kind in kinds):
        got = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise TypeError(f"'{name}' must hold integers or strings, one kind only (got {got}): {_REMEDY}")
    return list(keys)


def _refuse_repeated(keys: NodeKeys, name: str) -> None:
    if isinstance(keys, Tensor):
        ordered = keys.sort().values
        twice = ordered[1:][ordered[1:] == ordered[:-1]]
        if twice.numel():
            raise ValueError(f"'{name}' must hold every key once (got {int(twice[0])} more than once)")
    elif len(set(keys)) < len(keys):
        seen: set[str] = set()
        first = next(key for key in keys if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"'{name}' must hold every key once (got {first!r} more than once)")
