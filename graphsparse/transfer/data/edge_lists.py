"""Every list of edges that a graph holds, wherever it is: edge lists, adjacencies, pairs among other attributes."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data, HeteroData
from torch_geometric.utils import is_sparse, to_edge_index

from graphsparse.ops.adjacency import Adjacency

#: Parts of names by which an attribute says that it holds pairs of nodes.
_NAMED = ("edge", "adj", "link", "pair")


@dataclass(frozen=True)
class EdgeList:
    """Pairs of nodes that a graph holds under some name.

    Attributes:
        name: Where they are.
        pairs: Global numbers of both ends, ``[2, E]``.
        messages: Whether they are the edges of the graph.
        sure: Whether they are pairs of nodes without doubt: a matrix with two columns may be something else.
    """

    name: str
    pairs: Tensor
    messages: bool
    sure: bool


def feature_pairs(x: Any, ids: Tensor, sizes: tuple[int, int]) -> EdgeList | None:
    """Return what features with a column per node say of pairs of nodes: rows of an adjacency are such.

    Args:
        x: Features, a row for each of some nodes.
        ids: Global numbers of these nodes.
        sizes: As of :func:`edge_lists`.
    """
    if not isinstance(x, Tensor) or x.dim() != 2 or x.size(1) not in (ids.numel(), *sizes):
        return None
    u, v = _ends(x).pairs if x.layout == torch.sparse_csr else x.cpu().nonzero().t()
    other = ids if x.size(1) == ids.numel() else torch.arange(x.size(1))
    return EdgeList("x", torch.stack([ids[u], other[v]]), messages=False, sure=False)


def edge_lists(graph: Any, sizes: tuple[int, int]) -> Iterator[EdgeList]:
    """Yield every list of edges in a graph with nodes in the numbers of a pair of graphs.

    Args:
        graph: A ``Data`` or ``HeteroData``, with ``n_id`` where its nodes are not the target's or all of the pair's; an
            ``Adjacency``, ``SparseTensor`` or sparse tensor.
        sizes: Number of the target's nodes, and of all nodes of the pair.

    Example:
        >>> graph = Data(edge_index=torch.tensor([[0], [1]]), known={"links": [(1, 2), (0, 2), (2, 0)]}, num_nodes=3)
        >>> [(found.name, found.pairs.tolist(), found.messages) for found in edge_lists(graph, (3, 3))]
        [('edge_index', [[0], [1]], True), ('known.links', [[1, 0, 2], [2, 2, 0]], False)]
    """
    if isinstance(graph, Adjacency) or _is_matrix(graph):
        ends = _ends(graph)
        if len(set(ends.sizes)) > 1:
            raise ValueError(f"'graph' must be square (got {list(ends.sizes)})")
        ids = _ids(None, ends.sizes[0], sizes, "graph")
        yield EdgeList("adjacency", ids[ends.pairs], messages=True, sure=True)
    elif isinstance(graph, Data):
        ids = _ids(graph.get("n_id"), int(graph.num_nodes), sizes, "graph")
        yield from _in_store(graph.to_dict(), "", (ids, ids))
    elif isinstance(graph, HeteroData):
        yield from _in_hetero(graph, sizes)
    else:
        raise TypeError(
            "'graph' must be a Data, a HeteroData, an Adjacency, a SparseTensor or a sparse tensor (got "
            f"{type(graph).__name__})"
        )


def _in_hetero(graph: HeteroData, sizes: tuple[int, int]) -> Iterator[EdgeList]:
    """Look at every type of nodes and edges; without ``n_id`` nodes are numbered type by type, as PyG does."""
    counts = {kind: int(graph[kind].num_nodes) for kind in graph.node_types}
    if not any("n_id" in graph[kind] for kind in counts):
        every = _ids(None, sum(counts.values()), sizes, "graph")
        ids = dict(zip(counts, torch.split(every, [*counts.values()]), strict=True))
    else:
        ids = {kind: _ids(graph[kind].get("n_id"), count, sizes, f"graph[{kind!r}]") for kind, count in counts.items()}
        every = torch.cat([*ids.values()])
    for kind in graph.node_types:
        yield from _in_store(graph[kind].to_dict(), f"{kind}.", (ids[kind], ids[kind]))
    for kind in graph.edge_types:
        yield from _in_store(graph[kind].to_dict(), f"{'-'.join(kind)}.", (ids[kind[0]], ids[kind[-1]]))
    yield from _in_store(dict(graph._global_store), "", (every, every))


def _ids(n_id: Any, count: int, sizes: tuple[int, int], name: str) -> Tensor:
    """Return the global number of each node."""
    if n_id is None:
        if count not in sizes:
            raise ValueError(
                f"'{name}' has {count} nodes, the target {sizes[0]} and the pair {sizes[1]}: 'n_id' must name them"
            )
        return torch.arange(count)
    ids: Tensor = n_id.cpu().long()
    if ids.shape != (count,) or bool(((ids < 0) | (ids >= sizes[1])).any()):
        raise ValueError(f"'{name}' has nodes that this pair does not have")
    return ids


def _in_store(store: Mapping[str, Any], prefix: str, ids: tuple[Tensor, Tensor]) -> Iterator[EdgeList]:
    for key, value in store.items():
        if isinstance(key, str):
            yield from _in_value(value, f"{prefix}{key}", ids, messages=key in ("edge_index", "adj_t", "adj"))


def _in_value(value: Any, name: str, ids: tuple[Tensor, Tensor], *, messages: bool) -> Iterator[EdgeList]:
    """Look at a value, and at what is in dictionaries and lists."""
    if "neg" in name.rpartition(".")[2]:  # pairs that are said to be no links
        return
    if isinstance(value, Adjacency) or _is_matrix(value):
        ends = _ends(value)
        # Rows are destinations by PyG's rule and by ours; of other matrices between two types it is not known.
        by_rule = isinstance(value, Adjacency) or name.endswith("adj_t")
        for one, other in [(1, 0)] if by_rule or ids[0] is ids[1] else [(1, 0), (0, 1)]:
            if ends.sizes == (ids[one].numel(), ids[other].numel()):
                pairs = torch.stack([ids[one][ends.pairs[0]], ids[other][ends.pairs[1]]])
                yield EdgeList(name, pairs, messages, _named(name))
        return
    if isinstance(value, (Mapping, list, tuple, set, frozenset)):
        listed = _as_pairs(value)
        if listed is None:
            parts = value.items() if isinstance(value, Mapping) else [("", part) for part in value]
            for key, part in parts:
                if isinstance(part, (Tensor, np.ndarray, Mapping, list, tuple, set, frozenset)):
                    yield from _in_value(part, f"{name}.{key}".rstrip("."), ids, messages=False)
            return
        value = listed
    if isinstance(value, np.ndarray) and value.dtype.kind in "iu":
        value = torch.from_numpy(value.astype(np.int64))
    if not isinstance(value, Tensor) or value.dim() != 2 or value.layout != torch.strided:
        return
    plain = value.as_subclass(Tensor).detach()
    if plain.shape == (ids[0].numel(), ids[1].numel()):  # an adjacency, as features are at times
        u, v = plain.cpu().nonzero().t()
        yield EdgeList(name, torch.stack([ids[0][u], ids[1][v]]), messages, sure=False)
    if plain.is_floating_point() or plain.is_complex() or plain.dtype == torch.bool:
        return
    for pairs, sure in ((plain, True), (plain.t(), _named(name))):
        if pairs.size(0) == 2:
            inside = ((pairs >= 0) & (pairs < torch.tensor([[ids[0].numel()], [ids[1].numel()]]).to(pairs))).all(0)
            u, v = pairs[:, inside].cpu().long()
            yield EdgeList(name, torch.stack([ids[0][u], ids[1][v]]), messages, sure)


def _named(name: str) -> bool:
    """Say whether a name tells that pairs of nodes are under it."""
    return any(part in name for part in _NAMED) and "attr" not in name


def _as_pairs(value: Any) -> Tensor | None:
    """Return a collection of pairs of integers, or the neighbours of each node in a dictionary, as ``[2, P]``."""
    collections = (list, tuple, set, frozenset)
    if isinstance(value, Mapping):
        if not all(type(key) is int and isinstance(part, collections) for key, part in value.items()):
            return None
        value = [(key, end) for key, part in value.items() for end in part]
    pairs = [tuple(one) for one in value if isinstance(one, (list, tuple)) and len(one) == 2]
    if len(pairs) < len(value) or not all(type(end) is int for pair in pairs for end in pair):
        return None
    return torch.tensor(pairs, dtype=torch.int64).view(-1, 2).t()


@dataclass(frozen=True)
class _Ends:
    pairs: Tensor
    sizes: tuple[int, ...]


def _is_matrix(value: Any) -> bool:
    return bool(is_sparse(value))


def _ends(matrix: Any) -> _Ends:
    """Return rows and columns of the entries of a sparse matrix, and its sizes."""
    if isinstance(matrix, Adjacency):
        count = matrix.rowptr.cpu().diff().long()
        row = torch.arange(count.numel()).repeat_interleave(count)
        return _Ends(torch.stack([row, matrix.col.cpu().long()]), (matrix.num_dst, matrix.num_src))
    sizes = tuple(matrix.sizes()) if hasattr(matrix, "sizes") else tuple(matrix.shape)
    # PyG would mark the tensor of the user as one whose entries are each there once.
    coo = isinstance(matrix, Tensor) and matrix.layout == torch.sparse_coo
    pairs = matrix._indices() if coo else to_edge_index(matrix)[0]
    return _Ends(pairs.cpu().long(), sizes[:2])
