"""What every graph that is read must be like, because nothing behind it looks again."""

from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data

from graphsparse.ops.check import check_edge_index
from graphsparse.utils.files import ContentError

_MASKS = ("train_mask", "val_mask", "test_mask")


def check_nodes(data: Data) -> None:
    """Refuse a graph for node classification whose features, edges, labels and masks do not fit together."""
    x, y = data.get("x"), data.get("y")
    if not (isinstance(x, Tensor) and x.dtype == torch.float32 and x.dim() == 2 and bool(x.isfinite().all())):
        raise ContentError("its features are no table of finite numbers")
    size = x.size(0)
    if not (isinstance(y, Tensor) and y.dtype == torch.int64 and y.shape == (size,) and (y >= 0).all()):
        raise ContentError(f"its labels are no class for each of {size} nodes")
    for name in _MASKS:
        mask = data.get(name)
        if mask is not None and not (mask.dtype == torch.bool and mask.dim() in (1, 2) and mask.size(0) == size):
            raise ContentError(f"its {name!r} does not say yes or no for each of {size} nodes")
    check_edges(data.get("edge_index"), (size, size))


def check_edges(edge_index: Any, sizes: tuple[int, int]) -> None:
    """Refuse edges that are no ``[2, E]`` or join nodes that are not there."""
    try:
        check_edge_index(edge_index, sizes)
    except (TypeError, ValueError) as error:
        raise ContentError(f"its edges are wrong: {error}") from None


def as_mask(index: Any, size: int) -> Tensor:
    """Return numbers of nodes as a bool mask, and refuse those that are not there."""
    index = torch.as_tensor(index)
    if index.is_floating_point() or index.dim() != 1 or bool(((index < 0) | (index >= size)).any()):
        raise ContentError(f"its split holds other than numbers of its {size} nodes")
    mask = torch.zeros(size, dtype=torch.bool)
    mask[index.long()] = True
    return mask
