"""Non-links that a training draws for its links."""

import torch
from torch import Tensor

from graphsparse.loader.in_graph import start_of_order
from graphsparse.ops.blocks import blocks
from graphsparse.ops.pairs import is_among, key_pairs, pair_keys, unique_keys

#: Rounds of drawing after which a graph counts as having too few non-links left.
_ROUNDS = 200
#: Drawn at a time: bounds what is held besides the result.
_BLOCK = 1 << 22


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
        side: Side 0 or 1 of each node, or -1 on neither: only pairs between the sides are drawn, with the end on side
            0 first as often as in the known links where directions count.

    Example:
        >>> links = torch.tensor([[0, 0], [1, 2]])
        >>> draw = UniformNegatives(3, links, torch.Generator().manual_seed(0))
        >>> draw(2)
        tensor([[1, 1],
                [2, 2]])
    """

    def __init__(
        self,
        num_nodes: int,
        known: Tensor,
        generator: torch.Generator,
        *,
        directed: bool = False,
        side: Tensor | None = None,
    ) -> None:
        self.num_nodes, self.generator, self.directed = num_nodes, generator, directed
        known = known[:, known[0] != known[1]].cpu()
        self._known = unique_keys(self._keys(known))
        self._sides = None if side is None else self._read_sides(side.cpu(), known)
        possible = num_nodes * (num_nodes - 1) // (1 if directed else 2)
        if self._sides is not None:
            ways = 2 if 0 < self._forward < 1 else 1
            possible = self._sides[0].numel() * self._sides[1].numel() * ways
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
            pairs = self._any_pairs(missing)
            keys = self._keys(pairs[:, pairs[0] != pairs[1]])
            parts.append(keys[~is_among(keys, self._known)])
            missing -= parts[-1].numel()
            if missing == 0:
                return key_pairs(torch.cat(parts), self.num_nodes)
        # Nearly all pairs are known links, so that a list of all pairs is not much longer than that of the known ones.
        keys = self._keys(self._every_pair())
        left = keys[~is_among(keys, self._known)]
        parts.append(left[torch.randint(left.numel(), (missing,), generator=self.generator)])
        return key_pairs(torch.cat(parts), self.num_nodes)

    def _read_sides(self, side: Tensor, known: Tensor) -> list[Tensor]:
        if side.shape != (self.num_nodes,) or not bool((side[known].sort(0).values == torch.tensor([[0], [1]])).all()):
            raise ValueError(f"'side' must hold 0 or 1 for each of {self.num_nodes} nodes, and both at every link")
        self._forward = float((side[known[0]] == 0).float().mean()) if self.directed and known.numel() else 1.0
        return [(side == number).nonzero().view(-1) for number in (0, 1)]

    def _any_pairs(self, num: int) -> Tensor:
        """Draw pairs that may be links or self-loops."""
        if self._sides is None:
            return torch.randint(self.num_nodes, (2, num), generator=self.generator)
        ends = [side[torch.randint(side.numel(), (num,), generator=self.generator)] for side in self._sides]
        back = torch.rand(num, generator=self.generator) >= self._forward
        return torch.where(back, torch.stack(ends).flip(0), torch.stack(ends))

    def _every_pair(self) -> Tensor:
        """List all pairs that could be drawn, but for self-loops."""
        if self._sides is not None:
            pairs = torch.cartesian_prod(*self._sides).t()
            return torch.cat([pairs] * (self._forward > 0) + [pairs.flip(0)] * (self._forward < 1), 1)
        pairs = torch.cartesian_prod(*[torch.arange(self.num_nodes)] * 2).t()
        return pairs[:, pairs[0] != pairs[1] if self.directed else pairs[0] < pairs[1]]
