"""Renumber the nodes of a graph so that neighbours lie close together in memory."""

import copy
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.data import Batch, Data
from torch_geometric.data.datapipes import functional_transform
from torch_geometric.transforms import BaseTransform

from graphsparse.edges.mask import fix_num_nodes_, is_sparse_tensor, matrix_entries, with_entries
from graphsparse.edges.undirected import undirected_edges
from graphsparse.ops.check import check_count
from graphsparse.ops.csr import csr_tensor
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

    Everything follows. Which attributes belong to nodes and which to edges is PyG's rule (``is_node_attr`` and
    ``is_edge_attr``); attributes that hold node numbers, again by PyG's rule (``__inc__``: names with ``index`` in
    them, and ``face``), are renumbered. So ``edge_label_index`` is renumbered and keeps its order, as does
    ``edge_label``. The edges are those of ``edge_index`` (tensor or :class:`~torch_geometric.EdgeIndex`) and of
    ``adj_t`` (torch CSR or ``SparseTensor``).

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
        ValueError: If the method is unknown, the graph is a batch of graphs, or its edges come in no known form.

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
        if "num_nodes" not in store and is_sparse_tensor(store.get("x")):
            store["num_nodes"] = store["x"].size(0)  # PyG looks at the edges only
        num_nodes = fix_num_nodes_(store)
        order = self._order(_edges(store), num_nodes)
        if "n_id" not in store:
            store["n_id"] = torch.arange(num_nodes, device=order.device)
        _permute_(store, order)
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
        _permute_(store, order)
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
    if not isinstance(data, Data):
        raise TypeError(
            f"'data' must be a homogeneous Data (got {type(data).__name__}); the node types of a HeteroData have no "
            "common order"
        )
    if isinstance(data, Batch):
        raise ValueError("'data' must be one graph (got a Batch): reorder the graphs before they are joined")
    store = data._store
    if "n_id" in store:
        n_id = store["n_id"]
        if not isinstance(n_id, Tensor) or n_id.is_floating_point() or list(n_id.shape) != [data.num_nodes]:
            raise ValueError(f"'n_id' must be an integer tensor of shape [{data.num_nodes}] (got {n_id!r})")
    return store


def _edges(store: Any) -> Tensor:
    if "edge_index" in store:
        return store["edge_index"].as_subclass(Tensor)  # type: ignore[no-any-return]
    if "adj_t" in store:
        return torch.stack(matrix_entries(store["adj_t"], "adj_t")[:2])
    raise ValueError(f"'data' must hold 'edge_index' or 'adj_t' (got {list(store.keys())})")


def _permute_(store: Any, order: Tensor) -> None:
    """Bring the nodes of a storage into the given order, and its edges into that of their new ends, in place."""
    new_id = torch.empty_like(order)
    new_id[order] = torch.arange(order.numel(), device=order.device)
    # What belongs to what is asked while everything still fits together.
    kinds = {key: _kind(store, key) for key in store.keys()}  # noqa: SIM118
    ids = {key for key, kind in kinds.items() if _holds_node_ids(store, key, kind)}
    edge_order = None
    for key in (key for key, kind in kinds.items() if kind == "matrix"):
        # Where there is no edge_index, attributes of the edges are in the order of the matrix, as ToSparseTensor does.
        store[key], edge_order = _permute_matrix(store[key], key, new_id)
    if "edge_index" in store:
        store["edge_index"], edge_order = _permute_edges(store["edge_index"], new_id, "edge" in kinds.values())
    for key, kind in kinds.items():
        value = store[key]
        if key in ids:
            value = _renumber(key, value, new_id)
        if kind in ("node", "edge"):
            along = order if kind == "node" else edge_order
            assert along is not None
            value = _take(key, value, along, store._parent().__cat_dim__(key, value, store))
        if value is not store[key]:
            store[key] = value


