"""Two or more graphs that share nodes, and the graphs that are derived from them."""

import copy
import hashlib
import math
import warnings
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data, HeteroData

from graphsparse.ops.check import check_count
from graphsparse.transfer.data.derived import FROM_SOURCE, write_edges
from graphsparse.transfer.data.link_code import sorted_codes
from graphsparse.transfer.data.node_features import check_features, features_of, take_rows
from graphsparse.transfer.data.pair_input import (
    ONE_EDGE_TYPE,
    ONE_NODE_TYPE,
    EdgeType,
    keys_per_source,
    match_all,
    read_graphs,
    reverse_types,
    stores_x,
)
from graphsparse.transfer.data.pair_summary import summarize
from graphsparse.transfer.data.relation import Relation, read_relation
from graphsparse.transfer.data.roles import GRAPHS, NodeMatch
from graphsparse.transfer.data.split import LinkSplit

#: Pairs of nodes whose links are left out of a derived graph.
Without = LinkSplit | Tensor | Mapping[EdgeType, Tensor] | None


class SharedNodePair:
    r"""A dense source graph and a sparse target graph, or several sources, joined by the keys of their nodes.

    Two nodes are one if they have the same key. *Global numbers*: the target's nodes keep their numbers
    :math:`0, \dots, N_t - 1`; nodes that only sources have follow, in the order of the sources. With
    :math:`V^\cap` the nodes of the target that some source has too, the derived graphs are

    ============================ ===================== =====================================
    :meth:`intersection`         :math:`V^\cap`        :math:`A^t[V^\cap]`
    :meth:`enriched_intersection`:math:`V^\cap`        :math:`A^t[V^\cap] + A^s[V^\cap]`
    :meth:`enriched_target`      :math:`V^t`           :math:`A^t + A^s[V^\cap]`
    :meth:`union`                :math:`V^s \cup V^t`  :math:`A^t + A^s`
    ``graph("target")``          :math:`V^t`           :math:`A^t`
    ``graph("source")``          :math:`V^s`           :math:`A^s`
    ============================ ===================== =====================================

    with :math:`A^s` the sum over the sources. Each is a ``Data`` with ``edge_index`` (both directions of every link,
    sorted, each once, no self-loops), ``edge_origin`` int8 ``[E]`` (1 target, 2 source, 3 both), ``n_id`` ``[N]`` (the
    global number of each node, ascending), ``node_role`` int8 ``[N]`` (0 source only, 1 target only, 2 both), and ``x``
    if the target has features. Features of the target win over those of a source. ``x`` is the target's own tensor
    wherever a graph has just the target's nodes; otherwise its rows are gathered.

    Edge weights and all other attributes of the inputs are left aside: a link is there or not. The inputs are not
    changed and their features not copied. Sets of links are kept as one sorted int64 per link.

    Of heterogeneous graphs, nodes are matched within each type, and every type of edges is derived by itself. The
    attributes above are then found per type, and ``shared``, ``num_nodes`` are asked of :meth:`nodes`. Links between
    two types keep their direction; those within one type are undirected unless ``directed``.

    Args:
        source: The source graph, or a list of source graphs.
        target: The target graph.
        source_key: Keys of the source's nodes: the name of an attribute, integers ``[N]``, or ``N`` strings; one entry
            per source where there is a list of sources. For heterogeneous graphs a name, or a dictionary by type.
        target_key: Keys of the target's nodes, in the same way.
        directed: Whether ``(u, v)`` and ``(v, u)`` are different links.
        min_shared: Fewer shared nodes than this are an error.

    Attributes:
        source: The sources, as given.
        target: The target, as given.
        directed: As given.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If a key is there twice in a graph, too few nodes are shared, features differ in width, or an edge
            list does not fit its graph.

    Warns:
        UserWarning: If fewer than 1 % of the target's nodes are shared.

    Example:
        >>> source = Data(edge_index=torch.tensor([[0, 1], [1, 2]]), key=["a", "b", "c"], num_nodes=3)
        >>> target = Data(edge_index=torch.tensor([[0], [1]]), key=["c", "d", "b"], num_nodes=3)
        >>> pair = SharedNodePair(source, target)
        >>> pair.shared
        tensor([ True, False,  True])
        >>> enriched = pair.enriched_target()
        >>> enriched.edge_index, enriched.edge_origin
        (tensor([[0, 0, 1, 2],
                [1, 2, 0, 0]]), tensor([1, 2, 1, 2], dtype=torch.int8))

    Source: Zheng et al., *You Only Transfer What You Share*, TMLR 2023, arXiv 2302.14189.
    """

    def __init__(
        self,
        source: Data | Sequence[Data],
        target: Data,
        source_key: Any = "key",
        target_key: Any = "key",
        *,
        directed: bool = False,
        min_shared: int = 2,
    ) -> None:
        if not isinstance(directed, bool):
            raise TypeError(f"'directed' must be True or False (got {directed!r})")
        self.source: list[Data] = read_graphs(source, target)
        self.target: Data = target
        self.directed = directed
        keys = keys_per_source(source, source_key, len(self.source))
        self._matches: dict[str, NodeMatch] = match_all(self.source, target, keys, target_key)
        self._relations: dict[EdgeType, Relation] = {}
        shared = sum(int(match.shared.count_nonzero()) for match in self._matches.values())
        total = sum(match.num_target for match in self._matches.values())
        if shared < check_count(min_shared, "min_shared", 0):
            raise ValueError(
                f"'source' and 'target' share {shared} of the target's {total} nodes, and at least {min_shared} are "
                "needed: are the keys of one kind and written alike?"
            )
        if shared < 0.01 * total:
            warnings.warn(f"only {shared} of the target's {total} nodes are shared", UserWarning, stacklevel=2)
        for edge_type in self.edge_types:  # wrong edges are found now, not when a graph is asked for
            self.relation(edge_type)

    @property
    def is_hetero(self) -> bool:
        """Whether the graphs have several types of nodes or edges."""
        return isinstance(self.target, HeteroData)

    @property
    def edge_types(self) -> list[EdgeType]:
        """All types of edges that the target or a source has; one of empty names for homogeneous graphs."""
        if not self.is_hetero:
            return [ONE_EDGE_TYPE]
        return list(dict.fromkeys(kind for graph in (self.target, *self.source) for kind in graph.edge_types))

    @property
    def shared(self) -> Tensor:
        """Which of the target's nodes some source has too, bool ``[N_t]``."""
        return self.nodes().shared

    @property
    def num_nodes(self) -> int:
        """Number of the target's nodes."""
        return self.nodes().num_target

    @property
    def num_union_nodes(self) -> int:
        """Number of nodes of target and sources together."""
        return self.nodes().num_nodes

    def nodes(self, node_type: str | None = None) -> NodeMatch:
        """Return how the nodes, of one type in heterogeneous graphs, are matched."""
        if node_type is None:
            if self.is_hetero:
                raise TypeError(f"name one of the types of nodes, {sorted(self._matches)}: pair.nodes(node_type)")
            node_type = ONE_NODE_TYPE
        if node_type not in self._matches:
            raise ValueError(f"'node_type' must be one of {sorted(self._matches)} (got {node_type!r})")
        return self._matches[node_type]

    def relation(self, edge_type: EdgeType | None = None) -> Relation:
        """Return the links, of one type in heterogeneous graphs, under global numbers."""
        edge_type = self._edge_type(edge_type, "edge_type")
        if edge_type not in self._relations:
            ends = (self._matches[edge_type[0]], self._matches[edge_type[2]])
            self._relations[edge_type] = read_relation(edge_type, self.source, self.target, ends, self.directed)
        return self._relations[edge_type]

    def reverse_types(self, edge_type: EdgeType) -> list[EdgeType]:
        """Return the types of edges that hold the links of another one the other way round.

        They are named so by PyG's ``ToUndirected`` (``rev_...``), or the target has the very same links in both, as
        in graphs where all types are called ``"to"``.
        """
        named = reverse_types(edge_type, self.edge_types)
        relation = self.relation(edge_type)
        for kind in self.edge_types:
            if (kind[2], kind[0]) == (edge_type[0], edge_type[2]) and kind not in (*named, edge_type):
                other = self.relation(kind)
                turned = sorted_codes(other.code.encode(relation.code.decode(relation.target).flip(0)))
                if turned.numel() and torch.equal(turned, other.target):
                    named.append(kind)
        return named

    def target_links(self, edge_type: EdgeType | None = None) -> Tensor:
        """Return the target's links as ``[2, P]``, each once, the smaller end first unless directed."""
        relation = self.relation(edge_type)
        return relation.code.decode(relation.target)

    @cached_property
    def fingerprint(self) -> str:
        """A digest of the target's nodes and links, which is what a split is made of; keys and features do not matter.

        Pairs with the same target and other sources have the same: one split serves to compare sources.
        """
        digest = hashlib.blake2b(digest_size=8)
        for edge_type in sorted(self.edge_types):
            relation = self.relation(edge_type)
            if relation.target.numel() or not self.is_hetero:
                digest.update(repr(edge_type).encode() + relation.digest())
        total = sum(match.num_target for match in self._matches.values())
        links = sum(self.relation(edge_type).target.numel() for edge_type in self.edge_types)
        return f"{total}-{links}-{digest.hexdigest()}"

    def graph(
        self, name: str, *, without: Without = None, source_weight: float | None = None, features: bool = True
    ) -> Data:
        """Return a derived graph.

        Args:
            name: ``"target"``, ``"intersection"``, ``"enriched_intersection"``, ``"enriched_target"``, ``"union"`` or
                ``"source"``.
            without: Pairs of the target's nodes ``[2, P]`` whose links are left out in both directions, whichever
                graph they come from; in heterogeneous graphs a dictionary of them by type of edges, and the links are
                also left out of their :meth:`reverse_types`. With a :class:`~graphsparse.transfer.LinkSplit`
                every validation and test pair is left out, non-links too: a source's opinion is hidden of links and
                non-links alike, else its presence would tell them apart.
            source_weight: Adds ``edge_weight`` ``[E]``: this for edges that only sources have, 1 for all others.
            features: Whether to add ``x``.

        Raises:
            TypeError: If an argument has the wrong type.
            ValueError: If there is no such graph, a pair is out of range, or the split belongs to another pair.
        """
        if name not in GRAPHS:
            raise ValueError(f"'name' must be one of {', '.join(GRAPHS)} (got {name!r})")
        if source_weight is not None and not (
            isinstance(source_weight, (int, float)) and math.isfinite(source_weight) and source_weight >= 0
        ):
            raise ValueError(f"'source_weight' must be a finite number of at least 0 (got {source_weight!r})")
        hidden = self._hidden(without)
        graph = HeteroData() if self.is_hetero else Data()
        ids = {node_type: match.nodes(name) for node_type, match in self._matches.items()}
        for edge_type in self.edge_types:
            relation = self.relation(edge_type)
            links, origin = relation.derive(name, hidden.get(edge_type, []))
            edges, origin = write_edges(relation.code, links, origin, (ids[edge_type[0]], ids[edge_type[2]]))
            store = graph[edge_type] if self.is_hetero else graph
            store.edge_index, store.edge_origin = edges, origin
            if source_weight is not None:
                store.edge_weight = torch.where(origin == FROM_SOURCE, float(source_weight), 1.0)
        for node_type, match in self._matches.items():
            store = graph[node_type] if self.is_hetero else graph
            store.n_id, store.node_role = ids[node_type], match.role(ids[node_type])
            store.num_nodes = ids[node_type].numel()
            xs = [stores_x(source, node_type) for source in self.source]
            x = features_of(name, match, stores_x(self.target, node_type), xs) if features else None
            if x is not None:
                store.x = x
        # Sets of links are joined on the CPU; what comes out is where the target is.
        return graph.to(self.target.edge_stores[0].edge_index.device)

    def intersection(self, **options: Any) -> Data:
        """Return the target's links between shared nodes; options as in :meth:`graph`."""
        return self.graph("intersection", **options)

    def enriched_intersection(self, **options: Any) -> Data:
        """Return the links of target and sources between shared nodes; options as in :meth:`graph`."""
        return self.graph("enriched_intersection", **options)

    def enriched_target(self, **options: Any) -> Data:
        """Return the target with the links of sources between shared nodes; options as in :meth:`graph`."""
        return self.graph("enriched_target", **options)

    def union(self, **options: Any) -> Data:
        """Return all nodes and links of target and sources; options as in :meth:`graph`."""
        return self.graph("union", **options)

    def summary(self, *, without: Without = None, edge_type: EdgeType | None = None) -> dict[str, dict[str, float]]:
        """Return ``num_nodes``, ``num_links``, ``mean_degree`` and ``median_degree`` of every derived graph, by name.

        The nodes of the intersection are the shared ones. A degree counts links at both ends.

        Args:
            without: As in :meth:`graph`.
            edge_type: Type of edges, of heterogeneous graphs with more than one.
        """
        hidden = self._hidden(without)
        kind = self._edge_type(edge_type, "edge_type")
        relation = self.relation(kind)
        return {name: summarize(relation, name, hidden.get(kind, [])) for name in GRAPHS}

    def with_x(self, x: Tensor) -> "SharedNodePair":
        """Return this pair with other features.

        Features that are computed from links must be computed from a graph without the held-out ones, such as
        ``pair.union(without=split)``, whose nodes are in the order that is wanted here.

        Args:
            x: Features of the nodes of target and sources, ``[num_union_nodes, F]`` by their global numbers.

        Raises:
            TypeError: If the graphs are heterogeneous, or ``x`` is no dense or CSR tensor.
            ValueError: If ``x`` does not have one row per node.
        """
        match = self.nodes()
        check_features(x, [], "")
        if x.size(0) != match.num_nodes:
            raise ValueError(f"'x' must have a row for each of {match.num_nodes} nodes (got {x.size(0)})")
        pair = copy.copy(self)
        pair.target = copy.copy(self.target)
        pair.target.x = take_rows(x, torch.arange(match.num_target))
        pair.source = [copy.copy(source) for source in self.source]
        for source, ids in zip(pair.source, match.source_ids, strict=True):
            source.x = take_rows(x, ids)
        return pair

    def _edge_type(self, kind: Any, name: str) -> EdgeType:
        """Return a type of edges that there is, the only one for ``None``, or say that an argument names none."""
        if kind is None and len(self.edge_types) > 1:
            raise TypeError(f"'{name}' must name one of {self.edge_types}")
        found = self.edge_types[0] if kind is None else tuple(kind) if isinstance(kind, list) else kind
        if found not in self.edge_types:
            raise ValueError(f"'{name}' must be one of {self.edge_types} (got {kind!r})")
        return found

    def _hidden(self, without: Any) -> dict[EdgeType, list[Tensor]]:
        """Return the pairs to leave out of each type of edges."""
        if without is None:
            return {}
        given: dict[EdgeType, Tensor]
        if isinstance(without, LinkSplit):
            without.check(self)
            given = {without.edge_type or self.edge_types[0]: without.queries}
        elif isinstance(without, Mapping):
            given = {self._edge_type(kind, "without"): pairs for kind, pairs in without.items()}
        elif isinstance(without, Tensor):
            kinds = [kind for kind in self.edge_types if not kind[1].startswith("rev_")] or self.edge_types
            if len(kinds) > 1:
                raise TypeError(f"'without' must be a dictionary by type of edges, such as {kinds[0]}")
            given = {kinds[0]: without}
        else:
            raise TypeError(f"'without' must be a LinkSplit or pairs [2, P] (got {type(without).__name__})")
        hidden: dict[EdgeType, list[Tensor]] = {}
        for kind, pairs in given.items():
            checked = self.relation(kind).check_pairs(pairs, "without")
            hidden.setdefault(kind, []).append(checked)
            for reverse in self.reverse_types(kind):
                hidden.setdefault(reverse, []).append(checked.flip(0))
        return hidden

    def __repr__(self) -> str:
        shared = ", ".join(
            f"{name + ': ' if name else ''}{int(match.shared.count_nonzero())} of {match.num_target} nodes shared"
            for name, match in self._matches.items()
        )
        return f"{type(self).__name__}({shared}, sources={len(self.source)})"
