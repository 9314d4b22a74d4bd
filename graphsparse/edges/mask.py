"""Keep the marked edges of an edge list, or of a graph with everything that belongs to its edges."""

import copy
from typing import Any

import torch
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.data import Data
from torch_geometric.data.storage import NodeStorage

from graphsparse.ops.csr import csr_tensor
from graphsparse.typing import has_module, optional_module


def mask_edges(edge_index: Tensor, mask: Tensor) -> Tensor:
    """Keep the marked edges; an undirected :class:`~torch_geometric.EdgeIndex` stays undirected.

    Indexing forgets that flag because it cannot know that both directions go together; here they always do.
    """
    kept: Any = edge_index[:, mask]
    if isinstance(edge_index, EdgeIndex) and edge_index.is_undirected:
        kept = EdgeIndex(
            kept.as_tensor(),
            sparse_size=edge_index.sparse_size(),
            sort_order=edge_index.sort_order,
            is_undirected=True,
        )
    return kept  # type: ignore[no-any-return]


def mask_store_(store: Any, mask: Tensor) -> None:
    """Keep the marked edges of a PyG storage in place, with every attribute of the edges."""
    if isinstance(store, NodeStorage):
        fix_num_nodes_(store)
    # Which attributes belong to edges is asked while 'edge_index' still has its full length. Labels of links are not
    # edges of the graph, even when there are as many.
    attributes = [key for key in store.keys() if store.is_edge_attr(key) and "edge_label" not in key]  # noqa: SIM118
    index = mask.nonzero().squeeze(1)
    for key in attributes:
        value = store[key]
        if key == "edge_index":
            store[key] = mask_edges(value, mask)
        elif isinstance(value, Tensor):
            store[key] = value.index_select(store._parent().__cat_dim__(key, value, store), index.to(value.device))
        else:
            store[key] = [value[i] for i in index.tolist()]


def mask_data_edges(data: Data, mask: Tensor) -> Data:
    """Return a shallow copy of a graph that holds the marked edges only."""
    data = copy.copy(data)
    mask_store_(data._store, mask)
    return data


def fix_num_nodes_(store: Any) -> int:
    """Return the number of nodes of a storage and, where only its edges told it, write it down.

    A node that loses all its edges stays a node.
    """
    num_nodes = store.num_nodes
    if not {"num_nodes", "x", "pos", "batch", "adj_t"} & set(store.keys()):
        store.num_nodes = num_nodes
    return int(num_nodes)


def is_sparse_tensor(value: Any) -> bool:
    """Whether something is a ``SparseTensor`` of torch-sparse."""
    return has_module("torch_sparse") and isinstance(value, optional_module("torch_sparse").SparseTensor)


def matrix_entries(matrix: Any, name: str) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return row, column and value of every entry of a torch CSR matrix or a ``SparseTensor``, in its order."""
    if is_sparse_tensor(matrix):
        return matrix.coo()  # type: ignore[no-any-return]
    if not isinstance(matrix, Tensor) or matrix.layout != torch.sparse_csr:
        kind = f"{type(matrix).__name__} {getattr(matrix, 'layout', '')}"
        raise ValueError(f"'{name}' must be a torch CSR tensor or a SparseTensor (got {kind})")
    crow, col = matrix.crow_indices(), matrix.col_indices().long()
    row = torch.repeat_interleave(torch.arange(matrix.size(0), device=crow.device), crow.diff())
    return row, col, matrix.values()


def with_entries(matrix: Any, row: Tensor, col: Tensor, value: Tensor | None) -> Any:
    """Return a matrix of the same kind and size with other entries, which are sorted by row."""
    if not isinstance(matrix, Tensor):
        return type(matrix)(row=row, col=col, value=value, sparse_sizes=matrix.sparse_sizes(), is_sorted=True)
    crow = matrix.crow_indices().new_zeros(matrix.size(0) + 1)
    crow[1:] = torch.bincount(row, minlength=matrix.size(0)).cumsum(0)
    assert value is not None
    return csr_tensor(crow, col.to(crow.dtype), value, matrix.size())
