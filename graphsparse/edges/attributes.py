"""What the attributes of a graph belong to: the one place that says which are per node, per edge, or hold node numbers.

PyG stores attributes without saying what they belong to, and tells by size: what has as many entries as the graph has
nodes, or edges, along ``__cat_dim__`` is per node, or per edge. A pair of nodes for each of as many labels, or the
twelve labels of a molecule with twelve bonds, pass for attributes of edges. So here size and name must agree:

* per edge, in a homogeneous graph, are names with ``edge`` in them, ``e_id`` and ``time``. Not per edge are links to be
  learned, whatever their number: ``edge_label*``, ``neg_edge*``, ``pos_edge*``, and names with ``index``, which are
  node numbers. In an edge type of a ``HeteroData`` nothing else can be per edge, and other names are, too;
* per node are all other names, as in PyG, but for those of what a whole graph has: ``class_names``, ``graph_*``;
* what has a size and a name that do not agree is left as it is, and a warning says so. Where there are as many edges as
  nodes PyG goes by the name, and so does this; names that tell neither are taken per node, with a warning;
* ``edge_attr``, ``edge_weight``, ``edge_type`` and ``e_id`` of any other size are an error;
* where there is no ``edge_index`` the edges are the entries of ``adj_t``, and what is per edge is in their order, which
  is that of ``ToSparseTensor``.

Node numbers are what PyG increments by the number of nodes when it joins graphs (``__inc__``): integers in attributes
with ``index`` in their names, and ``face``; in a dictionary the inner name counts, in a list the name of the list.
``split_edge`` is OGB's dictionary of links and is known, too. Other integers in dictionaries and lists, and tensors
with names such as ``train_idx``, may be node numbers.
"""

import re
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.data import Data
from torch_geometric.data.hypergraph_data import HyperGraphData
from torch_geometric.data.storage import E_KEYS, N_KEYS, EdgeStorage, NodeStorage
from torch_geometric.typing import TensorFrame

from graphsparse.ops.adjacency import Adjacency
from graphsparse.ops.csr import csr_tensor
from graphsparse.typing import has_module, optional_module

#: Links to be learned are no edges of the graph, even where there are as many.
_LINKS = re.compile("edge_label|neg_edge|pos_edge|edges")
#: Names of what a whole graph has, even where there are as many nodes or edges.
_GRAPH = re.compile("^graph_|^class(es|_names?|_weights?)$|(label|target|feature|attr|type)_names$")
#: Names of what may be node numbers, where PyG's rule does not say so.
_PERHAPS = re.compile("idx|node|edge|link|pair|triplet|mapping|root|anchor|seed|train|valid|test|split|^val|_val|^ptr$")
#: Names of integers that are none.
_NEVER = re.compile("^y$|label|class|batch|^num_|^n_id$|^e_id$")
#: OGB's names of node numbers in ``split_edge``, and of what else is there.
_OGB_NODES = {
    "edge",
    "edge_neg",
    "source_node",
    "target_node",
    "target_node_neg",
    "head",
    "tail",
    "head_neg",
    "tail_neg",
}
_OGB_OTHER = {"weight", "year", "relation"}


def is_sparse_tensor(value: Any) -> bool:
    """Whether something is a ``SparseTensor`` of torch-sparse."""
    return has_module("torch_sparse") and isinstance(value, optional_module("torch_sparse").SparseTensor)


def check_one_graph(data: Any, name: str = "data") -> None:
    """Refuse what is no homogeneous graph with one set of nodes."""
    if not isinstance(data, Data):
        raise TypeError(f"'{name}' must be a homogeneous Data (got {type(data).__name__})")
    if isinstance(data, HyperGraphData):
        kind = f"{type(data).__name__}, whose 'edge_index' joins nodes to hyperedges"
        raise TypeError(f"'{name}' must be a homogeneous Data (got {kind})")
    if _has_two_sides(data):
        raise ValueError(
            f"'{name}' must have one set of nodes (got a bipartite graph, whose 'edge_index' numbers two): make it a "
            f"HeteroData with two node types (it has {list(data.keys())})"
        )


def _has_two_sides(data: Data) -> bool:
    store = data._store
    if isinstance(store.get("x"), (list, tuple)):
        return True
    tensors = {key: value for key, value in store.items() if key.startswith("x_") and isinstance(value, Tensor)}
    sides = [value.size(0) for value in tensors.values() if value.dim() == 2]
    if "x" not in store and len(sides) > 1 and ("x_s" in store or set(sides) != {store.get("num_nodes")}):
        return True
    edge_index, matrix = store.get("edge_index"), store.get("adj_t")
    if isinstance(edge_index, EdgeIndex):
        known = [size for size in edge_index.sparse_size() if size is not None]
        if len(set(known)) == 2:
            return True
    if edge_index is not None and type(data).__inc__ is not Data.__inc__:
        increment = data.__inc__("edge_index", edge_index, store)
        if isinstance(increment, Tensor) and increment.numel() == 2:
            return True
    return (is_sparse_tensor(matrix) or isinstance(matrix, Tensor)) and matrix.size(0) != matrix.size(1)


