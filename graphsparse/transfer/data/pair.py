"""Two or more graphs that share nodes, and the graphs that are derived from them."""

import copy
import warnings
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch_geometric.data import Data, HeteroData

from graphsparse.ops.check import check_count, check_number
from graphsparse.ops.pairs import key_pairs
from graphsparse.transfer.data.keys import GRAPHS, NodeMatch, match_nodes, read_keys
from graphsparse.transfer.data.node_features import check_features, check_x, features_of, take_rows
from graphsparse.transfer.data.relation import FROM_SOURCE, Relation, read_pairs, read_relation
from graphsparse.transfer.data.sides import extend_sides


@runtime_checkable
class HeldOut(Protocol):
    """What holds out pairs of a target, as :class:`~graphsparse.transfer.LinkSplit` does."""

    @property
    def queries(self) -> Tensor:
        """All held-out pairs, links and non-links, ``[2, Q]``."""
        ...

    @property
    def side(self) -> Tensor | None:
        """Side of each of the target's nodes, int8, where links are between two sides alone."""
        ...

    def check(self, pair: "SharedNodePair") -> None:
        """Refuse a pair that this was not made for."""
        ...


#: Derived graphs that a graph by itself does not have.
NEEDS_SOURCE = ("intersection", "enriched_intersection", "source")
#: Pairs of nodes whose links are left out of a derived graph.
Without = HeldOut | Tensor | None


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

    **One graph.** ``SharedNodePair([], data)`` is a graph by itself, whose nodes need no keys: no node is shared, and
    its enriched target is the target. Whatever takes a pair takes ``data`` in its place, whose links have no direction
    then; a pair that is made once saves reading them again.

    Args:
        source: The source graph, or a list of source graphs, which is empty for a graph by itself.
        target: The target graph.
        source_key: Keys of the source's nodes: the name of an attribute, or ``N`` integers or strings as a tensor, an
            array, a list, or a column of pandas or Arrow; one entry per source where there is a list of sources.
        target_key: Keys of the target's nodes, in the same way.
        directed: Whether ``(u, v)`` and ``(v, u)`` are different links.
        min_shared: Fewer shared nodes than this are an error.

    Attributes:
        source: The sources, as given.
        target: The target, as given.
        directed: As given.

    Raises:
        TypeError: If an argument has the wrong type; graphs of several types of nodes or edges cannot be joined yet.
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
        self.source, self.target, self.directed = _read_sources(source), _read_graph(target, "target"), directed
        names = _keys_per_source(source, source_key, len(self.source))
        keys = target_key if self.source else torch.arange(int(target.num_nodes))
        own = read_keys(keys, target, int(target.num_nodes), "target_key")
        others = [
            read_keys(name, graph, int(graph.num_nodes), "source_key")
            for name, graph in zip(names, self.source, strict=True)
        ]
        self._match = match_nodes(own, others)
        check_features(self._xs(), [len(keys) for keys in (own, *others)])
        shared, total = int(self.shared.count_nonzero()), self.num_nodes
        least = check_count(min_shared, "min_shared", 0)
        if self.source and shared < least:
            raise ValueError(
                f"'source' and 'target' share {shared} of the target's {total} nodes, and at least {least} are "
                "needed: are the keys of one kind and written alike?"
            )
        if self.source and shared < 0.01 * total:
            warnings.warn(f"only {shared} of the target's {total} nodes are shared", UserWarning, stacklevel=2)
        edges = [graph.edge_index for graph in self.source]
        self._relation = read_relation(target.edge_index, edges, self._match, directed)

    @property
    def shared(self) -> Tensor:
        """Which of the target's nodes some source has too, bool ``[N_t]``."""
        return self._match.shared

    @property
    def num_nodes(self) -> int:
        """Number of the target's nodes."""
        return self._match.num_target

    @property
    def num_union_nodes(self) -> int:
        """Number of nodes of target and sources together."""
        return self._match.num_nodes

    @property
    def fingerprint(self) -> str:
        """A digest of the target's nodes and links, which is what a split is made of; keys and features do not matter.

        Pairs with the same target and other sources have the same: one split serves to compare sources.
        """
        return self._relation.fingerprint

    def nodes(self) -> NodeMatch:
        """Return how the nodes are matched."""
        return self._match

    def relation(self) -> Relation:
        """Return the links under global numbers."""
        return self._relation

    def target_links(self) -> Tensor:
        """Return the target's links as ``[2, P]``, each once, the smaller end first unless directed."""
        return key_pairs(self._relation.target, self.num_union_nodes)

    def graph(
        self, name: str, *, without: Without = None, source_weight: float | None = None, features: bool = True
    ) -> Data:
        """Return a derived graph.

        Args:
            name: ``"target"``, ``"intersection"``, ``"enriched_intersection"``, ``"enriched_target"``, ``"union"`` or
                ``"source"``.
            without: Pairs of the target's nodes ``[2, P]`` whose links are left out in both directions, whichever
                graph they come from. With a :class:`~graphsparse.transfer.LinkSplit` every validation and test pair is
                left out, non-links too: a source's opinion is hidden of links and non-links alike, else its presence
                would tell them apart. Where all links of the graph are between the two sides of the split, ``side``
                holds that of each node, int8 ``[N]``, -1 where no link tells it.
            source_weight: Adds ``edge_weight`` ``[E]``: this for edges that only sources have, 1 for all others.
            features: Whether to add ``x``.

        Raises:
            TypeError: If an argument has the wrong type.
            ValueError: If there is no such graph, for lack of a source perhaps, a pair is out of range, or the split
                belongs to another pair.
        """
        if name not in GRAPHS:
            raise ValueError(f"'name' must be one of {', '.join(GRAPHS)} (got {name!r})")
        if not self.source and name in NEEDS_SOURCE:
            raise ValueError(
                f"one graph has no source, and so no {name!r}: a method that learns there needs two graphs"
            )
        edge_index, origin = self._relation.edges(name, self._hidden(without))
        n_id = self._match.nodes(name)
        graph = Data(edge_index=edge_index, num_nodes=n_id.numel())
        graph.edge_origin, graph.n_id, graph.node_role = origin, n_id, self._match.role(n_id)
        if source_weight is not None:
            weight = check_number(source_weight, "source_weight", least=0)
            graph.edge_weight = torch.where(origin == FROM_SOURCE, weight, 1.0)
        x = features_of(name, self._match, self._xs()) if features else None
        if x is not None:
            graph.x = x
        if isinstance(without, HeldOut) and without.side is not None and edge_index.size(1):
            side = torch.full((self.num_union_nodes,), -1, dtype=torch.int8)
            side[: self.num_nodes] = without.side
            found = extend_sides(side[n_id], edge_index)
            if found is not None:
                graph.side = found
        # Sets of links are joined on the CPU; what comes out is where the target is.
        return graph.to(self.target.edge_index.device)

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

    def summary(self, *, without: Without = None) -> dict[str, dict[str, float]]:
        """Return ``num_nodes``, ``num_links``, ``mean_degree`` and ``median_degree`` of every derived graph, by name.

        The nodes of the intersection are the shared ones. A degree counts links at both ends.

        Args:
            without: As in :meth:`graph`.
        """
        hidden = self._hidden(without)
        return {name: self._relation.summary(name, hidden) for name in GRAPHS}

    def with_x(self, x: Tensor) -> "SharedNodePair":
        """Return this pair with other features.

        Features that are computed from links must be computed from a graph without the held-out ones, such as
        ``pair.union(without=split)``, whose nodes are in the order that is wanted here.

        Args:
            x: Features of the nodes of target and sources, ``[num_union_nodes, F]`` by their global numbers.

        Raises:
            TypeError: If ``x`` is no dense or CSR tensor.
            ValueError: If ``x`` does not have one row per node.
        """
        check_x(x, self.num_union_nodes, "'x'")
        pair = copy.copy(self)
        pair.target = copy.copy(self.target)
        pair.target.x = take_rows(x, torch.arange(self.num_nodes))
        pair.source = [copy.copy(source) for source in self.source]
        for source, ids in zip(pair.source, self._match.source_ids, strict=True):
            source.x = take_rows(x, ids)
        return pair

    def _xs(self) -> list[Tensor | None]:
        """Return the features of the target and of each source."""
        return [graph.get("x") for graph in (self.target, *self.source)]

    def _hidden(self, without: Without) -> Tensor | None:
        """Return the pairs to leave out."""
        if without is None:
            return None
        if isinstance(without, HeldOut):
            without.check(self)
            return without.queries
        if not isinstance(without, Tensor):
            raise TypeError(f"'without' must be a LinkSplit or pairs [2, P] (got {type(without).__name__})")
        return read_pairs(without, self.num_nodes, "without")

    def __repr__(self) -> str:
        shared = f"{int(self.shared.count_nonzero())} of {self.num_nodes} nodes shared"
        return f"{type(self).__name__}({shared}, sources={len(self.source)})"


