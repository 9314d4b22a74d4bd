"""What an epoch of links is made of: non-links drawn anew, and batches with a sample of the graph around their ends."""

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass

import torch
from torch import Tensor
from torch_geometric.data import Data

from graphsparse.loader.batches import cut_out
from graphsparse.loader.draws import start_of_order
from graphsparse.loader.neighbor import NeighborBatches
from graphsparse.ops.blocks import blocks
from graphsparse.ops.pairs import is_among, key_pairs, pair_keys, unique_keys

#: Rounds of drawing after which a graph counts as having too few non-links left.
_ROUNDS = 200
#: Drawn at a time: bounds what is held besides the result.
_BLOCK = 1 << 22


@dataclass(frozen=True)
class LinkBatch:
    """Some links and non-links of a graph, or of a part of it.

    Args:
        graph: Features and edges.
        pairs: Pairs of its nodes ``[2, Q]``, links first.
        picked: Which of the links of the epoch these are, ``[P]``, ``P <= Q``.
        weight: Weights of these links in the loss, ``[P]``.
    """

    graph: Data
    pairs: Tensor
    picked: Tensor
    weight: Tensor | None = None


class LinkNeighborBatches(NeighborBatches):
    """Shuffled links, each batch with some random neighbours of the ends of its pairs.

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

    def epoch(self, links: Tensor, non_links: Tensor) -> Iterator[LinkBatch]:
        """Yield shuffled links ``[2, P]``, so many at a time, each time with as large a share of the non-links."""
        order = torch.randperm(links.size(1), generator=self.generator)
        total = max(order.numel(), 1)
        for start in range(0, order.numel(), self.batch_size):
            picked = order[start : start + self.batch_size]
            first, last = (non_links.size(1) * end // total for end in (start, start + picked.numel()))
            pairs = torch.cat([links[:, picked], non_links[:, first:last]], 1)
            seeds, place = torch.unique(pairs, return_inverse=True)
            nodes, edge_index, at = self._around(seeds)
            yield LinkBatch(cut_out(self.data, nodes, edge_index, self._graph.edge_id(at)), place, picked)


def some_of(links: Tensor, most: int | None, generator: torch.Generator) -> Tensor | None:
    """Draw which of links ``[2, P]`` are learned from, ``None`` and no draw where that is all of them."""
    if most is None or links.size(1) <= most:
        return None
    return start_of_order(links.size(1), most, generator).to(links.device)


class UniformNegatives:
    """Draws pairs uniformly from all that are no known link and no self-loop.

    Draws are independent, so that a pair may come twice. All randomness comes from the generator.

    Args:
        num_nodes: Pairs are drawn among the nodes ``0 .. num_nodes - 1``.
        known: Links that are never drawn, ``[2, P]``.
        generator: Source of all randomness.
        directed: Whether ``(u, v)`` may be drawn where ``(v, u)`` is a link.

    Example:
        >>> links = torch.tensor([[0, 0], [1, 2]])
        >>> draw = UniformNegatives(3, links, torch.Generator().manual_seed(0))
        >>> draw(2)
        tensor([[1, 1],
                [2, 2]])
    """

    def __init__(self, num_nodes: int, known: Tensor, generator: torch.Generator, *, directed: bool = False) -> None:
        self.num_nodes, self.generator, self.directed = num_nodes, generator, directed
        self._known = unique_keys(self._keys(known[:, known[0] != known[1]].cpu()))
        possible = num_nodes * (num_nodes - 1) // (1 if directed else 2)
        if self._known.numel() >= possible:
            raise ValueError(
                f"'known' holds all {possible} pairs of the {num_nodes} nodes: there is no negative to draw"
            )

    def __call__(self, num: int) -> Tensor:
        """Return ``num`` pairs, ``[2, num]``, on the CPU; the smaller end first unless directed."""
        parts = [self._draw(where.stop - where.start) for where in blocks(num, _BLOCK)]
        return torch.cat(parts, 1) if parts else torch.empty(2, 0, dtype=torch.int64)

    def _keys(self, pairs: Tensor) -> Tensor:
        return pair_keys(pairs, self.num_nodes, directed=self.directed)

    def _draw(self, num: int) -> Tensor:
        parts, missing = [], num
        for _ in range(_ROUNDS):
            pairs = torch.randint(self.num_nodes, (2, missing), generator=self.generator)
            keys = self._keys(pairs[:, pairs[0] != pairs[1]])
            parts.append(keys[~is_among(keys, self._known)])
            missing -= parts[-1].numel()
            if missing == 0:
                return key_pairs(torch.cat(parts), self.num_nodes)
        # Nearly all pairs are known links, so that a list of all pairs is not much longer than that of the known ones.
        pairs = torch.cartesian_prod(*[torch.arange(self.num_nodes)] * 2).t()
        keys = self._keys(pairs[:, pairs[0] != pairs[1] if self.directed else pairs[0] < pairs[1]])
        left = keys[~is_among(keys, self._known)]
        parts.append(left[torch.randint(left.numel(), (missing,), generator=self.generator)])
        return key_pairs(torch.cat(parts), self.num_nodes)
