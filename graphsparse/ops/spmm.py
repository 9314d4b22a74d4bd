"""The product of a graph with features: what every message passing layer does, without a tensor of messages."""

import math
from typing import Any

import torch
from torch import Tensor
from torch_geometric.utils import scatter

from graphsparse.ops.adjacency import Adjacency
from graphsparse.ops.check import check_edge_value
from graphsparse.ops.kernels import HALF, NARROW, block_size, choose_backend, extremum, product, sampled_product
from graphsparse.ops.norm import inverse, row_sum
from graphsparse.ops.pattern import Pattern, in_row_order
from graphsparse.ops.traced import is_batched, is_transformed

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
    Gradients have gradients in turn, computed the same way. Under ``torch.func``, ``torch.compile``, forward-mode
    differentiation and for many gradients at once (``is_grads_batched``, ``vectorize``), which know torch's own
    operations alone, it goes edge by edge and takes memory for ``E x F`` numbers; equal extrema then share the
    gradient.

    The backend is chosen by device, reduction and width. On CPU it is ``"numba"``, loops compiled at their first call,
    where numba is installed and rows are not narrow; else, and in half precision, ``"torch"``. For a sum over the edges
    of ogbn-arxiv on one thread the first is ahead of all others (the table is in ``graphsparse/ops/kernels.py``). On
    GPU, where nothing has been measured yet, it is ``"torch"`` for sum and mean, and ``"torch-sparse"`` where it is
    installed, else ``"gather-scatter"``, for min and max, which torch lacks there. In half precision all add up in
    float32, except ``"torch-sparse"``.

    Args:
        adj: Graph; rows are destinations, columns are sources.
        x: Features of the sources, floating point ``[num_src, *]``. The result has its type; values are cast to it.
        reduce: ``"sum"``, ``"mean"``, ``"min"`` or ``"max"``.
        value: Values to use instead of those of ``adj``, floating point ``[E]`` in the order of the edge list. For a
            sum also ``[E, H]``, values of their own for each of the ``H`` heads of ``x``, ``[num_src, H, *]``.
        backend: ``"numba"``, ``"torch"``, ``"torch-sparse"`` or ``"gather-scatter"`` to force one.

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
    by_head = value is not None and value.dim() == 2
    row_bytes = NARROW if by_head else math.prod(x.shape[1:]) * x.element_size()
    backend = choose_backend(backend, reduce, x.device, row_bytes)
    if value is not None and by_head:
        return _by_head(adj, x, value, reduce, backend)
    if value is not None:
        adj = adj.with_value(value)
    # A view of the result would make a later change in place, such as adding a bias, cost two copies going backward.
    flat = x if x.dim() == 2 else x.reshape(x.size(0), math.prod(x.shape[1:]))
    if is_transformed():
        out = _by_edges(adj.pattern, adj.value, flat, reduce)
    elif reduce in ("min", "max"):
        out = _Extremum.apply(flat, adj.value, adj, reduce, backend)  # type: ignore[no-untyped-call]
    else:
        out = _sum(adj, flat, backend)
        if reduce == "mean":
            scale = _inverse_sum(adj, x.dtype).unsqueeze(1)
            out = out.mul_(scale) if type(out) is Tensor and not scale.requires_grad else out * scale
    return out if x.dim() == 2 else out.reshape(adj.num_dst, *x.shape[1:])


def _by_head(adj: Adjacency, x: Tensor, value: Tensor, reduce: str, backend: str) -> Tensor:
    """Return the sum with values of its own for each head."""
    check_edge_value(value[:, 0] if value.size(1) else value.flatten(), adj.num_edges, adj.device, "value")
    if x.dim() != 3 or x.size(1) != value.size(1) or reduce != "sum":
        raise ValueError(
            f"'value' by head, {list(value.shape)}, needs 'x' as [num_src, {value.size(1)}, *] and reduce='sum' "
            f"(got {list(x.shape)} and {reduce!r})"
        )
    inner = Adjacency(adj.pattern, in_row_order(adj.pattern, value))
    return _sum(inner, x.reshape(x.size(0), math.prod(x.shape[1:])), backend).reshape(adj.num_dst, *x.shape[1:])