def _kind(store: Any, key: str) -> str:
    value, num_nodes = store[key], store.num_nodes
    if key == "edge_index":
        return "edges"
    # Labels of links are not edges of the graph, even when there are as many, nor nodes.
    if "edge_label" in key:
        return "other"
    sparse = is_sparse_tensor(value)
    if sparse or isinstance(value, Tensor):
        square = value.dim() >= 2 and value.size(0) == value.size(1) == num_nodes
        if square and (key == "adj_t" or isinstance(store._parent().__cat_dim__(key, value, store), tuple)):
            return "matrix"
    if sparse:
        return "node" if value.size(0) == num_nodes else "other"
    # With as many edges as nodes PyG goes by the name of a tensor, but takes every list, and 'e_id', for one of nodes.
    if (key == "e_id" or (isinstance(value, (list, tuple)) and "edge" in key)) and len(value) == store.num_edges:
        return "edge"
    return "node" if store.is_node_attr(key) else "edge" if store.is_edge_attr(key) else "other"


def _holds_node_ids(store: Any, key: str, kind: str) -> bool:
    value = store[key]
    integers = (isinstance(value, Tensor) and not value.is_floating_point() and value.dtype != torch.bool) or (
        isinstance(value, np.ndarray) and np.issubdtype(value.dtype, np.integer)
    )
    if kind in ("edges", "matrix") or "batch" in key or not (integers or isinstance(value, (list, tuple))):
        return False
    increment = store._parent().__inc__(key, value, store)
    moves = isinstance(increment, (int, Tensor)) and bool((torch.as_tensor(increment) == store.num_nodes).all())
    if moves and store.num_nodes > 0 and integers:
        return True
    if kind == "other" and (moves or "idx" in key):
        warnings.warn(
            f"'{key}' is not renumbered: PyG does not know it as a tensor of node numbers; if it is one, name it "
            f"'{key.replace('idx', 'index')}' and make it a tensor",
            stacklevel=2,
        )
    return False


def _renumber(key: str, value: Any, new_id: Tensor) -> Any:
    """Replace old node numbers by new ones; negative entries are padding and stay."""
    if isinstance(value, np.ndarray):
        return _renumber(key, torch.from_numpy(value), new_id).numpy()
    plain = value.as_subclass(Tensor)
    if plain.numel() and int(plain.max()) >= new_id.numel():
        raise ValueError(f"'{key}' must hold node numbers below {new_id.numel()} (got {int(plain.max())})")
    new_id = new_id.to(plain.device)
    renumbered = torch.where(plain < 0, plain, new_id[plain.clamp(min=0).long()].to(plain.dtype))
    if isinstance(value, EdgeIndex):
        return EdgeIndex(renumbered, sparse_size=(new_id.numel(),) * 2, is_undirected=value.is_undirected)
    return renumbered


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
    keys, order = pair_keys((index[row], index[col]), size, directed=True).sort(stable=True)
    row, col = key_pairs(keys, size)
    return with_entries(matrix, row, col, None if value is None else value[order]), order


def _take(key: str, value: Any, order: Tensor, dim: int) -> Any:
    """Bring an attribute of nodes or edges into the given order."""
    if isinstance(value, np.ndarray):
        return np.take(value, order.cpu().numpy(), axis=dim)
    if isinstance(value, (list, tuple)):
        return type(value)([value[i] for i in order.tolist()])
    if is_sparse_tensor(value):
        return value.index_select(dim, order.to(value.device()))
    order = order.to(value.device)
    if value.layout == torch.strided:
        return value.as_subclass(Tensor).index_select(dim, order)
    if value.layout != torch.sparse_csr or dim != 0:
        raise ValueError(f"'{key}' must be dense or CSR (got {value.layout})")
    crow = value.crow_indices()
    length = crow.diff()[order]
    start = torch.cat([crow[:1], length.cumsum(0).to(crow.dtype)])
    entry = torch.arange(value.col_indices().numel(), device=crow.device)
    entry += torch.repeat_interleave(crow[order] - start[:-1], length)
    return csr_tensor(start, value.col_indices()[entry], value.values()[entry], value.size())
