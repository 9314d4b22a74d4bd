"""Select edges by a sparsifier: everything but the draw is done once."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from graphsparse.edges.cores import CORES
from graphsparse.edges.entries import Entries
from graphsparse.edges.inclusion import Design, ReplacementDesign, make_design, restore_design
from graphsparse.edges.local_rank import local_score
from graphsparse.edges.score import score_edges
from graphsparse.edges.sparsifier import Sparsifier
from graphsparse.ops.check import check_count
from graphsparse.ops.select import mark_smallest, num_removed
from graphsparse.utils.counter_random import CounterRandom


class Selection(NamedTuple):
    """The edges that are kept, bool ``[M]``, and how often each was drawn, ``None`` where weights stay as they are."""

    keep: Tensor
    times: Tensor | None = None


class EdgeSelector:
    """Chooses edges of a graph; everything that does not change from draw to draw is worked out once.

    Draws have numbers, epochs: each follows from the seed and its number alone. Under a design each is a new one; where
    the best edges are kept they differ under the score ``random``, which is drawn anew, with the core as it was.

    Args:
        entries: The graph.
        method: How edges are chosen.
        sparsity: Fraction of the edges to remove; ``None`` with one of the next two, or for the core alone.
        threshold: Keep all edges of this score or a better one instead.
        num_neighbors: Keep the edges of this rank or a better one instead, under the rule ``"rank"``.
        seed: Seed of what is drawn; ``None`` draws one from PyTorch's global generator.
        edge_weight: Weight of each entry, positive.
        x: Node features, for scores that need them.
        draws: Number of draws with replacement, instead of the sparsity.
        state: Of a selector that was made with the same arguments: nothing is scored then.
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
        draws: int | None = None,
        state: Mapping[str, Tensor] | None = None,
    ) -> None:
        check_size(method, sparsity, threshold, num_neighbors, draws)
        self.entries, self.method = entries, method
        self.num_edges = entries.edges.num_edges
        if seed is None and (method.design != "top" or method.score == "random"):
            seed = int(torch.randint(2**62, ()))
        self.seed = seed
        self._from_graph: dict[str, Any] = {"edge_weight": edge_weight if method.uses_weight else None, "x": x}
        self.num_kept: int | None = None
        if sparsity is not None:
            self.num_kept = self.num_edges - num_removed(sparsity, self.num_edges)
        self.threshold = threshold if num_neighbors is None else -num_neighbors
        self.score: Tensor | None = None
        self.ties: tuple[Tensor, ...] = ()
        self.design: Design | None = None
        if state is not None:
            self.core = state.get("core")
            self.design = None if method.design == "top" else restore_design(method.design, state)
            return
        self.score, self.ties = self._scores(seed)
        self.core = None if method.core is None else self._core(self.score, method.core)
        if sparsity is not None:
            self._check_core(sparsity)
        if method.design != "top":
            self.design = make_design(method.design, self._chances(self.score), self.num_kept, self.core, draws)
            self.score = None

    def _scores(self, seed: int | None) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return the scores of the edges, and what decides between equal ones before their order does."""
        method, edges = self.method, self.entries.edges
        score = score_edges(method.score, self.entries, seed=seed, options=method.options, **self._from_graph)
        if method.local is not None:
            ends = {"dst": "higher", "src": "lower"}[method.side] if method.directed else method.combine
            score, second = local_score(edges, score, method.local, ends)
            return score, (second,)
        if score.dim() == 2:
            raise ValueError(f"'score' {method.score!r} has a value for each end of an edge: it needs a 'local' rule")
        return score, ()

    def _chances(self, score: Tensor) -> Tensor:
        """Return how likely each edge is relative to the others: its score; the same for all where it is random."""
        if self.method.score == "random":
            return torch.ones(self.num_edges, dtype=torch.float32, device=score.device)
        low, high = score.aminmax() if self.num_edges else (torch.tensor(0), torch.tensor(0))
        if not (low >= 0 and high < torch.inf):
            raise ValueError(
                f"'score' must be finite and not negative where edges are drawn by it (got {self.method.score!r} with "
                f"{float(low)} to {float(high)})"
            )
        return score

    def _core(self, score: Tensor, name: str) -> Tensor:
        """Return the edges that are kept first; those of the undirected counterpart keep all of their directions."""
        entries, ranks = self.entries.undirected(), [score, *self.ties]
        edge_weight = self._from_graph["edge_weight"]
        directed = entries is not self.entries
        if directed:
            ranks = [entries.per_edge(self.entries.per_entry(rank, loops=0), "amax") for rank in ranks]
        weight = None if edge_weight is None else entries.per_edge(edge_weight, "mean")
        core = CORES[name](entries.edges, *ranks, edge_weight=weight)
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
        """Return which edges the first draw keeps, bool ``[M]``."""
        return self.draw().keep

    def draw(self, epoch: int = 0) -> Selection:
        """Return the edges that a draw keeps."""
        if self.design is None:
            return Selection(self._best(epoch))
        assert self.seed is not None
        count = self.design.draw(self.seed, epoch)
        keep = count if count.dtype == torch.bool else count > 0
        return Selection(keep, count if self.method.reweights else None)

    def weight_of_one(self) -> Tensor:
        """Return the weight of an edge that is drawn once, where the weights are 1 before, float64 ``[M]``."""
        assert self.design is not None
        return self.design.expected().reciprocal_()  # infinity where an edge is never drawn

    def _best(self, epoch: int) -> Tensor:
        """Return the edges with the best scores, bool ``[M]``."""
        score, ties = self.score, self.ties
        if score is None or (epoch and self.draws_anew):
            seed = self.seed
            if epoch and seed is not None:
                seed = CounterRandom(seed, f"epoch {epoch}").key & 2**62 - 1
            score, ties = self._scores(seed)
        if self.num_kept is None:
            kept = torch.zeros(self.num_edges, dtype=torch.bool, device=score.device)
            if self.threshold is not None:
                kept = score >= self.threshold
            return kept if self.core is None else kept | self.core
        num_removed = self.num_edges - self.num_kept
        if self.core is None:
            return ~mark_smallest(score, num_removed, *ties)
        rest = (~self.core).nonzero().squeeze(1)
        removed = mark_smallest(score[rest], num_removed, *(tie[rest] for tie in ties))
        keep = torch.ones_like(self.core)
        keep[rest[removed]] = False
        return keep

    @property
    def draws_anew(self) -> bool:
        """Whether one draw differs from another."""
        return self.design is not None or self.method.score == "random"

    def probability(self) -> Tensor:
        """Return how likely a draw is to keep each edge, float64 ``[M]``."""
        if self.design is not None:
            return self.design.probability()
        if not self.draws_anew:
            return self._best(0).double()
        if self.num_kept is None or self.method.local is not None:
            raise ValueError("how likely an edge is to be kept is not known where a local rule ranks random draws")
        size = 0 if self.core is None else int(self.core.count_nonzero())
        chance = (self.num_kept - size) / max(self.num_edges - size, 1)
        same = self.entries.edges.key.new_full((self.num_edges,), chance, dtype=torch.float64)
        return same if self.core is None else same.masked_fill_(self.core, 1)

    def state(self) -> dict[str, Tensor]:
        """Return what draws need beside the graph and the arguments."""
        core = {} if self.core is None else {"core": self.core}
        return core if self.design is None else {**core, **self.design.state()}

    def report(self, keep: Tensor) -> dict[str, Any]:
        """Return what a draw has reached: numbers of edges, exponent or rank of the last one that a local rule kept."""
        numbers: dict[str, Any] = {"edges": self.num_edges, "kept": int(keep.count_nonzero())}
        if self.core is not None:
            numbers["core"] = int(self.core.count_nonzero())
        if isinstance(self.design, ReplacementDesign):
            numbers["draws"] = self.design.draws
        if self.design is not None:
            numbers["expected"] = float(self.design.probability().sum())
        if self.method.local is not None and self.score is not None and bool(keep.any()):
            last = (self.score[keep] if self.core is None else self.score[keep & ~self.core]).amin()
            numbers["num_neighbors" if self.method.local == "rank" else "exponent"] = (
                -int(last) if self.method.local == "rank" else 1 - float(last)
            )
        return numbers


def check_size(
    method: Sparsifier,
    sparsity: float | None,
    threshold: float | None,
    num_neighbors: int | None,
    draws: int | None = None,
) -> None:
    """Refuse anything but one way to say how many edges stay."""
    given = {"sparsity": sparsity, "threshold": threshold, "num_neighbors": num_neighbors, "draws": draws}
    named = [name for name, value in given.items() if value is not None]
    if len(named) > 1:
        raise ValueError(f"'{named[0]}' and '{named[1]}' both say how many edges stay: give one of them")
    if draws is not None:
        check_count(draws, "draws", least=0)
        if method.design != "replacement":
            raise ValueError(f"'draws' needs the design 'replacement' (got {method.design!r})")
    elif method.design != "top" and sparsity is None:
        raise ValueError(f"'sparsity' must be given where edges are drawn, by {method.design!r} (got None)")
    if not named and method.core is None:
        raise ValueError("'sparsity' must be given, or 'threshold' or 'num_neighbors' (got none of them)")
    if sparsity is not None:
        num_removed(sparsity, 0)
    if num_neighbors is not None:
        check_count(num_neighbors, "num_neighbors")
        if method.local != "rank":
            raise ValueError(f"'num_neighbors' needs the local rule 'rank' (got {method.local!r})")
