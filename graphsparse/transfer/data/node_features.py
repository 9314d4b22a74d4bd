"""Features of the nodes of derived graphs: the target's where it has the node, those of the first source elsewhere."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from graphsparse.ops.blocks import row_blocks
from graphsparse.ops.csr import csr_tensor
from graphsparse.ops.pairs import find_sorted
from graphsparse.transfer.data.keys import NodeMatch
from graphsparse.utils.counter_random import mix64


def check_x(x: Any, num_nodes: int, name: str) -> None:
    """Refuse what is no matrix with a row per node."""
    if not isinstance(x, Tensor) or x.layout not in (torch.strided, torch.sparse_csr):
        got = x.layout if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"{name} must be a dense or CSR tensor (got {got})")
    if x.dim() != 2 or x.size(0) != num_nodes:
        raise ValueError(f"{name} must have shape [N, F], a row for each of {num_nodes} nodes (got {list(x.shape)})")
    if x.is_floating_point():
        values = x.values()[:, None] if x.layout == torch.sparse_csr else x
        for where in row_blocks(*values.shape):
            if not bool(values[where].isfinite().all()):
                what = "NaN" if bool(values[where].isnan().any()) else "infinity"
                raise ValueError(f"{name} holds {what}: fill it in, or leave 'x' out where nothing reads it")


def check_features(xs: Sequence[Any], sizes: Sequence[int]) -> None:
    """Refuse features, those of the target and then of each source or ``None``, that do not live in one space."""
    target = xs[0]
    for i, (x, size) in enumerate(zip(xs, sizes, strict=True)):
        if x is None:
            continue
        name = f"source {i - 1}" if i else "target"
        check_x(x, size, f"'x' of the {name}")
        if target is None:
            raise ValueError(f"the {name} has features 'x', but the target has none")
        space, wanted = ((one.size(1), one.dtype, one.layout) for one in (x, target))
        if space != wanted:
            raise ValueError(
                f"'x' of the {name} has {space[0]} columns of {space[1]}, {space[2]}, and that of the target "
                f"{wanted[0]} of {wanted[1]}, {wanted[2]}: features must live in one space"
            )


def features_of(graph: str, match: NodeMatch, xs: Sequence[Tensor | None]) -> Tensor | None:
    """Return the features of a derived graph's nodes; the target's tensor itself where these are the target's nodes."""
    target, *sources = xs
    if target is None:
        return None
    rows = match.nodes(graph)
    rows = rows[rows < match.num_target]
    parts = [target if rows.numel() == match.num_target else take_rows(target, rows)]
    if graph in ("union", "source"):
        start = match.num_target
        for i, (x, ids) in enumerate(zip(sources, match.source_ids, strict=True)):
            new = (ids >= start).nonzero().view(-1)  # those that no earlier source had, in their order
            start += new.numel()
            if new.numel() == 0:
                continue
            if x is None:
                raise ValueError(f"'{graph}' has nodes of source {i} alone, which has no features 'x'")
            parts.append(take_rows(x, new).to(target.device))
    return parts[0] if len(parts) == 1 else _stack_rows(parts)


def take_rows(x: Tensor, rows: Tensor) -> Tensor:
    """Return some rows of a dense or CSR matrix.

    Example:
        >>> take_rows(torch.eye(3).to_sparse_csr(), torch.tensor([2])).to_dense()
        tensor([[0., 0., 1.]])
    """
    rows = rows.to(x.device)
    if x.layout == torch.strided:
        return x.index_select(0, rows)
    ptr = x.crow_indices().long()
    count = ptr.diff()[rows]
    new_ptr = torch.cat([count.new_zeros(1), count.cumsum(0)])
    entry = torch.arange(int(new_ptr[-1]), device=x.device)
    entry += torch.repeat_interleave(ptr[rows] - new_ptr[:-1], count)
    return _csr(new_ptr, x.col_indices()[entry], x.values()[entry], x)


def equal_rows(x: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rows of two dense matrices that are equal, where each is the only one of its kind in its matrix.

    Example:
        >>> equal_rows(torch.tensor([[1.0, 2.0], [0.0, 0.0], [0.0, 0.0]]), torch.tensor([[0.0, 0.0], [1.0, 2.0]]))
        (tensor([0]), tensor([1]))
    """
    single, places = [], []
    for hashes in (_row_hashes(x), _row_hashes(other)):
        kept, inverse, count = torch.unique(hashes, return_inverse=True, return_counts=True)
        place = torch.empty_like(kept)
        place[inverse] = torch.arange(hashes.numel())
        single.append(kept[count == 1])
        places.append(place[count == 1])
    at = find_sorted(single[1], single[0])
    both = at >= 0
    return places[0][at[both]], places[1][both]


def _row_hashes(x: Tensor) -> Tensor:
    """Return an integer of 64 bits for each row that is equal for equal rows, and nearly always another for others."""
    found = torch.empty(x.size(0), dtype=torch.int64)
    for where in row_blocks(x.size(0), x.size(1)):
        part = x[where].detach().cpu().double().contiguous().view(torch.int64)
        factor = mix64(torch.arange(part.size(1))) | 1
        found[where] = mix64(part ^ factor).mul(factor).sum(1)
    return found


def _stack_rows(parts: Sequence[Tensor]) -> Tensor:
    if parts[0].layout == torch.strided:
        return torch.cat(list(parts))
    count = torch.cat([part.crow_indices().diff() for part in parts]).long()
    ptr = torch.cat([count.new_zeros(1), count.cumsum(0)])
    col = torch.cat([part.col_indices() for part in parts])
    return _csr(ptr, col, torch.cat([part.values() for part in parts]), parts[0])


def _csr(ptr: Tensor, col: Tensor, values: Tensor, like: Tensor) -> Tensor:
    size = (ptr.numel() - 1, like.size(1))
    return csr_tensor(ptr.to(col.dtype), col, values, size)
