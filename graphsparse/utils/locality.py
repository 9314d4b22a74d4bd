"""The check that a layer's output at a node is decided by the edges into it."""

import copy
from typing import Any

import torch
from torch import Tensor

from graphsparse.utils.layer_forms import BlockInput, apply_form, possible_forms
from graphsparse.utils.trace_layers import LayerCall


def exact_form(call: LayerCall, block: BlockInput, extra: list[Any], edge_sample: list[Any]) -> str:
    """Return the best form in which a layer gives its exact output from a block alone.

    A layer can run on a block if nothing but the edges into a node, and their sources, decides its output there. This
    is tried out, in double precision: the block gets more nodes, many more edges that lead to no destination, and
    another numbering and order, and then it is cut down to one destination; the output must stay the same. It does not
    for a layer that normalises by the degrees of sources, reaches further than one step, depends on the order of the
    edges as an LSTM does, or looks at the graph as a whole.

    Args:
        call: The call of the layer.
        block: A block of a few destinations.
        extra: For each leaf of the arguments that has rows, the rows of some more nodes; anything for the others.
        edge_sample: For each leaf that has values per edge, those of some edges, as many for each.

    Returns:
        One of :data:`graphsparse.utils.layer_forms.FORMS`.

    Raises:
        ValueError: If no form is exact.
    """
    error: Exception | None = None
    for dtype in (torch.float64, None):
        layer = copy.deepcopy(call.layer)
        if dtype is not None:
            layer = layer.to(dtype)
        small, large, place = _two_inputs(call, block, extra, edge_sample, dtype)
        try:
            expected = apply_form(call, "square", layer, large)[place]
            same = _same(apply_form(call, "square", layer, small)[: small.num_dst], expected)
            for dst in _first_of_each_degree(small):
                alone = apply_form(call, "square", layer, _cut_down(call, small, dst))[:1]
                same = same and _same(alone, expected[dst : dst + 1], expected)
        except (RuntimeError, TypeError) as failure:  # not written for double precision
            error = failure
            continue
        if not same:
            raise ValueError(
                f"layer {call.name} needs more than the edges into a node, and their sources, to compute its output"
                " there (it normalises by other degrees, takes several steps, depends on the order of edges, or"
                " looks at the whole graph): it cannot be run layer by layer"
            )
        for form in possible_forms(call):
            try:
                if form == "square" or _same(apply_form(call, form, layer, small), expected):
                    return form
            except Exception:  # a layer may refuse a form in any way it likes
                continue
    raise ValueError(f"layer {call.name} fails on a few nodes: {error}") from error


def _two_inputs(
    call: LayerCall, block: BlockInput, extra: list[Any], edge_sample: list[Any], dtype: torch.dtype | None
) -> tuple[BlockInput, BlockInput, Tensor]:
    """Return the block, the enlarged and renumbered block, and where its destinations are."""
    generator = torch.Generator().manual_seed(0)
    small, large = list(block.leaves), list(block.leaves)
    device = block.edge_index.device
    kinds = [leaf.kind for leaf in call.leaves]
    num_nodes = next(leaf.size(0) for leaf, kind in zip(small, kinds, strict=True) if kind == "rows")
    num_extra = next(leaf.size(0) for leaf, kind in zip(extra, kinds, strict=True) if kind == "rows")
    total, num_dst = num_nodes + num_extra, block.num_dst
    sizes = [leaf.size(0) for leaf, kind in zip(edge_sample, kinds, strict=True) if kind == "edges"]
    num_added = 4 * total if all(sizes) else 0

    # Edges from anywhere to anywhere but the destinations, then other numbers for all nodes, then sorted again.
    added = torch.stack(
        [
            torch.randint(total, (num_added,), generator=generator),
            torch.randint(num_dst, total, (num_added,), generator=generator),
        ]
    )
    number = torch.randperm(total, generator=generator).to(device)
    edge_index = number[torch.cat([block.edge_index, added.to(device)], dim=1)]
    shuffled = torch.randperm(edge_index.size(1), generator=generator).to(device)
    order = shuffled[edge_index[1, shuffled].argsort(stable=True)]
    for i, kind in enumerate(kinds):
        if kind == "rows":
            rows = _noisy(torch.cat([small[i], extra[i]]), dtype, generator)
            small[i] = rows[:num_nodes]
            large[i] = torch.empty_like(rows).index_copy_(0, number, rows)
        elif kind == "edges":
            small[i] = _cast(small[i], dtype)
            if num_added:
                pick = torch.randint(edge_sample[i].size(0), (num_added,), generator=torch.Generator().manual_seed(1))
                values = torch.cat([small[i], _cast(edge_sample[i][pick.to(device)], dtype)])
                large[i] = values[order]
            else:
                large[i] = small[i][order]
        else:
            small[i] = large[i] = _cast(small[i], dtype)
    rowptr = torch.cat([order.new_zeros(1), edge_index[1].bincount(minlength=total).cumsum(0)])
    return (
        BlockInput(block.edge_index, block.rowptr, num_dst, small),
        BlockInput(edge_index[:, order], rowptr, total, large),
        number[:num_dst],
    )


def _first_of_each_degree(block: BlockInput) -> list[int]:
    """Return some destinations: one without edges if there is one, one with one edge, and so on."""
    degree = block.rowptr.diff().tolist()[: block.num_dst]
    return [degree.index(d) for d in sorted(set(degree))[:4]]


def _cut_down(call: LayerCall, block: BlockInput, dst: int) -> BlockInput:
    """Return the block of one of the destinations."""
    edges = slice(int(block.rowptr[dst]), int(block.rowptr[dst + 1]))
    source = block.edge_index[0, edges]
    others = torch.unique(source[source != dst])
    nodes = torch.cat([others.new_tensor([dst]), others])
    place = torch.empty(int(nodes.max()) + 1, dtype=torch.long, device=nodes.device)
    place[nodes] = torch.arange(nodes.numel(), device=nodes.device)
    edge_index = torch.stack([place[source], torch.zeros_like(source)])
    leaves = list(block.leaves)
    for i, leaf in enumerate(call.leaves):
        if leaf.kind in ("rows", "edges"):
            leaves[i] = leaves[i][nodes if leaf.kind == "rows" else edges]
    return BlockInput(edge_index, others.new_tensor([0, source.numel()]), 1, leaves)


def _cast(value: Any, dtype: torch.dtype | None) -> Any:
    wanted = dtype is not None and isinstance(value, Tensor) and value.is_floating_point()
    return value.to(dtype) if wanted else value


def _noisy(rows: Tensor, dtype: torch.dtype | None, generator: torch.Generator) -> Tensor:
    """Add noise, so that rows full of zeros cannot hide a difference."""
    if not rows.is_floating_point():
        return rows
    rows = _cast(rows, dtype)
    scale = rows.abs().mean().clamp(min=1e-3)
    return rows + scale * torch.randn(rows.shape, generator=generator).to(rows)


def _same(found: Tensor, expected: Tensor, among: Tensor | None = None) -> bool:
    """Compare up to rounding, which is in proportion to the largest number ``among`` others."""
    if found.shape != expected.shape:
        return False
    among = expected if among is None else among
    finite = among[among.isfinite()]
    largest = float(finite.detach().abs().max()) if finite.numel() else 0.0
    tolerance = 1e3 * torch.finfo(expected.dtype).eps * largest
    return torch.allclose(found, expected, rtol=0.0, atol=tolerance, equal_nan=True)
