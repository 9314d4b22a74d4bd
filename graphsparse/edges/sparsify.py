"""Select and remove edges: the undirected edge is the unit, and the count is exact."""

import torch
from torch import Tensor
from torch_geometric import EdgeIndex

from graphsparse.edges.entries import Entries, check_edge_weight
from graphsparse.edges.mask import mask_edges
from graphsparse.edges.selector import EdgeSelector, check_size
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
    check_size(method, sparsity, threshold, num_neighbors)  # what is bad is reported before any work
    size = check_edge_index(edge_index, num_nodes)
    num_nodes = size if isinstance(num_nodes, tuple) else size[0]
    there = weight = None
    if edge_weight is not None and method.uses_weight:
        weight = check_edge_weight(edge_weight, edge_index)
        there = weight > 0  # weight 0 means removed: no edge of the graph
        edge_index, weight = edge_index[:, there], weight[there]
    entries = Entries(edge_index, num_nodes, directed=method.directed)
    selector = EdgeSelector(
        entries,
        method,
        sparsity=sparsity,
        threshold=threshold,
        num_neighbors=num_neighbors,
        seed=seed,
        edge_weight=weight,
        x=x,
    )
    kept = entries.per_entry(selector.keep(), loops=True)
    if there is None:
        return kept
    mask = torch.zeros_like(there)
    mask[there] = kept
    return mask


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
    kept = mask_edges(edge_index, mask)
    if method.directed and isinstance(edge_index, EdgeIndex) and not bool(mask.all()):
        kept = edge_index[:, mask]  # one direction may go without the other: it is no longer known to be undirected
    return kept, mask
