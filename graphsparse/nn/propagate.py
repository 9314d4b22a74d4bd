"""Aggregation and linear layer, in the order that costs less, with what is constant computed once."""

import torch
from torch import Tensor, nn

from graphsparse.nn.features import LinearInput, to_dense
from graphsparse.nn.linear import add_bias, apply_linear, is_plain
from graphsparse.ops import Adjacency, spmm
from graphsparse.ops.dense import linear as multiply
from graphsparse.ops.remember import remember_repeated

#: Multiply-accumulates of a dense product that take the time of one channel of one message: 66 against 2.6 billion a
#: second on one core of a CPU (169,343 nodes, 2.3 million edges, 256 channels).
_PRODUCTS_PER_MESSAGE = 25


def propagate(adj: Adjacency, x: Tensor, reduce: str, reuse: bool) -> tuple[Tensor, bool]:
    """Return ``spmm(adj, x, reduce)``, which is what it gave the last time if that is constant.

    Args:
        adj: Edges.
        x: Features of the sources; a constant is computed once, when it comes for the second time.
        reduce: As in :func:`~graphsparse.ops.spmm`.
        reuse: Whether to keep anything at all.

    Returns:
        The aggregated features, and whether they may be changed in place.
    """
    if isinstance(x, LinearInput):
        x = x.to_dense()
    found = _constant(adj, x, reduce, reuse)
    # The mean keeps its result when the weights of the edges are learned; then it must stay as it is.
    return (spmm(adj, x, reduce), not _is_learned(adj)) if found is None else (found, False)


def propagate_and_transform(
    adj: Adjacency, x: Tensor, linear: nn.Module, reduce: str, reuse: bool, *, transform_first: bool = False
) -> tuple[Tensor, bool]:
    r"""Return the linear layer of the aggregated features, or the aggregate of the transformed features.

    A sum or a mean commutes with the matrix of the layer,
    :math:`(\mathbf{A} \mathbf{X}) \mathbf{W} = \mathbf{A} (\mathbf{X} \mathbf{W})`, so that the aggregation is taken
    where it is narrower, the one of the backward pass included; features that need no gradient have none there.

    Args:
        adj: Edges.
        x: Features of the sources.
        linear: The layer, or what a user has put in its place, which need not be linear.
        reduce: As in :func:`~graphsparse.ops.spmm`.
        reuse: Whether to keep what is constant.
        transform_first: Which of the two is meant, should they differ.

    Returns:
        The transformed features, and whether they may be changed in place.
    """
    plain = is_plain(linear) and not (transform_first and linear.bias is not None)
    if transform_first and not plain:
        return spmm(adj, as_weighted(to_dense(apply_linear(linear, x)), adj), reduce), not _is_learned(adj)
    commutes = plain and reduce in ("sum", "mean")
    if isinstance(x, LinearInput) and not commutes:
        x = x.to_dense()
    found = _constant(adj, x, reduce, reuse)
    if found is not None and not plain:
        found = found.clone()  # who knows what is done to it
    if found is None and commutes and (isinstance(x, LinearInput) or _costs_less_before(linear, adj, x)):
        hidden = multiply(x, linear.weight)  # type: ignore[arg-type]
        out = spmm(adj, as_weighted(hidden, adj) if transform_first else hidden, reduce)
        fresh = not _is_learned(adj)
        return (out, fresh) if linear.bias is None else (add_bias(out, linear.bias, fresh), True)  # type: ignore[arg-type]
    out = apply_linear(linear, spmm(adj, x, reduce) if found is None else found)
    return as_weighted(out, adj) if transform_first else out, plain


def as_weighted(x: Tensor, adj: Adjacency) -> Tensor:
    """Return features in the type of their products with the values of edges: under autocast PyG takes the wider."""
    return x if adj.value is None else x.to(torch.promote_types(x.dtype, adj.value.dtype))


def add(out: Tensor, other: Tensor, fresh: bool, scale: float = 1) -> Tensor:
    """Return ``out + scale * other``, in place if that is allowed: another large tensor costs as much as the sum."""
    # Half precision and single give single. What a class of tensors makes of a result may be a view of it.
    fresh = fresh and out.dtype == torch.promote_types(out.dtype, other.dtype) and type(out) is Tensor
    return out.add_(other, alpha=scale) if fresh else torch.add(out, other, alpha=scale)


def _constant(adj: Adjacency, x: Tensor, reduce: str, reuse: bool) -> Tensor | None:
    if not reuse or x.requires_grad or _is_learned(adj) or isinstance(x, LinearInput):
        return None
    return remember_repeated([x, adj], ("propagated", reduce), lambda: spmm(adj, x, reduce))


def _is_learned(adj: Adjacency) -> bool:
    return adj.value is not None and adj.value.requires_grad


def _costs_less_before(linear: nn.Module, adj: Adjacency, x: Tensor) -> bool:
    """Say whether the layer should come before the aggregation, going backward included."""
    weight: Tensor = linear.weight  # type: ignore[assignment]
    backward = torch.is_grad_enabled()
    products = weight.numel() / _PRODUCTS_PER_MESSAGE
    before = adj.num_edges * weight.size(0) * (1 + (backward and (x.requires_grad or weight.requires_grad)))
    after = adj.num_edges * x.size(-1) * (1 + (backward and x.requires_grad))
    return before + adj.num_src * products <= after + adj.num_dst * products
