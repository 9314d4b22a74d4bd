"""The product of a graph with features: what every message passing layer does, without a tensor of messages."""

import math
from typing import Any

import torch
from torch import Tensor

from graphsparse.ops.adjacency import Adjacency
from graphsparse.ops.kernels import HALF, block_size, choose_backend, extremum, product, sampled_product
from graphsparse.ops.norm import inverse, row_sum, spread
from graphsparse.ops.pattern import Pattern

REDUCTIONS = ("sum", "mean", "min", "max")


def spmm(
    adj: Adjacency,
    x: Tensor,
    reduce: str = "sum",
    *,
    value: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    r"""Bring the features of the sources to their destinations, weighted by the values of the edges, and reduce them.

    With :math:`w_{ij}` the value of the edge :math:`j \to i`, 1 if there are none,

    .. math::
        \mathrm{sum}: \sum_j w_{ij} \mathbf{x}_j \qquad
        \mathrm{mean}: \frac{\sum_j w_{ij} \mathbf{x}_j}{\sum_j w_{ij}} \qquad
        \mathrm{min}, \mathrm{max}: \min_j, \max_j \{ w_{ij} \mathbf{x}_j : w_{ij} \neq 0 \}

    **An edge of value 0 is the same as no edge**, in all four, as long as ``x`` is finite. So the mean divides by the
    sum of the values and not by the number of edges, and an extremum passes over edges of value 0, which makes it jump
    where a value becomes 0; such an edge gets no gradient from it. A destination without edges gets 0, and so does a
    mean whose values sum to 0.

    Gradients flow to ``x`` and to the values. The sum and the mean need the transpose for the gradient of ``x``: it is
    sorted out once and kept, and not needed at all where ``adj`` is symmetric. The gradient of the values takes memory
    for ``E`` numbers, never for ``E x F``. Of equal extrema the first edge, by row and column, gets the gradient.
    A second derivative is refused where it is not 0, with an error when it is asked for.

    The backend is chosen by device and reduction. On CPU it is ``"torch"``: for a sum over the edges of ogbn-arxiv on
    one thread ``"torch-sparse"`` took 3 to 5 times as long, and gathering and scattering as PyG does 3 to 18 times
    (the whole table is in ``graphsparse/ops/kernels.py``). On GPU, where nothing has been measured yet, it is
    ``"torch"`` for sum and mean, and ``"torch-sparse"`` where it is installed, else ``"gather-scatter"``, for min and
    max, which torch lacks there. In half precision all add up in float32, except ``"torch-sparse"``.

    Args:
        adj: Graph; rows are destinations, columns are sources.
        x: Features of the sources, floating point ``[num_src, *]``. The result has its type; values are cast to it.
        reduce: ``"sum"``, ``"mean"``, ``"min"`` or ``"max"``.
        value: Values to use instead of those of ``adj``, floating point ``[E]`` in the order of the edge list.
        backend: ``"torch"``, ``"torch-sparse"`` or ``"gather-scatter"`` to force one.

    Returns:
        Features of the destinations, ``[num_dst, *]``.

    Raises:
        ImportError: If torch-sparse is forced and cannot be used.
        TypeError: If an argument has the wrong type.
        ValueError: If a shape is wrong, or ``reduce`` or ``backend`` is none of the above.

    Example:
        >>> adj = Adjacency.from_edge_index(torch.tensor([[0, 1], [2, 2]]))
        >>> x = torch.tensor([[1.0], [3.0], [5.0]])
        >>> spmm(adj, x, "mean").flatten()
        tensor([0., 0., 2.])
        >>> spmm(adj, x, "mean", value=torch.tensor([1.0, 0.0])).flatten()
        tensor([0., 0., 1.])
    """
    if not isinstance(adj, Adjacency):
        raise TypeError(f"'adj' must be an Adjacency (got {type(adj).__name__})")
    if not isinstance(x, Tensor) or x.layout != torch.strided or not x.is_floating_point():
        kind = f"{x.dtype}, layout {x.layout}" if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"'x' must be a dense floating point tensor (got {kind})")
    if x.dim() == 0 or x.size(0) != adj.num_src:
        raise ValueError(f"'x' must have one row per source, {adj.num_src} (got shape {list(x.shape)})")
    if x.device != adj.device:
        raise ValueError(f"'x' must be on the device of the edges, {adj.device} (got {x.device})")
    if reduce not in REDUCTIONS:
        raise ValueError(f"'reduce' must be one of {REDUCTIONS} (got {reduce!r})")
    backend = choose_backend(backend, reduce, x.device)
    if value is not None:
        adj = adj.with_value(value)
    function = _Linear if reduce in ("sum", "mean") else _Extremum
    # A view of the result would make a later change in place, such as adding a bias, cost two copies going backward.
    flat = x if x.dim() == 2 else x.reshape(x.size(0), math.prod(x.shape[1:]))
    out: Tensor = function.apply(flat, adj.value, adj, reduce, backend)  # type: ignore[no-untyped-call]
    return out if x.dim() == 2 else out.reshape(adj.num_dst, *x.shape[1:])


