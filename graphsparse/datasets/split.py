"""Seeded splits of the nodes into training, validation and test, for graphs that come without an official one."""

import torch
from torch import Tensor

from graphsparse.metrics.labels import check_classes, is_labelled
from graphsparse.ops.check import check_count


def stratified_split(
    y: Tensor, train: float = 0.6, val: float = 0.2, *, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Split the nodes at random so that every class is divided in the same proportions.

    A class of n nodes gives its first ``round(train * n)`` nodes, in a random order, to the training set, the nodes
    up to ``round((train + val) * n)`` to the validation set, and the rest to the test set. Nodes without a label are in
    no set.

    Args:
        y: Class of each node, ``[N]`` int64; -1 or -100 for none.
        train: Fraction of the nodes for training.
        val: Fraction of the nodes for validation.
        seed: Equal seeds give equal splits.

    Returns:
        Three bool masks ``[N]`` that do not overlap and together hold every node with a label.
    """
    if not (train >= 0 and val >= 0 and train + val <= 1):
        raise ValueError(f"'train' and 'val' must be fractions with a sum of at most 1 (got {train} and {val})")
    known, y = _read(y)
    rank, _ = _random_ranks(y, seed)
    size = torch.bincount(y)[y].to(torch.float64)
    first, second = (train * size).round(), ((train + val) * size).round()
    train_mask = rank < first
    val_mask = (rank < second) & ~train_mask
    return train_mask & known, val_mask & known, ~(train_mask | val_mask) & known


def per_class_split(
    y: Tensor, train_per_class: int = 20, num_val: int | None = None, num_test: int | None = None, *, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Split the nodes as the citation graphs are split: a few labels per class, then validation and test nodes.

    Args:
        y: Class of each node, ``[N]`` int64; nodes with -1 or -100 have none and are in no mask.
        train_per_class: Training nodes of each class.
        num_val: Validation nodes; ``None`` for 500, or a third of what the training nodes leave if that is less.
        num_test: Test nodes; ``None`` for 1000, or what is left if that is less.
        seed: Equal seeds give equal splits.

    Returns:
        Three bool masks ``[N]`` that do not overlap; nodes in none of them are left without a label.

    Source: Yang, Cohen and Salakhutdinov, "Revisiting Semi-Supervised Learning with Graph Embeddings", ICML 2016,
    Section 5.1 (the numbers); our nodes are drawn by ``seed``.
    """
    for name, value in (("train_per_class", train_per_class), ("num_val", num_val), ("num_test", num_test)):
        if value is not None:
            check_count(value, name)
    known, y = _read(y)
    sizes = torch.bincount(y[known])
    if y.numel() == 0 or int(sizes.min()) < train_per_class:
        smallest = int(sizes.min()) if y.numel() else 0
        raise ValueError(f"'train_per_class' is {train_per_class}, but the smallest class has {smallest} nodes")
    rank, order = _random_ranks(y, seed)
    train_mask = (rank < train_per_class) & known
    rest = order[(known & ~train_mask)[order]]
    if num_val is None:
        num_val = min(500, rest.numel() // 3)
    if num_test is None:
        num_test = min(1000, max(rest.numel() - num_val, 0))
    if num_val < 1 or num_test < 1 or num_val + num_test > rest.numel():
        raise ValueError(
            f"'num_val' and 'num_test' need {num_val} + {num_test} nodes, at least one each, but {y.numel()} nodes "
            f"less {int(train_mask.sum())} for training leave {rest.numel()}"
        )
    val_mask, test_mask = torch.zeros_like(train_mask), torch.zeros_like(train_mask)
    val_mask[rest[:num_val]] = True
    test_mask[rest[num_val : num_val + num_test]] = True
    return train_mask, val_mask, test_mask


def _read(y: Tensor) -> tuple[Tensor, Tensor]:
    """Return which nodes have a label, and the classes, of which those without one are one more."""
    if not isinstance(y, Tensor) or y.dtype != torch.int64 or y.dim() != 1:
        kind = f"{y.dtype} {list(y.shape)}" if isinstance(y, Tensor) else type(y).__name__
        raise TypeError(f"'y' must hold a class for each node, int64 [N] (got {kind})")
    if y.numel() == 0:
        return is_labelled(y), y
    check_classes(y, "the labels in 'y'")
    return is_labelled(y), torch.where(is_labelled(y), y, int(y.max()) + 1)


def _random_ranks(y: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Return the place of each node among those of its class in a random order, and that order of all nodes."""
    order = torch.randperm(y.numel(), generator=torch.Generator().manual_seed(seed))
    by_class = order[torch.sort(y[order], stable=True).indices]
    size = torch.bincount(y)
    start = size.cumsum(0) - size
    rank = torch.empty_like(order)
    rank[by_class] = torch.arange(y.numel()) - start[y[by_class]]
    return rank, order
