"""Batches of graphs, and the parts of a data set."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import BatchSampler, RandomSampler, Sampler, SequentialSampler, Subset
from torch_geometric.loader import DataLoader

PARTS = ("train", "val", "test")


class JoinedBatches(Sampler[list[int]]):
    """Batches of a size, of which a last one of a single entry joins the one before.

    Batch normalisation has nothing to normalise in a batch of one graph, and PyTorch refuses it in training.

    Args:
        sampler: Gives the entries.
        batch_size: Entries in a batch.

    Example:
        >>> list(JoinedBatches(range(5), 2))
        [[0, 1], [2, 3, 4]]
    """

    def __init__(self, sampler: Any, batch_size: int) -> None:
        self.sampler, self.batch_size = sampler, batch_size

    def __iter__(self) -> Iterator[list[int]]:
        held: list[int] = []
        for batch in BatchSampler(self.sampler, self.batch_size, drop_last=False):
            if held and len(batch) == 1 < self.batch_size:
                batch = held + batch
            elif held:
                yield held
            held = batch
        if held:
            yield held

    def __len__(self) -> int:
        whole, rest = divmod(len(self.sampler), self.batch_size)
        return whole + (rest > 1 or (rest == 1 and whole == 0))


def graph_loader(dataset: Any, index: Tensor, batch_size: int, *, shuffle: bool) -> Any:
    """Return a loader of the given graphs, in their order, or each time in one drawn as PyG's ``DataLoader`` draws.

    Args:
        dataset: Gives a graph for an integer.
        index: The graphs ``[G]``.
        batch_size: Graphs in a batch; a last one of a single graph joins the one before where ``shuffle`` is set.
        shuffle: Whether to shuffle.

    Returns:
        A loader of ``Batch``.
    """
    subset: Subset[Any] = Subset(dataset, index.tolist())
    if shuffle:
        return DataLoader(subset, batch_sampler=JoinedBatches(RandomSampler(subset), batch_size))
    batches = BatchSampler(SequentialSampler(subset), batch_size, drop_last=False)
    # Every loader draws a number for its workers; an evaluation must not take it from the stream of the training.
    return DataLoader(subset, batch_sampler=batches, generator=torch.Generator())


def graph_split(split: Mapping[str, Any] | None, dataset: Any) -> dict[str, Tensor]:
    """Return the graphs of each part, int64, under ``"train"``, ``"val"`` and, if there is one, ``"test"``.

    Args:
        split: Integers or a bool mask under these names, ``"valid"`` is ``"val"``; when ``None``, what
            ``dataset.get_idx_split()`` returns.
        dataset: The data set.

    Raises:
        TypeError: If the split is no mapping, or a part is no list of integers.
        ValueError: If a part is missing, empty, unknown or out of range.
    """
    if split is None:
        if not hasattr(dataset, "get_idx_split"):
            raise ValueError("'split' is needed: the data set has no get_idx_split()")
        split = dataset.get_idx_split()
    if not isinstance(split, Mapping):
        raise TypeError(f"'split' must be a mapping from names of parts to graphs (got {type(split).__name__})")
    names = {"valid": "val"}
    found = {names.get(name, name): _indices(part, len(dataset), name) for name, part in split.items()}
    unknown = [name for name in found if name not in PARTS]
    if unknown or len(found) < len(split):
        raise ValueError(f"'split' must have the parts 'train', 'val' and perhaps 'test' (got {list(split)})")
    for name in ("train", "val"):
        if name not in found or found[name].numel() == 0:
            raise ValueError(f"'split' must hold graphs under {name!r} (got {list(split)})")
    if "test" in found and found["test"].numel() == 0:
        del found["test"]
    return {name: found[name] for name in PARTS if name in found}


def _indices(part: Sequence[int] | Tensor, num_graphs: int, name: str) -> Tensor:
    index = torch.as_tensor(part)
    if index.dtype == torch.bool and index.shape == (num_graphs,):
        index = index.nonzero().squeeze(1)
    if index.numel() == 0:
        return torch.empty(0, dtype=torch.int64)
    if index.dim() != 1 or index.dtype == torch.bool or index.is_floating_point():
        raise TypeError(
            f"'split[{name!r}]' must hold integers [G] or a bool mask (got {index.dtype} {list(index.shape)})"
        )
    if int(index.min()) < 0 or int(index.max()) >= num_graphs:
        raise ValueError(
            f"'split[{name!r}]' holds {int(index.min())} to {int(index.max())}, but there are {num_graphs} graphs"
        )
    return index.long().cpu()
