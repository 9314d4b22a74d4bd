r"""Random designs: how likely each edge is to be kept, and draws of edges with these probabilities.

Probabilities are integers, in units of :math:`2^{-30}`, and so is the arithmetic behind a draw: counts are exact, and a
draw follows from its seed and epoch alone, on every device. Edges with the probability 1, such as a core, stay in every
draw and count.

=============== ======================= ================================================================================
design          number of kept edges    how much one edge says of another
=============== ======================= ================================================================================
``pivotal``     exact                   little: neighbours in the list compete, which spreads the kept edges evenly
``systematic``  exact                   all: there is one random number; where all are 1/2 there are two draws
``poisson``     random, mean ``k``      nothing
``replacement`` random, mean ``k``      little: a given number of draws, in which an edge may come repeatedly
=============== ======================= ================================================================================

Sources: Deville and Tille, *Unequal probability sampling without replacement through a splitting method*, Biometrika
85, 1998; Spielman and Srivastava, *Graph sparsification by effective resistances*, SIAM J. Comput. 40, 2011.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from graphsparse.ops.blocks import CACHED, blocks
from graphsparse.ops.sort import index_dtype
from graphsparse.utils.counter_random import GAMMA, CounterRandom, mix64

#: Bits of a probability, and a probability of 1.
BITS = 30
ONE = 1 << BITS

#: Draws edges by their probabilities: ``(pi [m], seed, epoch) -> keep [m]``.
Rule: TypeAlias = Callable[[Tensor, int, int], Tensor]


class Design(Protocol):
    """Edges to draw from: all that stays the same from draw to draw."""

    def draw(self, seed: int, epoch: int) -> Tensor:
        """Return how often each edge is drawn, ``[m]``: integers, or bool where that is at most once."""

    def expected(self) -> Tensor:
        """Return how often each edge is drawn on average, float64 ``[m]``: exactly 1 where one always stays."""

    def probability(self) -> Tensor:
        """Return how likely each edge is to be drawn at all, float64 ``[m]``."""

    def state(self) -> dict[str, Tensor]:
        """Return the tensors from which :func:`restore_design` makes it anew."""


def inclusion_probability(p: Tensor, k: int, core: Tensor | None = None) -> Tensor:
    r"""Return probabilities with the sum ``k`` that are proportional to ``p``, as far as none may be above 1.

    .. math::
        \pi_e = \min(1, \alpha p_e) \quad \text{with } \alpha \text{ such that } \textstyle\sum_e \pi_e = k,

    and :math:`\pi_e = 1` on core edges. In units of :math:`2^{-30}` the sum is exact. No edge with :math:`p_e > 0` gets
    0, unless the core takes all of ``k``. Edges with :math:`p_e = 0` get 0, unless there are fewer than ``k`` others:
    then all others get 1, and these share evenly what is left.

    Args:
        p: How likely each edge is, relative to the others, ``[m]``, finite and not negative.
        k: Number of edges to keep, core included, at most ``m``.
        core: Edges that stay in every draw, bool ``[m]``, at most ``k``.

    Returns:
        :math:`2^{30} \pi`, int64 ``[m]``, with the sum ``k * 2**30``.

    Example:
        >>> inclusion_probability(torch.tensor([1.0, 2.0, 5.0]), 2) / 2**30
        tensor([0.3333, 0.6667, 1.0000])

    Source: Tille, *Sampling Algorithms*, Springer 2006, Section 2.10.
    """
    weight = _weights(p, k, core)
    limit = math.inf  # edges of this weight or more have the probability 1
    while True:
        most, num_sure, num_free = _look(p.numel(), weight, limit)
        unit, total = _units_below(p.numel(), weight, limit, most)
        budget = (k - num_sure) * ONE - num_free  # one unit for every edge beforehand
        # A little less than the quotient, so that rounding hands out no more than there is.
        rate = max(budget, 0) / max(total, 1) * (1 - 2.0**-45)
        lower = (ONE - 1) / rate if rate else math.inf
        if not most * unit >= lower:
            break
        limit = lower / unit
    pi = torch.empty(p.numel(), dtype=torch.int64, device=p.device)
    for where in blocks(p.numel(), CACHED):
        w = weight(where)
        free = (w > 0).long() if budget >= 0 else torch.zeros_like(pi[where])
        pi[where] = torch.where(w < limit, free + (w * unit * rate).long(), ONE)
    _hand_out(pi, weight, k * ONE)
    return pi


def _weights(p: Tensor, k: int, core: Tensor | None) -> Callable[[slice], Tensor]:
    """Return what gives the weights of a block of edges, float64: infinity where an edge stays in every draw."""
    positive = (p > 0) if core is None else (p > 0) | core
    few = int(positive.count_nonzero()) <= k

    def weight(where: slice) -> Tensor:
        if few:
            return torch.where(positive[where], math.inf, 1.0).double()
        w = p[where].to(torch.float64, copy=True)  # what comes of it may be overwritten
        return w if core is None else w.masked_fill_(core[where], math.inf)

    return weight


def _look(m: int, weight: Callable[[slice], Tensor], limit: float) -> tuple[float, int, int]:
    """Return the largest weight below a limit, and the numbers of edges at or above it and between 0 and it."""
    most, num_sure, num_positive = 0.0, 0, 0
    for where in blocks(m, CACHED):
        w = weight(where)
        sure = w >= limit
        num_sure += int(sure.count_nonzero())
        num_positive += int(w.count_nonzero())
        most = max(most, float(w.masked_fill_(sure, 0).max()))
    return most, num_sure, num_positive - num_sure


def _units_below(m: int, weight: Callable[[slice], Tensor], limit: float, most: float) -> tuple[float, int]:
    """Return a power of two to multiply weights by, and the sum of the products below a limit, rounded up.

    Sums of integers are the same in every order; products with a power of two are the same on every device.
    """
    unit = _unit(m, most)
    total = 0
    for where in blocks(m, CACHED):
        w = weight(where)
        total += int(w.mul_(unit).masked_fill_(w >= limit * unit, 0).ceil_().long().sum())
    return unit, total


def _unit(m: int, most: float) -> float:
    """Return the power of two by which ``m`` numbers up to the given one have products whose sum an int64 holds."""
    return 2.0 ** min(62 - m.bit_length() - math.frexp(most)[1], 1023)


def _hand_out(pi: Tensor, weight: Callable[[slice], Tensor], total: int) -> None:
    """Spread the units that rounding has left evenly over the edges that can take some."""
    missing = total - int(pi.sum())
    while missing:
        open_ = [(pi[where] < ONE) & (weight(where) > 0) for where in blocks(pi.numel(), CACHED)]
        num = sum(int(part.count_nonzero()) for part in open_)
        each, rest = divmod(missing, num)
        first = 0
        for where, part in zip(blocks(pi.numel(), CACHED), open_, strict=True):
            rank = first + part.cumsum(0)
            more = each + rank * rest // num - (rank - 1) * rest // num
            pi[where] += torch.where(part, torch.minimum(more, ONE - pi[where]), 0)
            first = int(rank[-1])
        missing = total - int(pi.sum())


def pivotal(pi: Tensor, seed: int, epoch: int = 0) -> Tensor:
    r"""Draw edges by a tournament of pairs: exactly :math:`\sum \pi` edges, each with its own probability.

    Neighbours :math:`i, j` in the list play against each other. Where :math:`\pi_i + \pi_j \le 1` one of them is out
    and the other goes on with the sum, :math:`i` with probability :math:`\pi_i / (\pi_i + \pi_j)`. Else one of them is
    in and the other goes on with :math:`\pi_i + \pi_j - 1`, where :math:`i` is in with probability
    :math:`(1 - \pi_j) / (2 - \pi_i - \pi_j)`. Each :math:`\pi` stays what it was on average, up to the
    :math:`2^{-31}` of the random numbers.

    Args:
        pi: Probabilities in units of :math:`2^{-30}`, int64 ``[m]``; the sum is a whole number of ones.
        seed: Seed of the draws.
        epoch: Number of the draw.

    Returns:
        The drawn edges, bool ``[m]``.

    Example:
        >>> pi = inclusion_probability(torch.ones(6), 2)
        >>> pivotal(pi, seed=0)
        tensor([ True, False, False,  True, False, False])
        >>> pivotal(pi, seed=0, epoch=1)
        tensor([False,  True, False,  True, False, False])
    """
    keep = pi == ONE
    who = ((pi > 0) & ~keep).nonzero().squeeze(1).to(index_dtype(pi.numel()))
    left = torch.empty(who.numel(), dtype=torch.int32, device=pi.device)
    for where in blocks(who.numel()):
        left[where] = pi[who[where]]
    level, size = 0, who.numel()
    while size > 1:
        key = CounterRandom(seed, f"pivotal {epoch} {level}").key
        for where in blocks(size // 2, CACHED):
            pairs = slice(2 * where.start, 2 * where.stop)
            i, j = who[pairs].view(-1, 2).unbind(1)
            a, b = left[pairs].view(-1, 2).long().unbind(1)
            total = a + b
            over = total > ONE
            chance = torch.where(over, ONE - b, a) << 31
            wins = _bits(i, key) * torch.where(over, 2 * ONE - total, total) < chance
            keep[torch.where(wins, i, j)[over].long()] = True
            # What is written lies before all that is still to be read.
            who[where] = torch.where(wins ^ over, i, j)
            left[where] = total.sub_(over.long() << BITS)
        if size % 2:
            who[size // 2], left[size // 2] = who[size - 1], left[size - 1]
        level, size = level + 1, (size + 1) // 2
    keep[who[:size].long()] |= left[:size] == ONE
    return keep


def _bits(number: Tensor, key: int) -> Tensor:
    """Return 31 random bits that belong to each number of a stream."""
    return mix64((number.long() + 1) * GAMMA + key) >> 33 & 0x7FFFFFFF


def systematic(pi: Tensor, seed: int, epoch: int = 0) -> Tensor:
    r"""Draw the edges at which :math:`u + \sum_{j \le e} \pi_j` passes a whole number, with one uniform :math:`u`.

    As many edges as :math:`\sum \pi` are drawn, each with its own probability, but there are few different draws. See
    :func:`pivotal` for the arguments.

    Example:
        >>> systematic(torch.tensor([2**29] * 6), seed=0)
        tensor([ True, False,  True, False,  True, False])
    """
    offset = CounterRandom(seed, f"systematic {epoch}").words(1, device=pi.device) >> 32 - BITS
    passed = (pi.cumsum(0) + offset) >> BITS
    return passed.diff(prepend=torch.zeros_like(offset)) > 0


def poisson(pi: Tensor, seed: int, epoch: int = 0) -> Tensor:
    """Draw every edge on its own, so that their number is random. See :func:`pivotal` for the arguments.

    Example:
        >>> poisson(torch.tensor([2**29] * 6), seed=0)
        tensor([ True,  True,  True,  True, False,  True])
    """
    key = CounterRandom(seed, f"poisson {epoch}").key
    keep = torch.empty(pi.numel(), dtype=torch.bool, device=pi.device)
    for where in blocks(pi.numel(), CACHED):
        number = torch.arange(where.start, where.stop, device=pi.device)
        torch.lt(_bits(number, key), pi[where] << 31 - BITS, out=keep[where])
    return keep


def replacement(p: Tensor, draws: int, seed: int, epoch: int = 0) -> Tensor:
    r"""Draw edges with replacement, proportional to ``p``, and count how often each one comes.

    The sorted uniform numbers of all draws are running sums of exponential ones, so that nothing is sorted.

    Args:
        p: How likely each edge is, relative to the others, ``[m]``, not negative.
        draws: Number of draws.
        seed: Seed of the draws.
        epoch: Number of the whole of them.

    Returns:
        Counts, int64 ``[m]``, with the sum ``draws``; edges of ``p = 0`` are never drawn.

    Example:
        >>> replacement(torch.tensor([1.0, 2.0, 0.0, 5.0]), 8, seed=0)
        tensor([0, 2, 0, 6])
    """
    cumulative = _shares(p).cumsum_(0)
    if draws == 0 or p.numel() == 0 or not (all_ := int(cumulative[-1])):
        return torch.zeros_like(cumulative)
    # Exponential numbers are below 23 < 2^5, and their sum below 2^62.
    step = CounterRandom(seed, f"replacement {epoch}").exponential(draws + 1, device=p.device)
    place = step.mul_(2.0 ** (57 - (draws + 1).bit_length())).long().cumsum_(0)
    place = place[:-1].double().mul_(all_ / int(place[-1])).long().clamp_(max=all_ - 1)
    count = torch.empty_like(cumulative)
    for where in blocks(p.numel()):
        count[where] = torch.searchsorted(place, cumulative[where])
    return count.diff(prepend=count.new_zeros(1))


def _shares(p: Tensor) -> Tensor:
    """Return integers proportional to ``p``, rounded up, whose sum an int64 holds."""
    unit = _unit(p.numel(), float(p.max()) if p.numel() else 1.0)
    share = torch.empty(p.numel(), dtype=torch.int64, device=p.device)
    for where in blocks(p.numel(), CACHED):
        share[where] = p[where].double().mul_(unit).ceil_()
    return share


def expected_count(p: Tensor, draws: int) -> Tensor:
    """Return how often each edge is drawn on average by :func:`replacement`, float64 ``[m]``."""
    share = _shares(p)
    return share.double().mul_(draws / max(int(share.sum()), 1))


def draws_for(p: Tensor, k: int) -> int:
    r"""Return the number of draws with replacement that reach ``k`` different edges on average.

    It is the integer next to the root :math:`Q` of

    .. math:: \sum_e 1 - (1 - p_e)^Q = k, \qquad \sum_e p_e = 1.

    Args:
        p: How likely each edge is, relative to the others, ``[m]``, not negative.
        k: Number of edges; fewer than there are with ``p > 0``.

    Raises:
        ValueError: If no number of draws reaches so many.

    Example:
        >>> draws_for(torch.ones(10), 5)
        7
    """
    if not 0 <= k < int(p.count_nonzero()):
        raise ValueError(
            f"'k' must be at least 0 and below the {int(p.count_nonzero())} edges with p > 0: draws with replacement "
            f"reach all of them never for sure (got {k})"
        )
    log_missed = torch.log1p(-expected_count(p, 1))
    draws = 0.0
    # The left side is concave, so that Newton's method comes from below and never passes the root.
    while True:
        reached = slope = 0.0
        for where in blocks(p.numel(), CACHED):
            missed = torch.expm1(log_missed[where] * draws)
            reached -= float(missed.sum())
            slope -= float(missed.add_(1).mul_(log_missed[where]).sum())
        step = (k - reached) / slope
        draws += step
        if step < 1e-3:
            return round(draws)


@dataclass(frozen=True)
class OnceDesign:
    """Every edge is drawn at most once, by a rule and probabilities in units of :math:`2^{-30}`."""

    rule: Rule
    pi: Tensor

    def draw(self, seed: int, epoch: int) -> Tensor:
        """Return which edges are drawn."""
        return self.rule(self.pi, seed, epoch)

    def expected(self) -> Tensor:
        """Return the probabilities."""
        return self.pi.double().mul_(2.0**-BITS)

    def probability(self) -> Tensor:
        """Return the probabilities."""
        return self.expected()

    def state(self) -> dict[str, Tensor]:
        """Return the probabilities in their units."""
        return {"pi": self.pi}


@dataclass(frozen=True)
class ReplacementDesign:
    """Some edges are sure; the others come from draws with replacement, proportional to ``p``, 0 on those."""

    p: Tensor
    sure: Tensor
    draws: int

    def draw(self, seed: int, epoch: int) -> Tensor:
        """Return how often each edge is drawn."""
        return replacement(self.p, self.draws, seed, epoch).add_(self.sure)

    def expected(self) -> Tensor:
        """Return how often each edge is drawn on average."""
        return expected_count(self.p, self.draws).add_(self.sure)

    def probability(self) -> Tensor:
        """Return how likely each edge is to be drawn at all."""
        missed = expected_count(self.p, 1).neg_().log1p_().mul_(self.draws)
        return missed.expm1_().neg_().nan_to_num_(0).add_(self.sure)

    def state(self) -> dict[str, Tensor]:
        """Return weights and sure edges."""
        return {"p": self.p, "sure": self.sure, "draws": torch.tensor(self.draws)}


_RULES: dict[str, Rule] = {"pivotal": pivotal, "systematic": systematic, "poisson": poisson}
#: The names of the designs.
DESIGNS = (*_RULES, "replacement")


def make_design(name: str, p: Tensor, k: int | None, core: Tensor | None = None, draws: int | None = None) -> Design:
    """Prepare draws of ``k`` edges, on average or exactly; see :func:`inclusion_probability`.

    With replacement the number of draws may be given instead of ``k``.
    """
    if name in _RULES:
        assert k is not None
        return OnceDesign(_RULES[name], inclusion_probability(p, k, core))
    sure = torch.zeros(p.numel(), dtype=torch.bool, device=p.device) if core is None else core
    p = p.double().masked_fill(sure, 0)
    if k is None or draws is not None:
        return ReplacementDesign(p, sure, draws or 0)
    if int(p.count_nonzero()) <= k - int(sure.count_nonzero()):
        sure = sure | (p > 0)
        p = (~sure).double()
    left = k - int(sure.count_nonzero())
    if left and left == int(p.count_nonzero()):
        return ReplacementDesign(torch.zeros_like(p), torch.ones_like(sure), 0)
    return ReplacementDesign(p, sure, draws_for(p, left) if left else 0)


def restore_design(name: str, state: Mapping[str, Tensor]) -> Design:
    """Return a design from its state."""
    if name in _RULES:
        return OnceDesign(_RULES[name], state["pi"])
    return ReplacementDesign(state["p"], state["sure"], int(state["draws"]))