def num_edges(store: Any) -> int:
    """Return the number of edges of a storage; PyG would take any tensor with ``edge`` in its name for one of edges."""
    if "edge_index" in store:
        return int(store["edge_index"].size(1))
    matrix = store.get("adj_t")
    if is_sparse_tensor(matrix):
        return int(matrix.nnz())
    return int(matrix._nnz()) if isinstance(matrix, Tensor) and matrix.layout != torch.strided else 0


def attribute_kinds(store: Any) -> tuple[dict[str, str], dict[str, str]]:
    """Return the kind of each attribute of a storage, and what to say of those whose name and size do not agree.

    A kind is ``"edges"`` for ``edge_index``, ``"matrix"`` for a sparse adjacency matrix, ``"node"`` for one entry per
    node, ``"edge"`` for one entry per edge, and ``"other"``.
    """
    sizes = (store.num_nodes if isinstance(store, NodeStorage) else None, num_edges(store))
    kinds, doubts = {}, {}
    for key, value in store.items():
        kinds[key], doubt = _kind(store, key, value, *sizes)
        if doubt:
            doubts[key] = doubt
    matrix = store.get("adj_t")
    if "edge_index" not in store and isinstance(matrix, Tensor) and matrix.layout == torch.sparse_csc:
        named = [key for key, kind in kinds.items() if kind == "edge"]
        if named:
            raise ValueError(
                f"{named[0]!r} is in the order of rows or of columns of 'adj_t', a CSC tensor: make it CSR"
            )
    return kinds, doubts


def warn_of(doubts: Mapping[str, str]) -> None:
    """Say of attributes that they are not what their size or their name says."""
    for key, doubt in doubts.items():
        warnings.warn(f"'{key}' {doubt}", stacklevel=3)


def _kind(store: Any, key: str, value: Any, num_nodes: int | None, edges: int) -> tuple[str, str]:
    if key == "edge_index":
        return "edges", ""
    dim = None if key == "num_nodes" else store._parent().__cat_dim__(key, value, store)
    if isinstance(value, Adjacency) or (isinstance(dim, tuple) and "adj" in key):
        return "matrix", ""
    rows = _rows(value, dim)
    if isinstance(value, Mapping) and "edge" in key and not _LINKS.search(key) and key != "split_edge":
        full = edges > 0 and any(_rows(part, 0) == edges for part in value.values())
        return "other", "holds as many entries as there are edges, in a dictionary: it is left as it is" if full else ""
    if rows is None or key == "face" or ("index" in key and getattr(value, "ndim", 1) > 1):
        return "other", ""
    if not isinstance(store, EdgeStorage):
        return ("node" if rows == num_nodes else "other"), ""
    if key in E_KEYS and rows != edges and ("edge_index" in store or "adj_t" in store):
        raise ValueError(f"'{key}' must have one entry for each of {edges} edges (got {rows})")
    if not isinstance(store, NodeStorage):
        if rows != edges or re.search("edge_label|neg_edge|pos_edge", key):
            return "other", ""
        if "edges" in key or "index" in key:
            return "other", _doubt(rows, "edges")
        return "edge", ""
    return _kind_by_name(key, value, rows, num_nodes, edges)


def _kind_by_name(key: str, value: Any, rows: int, num_nodes: int | None, edges: int) -> tuple[str, str]:
    """Return what an attribute of a homogeneous graph belongs to, and a doubt."""
    what = "edges" if rows == edges else "nodes" if rows == num_nodes else ""
    if _GRAPH.search(key) and what:
        return "other", _doubt(rows, what)
    if "node" in key and rows == num_nodes:
        return "node", ""
    if _LINKS.search(key) and not ("edges" in key and what):
        return "other", ""
    if "edge" in key or key == "e_id":
        if rows == edges and "index" not in key and "edges" not in key:
            return "edge", ""
        if what:
            return "other", _doubt(rows, what)
        named = isinstance(value, (Tensor, np.ndarray)) and "index" not in key
        return "other", f"has {rows} entries for {edges} edges: it is left as it is" if named else ""
    if rows == num_nodes:
        clear = num_nodes != edges or key in N_KEYS or key in ("y", "z") or "mask" in key
        both = f"has as many entries, {rows}, as there are nodes and edges: it is taken to belong to nodes"
        return "node", "" if clear else f"{both}, as PyG takes it"
    if what and key == "time":
        return "edge", ""
    return "other", what and _doubt(rows, what)


