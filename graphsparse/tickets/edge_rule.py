"""Edges chosen by a score, on each graph by itself."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data, HeteroData

from graphsparse.edges.entries import check_edge_weight
from graphsparse.edges.graph_edges import GraphEdges, PerEdge, as_given, each_graph, keep_entries
from graphsparse.edges.selector import EdgeSelector
from graphsparse.edges.sparsifier import Sparsifier
from graphsparse.ops.digest import digest


@dataclass(frozen=True)
class EdgeRule:
    """Edges chosen by a score, on each graph by itself, as :meth:`TicketRun.score_edges` returns it.

    Args:
        method: How edges are chosen.
        sparsity: Fraction of the undirected edges of each graph, or of each of its edge types, that is removed.
        seed: Seed of what is drawn.
        per_graph: Whether draws differ from graph to graph: they then follow from the seed and the edges.
    """

    method: Sparsifier
    sparsity: float
    seed: int
    per_graph: bool = False

    def kept(self, data: Data | HeteroData) -> PerEdge:
        """Return which undirected edges of a graph are kept, bool ``[M]``, of a ``HeteroData`` by edge type."""
        return self._kept(data, GraphEdges(data))

    def _kept(self, data: Data | HeteroData, graph: GraphEdges) -> PerEdge:
        return as_given({kind: self._kept_of(data, graph, kind) for kind in graph.kinds})  # type: ignore[no-any-return]

    def _kept_of(self, data: Data | HeteroData, graph: GraphEdges, kind: Any) -> Tensor:
        method, entries = self.method, graph.entries[kind]
        store = data._store if kind is None else data[kind]
        weight = store.get("edge_weight") if method.uses_weight else None
        if weight is not None:
            weight = check_edge_weight(weight, entries.edge_index)
            if not bool(weight.all()):
                raise ValueError(
                    "'data' holds edges of weight 0, which are no edges: remove them before a ticket is found"
                )
        if kind is not None and kind[0] > kind[2]:  # its ends are exchanged
            method = replace(method, side="src" if method.side == "dst" else "dst")
        seed = self.seed
        if self.per_graph:
            seed = int(digest([seed, entries.edges.key]), 16) % 2**62
        x = data.get("x") if kind is None else None
        return EdgeSelector(entries, method, sparsity=self.sparsity, seed=seed, edge_weight=weight, x=x).keep()

    def apply(self, data: Any) -> Any:
        """Return a graph with the kept edges only; of a batch each graph by itself."""
        return each_graph(data, self._apply)

    def _apply(self, data: Any) -> Any:
        edges = GraphEdges(data)
        return keep_entries(data, edges.per_entry(self._kept(data, edges), loops=True))

    def check_named(self) -> None:
        """Refuse a score without a name, which no file can hold."""
        if not isinstance(self.method.score, str):
            raise TypeError(
                "'edges' must be the name of a score for a task on many graphs, as the ticket has to choose the edges "
                "of others (got a function): register it by edge_score_rule"
            )

    def to_json(self) -> dict[str, Any]:
        """Return what :meth:`from_json` needs."""
        self.check_named()
        method = self.method
        named = {entry.name: getattr(method, entry.name) for entry in fields(Sparsifier) if entry.name != "source"}
        described = {**named, "options": dict(method.options)}
        return {"method": described, "sparsity": self.sparsity, "seed": self.seed, "per_graph": self.per_graph}

    @classmethod
    def from_json(cls, described: Mapping[str, Any]) -> "EdgeRule":
        """Return the rule that a file holds."""
        rest = {name: described[name] for name in ("sparsity", "seed", "per_graph")}
        return cls(Sparsifier(**described["method"]), **rest)


def kept_edges(data: Data | HeteroData, edges: PerEdge | EdgeRule | None) -> PerEdge | None:
    """Return which undirected edges of a graph are kept."""
    return edges.kept(data) if isinstance(edges, EdgeRule) else edges


def keep_edges(data: Any, edges: PerEdge | EdgeRule) -> Any:
    """Return a graph with the kept undirected edges only."""
    if isinstance(edges, EdgeRule):
        return edges.apply(data)
    return keep_entries(data, GraphEdges(data).per_entry(edges, loops=True))


def count_kept(graphs: Any, rule: EdgeRule) -> tuple[int, int]:
    """Return how many undirected edges a rule keeps of some graphs, and how many they have."""
    parts = [mask for graph in graphs for mask in _masks(rule.kept(graph))]
    return sum(int(mask.count_nonzero()) for mask in parts), sum(mask.numel() for mask in parts)


def _masks(kept: PerEdge) -> list[Tensor]:
    return [kept] if isinstance(kept, torch.Tensor) else list(kept.values())