def _inverse_sum(adj: Adjacency, dtype: torch.dtype) -> Tensor:
    """Return 1 over the sum of the values of each row, 0 where that is 0."""
    wide = torch.float32 if dtype in HALF else dtype
    value = adj.value
    total = adj.row_sum(wide) if value is None or value.dtype == wide else row_sum(adj.pattern, value.to(wide))
    return inverse(total).to(dtype)


def reduce_messages(message: Tensor, weight: Tensor, target: Tensor, num_dst: int, reduce: str) -> Tensor:
    """Reduce weighted messages as :func:`spmm` does, by operations of torch, whose derivatives everything knows.

    Args:
        message: One message for each edge, times its weight, ``[E, F]``.
        weight: Weights of the edges, ``[E]``.
        target: Destinations of the edges, ``[E]``, int64: torch's gradients of gather and scatter are wrong for int32.
        num_dst: Number of destinations.
        reduce: ``"sum"``, ``"mean"``, ``"min"``, ``"max"`` or ``"mul"``.
    """
    weight = weight.view(-1, 1).to(message.dtype)
    if reduce == "mul":
        return torch.as_tensor(scatter(message.masked_fill(weight == 0, 1), target, 0, num_dst, "mul"))
    if reduce in ("sum", "mean"):
        out: Tensor = scatter(message, target, 0, num_dst, "sum")
        if reduce == "sum":
            return out
        total = scatter(weight, target, 0, num_dst, "sum")
        empty = total == 0
        mean: Tensor = (out / total.masked_fill(empty, 1)).masked_fill(empty, 0)
        return mean
    worst = torch.inf if reduce == "min" else -torch.inf
    index = target.view(-1, 1).expand_as(message)
    out = message.new_full((num_dst, message.size(1)), worst)
    out = out.scatter_reduce(0, index, message.masked_fill(weight == 0, worst), f"a{reduce}", include_self=True)
    extremum: Tensor = out.masked_fill(out == worst, 0)
    return extremum


