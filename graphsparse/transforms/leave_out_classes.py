"""Make a task of out-of-distribution detection from a labelled graph."""

import copy
import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Batch, Data
from torch_geometric.data.datapipes import functional_transform
from torch_geometric.transforms import BaseTransform

from graphsparse.edges.attributes import attribute_kinds, node_numbers
from graphsparse.ops.check import check_real
from graphsparse.utils.counter_random import check_seed

#: Names of parts of a split.
_SPLIT = re.compile("train|val|test|split|fold")


@functional_transform("leave_out_classes")
class LeaveOutClasses(BaseTransform):  # type: ignore[misc]
    r"""Leaves whole classes out of training, so that their test nodes become the ones to detect.

    The nodes of the left-out classes stay in the graph, with their features and edges, but leave ``train_mask``,
    ``val_mask`` and ``test_mask``. The kept classes are numbered ``0, 1, ...`` in their old order. The result holds

    * ``test_mask``: the test nodes of the kept classes;
    * ``ood_mask``: the test nodes of the left-out classes, which are out of distribution;
    * ``y``: the new label of every node, -1 for the left-out classes: an error in a loss, not a class;
    * ``num_classes``: the number of kept classes, the width of the model;
    * ``kept_classes`` and ``left_out_classes``: the old labels, ascending, int64.

    A detector is judged on ``test_mask | ood_mask``, for example by :func:`~graphsparse.metrics.auroc` of
    :func:`~graphsparse.metrics.max_softmax_score` with ``ood_mask`` as the positive ones. The input is not changed.

    Args:
        fraction: Share of the classes to leave out, in ``(0, 1)``: the first ``floor(fraction * C)`` of a random
            permutation. With 0.4 these are two of seven (Cora), two of six (CiteSeer) and one of three (PubMed).
        seed: Seed of the permutation. One seed leaves out the same classes, and more of them for a larger fraction.

    Raises:
        TypeError: If an argument has the wrong type, or the graph is no ``Data`` with integer labels and bool masks.
        ValueError: If an argument is out of range, nothing is left out, fewer than two classes are kept, no test node
            is left on one of the two sides, the graph is a batch of graphs, or it holds a split in another form than
            masks, such as ``train_idx`` or a dictionary of node numbers, in which left-out classes would stay.

    Example:
        >>> mask = torch.tensor([True, True, True, True, False])
        >>> data = Data(y=torch.tensor([0, 1, 2, 3, 1]), train_mask=~mask, test_mask=mask, num_nodes=5)
        >>> out = LeaveOutClasses(0.25)(data)
        >>> out.y, out.num_classes, out.left_out_classes
        (tensor([-1,  0,  1,  2,  0]), 3, tensor([0]))
        >>> out.test_mask, out.ood_mask
        (tensor([False,  True,  True,  True, False]), tensor([ True, False, False, False, False]))

    Source: the released code of Huang et al., arXiv 2211.15335.
    """

    def __init__(self, fraction: float = 0.4, seed: int = 0) -> None:
        self.fraction = check_real(fraction, "fraction", "a number in (0, 1)")
        if not 0 < self.fraction < 1:  # also refuses NaN
            raise ValueError(f"'fraction' must be in (0, 1) (got {fraction!r})")
        self.seed = check_seed(seed)

    def forward(self, data: Data) -> Data:
        """Return the graph without the classes; called with a shallow copy by ``BaseTransform.__call__``."""
        y, masks = _checked(data)
        num_classes = _num_classes(data, y)
        left_out = self._left_out(num_classes)
        kept = torch.ones(num_classes, dtype=torch.bool)
        kept[left_out] = False
        if int(kept.count_nonzero()) < 2:
            raise ValueError(
                f"'fraction' must keep at least two of {num_classes} classes (left out: {left_out.tolist()})"
            )
        # The last entry is that of a negative label, which a node has that belongs to no class.
        new_label = torch.cat([torch.where(kept, kept.cumsum(0) - 1, -1), torch.tensor([-1])]).to(y.device)
        known = y >= 0
        label = torch.where(known, y, num_classes)
        inside = torch.cat([kept, torch.tensor([True])]).to(y.device)[label]
        data.y = torch.where(known, new_label[label], y)
        data.ood_mask = data.test_mask & ~inside
        for key in masks:
            data[key] = data[key] & inside
        if not data.ood_mask.any() or not data.test_mask.any():
            side = "left-out" if not data.ood_mask.any() else "kept"
            raise ValueError(f"'data.test_mask' marks no node of the {side} classes (left out: {left_out.tolist()})")
        data.num_classes = int(kept.count_nonzero())
        data.kept_classes = kept.nonzero().squeeze(1).to(y.device)
        data.left_out_classes = left_out.to(y.device)
        return data

    def _left_out(self, num_classes: int) -> Tensor:
        count = math.floor(self.fraction * num_classes)
        if count == 0:
            raise ValueError(f"'fraction' {self.fraction} of {num_classes} classes leaves none out")
        generator = torch.Generator().manual_seed(self.seed)
        return torch.randperm(num_classes, generator=generator)[:count].sort().values

    def __repr__(self) -> str:
        """Hold every argument: PyG compares the text to tell whether a stored data set is still the one asked for."""
        return f"{self.__class__.__name__}(fraction={self.fraction}, seed={self.seed})"


def _num_classes(data: Data, y: Tensor) -> int:
    highest = int(y.max()) + 1
    # What the graph says counts every class, also one that no node has.
    stored = data._store.get("num_classes")
    num_classes = highest if stored is None else int(stored)
    if num_classes < highest:
        raise ValueError(f"'data.y' holds the label {highest - 1}, which is not below 'num_classes' ({num_classes})")
    return num_classes


def _checked(data: Any) -> tuple[Tensor, list[str]]:
    if not isinstance(data, Data):
        raise TypeError(f"'data' must be a homogeneous Data (got {type(data).__name__})")
    if isinstance(data, Batch):
        raise ValueError("'data' must be one graph (got a Batch): classes are those of a whole graph")
    y = data.get("y")
    if not isinstance(y, Tensor) or y.dtype != torch.int64:
        kind = y.dtype if isinstance(y, Tensor) else type(y).__name__
        raise TypeError(f"'data.y' must be int64 class labels (got {kind})")
    if y.dim() != 1 or y.numel() == 0:
        raise ValueError(f"'data.y' must be [N] with at least one node (got {list(y.shape)})")
    masks = [key for key in ("train_mask", "val_mask", "test_mask") if data.get(key) is not None]
    if "test_mask" not in masks:
        raise ValueError("'data.test_mask' is missing")
    for key in masks:
        mask = data[key]
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
            raise TypeError(f"'data.{key}' must be a bool tensor (got {getattr(mask, 'dtype', type(mask).__name__)})")
        if mask.shape != y.shape:
            raise ValueError(f"'data.{key}' must be [{y.numel()}] (got {list(mask.shape)})")
    _check_no_other_split(data, y.numel())
    return y, masks


def _check_no_other_split(data: Data, num_nodes: int) -> None:
    sized = copy.copy(data)
    sized.num_nodes = num_nodes
    for key in node_numbers(sized._store, attribute_kinds(sized._store)[0]):
        names = [key, *data[key]] if isinstance(data[key], Mapping) else [key]
        if "edge" not in key and any(_SPLIT.search(str(name)) for name in names):
            raise ValueError(
                f"'{key}' may hold nodes of left-out classes: give 'train_mask', 'val_mask' and 'test_mask', and "
                "remove it"
            )
