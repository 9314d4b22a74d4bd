"""Keep the marked edges of an edge list, or of a graph with everything that belongs to its edges."""

import copy
from typing import Any

from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.data import Data
from torch_geometric.data.storage import NodeStorage


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