def _doubt(rows: int, what: str) -> str:
    named = "them, such as one with 'edge' in it" if what == "edges" else "them"
    return (
        f"has as many entries, {rows}, as there are {what}, but no name of what belongs to {named}: it is left as it is"
    )


def _rows(value: Any, dim: Any) -> int | None:
    """Return the number of entries along a dimension, ``None`` for what has none."""
    if type(value) in (list, tuple) or isinstance(value, TensorFrame):
        return len(value)
    if not isinstance(dim, int):
        return None
    if is_sparse_tensor(value):
        return int(value.size(dim))
    if isinstance(value, (Tensor, np.ndarray)) and value.ndim > 0:
        return int(value.shape[dim])
    return None


def take(key: str, value: Any, index: Tensor, dim: int) -> Any:
    """Return some entries of an attribute in the given order, as an object of the same type."""
    if isinstance(value, np.ndarray):
        return np.take(value, index.cpu().numpy(), axis=dim)
    if isinstance(value, (list, tuple)):
        return type(value)([value[i] for i in index.tolist()])
    if isinstance(value, TensorFrame):
        return value[index]
    if is_sparse_tensor(value):
        return value.index_select(dim, index.to(value.device()))
    index = index.to(value.device)
    if value.layout == torch.strided:
        return value.as_subclass(Tensor).index_select(dim, index)
    if value.layout != torch.sparse_csr or dim != 0:
        raise ValueError(f"'{key}' must be dense or CSR (got {value.layout})")
    crow = value.crow_indices()
    length = crow.diff()[index]
    start = torch.cat([crow[:1], length.cumsum(0).to(crow.dtype)])
    entry = torch.arange(int(start[-1]), device=crow.device)
    entry += torch.repeat_interleave(crow[index] - start[:-1], length)
    size = (index.numel(), *value.shape[1:])
    return csr_tensor(start, value.col_indices()[entry], value.values()[entry], size)


def node_numbers(store: Any, kinds: Mapping[str, str]) -> dict[str, bool]:
    """Return the attributes that hold node numbers, or may hold some; ``True`` where that is without doubt."""
    found = {}
    for key, value in store.items():
        if kinds[key] in ("edges", "matrix", "edge"):
            continue
        leaves = {holds_node_numbers(store, key, *leaf, kind=kinds[key]) for leaf in _leaves(key, value)}
        if leaves != {False} and leaves:
            found[key] = None not in leaves
    return found


def _leaves(key: str, value: Any, inside: str = "") -> Iterator[tuple[str, Any, str]]:
    """Yield name, value and container of all in nested dictionaries, lists and tuples, named as PyG names it."""
    if isinstance(value, Mapping):
        for inner, part in value.items():
            yield from _leaves(str(inner), part, "dict")
    elif isinstance(value, (list, tuple, set, frozenset)):
        for part in value:
            yield from _leaves(key, part, "list")
    else:
        yield key, value, inside


def holds_node_numbers(store: Any, top: str, key: str, value: Any, inside: str, *, kind: str = "other") -> bool | None:
    """Return whether a value holds node numbers, ``None`` where it may.

    Args:
        store: The storage, which knows its number of nodes.
        top: Name of the attribute.
        key: Name of the value; another one inside a dictionary.
        value: The value, no container.
        inside: ``"dict"`` or ``"list"`` where it is inside one.
        kind: Kind of the attribute.
    """
    single = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not single and not is_integers(value):
        return False
    if top == "split_edge" and key in _OGB_NODES | _OGB_OTHER:
        return key in _OGB_NODES
    # PyG increments no numbers in lists.
    if not (single and inside == "list") and "batch" not in key and store.num_nodes:
        increment = store._parent().__inc__(key, value, store)
        if isinstance(increment, (int, Tensor)) and bool((torch.as_tensor(increment) == store.num_nodes).all()):
            return True
    if kind == "node":
        return None if "idx" in top else False
    if single:
        return None if inside and _PERHAPS.search(f"{top} {key}") else False
    return None if inside or (_PERHAPS.search(key) and not _NEVER.search(key)) else False


def is_integers(value: Any) -> bool:
    """Whether something is a tensor or an array of integers."""
    if isinstance(value, Tensor):
        return not value.is_floating_point() and not value.is_complex() and value.dtype != torch.bool
    return isinstance(value, np.ndarray) and np.issubdtype(value.dtype, np.integer)


def other_integers(store: Any, kinds: Mapping[str, str]) -> list[str]:
    """Return integers that belong neither to nodes nor to edges, and whose names do not say what they are."""
    keys = [key for key, kind in kinds.items() if kind == "other" and not _NEVER.search(key)]
    return [key for key in keys if is_integers(store[key]) and store[key].ndim > 0]
