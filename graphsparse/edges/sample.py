"""Draw edges, and give those that stay new weights, so that the expected adjacency matrix is the given one."""

from typing import Any, NamedTuple

from torch import Tensor
from torch_geometric import EdgeIndex

from graphsparse.edges.mask import mask_edges
from graphsparse.edges.sparsifier import Sparsifier, as_sparsifier
from graphsparse.edges.sparsify import EntryDrawer
from graphsparse.typing import EdgeScore


class SampledEdges(NamedTuple):
    """Edges that were drawn.

    Attributes:
        edge_index: The entries that stay, in their order, ``[2, E']``.
        edge_weight: Their weights ``[E']``: the new ones, or those that were given, or ``None`` where neither is.
        mask: Which of the given entries stay, bool ``[E]``.
        probability: How likely each of the given entries was to stay, float64 ``[E]``.
        report: Numbers of ``edges``, of those ``kept`` and ``expected``, of the ``core`` and of ``draws``, where any.
    """

    edge_index: Tensor
    edge_weight: Tensor | None
    mask: Tensor
    probability: Tensor
    report: dict[str, Any]


def sample_edge(
    edge_index: Tensor,
    sparsity: float | None = None,
    score: str | EdgeScore | Sparsifier = "dspar",
    *,
    draws: int | None = None,
    num_nodes: int | tuple[int, int] | None = None,
    seed: int | None = None,
    edge_weight: Tensor | None = None,
    x: Tensor | None = None,
) -> SampledEdges:
    r"""Draw undirected edges with probabilities that are proportional to a score, and reweight those that stay.

    With :math:`c_e` the number of times that an edge was drawn, its weight becomes

    .. math:: w'_e = w_e \frac{c_e}{\mathbb{E}[c_e]}, \qquad \text{so that} \quad \mathbb{E}[A'] = A.

    Where an edge has a probability of 1, such as in a core, the factor is 1. Each entry keeps its own weight, times the
    factor of its edge. The law holds for the adjacency matrix, **not** for what a layer makes of it: the normalisation
    of a GCN is not linear, and self-loops that it adds have the weight 1 as before.

    Which edges are drawn depends on the seed and on the edges, and not on their order or on the device.

    Args:
        edge_index: Edges as ``[2, E]``, int64 or int32, in any order.
        sparsity: Fraction of undirected edges to remove, in ``[0, 1)``. Exactly so many go under ``"pivotal"`` and
            ``"systematic"``, and on average under the other designs.
        score: Name of a sparsifier or a :class:`Sparsifier` with a design that draws edges; or a score, which is then
            drawn from by ``"pivotal"``: a name (see :func:`edge_score`) or a callable
            ``(edge_index, num_nodes) -> Tensor[E]``.
        draws: Number of draws of the design ``"replacement"``, instead of ``sparsity``.
        num_nodes: Number of nodes, or ``(num_src, num_dst)`` for a bipartite graph.
        seed: Seed of the draw; ``None`` draws one from PyTorch's global generator.
        edge_weight: Weights of the edges ``[E]``, positive, 0 for what is not there; 1 when ``None``.
        x: Node features ``[N, F]``, for scores that need them.

    Returns:
        The edges that stay, with weights and probabilities.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If ``sparsity`` is out of range, a score or a weight is negative, NaN or infinite, or both
            ``sparsity`` and ``draws`` are given, or none.

    Example:
        >>> import torch
        >>> edge_index = torch.tensor([[0, 0, 0, 3, 1], [1, 2, 3, 4, 2]])
        >>> sample_edge(edge_index, 0.4, seed=0).edge_weight
        tensor([2.0000, 1.1111, 1.6667])

    Source: Liu et al., *DSpar: An Embarrassingly Simple Strategy for Efficient GNN Training and Inference via
    Degree-based Sparsification*, TMLR 2023; Spielman and Srivastava, SIAM J. Comput. 40, 2011.
    """
    method = as_sparsifier(score).drawn()
    drawer = EntryDrawer(
        edge_index, sparsity, method, num_nodes=num_nodes, seed=seed, edge_weight=edge_weight, x=x, draws=draws
    )
    selection = drawer.selector.draw()
    mask, weight = drawer.to_entries(selection)
    kept = (
        edge_index[:, mask] if method.directed and isinstance(edge_index, EdgeIndex) else mask_edges(edge_index, mask)
    )
    weight = edge_weight if weight is None else weight
    probability = drawer.per_entry(drawer.selector.probability(), loops=1, absent=0)
    return SampledEdges(
        kept, None if weight is None else weight[mask], mask, probability, drawer.selector.report(selection.keep)
    )
