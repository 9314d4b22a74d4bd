"""Label propagation over pairs with the constants of the code that the authors released."""

from graphsparse.transfer.propagation.edge_propagation import EdgeLabelPropagation


def release_preset() -> EdgeLabelPropagation:
    r"""Return label propagation over pairs as in the authors' released code, but for its errors.

    Outcome mode, symmetric normalisation, :math:`\alpha = 0.995`, 5 rounds, and

    .. math::
        \mathbf{p}' = 0.998 \, \mathbf{p} + 0.002 \, \mathbf{f}^{(5)}

    over all candidates as elements. The line graph is a correct one (in the release, pairs are neighbours by their
    positions in the lists of edges), and no label of a query is a seed (there, links to predict are seeds with 0.5,
    non-links with 0): a query has its score in place of a label. With so small a weight only near-ties can change.

    Example:
        >>> release_preset()
        EdgeLabelPropagation(K=5, alpha=0.995, mode='outcome', norm='sym', lam=0.002, transductive=True)

    Source: ``amazon-science/gnn-tail-generalization``, the code of Zheng et al., 2023, arXiv 2302.14189.
    """
    return EdgeLabelPropagation(K=5, alpha=0.995, mode="outcome", norm="sym", lam=0.002, transductive=True)
