"""Label propagation over pairs of nodes, on a line graph that is never built."""

import math
import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from graphsparse.metrics.ranking import average_precision
from graphsparse.ops.blocks import CACHED, blocks
from graphsparse.ops.check import check_count, check_share
from graphsparse.ops.pairs import PairTable, pair_keys
from graphsparse.transfer.data.queries import check_queries
from graphsparse.transfer.propagation.edge_signals import (
    BOUNDS,
    EPS,
    check_anchors,
    check_mode,
    check_per_pair,
    mix,
    signals,
)
from graphsparse.transfer.propagation.line_graph import LineGraph, check_norm
from graphsparse.utils.counter_random import mix64

#: Weights among which :meth:`EdgeLabelPropagation.choose_lambda` chooses. With 0 a harmful step can be left out.
LAMBDA_GRID = (0.0, 0.002, 0.1, 0.3, 0.5, 1.0)


class EdgeLabelPropagation:
    r"""Corrects scores of pairs by labels of other pairs that share a node with them; no parameters.

    The elements are pairs, and neighbours are pairs that share an end: label propagation on the line graph. *Anchors*
    hold labels or trusted scores. They exchange a signal for some rounds,

    .. math::
        \mathbf{f}^{(k+1)} = \mathrm{clip} \big( \alpha \mathbf{S} \mathbf{f}^{(k)} + (1 - \alpha) \mathbf{g} \big),

    with the operator of :class:`~graphsparse.transfer.propagation.line_graph.LineGraph`, and a *query*
    :math:`q = \{u, v\}` reads the mean over the anchors at its ends,

    .. math::
        f_q = \frac{s_u + s_v}{c_u + c_v}, \quad
        \mathbf{s} = \mathbf{B}^\top (\mathbf{w} \odot \mathbf{f}^{(K)}), \; \mathbf{c} = \mathbf{B}^\top \mathbf{w} .

    **Queries receive and never send**, so that the score of a pair does not depend on which other pairs are asked for.
    A query without an anchor at either end keeps its score.

    **A query that is an anchor** must not see its own label. Taking its own last value out of the sums is not enough:
    its label has been at its neighbours and comes back with their values. So the anchors are dealt into
    ``anchor_folds`` groups by a hash of their ends, and an anchor that is asked for is read from a propagation in which
    its whole group is silent; these are run when the first such query comes. With ``anchor_folds=0`` only its own last
    value is taken out, :math:`(s_u + s_v - 2 w_q f_q) / (c_u + c_v - 2 w_q)`.

    The signal (``mode``) is one of

    * ``"residual"``: :math:`g = y - p`, 0 for anchors without a label, added to the score with weight
      :math:`\lambda`: repairs over- and underconfidence around a node, and is 0 where nothing is known;
    * ``"outcome"``: labels, starting from the scores; mixed with the score with weight :math:`\lambda`;
    * ``"mass"``: labels or scores together with the evidence for them, which is 0 for anchors that have neither. A
      query reads the ratio of both, and the mean training label if no evidence reached it; a query without a score
      (NaN) takes what it reads. So pairs without a score get one, and are not taken for non-links.

    Memory: about 40 bytes per anchor while fitting (56 in ``"mass"``), and 16 bytes per node and signal.

    Args:
        K: Number of rounds.
        alpha: Share :math:`\alpha` of the neighbours in a round, in [0, 1].
        mode: ``"residual"``, ``"outcome"`` or ``"mass"``.
        norm: ``"row"`` or ``"sym"`` normalisation of the line graph.
        lam: Weight :math:`\lambda` in [0, 1] for as long as :meth:`choose_lambda` has found none since the anchors were
            taken in. ``None``: 0 with a warning, because no weight is safe without a validation.
        transductive: Makes all queries elements that exchange signals with the anchors and with one another, each with
            its score as signal and no label. Then **a score depends on the other queries**; for comparison only.
        anchor_folds: Number of groups of anchors, see above; at least 2, or 0.

    Attributes:
        chosen_lambda: Weight found by :meth:`choose_lambda`, which goes before ``lam``, or ``None``.

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
    nodes. Isolated queries, groups of anchors and the mass mode are ours.
    """

    def __init__(
        self,
        K: int = 5,  # noqa: N803
        alpha: float = 0.9,
        mode: str = "residual",
        norm: str = "row",
        lam: float | None = None,
        *,
        transductive: bool = False,
        anchor_folds: int = 5,
    ) -> None:
        self.K, self.anchor_folds = check_count(K, "K", 0), check_count(anchor_folds, "anchor_folds", 0)
        if self.anchor_folds == 1:
            raise ValueError("'anchor_folds' must be 0 or at least 2 (got 1)")
        self.alpha = check_share(alpha, "alpha")
        self.lam = None if lam is None else check_share(lam, "lam")
        self.mode, self.norm = check_mode(mode), check_norm(norm)
        self.transductive = bool(transductive)
        self.chosen_lambda: float | None = None
        self._table: PairTable | None = None

    def __repr__(self) -> str:
        fields = ("K", "alpha", "mode", "norm", "lam", "transductive")
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in fields)})"

    @torch.no_grad()
    def fit(
        self, anchors: Tensor, y: Tensor, p: Tensor, num_nodes: int, weight: Tensor | None = None
    ) -> "EdgeLabelPropagation":
        """Take in the anchors, and propagate their signals.

        Args:
            anchors: Undirected pairs ``[2, C]``, each once, without self-loops. Negatives among them should be matched
                in degree (:func:`~graphsparse.transfer.degree_matched_negatives`): with uniform ones a node of low
                degree has negative anchors only, and all its candidates are pushed down.
            y: Labels ``[C]`` between 0 and 1, NaN for anchors without a label.
            p: Scores of the anchors as probabilities ``[C]``; NaN for none, in ``"mass"`` only.
            num_nodes: Number of nodes.
            weight: Weights of the anchors ``[C]``, positive; all 1 when ``None``.

        Returns:
            The object itself.

        Raises:
            TypeError: If a tensor is not of the type described.
            ValueError: If a shape, an index, a label, a score or a weight is out of range, or a pair is a self-loop or
                comes twice.
        """
        table = PairTable(anchors, num_nodes, "anchors")
        check_anchors(self.mode, y, p, len(table))
        if weight is not None:
            check_per_pair(weight, len(table), "weight")
            if not bool(((weight > 0) & weight.isfinite()).all()):
                raise ValueError("'weight' must hold positive numbers")
            weight = table.sorted(weight).float()
        labels = y[~y.isnan()]
        self.prior = float(labels.mean(dtype=torch.float64)) if labels.numel() else 0.5
        self.chosen_lambda = None
        self._table, self._weight = table, weight
        self._folds: dict[int, tuple[Tensor, list[Tensor]]] = {}
        if self.transductive:  # the elements are known when the queries are
            self._given = (anchors, y, p)
            return self
        self._signals = signals(self.mode, table.sorted(y), table.sorted(p))
        self._count, self._sums, self._values = self._run(weight)
        return self

    @torch.no_grad()
    def correct(self, queries: Tensor, p: Tensor, *, logits: bool = False) -> Tensor:
        """Return corrected scores of some pairs.

        Args:
            queries: Undirected pairs ``[2, Q]``, in any direction; no self-loops.
            p: Their scores as probabilities ``[Q]``; NaN for none, in ``"mass"`` only.
            logits: Whether to return ``torch.logit(p', eps=1e-6)``. It makes scores equal that are nearer to 0 or 1.

        Returns:
            Scores ``[Q]`` of the type of ``p``, higher = more likely a link. With weight 0 or without anchors they are
            ``p`` itself, bit for bit.

        Raises:
            RuntimeError: If there are no anchors yet.
            TypeError: If a tensor is not of the type described.
            ValueError: If a shape, an index or a score is out of range or a query is a self-loop; and, when
                transductive, if a query comes twice or is an anchor.
        """
        table = self._check_queries(queries, p)
        lam = self._lambda()
        changed = p.detach().clone()
        if len(table) > 0 and (lam > 0 or (self.mode == "mass" and bool(p.isnan().any()))):
            found, evidence = self.read(queries, p)
            for where in blocks(p.numel(), CACHED):
                mixed = mix(self.mode, p[where], found[where], lam).to(p.dtype)
                changed[where] = torch.where(evidence[where], mixed, p[where])
        return torch.logit(changed, eps=EPS) if logits else changed

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
        if not isinstance(y, Tensor) or y.shape != p.shape:
            raise ValueError(f"'y' must have one label per query, [{p.numel()}] (got {_shape(y)})")
        if not bool(((y == 0) | (y == 1)).all()):
            raise ValueError("'y' must hold labels, 0 or 1")
        if bool((table.find(queries) >= 0).any()):
            raise ValueError("'queries' holds an anchor, whose label is known already: it cannot validate")
        positive = y.bool()
        found, evidence = self.read(queries, p)
        best, self.chosen_lambda = -math.inf, None
        for lam in weights:
            changed = torch.where(evidence, mix(self.mode, p, found, lam).to(p.dtype), p)
            value = float(metric(changed, positive))
            if value > best:
                best, self.chosen_lambda = value, lam
        if self.chosen_lambda is None:
            raise ValueError(f"'metric' must return a number (got {value})")
        return self.chosen_lambda

    @torch.no_grad()
    def read(self, queries: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the anchors say about some pairs, before it is mixed with their scores.

        Args:
            queries: Undirected pairs ``[2, Q]``.
            p: Their scores ``[Q]``.

        Returns:
            The value found for each query, float32 ``[Q]``, and whether there is anything to say, bool ``[Q]``.
        """
        table = self._check_queries(queries, p)
        if self.transductive:
            return self._read_transductive(queries, p)
        found = torch.zeros(p.numel(), device=p.device)
        evidence = torch.zeros(p.numel(), dtype=torch.bool, device=p.device)
        step = 1 << 20
        for where in blocks(p.numel(), step):
            pairs = queries[:, where].long()
            place = table.find(pairs)
            sums, count = self._at(pairs, self._count, self._sums)
            own = (place >= 0).nonzero().squeeze(1)
            if own.numel():
                self._read_anchors(pairs, place, own, sums, count)
            found[where], evidence[where] = self._finish(sums, count, p[where])
        return found, evidence

    def _read_anchors(self, pairs: Tensor, place: Tensor, own: Tensor, sums: list[Tensor], count: Tensor) -> None:
        """Replace the sums of queries that are anchors by ones that do not hold their own labels."""
        place = place[own]
        if self.anchor_folds == 0:
            weight = torch.ones_like(count[own]) if self._weight is None else self._weight[place].double()
            rest = count[own] - 2 * weight
            # Where nothing else is there, the difference of two equal sums may be a rounding error.
            count[own] = torch.where(rest > 1e-9 * count[own], rest, 0.0)
            for total, values in zip(sums, self._values, strict=True):
                total[own] -= 2 * weight * values[place]
            return
        fold = self._fold_of(pairs[:, own])
        for number in torch.bincount(fold).nonzero().view(-1).tolist():
            where = own[fold == number]
            if number not in self._folds:
                self._folds[number] = self._run_without(number)
            silent_count, silent_sums = self._folds[number]
            some, count[where] = self._at(pairs[:, where], silent_count, silent_sums)
            for total, value in zip(sums, some, strict=True):
                total[where] = value

    def _fold_of(self, pairs: Tensor) -> Tensor:
        assert self._table is not None
        return (mix64(pair_keys(pairs, self._table.num_nodes)) >> 32 & 0xFFFFFFFF) % self.anchor_folds

    def _run(self, weight: Tensor | None) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Propagate; return the anchors at each node, the sums of their values, and the values."""
        assert self._table is not None
        line = LineGraph(self._table, self.norm, weight)
        bounds = BOUNDS[self.mode]
        values = [line.propagate(start, seed, self.K, self.alpha, bounds) for start, seed in self._signals]
        return line.count, [line.node_sum(value) for value in values], values

    def _run_without(self, number: int) -> tuple[Tensor, list[Tensor]]:
        """Propagate with one group of anchors silent."""
        assert self._table is not None
        weight = torch.empty(len(self._table), device=self._table.device)
        for where, low, high in self._table.blocks():
            speaks = (self._fold_of(torch.stack([low, high])) != number).float()
            weight[where] = speaks if self._weight is None else speaks * self._weight[where]
        count, sums, _ = self._run(weight)
        return count, sums

    def _read_transductive(self, queries: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
        anchors, y, scores = self._given
        assert self._table is not None
        if bool((self._table.find(queries) >= 0).any()):
            raise ValueError("'queries' holds an anchor; when transductive each pair is one element")
        pairs = torch.cat([anchors.long(), queries.long()], 1)
        table = PairTable(pairs, self._table.num_nodes, "queries")
        weight = None
        if self._weight is not None:
            ours = self._table.unsorted(self._weight)
            weight = table.sorted(torch.cat([ours, ours.new_ones(p.numel())]))
        unknown = torch.full_like(p, math.nan, dtype=y.dtype)
        given = torch.cat([y, unknown]), torch.cat([scores, p.to(scores.dtype)])
        line = LineGraph(table, self.norm, weight)
        bounds = BOUNDS[self.mode]
        sums = []
        for start, seed in signals(self.mode, *(table.sorted(values) for values in given)):
            value = line.propagate(start, seed, self.K, self.alpha, bounds)
            sums.append(table.unsorted(value)[anchors.size(1) :].double())
        return self._finish(sums, torch.ones_like(sums[0]), p)

    def _at(self, pairs: Tensor, count: Tensor, sums: list[Tensor]) -> tuple[list[Tensor], Tensor]:
        """Return the sums over the anchors at both ends of some pairs, and their number."""
        both = [total.index_select(0, pairs[0]) + total.index_select(0, pairs[1]) for total in (*sums, count)]
        return both[:-1], both[-1]

    def _finish(self, sums: list[Tensor], count: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
        if self.mode != "mass":
            known = count > 0
            return torch.where(known, sums[0] / count, 0.0).float(), known
        total, mass = sums
        known = mass > 0
        # A pair without a score takes the prior where nothing else is known; any other keeps its score.
        return torch.where(known, total / mass, self.prior).float(), known | p.isnan()

    def _lambda(self) -> float:
        lam = self.lam if self.chosen_lambda is None else self.chosen_lambda
        if lam is None:
            warnings.warn(
                "'lam' is None and 'choose_lambda' was not called: scores are not changed", UserWarning, stacklevel=3
            )
            return 0.0
        return lam

    def _check_queries(self, queries: Tensor, p: Tensor) -> PairTable:
        if self._table is None:
            raise RuntimeError("'fit' must be called first")
        check_queries(queries, self._table.num_nodes, "queries")
        check_per_pair(p, queries.size(1), "p")
        for where in blocks(p.numel(), CACHED):
            fits = (p[where] >= 0) & (p[where] <= 1)
            if self.mode == "mass":
                fits |= p[where].isnan()
            if not bool(fits.all()):
                raise ValueError(f"'p' must hold probabilities (got {float(p[where][~fits][0])})")
        return self._table


def _shape(value: object) -> object:
    return list(value.shape) if isinstance(value, Tensor) else type(value).__name__
