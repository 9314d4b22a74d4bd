"""The undirected edges of a graph, of a HeteroData edge type by edge type."""

import copy
from collections.abc import Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch_geometric.data import Batch, Data, HeteroData

from graphsparse.edges.attributes import check_one_graph
from graphsparse.edges.entries import Entries
from graphsparse.edges.mask import fix_num_nodes_, join_batch, mask_data_edges, mask_store_, split_batch
from graphsparse.ops.digest import digest, graph_fingerprint

#: Source node type, relation, destination node type.
EdgeType: TypeAlias = tuple[str, str, str]
#: Values of edges, or of entries of edge lists; those of a HeteroData by edge type.
PerEdge: TypeAlias = Tensor | Mapping[EdgeType, Tensor]


class GraphEdges:
    """The undirected edges of a graph, each once and in canonical order, and which of them each entry is.

    In a ``HeteroData`` every edge type has edges of its own. An edge type and its reverse, which holds the same edges
    the other way round, are one: their edges are known by the type that comes first.

    Args:
        data: A ``Data`` or a ``HeteroData``, with ``edge_index``.

    Attributes:
        entries: The entries of each edge type, those of a ``Data`` under ``None``. Where the source type comes after
            the destination type in the alphabet, both ends are exchanged, so that a reverse has the same edges.
        owner: The edge type by which the edges of each edge type are known.

    Raises:
        ValueError: If an edge type has no ``edge_index``.

    Example:
        >>> data = HeteroData({"user": {"num_nodes": 3}, "item": {"num_nodes": 2}})
        >>> data["user", "rates", "item"].edge_index = torch.tensor([[0, 1, 2], [0, 0, 1]])
        >>> data["item", "rated_by", "user"].edge_index = torch.tensor([[1, 0, 0], [2, 1, 0]])
        >>> edges = GraphEdges(data)
        >>> edges.num_edges
        {('user', 'rates', 'item'): 3}
        >>> edges.per_entry({("user", "rates", "item"): torch.tensor([7, 8, 9])}, loops=-1)["item", "rated_by", "user"]
        tensor([9, 8, 7])
    """

    def __init__(self, data: Data | HeteroData) -> None:
        self.entries: dict[EdgeType | None, Entries] = {}
        self.owner: dict[EdgeType | None, EdgeType | None] = {}
        if not isinstance(data, HeteroData):
            self.entries[None], self.owner[None] = Entries(_edge_index(data._store), data.num_nodes), None
            return
        reverses = set()
        for kind in data.edge_types:
            self.entries[kind] = _entries(data, kind)
            owner = next((k for k in self.owner if k not in reverses and self._are_reverse(data, k, kind)), kind)
            if owner != kind:
                reverses |= {owner, kind}
            self.owner[kind] = owner

    def _are_reverse(self, data: HeteroData, first: Any, second: EdgeType) -> bool:
        if (first[0], first[2]) != (second[2], second[0]):
            return False
        if not torch.equal(self.entries[first].edges.key, self.entries[second].edges.key):
            return False
        width = data[first[2]].num_nodes
        (u, v), (v2, u2) = data[first].edge_index.long(), data[second].edge_index.long()
        return torch.equal(torch.unique(u * width + v), torch.unique(u2 * width + v2))

    @property
    def kinds(self) -> "list[EdgeType | None]":
        """The edge types by which edges are known."""
        return [kind for kind, owner in self.owner.items() if owner == kind]

    @property
    def num_edges(self) -> int | dict[EdgeType, int]:
        """Number of undirected edges; of a ``HeteroData`` by edge type."""
        return as_given({kind: self.entries[kind].edges.num_edges for kind in self.kinds})  # type: ignore[no-any-return]

    def per_entry(self, values: PerEdge, loops: float) -> PerEdge:
        """Return the value of its edge for each entry, of all edge types; another one for self-loops.

        Args:
            values: One for each edge, as ``num_edges`` has them.
            loops: The value of self-loops.

        Raises:
            ValueError: If there is another number of values.
        """
        given = by_kind(values)
        sizes = {kind: value.numel() for kind, value in given.items()}
        known = by_kind(self.num_edges)
        if sizes != known:
            held = as_given(sizes) if sizes else None
            raise ValueError(f"'data' has {as_given(known)} undirected edges, but the masks are of {held}")
        found = {}
        for kind, entries in self.entries.items():
            value = given[self.owner[kind]]
            found[kind] = entries.per_entry(value.to(entries.edge_index.device), loops)
        return as_given(found)  # type: ignore[no-any-return]


