"""Batches of links and non-links with a sample of the graph around their ends."""

import itertools
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.loader import LinkNeighborLoader
from torch_geometric.sampler import NeighborSampler

from graphsparse.loader.batches import cut_out
from graphsparse.loader.draws import start_of_order
from graphsparse.loader.neighbor import NeighborBatches

#: Names of the samplers.
SAMPLERS = ("graphsparse", "pyg")


@dataclass(frozen=True)
class LinkBatch:
    """A part of a graph, and pairs of its nodes.

    Args:
        graph: Features and edges; ``e_id`` names its edges in the whole graph, where it is a part of one.
        pairs: Pairs of its nodes ``[2, Q]``, links first.
        picked: Which of the links of the epoch these are, ``[P]``, ``P <= Q``.
    """

    graph: Data
    pairs: Tensor
    picked: Tensor


class LinkNeighborBatches(NeighborBatches):
    """Shuffled pairs, each with some random neighbours of its ends.

    Sampling is that of :class:`~graphsparse.loader.NeighborBatches` with the ends of the pairs as seeds.

    Args:
        data: The graph.
        num_neighbors: Fan-out of each hop, one per layer of the model; -1 for all.
        batch_size: Links in a batch.
        seed: Seed of the batches.

    Example:
        >>> from graphsparse.testing import random_graph
        >>> loader = LinkNeighborBatches(random_graph(), num_neighbors=[3, 2], batch_size=4)
        >>> links, rest = torch.tensor([[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]), torch.tensor([[0, 1], [9, 8]])
        >>> [(batch.picked.numel(), batch.pairs.size(1)) for batch in loader.epoch(links, rest)]
        [(4, 5), (1, 2)]
    """

    def __init__(self, data: Data, *, num_neighbors: Sequence[int], batch_size: int = 4096, seed: int = 0) -> None:
        data = copy(data)
        data.train_mask = torch.ones(data.num_nodes, dtype=torch.bool)
        super().__init__(data, num_neighbors=num_neighbors, batch_size=batch_size, seed=seed)

    def epoch(self, positive: Tensor, negative: Tensor) -> Iterator[LinkBatch]:
        """Yield shuffled links ``[2, P]``, so many at a time, each time with as large a share of the non-links."""
        order = torch.randperm(positive.size(1), generator=self.generator)
        for picked, drawn in dealt(order, negative.size(1), self.batch_size):
            pairs = torch.cat([positive[:, picked], negative[:, drawn]], 1)
            seeds, place = torch.unique(pairs, return_inverse=True)
            nodes, edge_index, at = self._around(seeds)
            yield LinkBatch(cut_out(self.data, nodes, edge_index, self._graph.edge_id(at)), place, picked)


class PyGLinkBatches:
    """The same with PyG's ``LinkNeighborLoader``, whose sampler needs ``pyg_lib`` or ``torch_sparse``.

    Its own negatives may be links and are drawn among all nodes; so non-links are handed over as further pairs.

    Args:
        data: The graph.
        num_neighbors: Fan-out of each hop, one per layer of the model; -1 for all.
        batch_size: Links in a batch.
        seed: Seed of the shuffling. Neighbours are drawn from the global generators.
    """

    def __init__(self, data: Data, *, num_neighbors: Sequence[int], batch_size: int = 4096, seed: int = 0) -> None:
        self.data, self.num_neighbors, self.batch_size = data, list(num_neighbors), batch_size
        self.generator = torch.Generator().manual_seed(seed)
        self._sampler = NeighborSampler(data, self.num_neighbors)  # sorts the edges, once for all epochs

    def epoch(self, positive: Tensor, negative: Tensor) -> Iterator[LinkBatch]:
        """Yield batches as :class:`LinkNeighborBatches` does."""
        order = torch.randperm(positive.size(1), generator=self.generator)
        groups = list(dealt(order, negative.size(1), self.batch_size))
        every = torch.cat([torch.cat([positive[:, picked], negative[:, drawn]], 1) for picked, drawn in groups], 1)
        sizes = [picked.numel() + drawn.numel() for picked, drawn in groups]
        starts = torch.tensor([0, *sizes]).cumsum(0).tolist()
        loader = LinkNeighborLoader(
            self.data,
            self.num_neighbors,
            edge_label_index=every,
            neighbor_sampler=self._sampler,
            batch_sampler=[range(start, end) for start, end in itertools.pairwise(starts)],
        )
        for (picked, _), batch in zip(groups, loader, strict=True):
            yield LinkBatch(batch, batch.edge_label_index, picked)


def some_of(total: int, most: int | None, generator: torch.Generator) -> Tensor | None:
    """Draw so many of ``0, 1, ..., total - 1``, none twice; ``None``, and nothing drawn, where that would be all.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> some_of(3, 3, generator) is some_of(3, None, generator) is None
        True
        >>> some_of(4, 2, generator).unique().numel()
        2
    """
    return None if most is None or total <= most else start_of_order(total, most, generator)


def dealt(order: Tensor, num_negative: int, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield links, so many at a time, and for each group its share of the non-links.

    Example:
        >>> [(a.tolist(), b.tolist()) for a, b in dealt(torch.tensor([2, 0, 1]), 6, 2)]
        [([2, 0], [0, 1, 2, 3]), ([1], [4, 5])]
    """
    total = order.numel()
    for start in range(0, total, batch_size):
        end = min(start + batch_size, total)
        yield order[start:end], torch.arange(num_negative * start // total, num_negative * end // total)


def make_link_batches(sampler: str, data: Data, **options: Any) -> LinkNeighborBatches | PyGLinkBatches:
    """Return a loader of link batches by the name of its sampler.

    Raises:
        ValueError: If there is none of this name.

    Example:
        >>> from graphsparse.testing import random_graph
        >>> type(make_link_batches("graphsparse", random_graph(), num_neighbors=[2])).__name__
        'LinkNeighborBatches'
    """
    if sampler not in SAMPLERS:
        raise ValueError(f"'sampler' must be one of {SAMPLERS} (got {sampler!r})")
    return LinkNeighborBatches(data, **options) if sampler == "graphsparse" else PyGLinkBatches(data, **options)
