"""Features of the nodes of derived graphs: the target's where it has the node, those of the first source elsewhere."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from graphsparse.transfer.data.roles import NodeMatch


def check_features(target: Any, sources: Sequence[Any], where: str = "", sizes: Sequence[int] = ()) -> None:
    """Refuse features that do not live in one space.

    Args:
        target: Features of the target's nodes, or ``None``.
        sources: Features of each source's nodes, or ``None``.
        where: Which nodes, for the messages.
        sizes: Numbers of nodes of the target and of each source; not looked at where there are none.

    Raises:
        TypeError: If features are no tensors.
        ValueError: If they are no matrices, differ in width or have not one row per node, or if the target has none but
            a source has.
    """
    for i, x in enumerate((target, *sources)):
        name = f"source {i - 1}" if i else "target"
        if x is None:
            continue
        if not isinstance(x, Tensor) or x.layout not in (torch.strided, torch.sparse_csr):
            raise TypeError(f"'x' of the {name}{where} must be a dense or CSR tensor (got {type(x).__name__})")
        if x.dim() != 2:
            raise ValueError(f"'x' of the {name}{where} must have shape [N, F] (got {list(x.shape)})")
        if i < len(sizes) and x.size(0) != sizes[i]:
            raise ValueError(f"'x' of the {name}{where} must have a row for each of {sizes[i]} nodes (got {x.size(0)})")
        if target is None:
            raise ValueError(f"the {name}{where} has features 'x', but the target has none")
        if x.size(1) != target.size(1):
            raise ValueError(
                f"'x' of the {name}{where} has {x.size(1)} columns and that of the target {target.size(1)}: "
                "features must live in one space"
            )
        if x.layout != target.layout or x.dtype != target.dtype:
            raise TypeError(
                f"'x' of the {name}{where} is {x.dtype}, {x.layout}, and that of the target {target.dtype}, "
                f"{target.layout}: they must be alike"
            )


def features_of(graph: str, match: NodeMatch, target: Tensor | None, sources: Sequence[Tensor | None]) -> Tensor | None:
    """Return the features of a derived graph's nodes, in ascending order of their global numbers.

    The target's tensor itself is returned where the graph has exactly the target's nodes; otherwise rows are gathered.

    Args:
        graph: Name of the derived graph.
        match: The nodes.
        target: Features of the target's nodes; nothing is returned when ``None``.
        sources: Features of each source's nodes.

    Raises:
        ValueError: If a node comes from a source without features.
    """
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


def _stack_rows(parts: Sequence[Tensor]) -> Tensor:
    if parts[0].layout == torch.strided:
        return torch.cat(list(parts))
    count = torch.cat([part.crow_indices().diff() for part in parts]).long()
    ptr = torch.cat([count.new_zeros(1), count.cumsum(0)])
    col = torch.cat([part.col_indices() for part in parts])
    return _csr(ptr, col, torch.cat([part.values() for part in parts]), parts[0])


def _csr(ptr: Tensor, col: Tensor, values: Tensor, like: Tensor) -> Tensor:
    size = (ptr.numel() - 1, like.size(1))
    return torch.sparse_csr_tensor(ptr.to(col.dtype), col, values, size, check_invariants=False)
