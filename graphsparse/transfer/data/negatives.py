"""Pairs of nodes that are not known to be linked, drawn without a loop."""

import torch
from torch import Tensor

from graphsparse.ops.pairs import is_among, pair_keys

#: Rounds of drawing after which a graph counts as having too few non-links left.
_ROUNDS = 200
#: Drawn at a time: bounds what is held besides the result.
_BLOCK = 1 << 22


class UniformNegatives:
    """Draws pairs uniformly from all that are no known link and no self-loop.

    Draws are independent, so that a pair may come twice. All randomness comes from the generator.

    Args:
        num_nodes: Pairs are drawn among the nodes ``0 .. num_nodes - 1``.
        known: Links that are never drawn, ``[2, P]``.
        generator: Source of all randomness.
        directed: Whether ``(u, v)`` may be drawn where ``(v, u)`` is a link.

    Raises:
        ValueError: If every pair is a known link.

    Example:
        >>> links = torch.tensor([[0, 0], [1, 2]])
        >>> draw = UniformNegatives(3, links, torch.Generator().manual_seed(0))
        >>> draw(2)
        tensor([[1, 1],
                [2, 2]])
    """

    def __init__(self, num_nodes: int, known: Tensor, generator: torch.Generator, *, directed: bool = False) -> None:
        self.num_nodes, self.generator, self.directed = num_nodes, generator, directed
        proper = known[:, known[0] != known[1]].cpu()
        self._known = torch.unique(pair_keys(proper, num_nodes, directed=directed))
        possible = num_nodes * (num_nodes - 1) // (1 if directed else 2)
        if self._known.numel() >= possible:
            raise ValueError(
                f"'known' holds all {possible} pairs of the {num_nodes} nodes: there is no negative to draw"
            )

    def __call__(self, num: int) -> Tensor:
        """Return ``num`` pairs, ``[2, num]``, on the CPU; the smaller end first unless directed."""
        return torch.cat([self._draw(min(_BLOCK, num - start)) for start in range(0, num, _BLOCK)] or [_none()], 1)

    def _draw(self, num: int) -> Tensor:
        parts, missing = [], num
        for _ in range(_ROUNDS):
            pairs = torch.randint(self.num_nodes, (2, missing), generator=self.generator)
            pairs = pairs[:, pairs[0] != pairs[1]]
            if not self.directed:
                pairs = pairs.sort(0).values
            keys = pair_keys(pairs, self.num_nodes, directed=self.directed)
            parts.append(pairs[:, ~is_among(keys, self._known)])
            missing -= parts[-1].size(1)
            if missing == 0:
                return torch.cat(parts, 1)
        # Nearly all pairs are known links, so that a list of all pairs is not much longer than that of the known ones.
        every = torch.arange(self.num_nodes)
        pairs = torch.cartesian_prod(every, every).t()
        pairs = pairs[:, pairs[0] != pairs[1] if self.directed else pairs[0] < pairs[1]]
        left = pairs[:, ~is_among(pair_keys(pairs, self.num_nodes, directed=self.directed), self._known)]
        parts.append(left[:, torch.randint(left.size(1), (missing,), generator=self.generator)])
        return torch.cat(parts, 1)


def _none() -> Tensor:
    return torch.empty(2, 0, dtype=torch.int64)