def _read_graph(graph: Any, name: str) -> Data:
    if isinstance(graph, HeteroData):
        raise TypeError(
            f"'{name}' must be a Data (got HeteroData): graphs of several types of nodes or edges cannot be joined "
            "yet. A relation among nodes of one type can be taken out: "
            "Data(edge_index=graph[edge_type].edge_index, key=graph[node_type].key, num_nodes=...)"
        )
    if not isinstance(graph, Data):
        raise TypeError(f"'{name}' must be a Data (got {type(graph).__name__})")
    if graph.edge_index is None:
        raise ValueError(f"'{name}' must hold its edges in 'edge_index' (got {sorted(graph.keys())})")
    return graph


def as_pair(pair: SharedNodePair | Data) -> SharedNodePair:
    """Return a pair as it is, and a graph by itself as a pair without a source.

    Example:
        >>> as_pair(Data(edge_index=torch.tensor([[0, 1], [1, 2]]), num_nodes=3))
        SharedNodePair(0 of 3 nodes shared, sources=0)
    """
    if isinstance(pair, SharedNodePair):
        return pair
    if not isinstance(pair, (Data, HeteroData)):
        raise TypeError(f"'pair' must be a SharedNodePair, or a Data for one graph (got {type(pair).__name__})")
    return SharedNodePair([], _read_graph(pair, "pair"))


def _read_sources(source: Any) -> list[Data]:
    sources = source if isinstance(source, (list, tuple)) else [source]
    return [_read_graph(graph, "source") for graph in sources]


def _keys_per_source(source: Any, source_key: Any, count: int) -> list[Any]:
    """Return what names the keys of each source; a single source may be given alone."""
    if not isinstance(source, (list, tuple)):
        return [source_key]
    if isinstance(source_key, str):
        return [source_key] * count
    if not isinstance(source_key, (list, tuple)) or len(source_key) != count:
        got = f"{len(source_key)}" if isinstance(source_key, (list, tuple)) else type(source_key).__name__
        raise ValueError(f"'source_key' must name one attribute, or hold one entry per source, {count} (got {got})")
    return list(source_key)
