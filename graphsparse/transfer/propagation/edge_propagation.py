"""Label propagation over pairs of nodes, on a line graph that is never built."""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

import torch
from torch import Tensor

from graphsparse.metrics.ranking import average_precision
from graphsparse.ops.blocks import CACHED, blocks
from graphsparse.ops.check import check_count, check_share
from graphsparse.ops.pairs import PairTable, pair_keys
from graphsparse.transfer.data.split import check_queries
from graphsparse.transfer.propagation.line_graph import LineGraph
from graphsparse.utils.counter_random import mix64

#: Weights among which :meth:`EdgeLabelPropagation.choose_lambda` chooses. With 0 a harmful step can be left out.
LAMBDA_GRID = (0.0, 0.002, 0.1, 0.3, 0.5, 1.0)
#: What is propagated, and where it is clipped after every round.
BOUNDS = {"residual": (-1.0, 1.0), "outcome": (1e-9, 1 - 1e-9)}
#: Distance from 0 and 1 that a corrected score keeps, unless the score itself was nearer.
EPS = 1e-6


@dataclass(eq=False)
class EdgeLabelPropagation:
    r"""Corrects scores of pairs by labels of other pairs that share a node with them; no parameters.

    The elements are pairs, and neighbours are pairs that share an end: label propagation on the line graph. *Anchors*
    hold labels or trusted scores. They exchange a signal for some rounds,

    .. math::
        \mathbf{f}^{(k+1)} = \mathrm{clip} \big( \alpha \mathbf{S} \mathbf{f}^{(k)} + (1 - \alpha) \mathbf{g} \big),

    with the row-normalised :class:`~graphsparse.transfer.propagation.line_graph.LineGraph` :math:`\mathbf{S}`, and a
    *query* :math:`q = \{u, v\}` reads the mean over the anchors at its ends,

    .. math::
        f_q = \frac{s_u + s_v}{c_u + c_v}, \quad
        \mathbf{s} = \mathbf{B}^\top \mathbf{f}^{(K)}, \; \mathbf{c} = \mathbf{B}^\top \mathbf{1} .

    **Queries receive and never send**, so that the score of a pair does not depend on which other pairs are asked for.
    A query without an anchor at either end keeps its score.

    **A query that is an anchor** must not see its own label. Taking its own last value out of the sums is not enough:
    its label has been at its neighbours and comes back with their values. So the anchors are dealt into
    ``anchor_folds`` groups by a hash of their ends, and an anchor that is asked for is read from a propagation in which
    its whole group is silent; these are run when the first such query comes. With ``anchor_folds=0`` only its own last
    value is taken out, :math:`(s_u + s_v - 2 f_q) / (c_u + c_v - 2)`.

    The signal (``mode``) is one of

    * ``"residual"``: :math:`g = y - p`, 0 for anchors without a label, added to the score with weight
      :math:`\lambda`: repairs over- and underconfidence around a node, and is 0 where nothing is known;
    * ``"outcome"``: :math:`g = y`, starting from the scores; mixed with the score with weight :math:`\lambda`.

    Memory: about 40 bytes per anchor while fitting, and 16 bytes per node.

    Args:
        K: Number of rounds.
        alpha: Share :math:`\alpha` of the neighbours in a round, in [0, 1].
        mode: ``"residual"`` or ``"outcome"``.
        lam: Weight :math:`\lambda` in [0, 1] for as long as :meth:`choose_lambda` has found none since the anchors were
            taken in. ``None``: 0 with a warning, because no weight is safe without a validation.
        anchor_folds: Number of groups of anchors, see above; at least 2, or 0.

    Attributes:
        chosen_lambda: Weight found by :meth:`choose_lambda`, which goes before ``lam``, or ``None``.
        tried: The metric for each weight that :meth:`choose_lambda` tried.

    Raises:
        TypeError, ValueError: If an argument is not of the kind described.

    Example:
        >>> anchors = torch.tensor([[0, 0, 1, 4], [1, 2, 2, 5]])
        >>> y, p = torch.tensor([1.0, 1.0, 0.0, 0.0]), torch.full((4,), 0.5)
        >>> elp = EdgeLabelPropagation(lam=0.5).fit(anchors, y, p, num_nodes=8)
        >>> elp.correct(torch.tensor([[0, 4, 6], [3, 6, 7]]), torch.full((3,), 0.5))
        tensor([0.6000, 0.2500, 0.5000])

    Source: Zheng et al., *You Only Transfer What You Share: Intersection-Induced Graph Transfer Learning for Link
    Prediction*, 2023, arXiv 2302.14189; the residual mode is the "correct" step of Huang et al., *Combining Label
    Propagation and Simple Models Out-performs Graph Neural Networks*, ICLR 2021, arXiv 2010.13993, with pairs for
    nodes. Isolated queries and groups of anchors are ours.
    """

    K: int = 5
    alpha: float = 0.9
    mode: str = "residual"
    lam: float | None = None
    _: KW_ONLY
    anchor_folds: int = 5

    def __post_init__(self) -> None:
        for name in ("K", "anchor_folds"):
            check_count(getattr(self, name), name, 0)
        if self.anchor_folds == 1:
            raise ValueError("'anchor_folds' must be 0 or at least 2 (got 1)")
        if self.mode not in BOUNDS:
            raise ValueError(f"'mode' must be one of {tuple(BOUNDS)} (got {self.mode!r})")
        check_share(self.alpha, "alpha")
        if self.lam is not None:
            check_share(self.lam, "lam")
        self.chosen_lambda: float | None = None
        self.tried: dict[float, float] = {}
        self._table: PairTable | None = None

    @torch.no_grad()
    def fit(self, anchors: Tensor, y: Tensor, p: Tensor, num_nodes: int) -> "EdgeLabelPropagation":
        """Take in the anchors, and propagate their signals.

        Args:
            anchors: Undirected pairs ``[2, C]``, each once, without self-loops. Negatives among them should be matched
                in degree (:func:`~graphsparse.transfer.degree_matched_negatives`): with uniform ones a node of low
                degree has negative anchors only, and all its candidates are pushed down.
            y: Labels ``[C]`` between 0 and 1, NaN for anchors without a label.
            p: Scores of the anchors as probabilities ``[C]``.
            num_nodes: Number of nodes.

        Returns:
            The object itself.

        Raises:
            TypeError: If a tensor is not of the type described.
            ValueError: If a shape, an index, a label or a score is out of range, or a pair is a self-loop or comes
                twice.
        """
        table = PairTable(anchors, num_nodes, "anchors")
        _check_probabilities(y, "y", len(table), nan=True)
        _check_probabilities(p, "p", len(table))
        y, p = (table.sorted(values.to(table.device)) for values in (y, p))
        if self.mode == "residual":
            start = seed = (y - p).float().nan_to_num_(0.0)
        else:
            start, seed = p.float(), torch.where(y.isnan(), p, y).float()
        self._take_in(table, start, seed)
        return self

    def _take_in(self, table: PairTable, start: Tensor, seed: Tensor) -> None:
        self._table, self._start, self._seed = table, start, seed
        self._folds: dict[int, tuple[Tensor, Tensor]] = {}
        self.chosen_lambda, self.tried = None, {}
        self._count, self._sum, self._values = self._run(None)

    def state(self) -> dict[str, Any]:
        """Return what was fitted as tensors and plain values, for :meth:`restore`."""
        assert self._table is not None
        fitted = {"start": self._start, "seed": self._seed, "chosen_lambda": self.chosen_lambda}
        anchors = torch.stack([self._table.low, self._table.high])
        return {"anchors": anchors, "num_nodes": self._table.num_nodes, **fitted}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Be as the object was that gave the state, bit for bit."""
        self._take_in(PairTable(state["anchors"], state["num_nodes"]), state["start"], state["seed"])
        self.chosen_lambda = state["chosen_lambda"]

    @torch.no_grad()
    def correct(self, queries: Tensor, p: Tensor) -> Tensor:
        """Return corrected scores of some pairs.

        Args:
            queries: Undirected pairs ``[2, Q]``, in any direction; no self-loops.
            p: Their scores as probabilities ``[Q]``.

        Returns:
            Scores ``[Q]`` of the type of ``p``, higher = more likely a link. With weight 0 or without anchors they are
            ``p`` itself, bit for bit.

        Raises:
            RuntimeError: If there are no anchors yet.
            TypeError: If a tensor is not of the type described.
            ValueError: If a shape, an index or a score is out of range or a query is a self-loop.
        """
        table = self._check_queries(queries, p)
        lam = self.lam if self.chosen_lambda is None else self.chosen_lambda
        if lam is None:
            warnings.warn(
                "'lam' is None and 'choose_lambda' was not called: scores are not changed", UserWarning, stacklevel=3
            )
            lam = 0.0
        changed = p.detach().clone()
        if len(table) > 0 and lam > 0:
            found, evidence = (part.to(p.device) for part in self._read(table, queries.to(table.device)))
            for where in blocks(p.numel(), CACHED):
                changed[where] = _mix(self.mode, p[where], found[where], evidence[where], lam)
        return changed

    @torch.no_grad()
    def choose_lambda(
        self,
        queries: Tensor,
        y: Tensor,
        p: Tensor,
        grid: Sequence[float] = LAMBDA_GRID,
        metric: Callable[[Tensor, Tensor], float] = average_precision,
    ) -> float:
        """Choose the weight on validation pairs, and keep it for :meth:`correct`.

        Args:
            queries: Validation pairs ``[2, Q]``; they are never anchors, which would be a leak.
            y: Their labels ``[Q]``, bool or 0 and 1.
            p: Their scores ``[Q]``.
            grid: Weights in [0, 1] to try; 0 must be among them. Of equally good ones the smallest wins.
            metric: Function of the corrected scores ``[Q]`` and the bool labels ``[Q]``, higher = better.

        Returns:
            The weight.

        Raises:
            ValueError: If 0 is not in the grid, a validation pair is an anchor, or an argument is out of range.
        """
        table = self._check_queries(queries, p)
        weights = sorted(check_share(value, "grid") for value in grid)
        if not weights or weights[0] != 0:
            raise ValueError(f"'grid' must hold 0, so that nothing has to be changed (got {list(grid)})")
        if not isinstance(y, Tensor) or y.shape != p.shape or not bool(((y == 0) | (y == 1)).all()):
            raise ValueError(f"'y' must hold a label, 0 or 1, for each of {p.numel()} queries (got {y!r})")
        queries, y = queries.to(table.device), y.to(p.device)
        if bool((table.find(queries) >= 0).any()):
            raise ValueError("'queries' holds an anchor, whose label is known already: it cannot validate")
        found, evidence = (part.to(p.device) for part in self._read(table, queries))
        self.chosen_lambda = None
        self.tried = {lam: float(metric(_mix(self.mode, p, found, evidence, lam), y.bool())) for lam in weights}
        best = max((value for value in self.tried.values() if not math.isnan(value)), default=None)
        if best is None:
            raise ValueError(f"'metric' must return a number (got {math.nan})")
        self.chosen_lambda = next(lam for lam, value in self.tried.items() if value == best)
        return self.chosen_lambda

    def _read(self, table: PairTable, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Return the value that the anchors say for each query, float32, and whether they say anything, bool."""
        num = queries.size(1)
        found = torch.zeros(num, device=table.device)
        evidence = torch.zeros(num, dtype=torch.bool, device=table.device)
        for where in blocks(num):
            pairs = queries[:, where].long()
            place = table.find(pairs)
            count, total = _at(pairs, self._count), _at(pairs, self._sum)
            own = (place >= 0).nonzero().squeeze(1)
            if own.numel():
                self._read_anchors(pairs, place, own, count, total)
            found[where] = torch.where(count > 0, total / count, 0.0)
            evidence[where] = count > 0
        return found, evidence

    def _read_anchors(self, pairs: Tensor, place: Tensor, own: Tensor, count: Tensor, total: Tensor) -> None:
        """Replace the sums of queries that are anchors by ones that do not hold their own labels."""
        if self.anchor_folds == 0:
            count[own] -= 2
            total[own] -= 2 * self._values[place[own]]
            return
        fold = self._fold_of(pairs[:, own])
        for number in torch.bincount(fold).nonzero().view(-1).tolist():
            where = own[fold == number]
            if number not in self._folds:
                self._folds[number] = self._run(number)[:2]
            count[where], total[where] = (_at(pairs[:, where], per_node) for per_node in self._folds[number])

    def _fold_of(self, pairs: Tensor) -> Tensor:
        assert self._table is not None
        return (mix64(pair_keys(pairs, self._table.num_nodes)) >> 32 & 0xFFFFFFFF) % self.anchor_folds

    def _run(self, silent: int | None) -> tuple[Tensor, Tensor, Tensor]:
        """Propagate, perhaps with one group silent; return anchors at each node, sums of their values, and values."""
        table, weight = self._table, None
        assert table is not None
        if silent is not None:
            weight = torch.empty(len(table), device=table.device)
            for where, low, high in table.blocks():
                weight[where] = (self._fold_of(torch.stack([low, high])) != silent).float()
        line = LineGraph(table, weight)
        values = line.propagate(self._start, self._seed, self.K, self.alpha, BOUNDS[self.mode])
        return line.count, line.node_sum(values), values

    def _check_queries(self, queries: Tensor, p: Tensor) -> PairTable:
        if self._table is None:
            raise RuntimeError("'fit' must be called first")
        check_queries(queries, self._table.num_nodes, "queries")
        _check_probabilities(p, "p", queries.size(1))
        return self._table