def attach_pairs(data: Any) -> Any:
    r"""Return a graph that says of each entry of its edge lists which undirected edge it is, as ``edge_pair``.

    Both directions of an edge, and all its duplicates, have the same number, from 0 to :math:`M - 1` in canonical order
    (by smaller end, then larger end), the order of :class:`~graphsparse.training.Masks`. The edges of a ``HeteroData``
    are numbered type after type, as they are in ``Masks``; a type and its reverse share theirs. Loaders cut
    ``edge_pair`` out with the other attributes of edges, so that a batch knows which edges of the whole graph it has:
    attach it before a loader is made of the graph.

    Args:
        data: A ``Data`` or a ``HeteroData``, with ``edge_index``. It is left as it is.

    Returns:
        A shallow copy with ``edge_pair``, int32 ``[E]``, -1 for self-loops, which are no undirected edge.

    Raises:
        TypeError: If ``data`` is neither.
        ValueError: If it has no ``edge_index``.

    Example:
        >>> data = attach_pairs(Data(edge_index=torch.tensor([[1, 0, 2, 2], [0, 1, 1, 2]]), num_nodes=3))
        >>> data.edge_pair
        tensor([ 0,  0,  1, -1], dtype=torch.int32)
    """
    if not isinstance(data, HeteroData):
        check_one_graph(data)
    graph, data = GraphEdges(data), copy.copy(data)
    sizes = by_kind(graph.num_edges)
    kind = torch.int32 if sum(sizes.values()) < 2**31 else torch.int64
    every = torch.split(torch.arange(sum(sizes.values()), dtype=kind), list(sizes.values()))
    found = by_kind(graph.per_entry(as_given(dict(zip(sizes, every, strict=True))), loops=-1))
    for store in data.edge_stores:
        store["edge_pair"] = found[store._key]
    return data


def by_kind(values: Any) -> dict[Any, Any]:
    """Return what is known by edge type as a dictionary; what a ``Data`` has is under ``None``."""
    return dict(values) if isinstance(values, Mapping) else {None: values}


def as_given(values: Mapping[Any, Any]) -> Any:
    """Undo :func:`by_kind`."""
    return values[None] if set(values) == {None} else dict(values)


def check_has_edges(data: Data | HeteroData) -> None:
    """Refuse a graph, or an edge type, without ``edge_index``."""
    for store in data.edge_stores:
        _edge_index(store)


def graph_edges_fingerprint(data: Data | HeteroData) -> str:
    """Return a digest of the edges of a graph, in their order, with the numbers of nodes and of entries."""
    if not isinstance(data, HeteroData):
        return graph_fingerprint(data.edge_index, data.num_nodes)
    parts: list[Any] = []
    for kind in data.edge_types:
        sizes = (data[kind[0]].num_nodes, data[kind[2]].num_nodes)
        parts += [*kind, sizes[1], graph_fingerprint(data[kind].edge_index, sizes)]
    return f"{data.num_nodes}-{data.num_edges}-{digest(parts)}"


def keep_entries(data: Any, mask: PerEdge) -> Any:
    """Return a shallow copy of a graph with the marked entries of its edge lists, and all that belongs to them."""
    if not isinstance(data, HeteroData):
        return mask_data_edges(data, mask.to(data.edge_index.device))  # type: ignore[union-attr]
    if isinstance(data, Batch):
        raise ValueError("'data' is a Batch of HeteroData: take its graphs one by one")
    data = copy.copy(data)
    for kind in data.node_types:
        fix_num_nodes_(data[kind])
    for kind, part in by_kind(mask).items():
        mask_store_(data[kind], part.to(data[kind].edge_index.device))
    return data


def each_graph(data: Any, change: Any) -> Any:
    """Return what a change makes of a graph, of a batch graph by graph."""
    return join_batch(data, map(change, split_batch(data))) if isinstance(data, Batch) else change(data)


def _edge_index(store: Any) -> Tensor:
    found = store.get("edge_index")
    if found is None:
        name = "data" if store._key is None else f"data[{store._key!r}]"
        raise ValueError(
            f"'{name}' must hold 'edge_index', which the mask of a ticket refers to "
            f"(got {sorted(store.keys())}; torch_geometric.utils.to_edge_index converts 'adj_t')"
        )
    return found  # type: ignore[no-any-return]


def _entries(data: HeteroData, kind: EdgeType) -> Entries:
    src, _, dst = kind
    edge_index, sizes = _edge_index(data[kind]), (data[src].num_nodes, data[dst].num_nodes)
    if src == dst:
        return Entries(edge_index, sizes[0])
    # Ties are broken by node order; the order of an edge type and of its reverse must be the same one.
    return Entries(edge_index.flip(0), sizes[::-1]) if src > dst else Entries(edge_index, sizes)