def _by_edges(pattern: Pattern, value: Tensor | None, x: Tensor, reduce: str = "sum") -> Tensor:
    """Return the same product with a message for each entry."""
    wide = torch.float32 if x.dtype in HALF else x.dtype
    weight = torch.ones(pattern.num_entries, device=x.device) if value is None else value
    factor = (
        weight.to(wide).unsqueeze(1)
        if weight.dim() == 1
        else weight.to(wide).repeat_interleave(x.size(1) // weight.size(1), 1)
    )
    message = x.index_select(0, pattern.col).to(wide) * factor
    return reduce_messages(message, weight, pattern.row().long(), pattern.num_rows, reduce).to(x.dtype)


def _sum(adj: Adjacency, x: Tensor, backend: str) -> Tensor:
    if is_transformed() or is_batched(x, adj.value):
        return _by_edges(adj.pattern, adj.value, x)
    out: Tensor = _Sum.apply(x, adj.value, adj, backend)  # type: ignore[no-untyped-call]
    return out


class _Sum(torch.autograd.Function):
    """Sum of ``value * x`` over each row. Its gradients are products of the same kinds, and so are theirs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor | None, adj: Adjacency, backend: str) -> Tensor:
        ctx.adj, ctx.backend = adj, backend
        ctx.save_for_backward(value, x if ctx.needs_input_grad[1] else None)
        return product(adj.pattern, value, x, backend)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        value, x = ctx.saved_tensors
        grad_x = _sum(ctx.adj.t(), grad, ctx.backend) if ctx.needs_input_grad[0] else None
        grad_value = None
        if ctx.needs_input_grad[1]:
            heads = value.size(1) if value.dim() == 2 else None
            grad_value = _inner_products(ctx.adj.pattern, grad, x, heads, ctx.backend).to(value.dtype)
        return grad_x, grad_value, None, None


def _inner_products(pattern: Pattern, left: Tensor, right: Tensor, heads: int | None, backend: str) -> Tensor:
    if is_transformed() or is_batched(left, right):
        wide = torch.float32 if left.dtype in HALF else left.dtype
        terms = left.index_select(0, pattern.row()).to(wide) * right.index_select(0, pattern.col)
        return (
            terms.sum(1) if heads is None else terms.reshape(pattern.num_entries, heads, terms.size(1) // heads).sum(2)
        )
    out: Tensor = _InnerProducts.apply(left, right, pattern, heads, backend)  # type: ignore[no-untyped-call]
    return out


class _InnerProducts(torch.autograd.Function):
    """The product ``left[row] . right[col]`` of each entry, and of each head if there are some."""

    @staticmethod
    def forward(ctx: Any, left: Tensor, right: Tensor, pattern: Pattern, heads: int | None, backend: str) -> Tensor:
        ctx.pattern, ctx.backend = pattern, backend
        ctx.save_for_backward(left, right)
        return sampled_product(pattern, left, right, heads, backend)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        left, right = ctx.saved_tensors
        grad_left = grad_right = None
        if ctx.needs_input_grad[0]:
            grad_left = _sum(Adjacency(ctx.pattern, grad, False), right, ctx.backend)
        if ctx.needs_input_grad[1]:
            turned, order = ctx.pattern.transposed()
            grad_right = _sum(Adjacency(turned, grad.index_select(0, order), False), left, ctx.backend)
        return grad_left, grad_right, None, None, None


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
            ctx.save_for_backward(entry, value, kept, x if ctx.needs_input_grad[1] else None)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Pass the gradient of every element to the one edge it came from: N x F work for any number of edges."""
        entry, value, kept, x = ctx.saved_tensors
        wide = torch.float32 if grad.dtype in HALF else grad.dtype
        grad_x = grad_value = None
        # Made of the gradient, since that may stand for many.
        if ctx.needs_input_grad[0]:
            grad_x = grad.new_zeros(ctx.size, grad.size(1), dtype=wide)
        if ctx.needs_input_grad[1]:
            grad_value = grad.new_zeros(len(value), dtype=wide)
        size = block_size(grad.size(1), grad)
        for start in range(0, grad.size(0) if len(ctx.col) and grad.size(1) else 0, size):
            chosen = entry[start : start + size].long()
            missing = chosen == len(ctx.col)  # a destination without edges
            part = grad[start : start + size].to(wide).masked_fill(missing, 0)
            chosen = chosen.masked_fill(missing, 0).flatten()
            source = ctx.col.index_select(0, chosen).long().view_as(missing)
            edge = chosen if kept is None else kept.index_select(0, chosen)
            if grad_value is not None:
                grad_value.index_add_(0, edge, (part * x.gather(0, source)).reshape(-1))
            if grad_x is not None:
                weight = None if value is None else value.index_select(0, edge).to(wide).view_as(missing)
                grad_x.scatter_add_(0, source, part if weight is None else part * weight)
        return (
            None if grad_x is None else grad_x.to(grad.dtype),
            None if grad_value is None else grad_value.to(value.dtype),
            None,
            None,
            None,
        )


def _present(adj: Adjacency, value: Tensor) -> tuple[Pattern, Tensor | None]:
    """Return the entries whose value is not 0, and where they are; a device is waited for to find out."""
    present = value != 0
    if present.all():
        return adj.pattern, None
    pattern = Pattern(adj.pattern.rowptr, adj.pattern.col, adj.pattern.num_cols).select(present)
    return pattern, present.nonzero().squeeze(1)