class _Once(torch.autograd.Function):
    """Passes a gradient on, and raises an error when a second derivative is asked for."""

    @staticmethod
    def forward(ctx: Any, result: Tensor, *computed_from: Tensor | None) -> Tensor:
        return result

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> None:
        raise RuntimeError("'spmm' has no second derivative")


def _once(result: Tensor | None, *computed_from: Tensor | None) -> Tensor | None:
    passed: Tensor | None = None if result is None else _Once.apply(result, *computed_from)  # type: ignore[no-untyped-call]
    return passed


class _Linear(torch.autograd.Function):
    """Sum and mean."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor | None, adj: Adjacency, reduce: str, backend: str) -> Tensor:
        out = product(adj.pattern, value, x, backend)
        scale = None
        if reduce == "mean":
            wide = torch.float32 if x.dtype in HALF else x.dtype
            cast = None if value is None or value.dtype == wide else value.to(wide)
            total = adj.row_sum(wide) if cast is None else row_sum(adj.pattern, cast)
            scale = inverse(total).to(x.dtype)
            out.mul_(scale.unsqueeze(1))
        ctx.adj, ctx.backend = adj, backend
        learned = ctx.needs_input_grad[1]
        ctx.save_for_backward(value, scale, x if learned else None, out if learned and reduce == "mean" else None)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        value, scale, x, out = ctx.saved_tensors
        grad_x = grad_value = None
        with torch.no_grad():
            scaled = grad if scale is None else grad * scale.unsqueeze(1)
            if ctx.needs_input_grad[0]:
                turned = ctx.adj.t()
                grad_x = product(turned.pattern, turned.value, scaled, ctx.backend)
            if ctx.needs_input_grad[1]:
                pattern: Pattern = ctx.adj.pattern
                grad_value = sampled_product(pattern, scaled, x)
                if out is not None:  # a value of a mean also counts in the divisor
                    grad_value -= spread(pattern, (scaled * out).sum(1))
                grad_value = grad_value.to(value.dtype)
        return _once(grad_x, grad, value), _once(grad_value, grad, x, value), None, None, None


class _Extremum(torch.autograd.Function):
    """Minimum and maximum."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor | None, adj: Adjacency, reduce: str, backend: str) -> Tensor:
        pattern, kept = (adj.pattern, None) if value is None else adj.keep(("present",), lambda: _present(adj, value))
        used = value if kept is None or value is None else value.index_select(0, kept)
        need_entry = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        out, entry = extremum(pattern, used, x, reduce, backend, need_entry)
        if need_entry:
            ctx.col, ctx.size = pattern.col, x.size(0)
            ctx.save_for_backward(entry, value, used, kept, x if ctx.needs_input_grad[1] else None)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        _, value, _, _, x = ctx.saved_tensors
        with torch.no_grad():
            grad_x, grad_value = _gradients_of_extremum(ctx, grad)
        return _once(grad_x, grad, value), _once(grad_value, grad, x), None, None, None


def _present(adj: Adjacency, value: Tensor) -> tuple[Pattern, Tensor | None]:
    """Return the entries whose value is not 0, and where they are; a device is waited for to find out."""
    present = value != 0
    if present.all():
        return adj.pattern, None
    pattern = Pattern(adj.pattern.rowptr, adj.pattern.col, adj.pattern.num_cols).select(present)
    return pattern, present.nonzero().squeeze(1)


def _gradients_of_extremum(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """Pass the gradient of every element to the one edge it came from: N x F work for any number of edges."""
    entry, value, used, kept, x = ctx.saved_tensors
    wide = torch.float32 if grad.dtype in HALF else grad.dtype
    grad_x = grad_value = None
    if ctx.needs_input_grad[0]:
        grad_x = grad.new_zeros(ctx.size, grad.size(1), dtype=wide)
    if ctx.needs_input_grad[1]:
        grad_value = value.new_zeros(len(value), dtype=wide)
    size = block_size(grad.size(1), grad)
    for start in range(0, grad.size(0) if len(ctx.col) and grad.size(1) else 0, size):
        chosen = entry[start : start + size].long()
        missing = chosen == len(ctx.col)  # a destination without edges
        part = grad[start : start + size].to(wide).masked_fill(missing, 0)
        chosen = chosen.masked_fill(missing, 0).flatten()
        source = ctx.col.index_select(0, chosen).long().view_as(part)
        if grad_value is not None:
            edge = chosen if kept is None else kept.index_select(0, chosen)
            grad_value.index_add_(0, edge, (part * x.gather(0, source)).flatten())
        if grad_x is not None:
            weight = None if used is None else used.index_select(0, chosen).to(wide).view_as(part)
            grad_x.scatter_add_(0, source, part if weight is None else part * weight)
    return (
        None if grad_x is None else grad_x.to(grad.dtype),
        None if grad_value is None else grad_value.to(value.dtype),
    )
