"""What only replicates a published release, with its constants; nothing else in the package uses it."""

import torch
from torch import Tensor

from graphsparse.ops.pairs import PairTable
from graphsparse.transfer.propagation.edge_propagation import BOUNDS
from graphsparse.transfer.propagation.line_graph import LineGraph


def released_edge_propagation(
    anchors: Tensor, y: Tensor, p: Tensor, queries: Tensor, scores: Tensor, num_nodes: int, *, rounds: int = 5
) -> Tensor:
    r"""Return scores of pairs after label propagation as in the released code of GITL, but for its errors.

    .. math::
        \mathbf{p}' = 0.998 \, \mathbf{p} + 0.002 \, \mathbf{f}^{(5)}, \qquad
        \mathbf{f}^{(k+1)} = \mathrm{clip}(0.995 \, \mathbf{S} \mathbf{f}^{(k)} + 0.005 \, \mathbf{g})

    with the symmetrically normalised line graph :math:`\mathbf{S}` of anchors and queries together: **a score depends
    on which other pairs are asked for**. The line graph is a correct one (in the release, pairs are neighbours by their
    positions in the lists of edges), and no label of a query is a seed (there, links to predict are seeds with 0.5,
    non-links with 0): a query has its score in place of a label. With so small a weight only near-ties can change.

    Args:
        anchors: Pairs with a label ``[2, C]``, each once, no self-loops.
        y: Their labels ``[C]``, from 0 to 1.
        p: Their scores ``[C]``, from 0 to 1.
        queries: Pairs that are asked for ``[2, Q]``, each once and none of them an anchor.
        scores: Their scores ``[Q]``.
        num_nodes: Number of nodes.
        rounds: Number of rounds.

    Returns:
        Scores ``[Q]``.

    Raises:
        TypeError: If the pairs are no integer tensors.
        ValueError: If a pair comes twice, is a self-loop or is out of range.

    Example:
        >>> one, half = torch.tensor([1.0]), torch.tensor([0.5])
        >>> released_edge_propagation(torch.tensor([[0], [1]]), one, one, torch.tensor([[1], [2]]), half, 3)
        tensor([0.5005])

    Source: ``amazon-science/gnn-tail-generalization``, the code of Zheng et al., 2023, arXiv 2302.14189.
    """
    table = PairTable(torch.cat([anchors, queries], 1), num_nodes, "queries")
    start, seed = (table.sorted(torch.cat([given, scores]).float()) for given in (p, y))
    found = LineGraph(table, symmetric=True).propagate(start, seed, rounds, 0.995, BOUNDS["outcome"])
    return scores + 0.002 * (table.unsorted(found)[anchors.size(1) :].to(scores.dtype) - scores)
