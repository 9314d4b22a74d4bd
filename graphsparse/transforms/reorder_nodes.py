"""Renumber the nodes of a graph so that neighbours lie close together in memory."""

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.data import Batch, Data, HeteroData
from torch_geometric.data.datapipes import functional_transform
from torch_geometric.transforms import BaseTransform

from graphsparse.edges.attributes import (
    attribute_kinds,
    check_one_graph,
    holds_node_numbers,
    is_integers,
    node_numbers,
    other_integers,
    take,
    warn_of,
)
from graphsparse.edges.mask import fix_num_nodes_, matrix_entries, with_entries
from graphsparse.edges.undirected import undirected_edges
from graphsparse.ops.check import check_count
from graphsparse.ops.pairs import key_pairs, pair_keys, sort_keys
from graphsparse.utils.partition import partition_graph

METHODS = ("metis", "rcm")
#: Nodes of a part.
_PART = 256


@functional_transform("reorder_nodes")
class ReorderNodes(BaseTransform):  # type: ignore[misc]
    r"""Renumbers nodes so that neighbours lie close together: sparse products get faster, and nothing else changes.

    ``metis`` lines up the parts of :func:`~graphsparse.utils.partition_graph`, one per 256 nodes, each in its old
    order; ``rcm`` is reverse Cuthill-McKee (small bandwidth). Both see the undirected graph without self-loops.

    Everything follows. What has an entry for each node or edge is brought into their order, by size and by name: what
    is per edge has ``edge`` in its name, or is called ``e_id`` or ``time``. Attributes that hold node numbers by PyG's
    rule (``__inc__``: integers in attributes with ``index`` in their names, also in dictionaries and lists, and
    ``face``) are renumbered, and OGB's ``split_edge`` is, too. So ``edge_label_index`` is renumbered and keeps its
    order, as does ``edge_label``. What may hold node numbers but is not known to, such as ``train_idx`` or a dictionary
    with other tensors of integers, is an error that names it. The edges are those of ``edge_index`` (tensor or
    :class:`~torch_geometric.EdgeIndex`) and of ``adj_t`` (torch CSR, CSC or COO, or ``SparseTensor``).

    ``data.n_id`` holds the old number of every node. A prediction goes back by ``out[data.n_id] = prediction``, the
    whole graph by :meth:`inverse`. A graph that has ``n_id`` already keeps the numbers it speaks of.

    Edges are sorted by the new destination, then the new source (by source for an ``EdgeIndex`` sorted by row): message
    passing then writes each row of its result once, in order, and a CSR matrix is built without a sort. Equal edges
    keep their order.

    Args:
        method: ``metis`` or ``rcm``.
        seed: Seed of ``metis``.

    Raises:
        TypeError: If the graph is no homogeneous ``Data``, or an argument has the wrong type.
        ValueError: If the method is unknown, the graph is a batch of graphs or bipartite, its edges come in no known
            form, or an attribute may hold node numbers and is not known to.

    Example:
        >>> star = Data(edge_index=torch.tensor([[0, 1, 2], [3, 3, 3]]), y=torch.tensor([5, 6, 7, 8]), num_nodes=4)
        >>> out = ReorderNodes("rcm")(star)
        >>> out.n_id, out.y, out.edge_index
        (tensor([2, 1, 3, 0]), tensor([7, 6, 8, 5]), tensor([[0, 1, 3],
                [2, 2, 2]]))

    Source: Cuthill and McKee, *Reducing the bandwidth of sparse symmetric matrices*, 1969; partitions: see
    :func:`~graphsparse.utils.partition_graph`.
    """

    def __init__(self, method: str = "metis", seed: int = 0) -> None:
        if method not in METHODS:
            raise ValueError(f"'method' must be one of {METHODS} (got {method!r})")
        self.method = method
        self.seed = check_count(seed, "seed", least=0)

    def forward(self, data: Data) -> Data:
        """Return the renumbered graph; called with a shallow copy by ``BaseTransform.__call__``."""
        store = _checked_store(data)
        num_nodes = fix_num_nodes_(store)
        edges = _edges(store)
        if "n_id" not in store:
            store["n_id"] = torch.arange(num_nodes, device=edges.device)
        plan = _plan(store)
        _permute_(store, self._order(edges, num_nodes), *plan)
        return data

    @staticmethod
    def inverse(data: Data) -> Data:
        """Return the graph in ascending order of ``n_id``, which undoes any number of reorderings.

        Edges come back sorted by destination, then source. ``n_id`` is removed if nothing but ``0, 1, 2, ...`` is left
        of it. The input is not changed.

        Args:
            data: A graph with ``n_id``.

        Raises:
            TypeError: If the graph is no homogeneous ``Data``.
            ValueError: If it has no ``n_id``, or nodes share one.

        Example:
            >>> star = Data(edge_index=torch.tensor([[0, 1, 2], [3, 3, 3]]), num_nodes=4)
            >>> ReorderNodes.inverse(ReorderNodes("rcm")(star))
            Data(edge_index=[2, 3], num_nodes=4)
        """
        data = copy.copy(data)
        store = _checked_store(data)
        if "n_id" not in store:
            raise ValueError(f"'data' must hold 'n_id' (got {list(store.keys())})")
        n_id, order = store["n_id"].sort()
        if bool((n_id[1:] == n_id[:-1]).any()):
            raise ValueError("'n_id' must name every node once (got repeated values)")
        _permute_(store, order, *_plan(store))
        if torch.equal(n_id, torch.arange(n_id.numel(), dtype=n_id.dtype, device=n_id.device)):
            del store["n_id"]
        return data

    def _order(self, edge_index: Tensor, num_nodes: int) -> Tensor:
        """Return the old number of every node in the new order."""
        if self.method == "metis":
            part = partition_graph(edge_index, max(1, num_nodes // _PART), num_nodes, seed=self.seed)
            return part.argsort(stable=True)
        edges = undirected_edges(edge_index, num_nodes)
        if num_nodes == 0:
            return edges.key
        return torch.from_numpy(_cuthill_mckee(*edges.csr())).to(edge_index.device)

    def __repr__(self) -> str:
        """Hold every argument: PyG compares the text to tell whether a stored data set is still the one asked for."""
        return f"{self.__class__.__name__}(method={self.method!r}, seed={self.seed})"


def _cuthill_mckee(pointer: Tensor, neighbour: Tensor) -> np.ndarray:
    # SciPy comes with ogb; only this method needs it.
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import reverse_cuthill_mckee

    size = pointer.numel() - 1
    # The values are not read; the routine takes 32-bit indices only.
    values = np.ones(neighbour.numel(), dtype=np.int8)
    matrix = csr_array((values, neighbour.int().cpu().numpy(), pointer.int().cpu().numpy()), shape=(size, size))
    return np.asarray(reverse_cuthill_mckee(matrix, symmetric_mode=True)).astype(np.int64)


def _checked_store(data: Any) -> Any:
    if isinstance(data, HeteroData):
        raise TypeError(
            "'data' must be a homogeneous Data (got HeteroData): the node types of a HeteroData have no common order"
        )
    if isinstance(data, Batch):
        raise ValueError("'data' must be one graph (got a Batch): reorder the graphs before they are joined")
    check_one_graph(data)
    store = data._store
    if "n_id" in store:
        n_id = store["n_id"]
        if not is_integers(n_id) or list(n_id.shape) != [data.num_nodes] or not isinstance(n_id, Tensor):
            raise ValueError(f"'n_id' must be an integer tensor of shape [{data.num_nodes}] (got {n_id!r})")
    return store


def _edges(store: Any) -> Tensor:
    if "edge_index" in store:
        return store["edge_index"].as_subclass(Tensor)  # type: ignore[no-any-return]
    if "adj_t" in store:
        return torch.stack(matrix_entries(store["adj_t"], "adj_t")[:2])
    raise ValueError(f"'data' must hold 'edge_index' or 'adj_t' (got {list(store.keys())})")


def _permute_(store: Any, order: Tensor, kinds: dict[str, str], numbers: list[str]) -> None:
    """Bring the nodes of a storage into the given order, and its edges into that of their new ends, in place."""
    new_id = torch.empty_like(order)
    new_id[order] = torch.arange(order.numel(), device=order.device)
    # Asked while everything still fits together.
    dims = {key: store._parent().__cat_dim__(key, store[key], store) for key, kind in kinds.items() if kind != "other"}
    renumbered = {key: _renumber(store, key, key, store[key], new_id) for key in numbers}
    edge_order = None
    for key in (key for key, kind in kinds.items() if kind == "matrix"):
        # Where there is no edge_index, attributes of the edges are in the order of the matrix, as ToSparseTensor does.
        store[key], edge_order = _permute_matrix(store[key], key, new_id)
    if "edge_index" in store:
        store["edge_index"], edge_order = _permute_edges(store["edge_index"], new_id, "edge" in kinds.values())
    for key, kind in kinds.items():
        value = renumbered.get(key, store[key])
        if kind in ("node", "edge"):
            along = order if kind == "node" else edge_order
            assert along is not None
            value = take(key, value, along, dims[key])
        if value is not store[key]:
            store[key] = value


def _plan(store: Any) -> tuple[dict[str, str], list[str]]:
    """Return what each attribute belongs to, and which hold node numbers; refuse those that only may."""
    kinds, doubts = attribute_kinds(store)
    found = node_numbers(store, kinds)
    for key, sure in found.items():
        if not sure:
            raise ValueError(
                f"'{key}' may hold node numbers, which would be wrong in the new order: PyG knows them by names with "
                f"'index' in them, such as '{key.replace('idx', 'index') if 'idx' in key else 'train_index'}' (in a "
                "dictionary by its own keys); rename it, or remove it"
            )
    stay = "is left as it is: node numbers are known by names with 'index' in them"
    warn_of({**dict.fromkeys(set(other_integers(store, kinds)) - set(found), stay), **doubts})
    return kinds, list(found)


def _renumber(store: Any, top: str, key: str, value: Any, new_id: Tensor, inside: str = "") -> Any:
    """Replace old node numbers by new ones, also in containers; negative entries are padding and stay."""
    if isinstance(value, Mapping):
        out = copy.copy(value)
        for inner, part in value.items():
            out[inner] = _renumber(store, top, str(inner), part, new_id, "dict")  # type: ignore[index]
        return out
    if isinstance(value, (list, tuple, set, frozenset)):
        parts = [_renumber(store, top, key, part, new_id, "list") for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    if not holds_node_numbers(store, top, key, value, inside):
        return value
    if isinstance(value, np.ndarray):
        return _new_numbers(top, torch.from_numpy(value), new_id).numpy()
    if not isinstance(value, Tensor):
        return int(_new_numbers(top, torch.tensor(int(value)), new_id))
    renumbered = _new_numbers(top, value.as_subclass(Tensor), new_id)
    if isinstance(value, EdgeIndex):
        return EdgeIndex(renumbered, sparse_size=(new_id.numel(),) * 2, is_undirected=value.is_undirected)
    return renumbered


def _new_numbers(key: str, value: Tensor, new_id: Tensor) -> Tensor:
    if value.numel() and int(value.max()) >= new_id.numel():
        raise ValueError(f"'{key}' must hold node numbers below {new_id.numel()} (got {int(value.max())})")
    new_id = new_id.to(value.device)
    return torch.where(value < 0, value, new_id[value.clamp(min=0).long()].to(value.dtype))


def _permute_edges(edge_index: Tensor, new_id: Tensor, needed: bool) -> tuple[Tensor, Tensor | None]:
    """Return the renumbered edges in their new order, and that order if it is needed."""
    is_class = isinstance(edge_index, EdgeIndex)
    by_row = is_class and edge_index.sort_order == "row"  # type: ignore[attr-defined]
    major, minor = (0, 1) if by_row else (1, 0)
    old, size = edge_index.as_subclass(Tensor), new_id.numel()
    key = pair_keys((new_id[old[major]], new_id[old[minor]]), size, directed=True)
    edge_order = None
    if needed:
        key, edge_order = key.sort(stable=True)
    else:
        key = sort_keys(key)
    new = torch.empty_like(old)
    new[major] = key // max(size, 1)
    new[minor] = key - new[major].long() * size
    if not is_class:
        return new, edge_order
    out = EdgeIndex(
        new,
        sparse_size=(size, size),
        sort_order="row" if by_row else "col",
        is_undirected=edge_index.is_undirected,  # type: ignore[attr-defined]
    )
    return out, edge_order


def _permute_matrix(matrix: Any, key: str, new_id: Tensor) -> tuple[Any, Tensor]:
    """Permute rows and columns of a square matrix; the second result is the order of its entries."""
    row, col, value = matrix_entries(matrix, key)
    size, index = new_id.numel(), new_id.to(row.device)
    if (matrix.size(0), matrix.size(1)) != (size, size):
        raise ValueError(f"'{key}' must be [{size}, {size}] (got [{matrix.size(0)}, {matrix.size(1)}])")
    by_column = getattr(matrix, "layout", None) == torch.sparse_csc
    major, minor = (col, row) if by_column else (row, col)
    keys, order = pair_keys((index[major], index[minor]), size, directed=True).sort(stable=True)
    major, minor = key_pairs(keys, size)
    row, col = (minor, major) if by_column else (major, minor)
    return with_entries(matrix, row, col, None if value is None else value[order]), order
