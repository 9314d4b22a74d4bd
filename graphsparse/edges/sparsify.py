"""Select and remove edges: the undirected edge is the unit, and the count is exact."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from graphsparse.edges.entries import Entries, check_edge_weight
from graphsparse.edges.mask import mask_edges
from graphsparse.edges.selector import EdgeSelector, Selection, check_size
from graphsparse.edges.sparsifier import Sparsifier, as_sparsifier
from graphsparse.ops.check import check_edge_index
from graphsparse.typing import EdgeScore


def edge_keep_mask(
    edge_index: Tensor,
    sparsity: float | None = None,
    score: str | EdgeScore | Sparsifier = "teddy",
    *,
    num_nodes: int | tuple[int, int] | None = None,
    seed: int | None = None,
    threshold: float | None = None,
    num_neighbors: int | None = None,
    edge_weight: Tensor | None = None,
    x: Tensor | None = None,
) -> Tensor:
    """Return which entries of an edge list stay; see :func:`sparsify_edge` for the arguments."""
    method = as_sparsifier(score)
    drawer = EntryDrawer(
        edge_index,
        sparsity,
        method,
        num_nodes=num_nodes,
        seed=seed,
        threshold=threshold,
        num_neighbors=num_neighbors,
        edge_weight=edge_weight if method.uses_weight else None,
        x=x,
    )
    return drawer.draw()[0]


class EntryDrawer:
    """Draws entries of an edge list, with the new weights of those that stay; see :func:`sparsify_edge`.

    Args:
        state: Of the selector of one that was made with the same arguments.
        draws: Number of draws with replacement, instead of the sparsity.

    Attributes:
        selector: Draws the edges.
    """

    def __init__(
        self,
        edge_index: Tensor,
        sparsity: float | None,
        method: Sparsifier,
        *,
        num_nodes: int | tuple[int, int] | None = None,
        seed: int | None = None,
        threshold: float | None = None,
        num_neighbors: int | None = None,
        edge_weight: Tensor | None = None,
        x: Tensor | None = None,
        draws: int | None = None,
        state: Mapping[str, Tensor] | None = None,
    ) -> None:
        check_size(method, sparsity, threshold, num_neighbors, draws)  # what is bad is reported before any work
        size = check_edge_index(edge_index, num_nodes)
        num_nodes = size if isinstance(num_nodes, tuple) else size[0]
        self.weight = None if edge_weight is None else check_edge_weight(edge_weight, edge_index)
        self._there = weight = None
        if self.weight is not None:
            self._there = self.weight > 0  # weight 0 means removed: no edge of the graph
            edge_index, weight = edge_index[:, self._there], self.weight[self._there]
        self.selector = EdgeSelector(
            Entries(edge_index, num_nodes, directed=method.directed),
            method,
            sparsity=sparsity,
            threshold=threshold,
            num_neighbors=num_neighbors,
            seed=seed,
            edge_weight=weight,
            x=x,
            draws=draws,
            state=state,
        )
        self._once: Tensor | None = None

    def remember_edges(self) -> "EntryDrawer":
        """Find the edge of each entry now, and not again for every draw."""
        self.selector.entries.remember()
        return self

    def draw(self, epoch: int = 0) -> tuple[Tensor, Tensor | None]:
        """Return what :meth:`to_entries` does, of one draw."""
        return self.to_entries(self.selector.draw(epoch))

    def to_entries(self, selection: Selection) -> tuple[Tensor, Tensor | None]:
        """Return which entries stay, bool ``[E]``, and weights ``[E]`` that are the new ones of these, or ``None``."""
        keep, times = selection
        mask = self.per_entry(keep, loops=True, absent=False)
        if times is None:
            return mask, None
        if self._once is None:
            once = self.per_entry(self.selector.weight_of_one(), loops=1, absent=0)
            if self.weight is not None:
                once *= self.weight
            own = self.weight if self.weight is not None and self.weight.is_floating_point() else None
            self._once = once.float() if own is None else once.type_as(own)
        return mask, self._once if times.dtype == torch.bool else self._once * self.per_entry(times, loops=1, absent=0)

    def per_entry(self, values: Tensor, loops: float, absent: float) -> Tensor:
        """Return the value of its edge for each entry ``[E]``; others for self-loops and for entries of weight 0."""
        found = self.selector.entries.per_entry(values, loops)
        if self._there is None:
            return found
        out = found.new_full((self._there.numel(),), absent)
        out[self._there] = found
        return out


def sparsify_edge(
    edge_index: Tensor,
    sparsity: float | None = None,
    score: str | EdgeScore | Sparsifier = "teddy",
    *,
    num_nodes: int | tuple[int, int] | None = None,
    seed: int | None = None,
    threshold: float | None = None,
    num_neighbors: int | None = None,
    edge_weight: Tensor | None = None,
    x: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Remove the :math:`\lfloor \mathrm{sparsity} \cdot M \rfloor` lowest-scoring of the :math:`M` undirected edges.

    Both directions and all duplicates of an edge are kept or dropped together; self-loops are never pruned and never
    counted. Equal scores are removed in the order of the end points (smaller node, then larger node), so the result
    does not depend on the order of the edges, and the edges removed at one sparsity are also removed at every higher
    one. A directed graph is scored as its undirected counterpart and loses a directed edge with its undirected one,
    unless a :class:`Sparsifier` says that it is ``directed``.

    Args:
        edge_index: Edges as ``[2, E]``, int64 or int32, in any order; an :class:`~torch_geometric.EdgeIndex` keeps its
            metadata.
        sparsity: Fraction of undirected edges to remove, in ``[0, 1)``. Instead of it one of the next two may be given,
            and none where there is a core, which is then kept alone.
        score: Name of a score (see :func:`edge_score`) or of a sparsifier (see :data:`SPARSIFIERS`), a
            :class:`Sparsifier`, or a callable ``(edge_index, num_nodes) -> Tensor[E]``.
        num_nodes: Number of nodes, or ``(num_src, num_dst)`` for a bipartite graph.
        seed: Seed of what is drawn; ``None`` draws one from PyTorch's global generator.
        threshold: Keep the edges whose score, or local score where there is a local rule, is not below it.
        num_neighbors: Under the local rule ``"rank"``, the number of edges that a node keeps.
        edge_weight: Weights of the edges ``[E]``, positive, 0 for what is not there; only some scores look at them.
        x: Node features ``[N, F]``, for the score ``message_norm``.

    Returns:
        The remaining edges, in their order, and the mask over the given ones, bool ``[E]``.

    Raises:
        TypeError: If ``edge_index`` is not an integer tensor, ``sparsity`` no number, ``score`` no name or callable.
        ValueError: If ``sparsity`` is outside ``[0, 1)`` or removes edges of the core, more or less than one size is
            given, an index is out of range, the score is unknown or of the wrong length, or edges get new weights,
            which :func:`sample_edge` returns.

    Example:
        >>> edge_index = torch.tensor([[0, 0, 0, 3, 1], [1, 2, 3, 4, 2]])
        >>> sparsify_edge(edge_index, 0.4)
        (tensor([[0, 3, 1],
                [3, 4, 2]]), tensor([False, False,  True,  True,  True]))

    Source: Seo et al., arXiv 2402.01261, Section 4.
    """
    method = as_sparsifier(score)
    if method.reweights:
        raise ValueError(
            f"'score' gives the edges that it keeps new weights, by the design {method.design!r}: sample_edge returns "
            "them, and 'reweight=False' leaves them out"
        )
    mask = edge_keep_mask(
        edge_index,
        sparsity,
        method,
        num_nodes=num_nodes,
        seed=seed,
        threshold=threshold,
        num_neighbors=num_neighbors,
        edge_weight=edge_weight,
        x=x,
    )
    return mask_edges(edge_index, mask, directed=method.directed), mask


