"""Keep the marked edges of an edge list, or of a graph with everything that belongs to its edges."""

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.data import Batch, Data
from torch_geometric.data.storage import EdgeStorage, NodeStorage

from graphsparse.edges.attributes import attribute_kinds, check_one_graph, is_sparse_tensor, num_edges, take, warn_of
from graphsparse.ops.csr import csr_tensor


def mask_edges(edge_index: Tensor, mask: Tensor, *, directed: bool = False) -> Tensor:
    """Keep the marked edges; an undirected :class:`~torch_geometric.EdgeIndex` stays undirected.

    Indexing forgets that flag because it cannot know that both directions go together; here they do, unless it is said
    that edges are ``directed``.
    """
    kept: Any = edge_index[:, mask]
    if isinstance(edge_index, EdgeIndex) and edge_index.is_undirected and (not directed or bool(mask.all())):
        kept = EdgeIndex(
            kept.as_tensor(),
            sparse_size=edge_index.sparse_size(),
            sort_order=edge_index.sort_order,
            is_undirected=True,
        )
    return kept  # type: ignore[no-any-return]


def mask_store_(store: Any, mask: Tensor, *, directed: bool = False) -> None:
    """Keep the marked edges of a PyG storage in place, with every attribute of the edges; see :func:`mask_edges`.

    The edges are those of ``edge_index``, or of ``adj_t`` where that is alone.
    """
    if isinstance(store, NodeStorage):
        fix_num_nodes_(store)
    # What belongs to edges is asked while everything still has its full length.
    own = "edge_index" if "edge_index" in store else "adj_t"
    kinds, doubts = edge_kinds(store, own)
    if bool(mask.all()):
        return
    warn_of({key: doubt for key, doubt in doubts.items() if "edges" in doubt})
    index = mask.nonzero().squeeze(1)
    for key in [key for key, kind in kinds.items() if kind == "edge"]:
        value = store[key]
        store[key] = take(key, value, index, store._parent().__cat_dim__(key, value, store))
    if own == "edge_index":
        store[own] = mask_edges(store[own], mask, directed=directed)
    else:
        store[own] = mask_matrix(store[own], mask)
    if "num_edges" in store:
        store["num_edges"] = index.numel()
    # PyG remembers what belonged to edges by size, and sizes are others now.
    store.__dict__.pop("_cached_attr", None)


def edge_kinds(store: Any, *own: str) -> tuple[dict[str, str], dict[str, str]]:
    """Return what :func:`attribute_kinds` does; refuse a copy of the edges besides those that are known."""
    kinds, doubts = attribute_kinds(store)
    copies = [key for key, kind in kinds.items() if kind == "matrix" and key not in own]
    if copies:
        raise ValueError(f"'{copies[0]}' holds the edges of '{own[0]}' a second time: remove one of the two")
    return kinds, doubts


def mask_data_edges(data: Data, mask: Tensor) -> Data:
    """Return a shallow copy of a graph, or a batch of graphs, that holds the marked edges only."""
    if isinstance(data, Batch) and _knows_its_graphs(data):
        graphs = split_batch(data)
        parts = torch.split(mask, [num_edges(graph._store) for graph in graphs])
        joined: Data = join_batch(data, map(mask_data_edges, graphs, parts))
        return joined
    check_one_graph(data)
    data = copy.copy(data)
    mask_store_(data._store, mask)
    return data


def split_batch(batch: Any) -> list[Any]:
    """Return the graphs of a batch; refuse one that is no longer what it was joined of."""
    if not _knows_its_graphs(batch):
        raise ValueError("'data' is a Batch that was not made by Batch.from_data_list: its graphs cannot be told apart")
    for store in batch.stores:
        own, shift = (whole if store._key is None else whole.get(store._key, {}) for whole in _bounds(batch))
        if any(isinstance(value, Tensor) and value.layout != torch.strided for value in store.values()):
            raise ValueError("'data' is a Batch with sparse tensors, which PyG cannot take apart: use SparseTensor")
        if "edge_index" in store and not (
            "edge_index" in own and _is_joined(store["edge_index"], own["edge_index"], shift["edge_index"])
        ):
            raise ValueError(
                "'edge_index' of the Batch is not the one it was joined of: change the edges of its graphs before, or "
                "make it one graph by Data.from_dict(batch.to_dict())"
            )
        kinds = attribute_kinds(store)[0] if isinstance(store, EdgeStorage) else {}
        for key in set(kinds) - set(own) - _followed(store):
            if kinds[key] in ("edge", "matrix"):
                raise ValueError(f"'{key}' was added to the Batch, not to its graphs: add it before they are joined")
    return batch.to_data_list()  # type: ignore[no-any-return]


def _knows_its_graphs(batch: Any) -> bool:
    # A HeteroData takes any name that ends in "_dict" for a question to its node types.
    return "_slice_dict" in batch.stores[0].__dict__


def _bounds(batch: Any) -> tuple[Any, Any]:
    """Return where the parts of each attribute start, and what was added to them, as PyG keeps it."""
    return batch._slice_dict, batch._inc_dict


