"""Select and remove edges: the undirected edge is the unit, and the count is exact."""

import torch
from torch import Tensor

from graphsparse.edges.mask import mask_edges
from graphsparse.edges.score import PairScore, pair_score
from graphsparse.edges.undirected import UndirectedEdges, entry_blocks, undirected_edges
from graphsparse.ops.pairs import pair_keys
from graphsparse.ops.select import kth_smallest, num_removed
from graphsparse.typing import EdgeScore


def edge_keep_mask(
    edge_index: Tensor,
    sparsity: float,
    score: str | EdgeScore = "teddy",
    *,
    num_nodes: int | tuple[int, int] | None = None,
    seed: int | None = None,
) -> Tensor:
    """Return which entries of an edge list stay; see :func:`sparsify_edge` for the arguments."""
    num_removed(sparsity, 0)  # a bad sparsity is reported before any work
    edges = undirected_edges(edge_index, num_nodes)
    num_src = num_nodes[0] if isinstance(num_nodes, tuple) else None
    of_pair = pair_score(score, edges, edge_index, num_src, seed=seed)
    k = num_removed(sparsity, edges.num_edges)
    keep = torch.ones(edge_index.size(1), dtype=torch.bool, device=edge_index.device)
    if k == 0:
        return keep
    threshold, last_key = _last_removed(edges, of_pair, k)
    for where, low, high in entry_blocks(edge_index, num_src):
        edge = (low != high).nonzero().squeeze(1)
        u, v = low[edge], high[edge]
        value = of_pair(u, v)
        first = pair_keys((u, v), edges.num_nodes, directed=True) <= last_key
        removed = (value < threshold) | ((value == threshold) & first)
        keep[where][edge] = ~removed
    return keep


def _last_removed(edges: UndirectedEdges, of_pair: PairScore, k: int) -> tuple[Tensor, Tensor]:
    """Return score and key of the ``k``-th edge in the order (score, key): everything up to it goes.

    Comparing an entry with these two replaces a search for its undirected edge.
    """
    nothing = edges.key[:0]
    score = torch.empty(edges.num_edges, dtype=of_pair(nothing, nothing).dtype, device=edges.key.device)
    for where, u, v in edges.blocks():
        score[where] = of_pair(u, v)
    if score.is_floating_point() and score.isnan().any():
        raise ValueError("'score' returned NaN")
    threshold = kth_smallest(score, k, overwrite=True)
    del score
    # Scores are computed a second time to find the ties: that is cheaper than the memory for a copy of all of them.
    num_below, tied = 0, []
    for where, u, v in edges.blocks():
        value = of_pair(u, v)
        num_below += int((value < threshold).count_nonzero())
        tied.append(edges.key[where][value == threshold])
    return threshold, torch.cat(tied)[k - num_below - 1]


def sparsify_edge(
    edge_index: Tensor,
    sparsity: float,
    score: str | EdgeScore = "teddy",
    *,
    num_nodes: int | tuple[int, int] | None = None,
    seed: int | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Remove the :math:`\lfloor \mathrm{sparsity} \cdot M \rfloor` lowest-scoring of the :math:`M` undirected edges.

    Both directions and all duplicates of an edge are kept or dropped together; self-loops are never pruned and never
    counted. Equal scores are removed in the order of the end points (smaller node, then larger node), so the result
    does not depend on the order of the edges, and the edges removed at one sparsity are also removed at every higher
    one. A directed graph is scored as its undirected counterpart and loses a directed edge with its undirected one.

    Args:
        edge_index: Edges as ``[2, E]``, int64 or int32, in any order; an :class:`~torch_geometric.EdgeIndex` keeps its
            metadata.
        sparsity: Fraction of undirected edges to remove, in ``[0, 1)``.
        score: Name of a score (see :func:`edge_score`) or a callable ``(edge_index, num_nodes) -> Tensor[E]``.
        num_nodes: Number of nodes, or ``(num_src, num_dst)`` for a bipartite graph.
        seed: Seed of the ``random`` score.

    Returns:
        The remaining edges, in their order, and the mask over the given ones, bool ``[E]``.

    Raises:
        TypeError: If ``edge_index`` is not an integer tensor, ``sparsity`` no number, ``score`` no name or callable.
        ValueError: If ``sparsity`` is outside ``[0, 1)``, an index is out of range, or the score is unknown or of the
            wrong length.

    Example:
        >>> edge_index = torch.tensor([[0, 0, 0, 3, 1], [1, 2, 3, 4, 2]])
        >>> sparsify_edge(edge_index, 0.4)
        (tensor([[0, 3, 1],
                [3, 4, 2]]), tensor([False, False,  True,  True,  True]))

    Source: Seo et al., arXiv 2402.01261, Section 4.
    """
    mask = edge_keep_mask(edge_index, sparsity, score, num_nodes=num_nodes, seed=seed)
    return mask_edges(edge_index, mask), mask
