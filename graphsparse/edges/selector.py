"""Select edges by a sparsifier: everything but the draw is done once."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from graphsparse.edges.cores import CORES
from graphsparse.edges.entries import Entries
from graphsparse.edges.local_rank import local_score
from graphsparse.edges.score import score_edges
from graphsparse.edges.sparsifier import Sparsifier
from graphsparse.ops.check import check_count
from graphsparse.ops.select import mark_smallest, num_removed


class Selection(NamedTuple):
    """The edges that are kept, bool ``[M]``, and what the weight of each is multiplied by, or ``None`` for 1."""

    keep: Tensor
    factor: Tensor | None = None


class EdgeSelector:
    """Chooses edges of a graph; everything that does not change from draw to draw is worked out once.

    Args:
        entries: The graph.
        method: How edges are chosen.
        sparsity: Fraction of the edges to remove; ``None`` with one of the next two, or for the core alone.
        threshold: Keep all edges of this score or a better one instead.
        num_neighbors: Keep the edges of this rank or a better one instead, under the rule ``"rank"``.
        seed: Seed of what is drawn; ``None`` draws one from PyTorch's global generator.
        edge_weight: Weight of each entry, positive.
        x: Node features, for scores that need them.
    """

    def __init__(
        self,
        entries: Entries,
        method: Sparsifier,
        *,
        sparsity: float | None = None,
        threshold: float | None = None,
        num_neighbors: int | None = None,
        seed: int | None = None,
        edge_weight: Tensor | None = None,
        x: Tensor | None = None,
    ) -> None:
        check_size(method, sparsity, threshold, num_neighbors)
        self.entries, self.method = entries, method
        self.num_edges = entries.edges.num_edges
        weight = edge_weight if method.uses_weight else None
        self.score = score_edges(method.score, entries, seed=seed, edge_weight=weight, x=x, options=method.options)
        self.ties: tuple[Tensor, ...] = ()
        if method.local is not None:
            ends = {"dst": "higher", "src": "lower"}[method.side] if method.directed else method.combine
            self.score, second = local_score(entries.edges, self.score, method.local, ends)
            self.ties = (second,)
        elif self.score.dim() == 2:
            raise ValueError(f"'score' {method.score!r} has a value for each end of an edge: it needs a 'local' rule")
        self.core = None if method.core is None else self._core(method.core, weight)
        self.num_kept: int | None = None
        if sparsity is not None:
            self.num_kept = self.num_edges - num_removed(sparsity, self.num_edges)
            self._check_core(sparsity)
        self.threshold = threshold if num_neighbors is None else -num_neighbors

    def _core(self, name: str, edge_weight: Tensor | None) -> Tensor:
        """Return the edges that are kept first; those of the undirected counterpart keep all of their directions."""
        entries, score = self.entries.undirected(), self.score
        directed = entries is not self.entries
        if directed:
            lowest = -torch.inf if score.is_floating_point() else torch.iinfo(score.dtype).min
            score = entries.per_edge(self.entries.per_entry(score, lowest), "amax")
        weight = None if edge_weight is None else entries.per_edge(edge_weight, "mean")
        core = CORES[name](entries.edges, score, edge_weight=weight)
        return self.entries.per_edge(entries.per_entry(core.byte(), 0), "amax").bool() if directed else core

    def _check_core(self, sparsity: float) -> None:
        size = 0 if self.core is None else int(self.core.count_nonzero())
        if self.num_kept is not None and size > self.num_kept:
            most = (self.num_edges - size) / self.num_edges
            raise ValueError(
                f"'sparsity' must be at most {most:.4f}: the core {self.method.core!r} has {size} of "
                f"{self.num_edges} edges (got {sparsity})"
            )

    def keep(self) -> Tensor:
        """Return which edges are kept, bool ``[M]``."""
        if self.num_kept is None:
            kept = torch.zeros(self.num_edges, dtype=torch.bool, device=self.score.device)
            if self.threshold is not None:
                kept = self.score >= self.threshold
            return kept if self.core is None else kept | self.core
        num_removed = self.num_edges - self.num_kept
        if self.core is None:
            return ~mark_smallest(self.score, num_removed, *self.ties)
        rest = (~self.core).nonzero().squeeze(1)
        removed = mark_smallest(self.score[rest], num_removed, *(tie[rest] for tie in self.ties))
        keep = torch.ones_like(self.core)
        keep[rest[removed]] = False
        return keep

    def report(self, keep: Tensor) -> dict[str, Any]:
        """Return what was reached: numbers of edges, and exponent or rank of the last one that a local rule kept."""
        numbers: dict[str, Any] = {"edges": self.num_edges, "kept": int(keep.count_nonzero())}
        if self.core is not None:
            numbers["core"] = int(self.core.count_nonzero())
        if self.method.local is not None and bool(keep.any()):
            last = (self.score[keep] if self.core is None else self.score[keep & ~self.core]).amin()
            numbers["num_neighbors" if self.method.local == "rank" else "exponent"] = (
                -int(last) if self.method.local == "rank" else 1 - float(last)
            )
        return numbers


def check_size(method: Sparsifier, sparsity: float | None, threshold: float | None, num_neighbors: int | None) -> None:
    """Refuse anything but one way to say how many edges stay."""
    given = {"sparsity": sparsity, "threshold": threshold, "num_neighbors": num_neighbors}
    named = [name for name, value in given.items() if value is not None]
    if len(named) > 1:
        raise ValueError(f"'{named[0]}' and '{named[1]}' both say how many edges stay: give one of them")
    if not named and method.core is None:
        raise ValueError("'sparsity' must be given, or 'threshold' or 'num_neighbors' (got none of them)")
    if sparsity is not None:
        num_removed(sparsity, 0)
    if num_neighbors is not None:
        check_count(num_neighbors, "num_neighbors")
        if method.local != "rank":
            raise ValueError(f"'num_neighbors' needs the local rule 'rank' (got {method.local!r})")
    if method.design != "top" and sparsity is None:
        raise ValueError(f"'sparsity' must be given where edges are drawn, by {method.design!r} (got None)")