def _at(pairs: Tensor, per_node: Tensor) -> Tensor:
    """Return the sum of a number per node over both ends of some pairs."""
    return per_node.index_select(0, pairs[0]) + per_node.index_select(0, pairs[1])


def _mix(mode: str, p: Tensor, found: Tensor, evidence: Tensor, lam: float) -> Tensor:
    """Return the scores changed by what was found for them; the same ones where nothing was found."""
    old, found = p.double(), found.double()
    if mode == "residual":
        changed = old + lam * found
        # The clip never moves a score that was nearer to 0 or 1 already, so that a residual of 0 changes nothing.
        changed = torch.minimum(torch.maximum(changed, old.clamp(max=EPS)), old.clamp(min=1 - EPS))
    else:
        changed = old + lam * (found - old)
    return torch.where(evidence, changed.to(p.dtype), p)


def _check_probabilities(values: Tensor, name: str, num: int, *, nan: bool = False) -> None:
    """Refuse what is not a number between 0 and 1 for each pair, or NaN where that may be."""
    if not isinstance(values, Tensor) or not values.is_floating_point():
        raise TypeError(
            f"'{name}' must be a floating point tensor (got {getattr(values, 'dtype', type(values).__name__)})"
        )
    if values.shape != (num,):
        raise ValueError(f"'{name}' must have one entry per pair, [{num}] (got {list(values.shape)})")
    for where in blocks(num, CACHED):
        block = values[where]
        fits = (block >= 0) & (block <= 1)
        if nan:
            fits |= block.isnan()
        if not bool(fits.all()):
            extra = ", NaN where there is none" if nan else ""
            raise ValueError(f"'{name}' must hold numbers between 0 and 1{extra} (got {float(block[~fits][0])})")