def _is_joined(edge_index: Tensor, start: Tensor, shift: Tensor) -> bool:
    """Whether edges are as many as were joined, each between nodes of its own graph."""
    if int(start[-1]) != edge_index.size(1):
        return False
    edges, low = edge_index.as_subclass(Tensor), shift.view(start.numel() - 1, -1).to(edge_index.device)
    graph = torch.repeat_interleave(start.diff().to(edges.device))
    inner = graph < low.size(0) - 1  # the last graph has no next one
    return bool((edges >= low[graph].t()).all() and (edges[:, inner] < low[graph[inner] + 1].t()).all())


def _followed(store: Any) -> set[str]:
    """Return what ``follow_batch`` added to a batch."""
    return {f"{key}{end}" for key in store.keys() for end in ("_batch", "_ptr")}  # noqa: SIM118


def join_batch(batch: Any, graphs: Iterable[Any]) -> Any:
    """Return the graphs as a batch with everything that was added to the old one, nodes being the same."""
    added = [key for store in batch.stores for key in store.keys() if key.endswith("_batch")]  # noqa: SIM118
    out = Batch.from_data_list(list(graphs), follow_batch=[key.removesuffix("_batch") for key in added])
    for store, new in zip(batch.stores, out.stores, strict=True):
        for key in store.keys():  # noqa: SIM118
            if key not in new:
                new[key] = store[key]
    return out


def fix_num_nodes_(store: Any) -> int:
    """Return the number of nodes of a storage and, where only its edges told it, write it down.

    A node that loses all its edges stays a node.
    """
    if "num_nodes" not in store and is_sparse_tensor(store.get("x")):
        store.num_nodes = store["x"].size(0)  # PyG looks at the edges only
    num_nodes = store.num_nodes
    if num_nodes is None:
        name = "data" if store._key is None else f"data[{store._key!r}]"
        raise ValueError(f"'{name}.num_nodes' is missing, and nothing else says how many nodes there are")
    if not {"num_nodes", "x", "pos", "batch", "adj_t"} & set(store.keys()):
        store.num_nodes = num_nodes
    return int(num_nodes)


def matrix_entries(matrix: Any, name: str) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return row, column and value of every entry of a sparse matrix of torch or a ``SparseTensor``, in its order."""
    if is_sparse_tensor(matrix):
        return matrix.coo()  # type: ignore[no-any-return]
    layout = getattr(matrix, "layout", None)
    if isinstance(matrix, Tensor) and layout == torch.sparse_coo and matrix.sparse_dim() == 2:
        row, col = matrix._indices()
        return row, col, matrix._values()
    if not isinstance(matrix, Tensor) or layout not in (torch.sparse_csr, torch.sparse_csc):
        kind = f"{type(matrix).__name__} {layout or ''}"
        raise ValueError(f"'{name}' must be a torch CSR, CSC or COO tensor or a SparseTensor (got {kind})")
    by_row = layout == torch.sparse_csr
    pointer = matrix.crow_indices() if by_row else matrix.ccol_indices()
    minor = (matrix.col_indices() if by_row else matrix.row_indices()).long()
    if pointer.dim() != 1:
        raise ValueError(f"'{name}' must be one matrix (got a batch of them, {list(matrix.shape)})")
    major = torch.repeat_interleave(torch.arange(pointer.numel() - 1, device=pointer.device), pointer.diff())
    return (major, minor, matrix.values()) if by_row else (minor, major, matrix.values())


def with_entries(matrix: Any, row: Tensor, col: Tensor, value: Tensor | None) -> Any:
    """Return a matrix of the same kind and size with other entries, which are sorted as that kind sorts them."""
    if not isinstance(matrix, Tensor):
        return type(matrix)(row=row, col=col, value=value, sparse_sizes=matrix.sparse_sizes(), is_sorted=True)
    assert value is not None
    if matrix.layout == torch.sparse_coo:
        index, together = torch.stack([row, col]), matrix.is_coalesced()
        return torch.sparse_coo_tensor(index, value, matrix.shape, is_coalesced=together, check_invariants=False)
    by_row = matrix.layout == torch.sparse_csr
    old = matrix.crow_indices() if by_row else matrix.ccol_indices()
    major, minor = (row, col) if by_row else (col, row)
    pointer = torch.zeros_like(old)
    pointer[1:] = torch.bincount(major, minlength=old.numel() - 1).cumsum(0)
    if by_row:
        return csr_tensor(pointer, minor.to(old.dtype), value, matrix.shape)
    return torch.sparse_csc_tensor(pointer, minor.to(old.dtype), value, matrix.shape, check_invariants=False)


def mask_matrix(matrix: Any, mask: Tensor) -> Any:
    """Return a sparse matrix with the marked ones of its entries."""
    row, col, value = matrix_entries(matrix, "adj_t")
    return with_entries(matrix, row[mask], col[mask], None if value is None else value[mask])