def spanning_forest(
    edge_index: Tensor,
    score: str | EdgeScore | Sparsifier = "random",
    *,
    num_nodes: int | tuple[int, int] | None = None,
    seed: int | None = None,
    edge_weight: Tensor | None = None,
) -> Tensor:
    r"""Mark the edges of the maximum spanning forest of a score.

    These are :math:`N - C` undirected edges that keep each of the :math:`C` components connected, isolated nodes
    counted among them, and of all such edges those with the best scores: an edge is left out if it is the worst of a
    cycle. Equal scores are ranked as in :func:`sparsify_edge`, which keeps these edges first by the sparsifier
    ``Sparsifier(score, core="forest")``.

    Args:
        edge_index: Edges as ``[2, E]``, int64 or int32, in any order. A directed graph has the forest of its undirected
            counterpart.
        score: Name of a score (see :func:`edge_score`), a :class:`Sparsifier`, whose score and local rule are taken, or
            a callable ``(edge_index, num_nodes) -> Tensor[E]``.
        num_nodes: Number of nodes, or ``(num_src, num_dst)`` for a bipartite graph.
        seed: Seed of ``random``; ``None`` draws one from PyTorch's global generator.
        edge_weight: Weights of the edges ``[E]``, positive, 0 for what is not there; some scores look at them.

    Returns:
        Bool ``[E]``: ``True`` for both directions and all duplicates of an edge of the forest, and for self-loops,
        which are never pruned.

    Raises:
        TypeError: If ``edge_index`` is not an integer tensor or ``score`` is neither name nor callable.
        ValueError: If an index is out of range, the score is unknown or of the wrong length, or a weight is negative.

    Example:
        >>> edge_index = torch.tensor([[0, 0, 0, 3, 1], [1, 2, 3, 4, 2]])
        >>> spanning_forest(edge_index, "degree")
        tensor([False,  True,  True,  True,  True])

    Source: Boruvka, *O jistem problemu minimalnim*, 1926.
    """
    method = replace(as_sparsifier(score), core="forest", design="top", reweight=None)
    return edge_keep_mask(edge_index, None, method, num_nodes=num_nodes, seed=seed, edge_weight=edge_weight)
