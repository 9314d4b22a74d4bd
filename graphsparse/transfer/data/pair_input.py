"""What a user hands over as a pair of graphs, brought into one form and checked."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data, HeteroData

from graphsparse.transfer.data.keys import NodeKeys, read_keys
from graphsparse.transfer.data.node_features import check_features
from graphsparse.transfer.data.roles import NodeMatch, match_nodes

#: The type of the nodes, and of the edges, of a homogeneous graph.
ONE_NODE_TYPE = ""
EdgeType = tuple[str, str, str]
ONE_EDGE_TYPE: EdgeType = ("", "", "")


def read_graphs(source: Any, target: Any) -> list[Any]:
    """Return the sources as a list; all graphs must be of one kind, ``Data`` or ``HeteroData``."""
    sources = list(source) if isinstance(source, (list, tuple)) else [source]
    if not sources:
        raise ValueError("'source' must be a graph, or some graphs (got none)")
    for name, graph in (("target", target), *(("source", graph) for graph in sources)):
        if not isinstance(graph, (Data, HeteroData)):
            raise TypeError(f"'{name}' must be a Data or HeteroData (got {type(graph).__name__})")
        if isinstance(graph, HeteroData) != isinstance(target, HeteroData):
            raise TypeError(f"'source' and 'target' must be of one kind (got {type(graph).__name__} as '{name}')")
        if isinstance(graph, Data) and graph.edge_index is None:
            raise ValueError(f"'{name}' must hold its edges in 'edge_index' (got {sorted(graph.keys())})")
    if isinstance(target, HeteroData) and not target.edge_types:
        raise ValueError("'target' must have a type of edges (got none)")
    return sources


def keys_per_source(source: Any, source_key: Any, count: int) -> list[Any]:
    """Return what names the keys of each source; a single source may be given alone."""
    if not isinstance(source, (list, tuple)):
        return [source_key]
    if isinstance(source_key, str):
        return [source_key] * count
    if not isinstance(source_key, (list, tuple)) or len(source_key) != count:
        got = f"{len(source_key)}" if isinstance(source_key, (list, tuple)) else type(source_key).__name__
        raise ValueError(f"'source_key' must name one attribute, or hold one entry per source, {count} (got {got})")
    return list(source_key)


def match_all(sources: Sequence[Any], target: Any, source_keys: Sequence[Any], target_key: Any) -> dict[str, NodeMatch]:
    """Match the nodes of every type, and check the features of each."""
    types = target.node_types if isinstance(target, HeteroData) else [ONE_NODE_TYPE]
    for graph in sources:
        more = set(graph.node_types) - set(types) if isinstance(graph, HeteroData) else set()
        if more:
            raise ValueError(f"'source' has nodes of the types {sorted(more)}, which the target does not have")
    matches = {}
    for node_type in types:
        where = f" ({node_type})" if node_type else ""
        read_target = _keys(target, target_key, node_type, "target_key")
        assert read_target is not None
        read = [_keys(graph, key, node_type, "source_key") for graph, key in zip(sources, source_keys, strict=True)]
        empty: NodeKeys = torch.empty(0, dtype=torch.int64) if isinstance(read_target, Tensor) else []
        matches[node_type] = match_nodes(read_target, [empty if keys is None else keys for keys in read])
        xs = [_store(graph, node_type).get("x") if _has(graph, node_type) else None for graph in sources]
        sizes = [len(read_target), *(0 if keys is None else len(keys) for keys in read)]
        check_features(_store(target, node_type).get("x"), xs, where, sizes)
    return matches


def stores_x(graph: Any, node_type: str) -> Tensor | None:
    """Return the features of a type of nodes; ``None`` if there are none."""
    found: Tensor | None = _store(graph, node_type).get("x") if _has(graph, node_type) else None
    return found


def edges_of(graph: Any, edge_type: EdgeType) -> Tensor | None:
    """Return the edge list of a type of edges; ``None`` if there is none."""
    if isinstance(graph, Data):
        found: Tensor = graph.edge_index
        return found
    if edge_type not in graph.edge_types:
        return None
    if "edge_index" not in graph[edge_type]:
        raise ValueError(f"the edges of type {edge_type} must be in 'edge_index'")
    typed: Tensor = graph[edge_type].edge_index
    return typed


def reverse_types(edge_type: EdgeType, known: Sequence[EdgeType]) -> list[EdgeType]:
    """Return the types that are named as the other way round by PyG's ``ToUndirected``.

    Example:
        >>> reverse_types(("q", "buys", "p"), [("p", "rev_buys", "q"), ("p", "like", "p")])
        [('p', 'rev_buys', 'q')]
    """
    src, name, dst = edge_type
    names = [f"rev_{name}"] + ([name.removeprefix("rev_")] if name.startswith("rev_") else [])
    return [(dst, other, src) for other in names if (dst, other, src) in known]


def _has(graph: Any, node_type: str) -> bool:
    return isinstance(graph, Data) or node_type in graph.node_types


def _store(graph: Any, node_type: str) -> Any:
    return graph._store if isinstance(graph, Data) else graph[node_type]


def _keys(graph: Any, key: Any, node_type: str, name: str) -> NodeKeys | None:
    """Read the keys of one type of nodes; ``None`` where a graph has no such nodes."""
    if not _has(graph, node_type):
        return None
    if isinstance(graph, HeteroData) and not isinstance(key, str):
        if not isinstance(key, Mapping) or node_type not in key:
            raise TypeError(
                f"'{name}' must name an attribute, or map each type of nodes to keys: there are none for {node_type!r}"
            )
        key = key[node_type]
    store = _store(graph, node_type)
    return read_keys(key, store, int(store.num_nodes), f"{name}[{node_type!r}]" if node_type else name)
