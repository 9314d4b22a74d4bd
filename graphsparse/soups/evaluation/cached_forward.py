r"""Logits of many mixtures of states at a fraction of the cost of as many passes over the graph.

Models of the declared family are run step by step, and five things are done, none of which changes a result beyond
rounding:

* **Only rows that count.** The last layer is computed for the judged nodes, the one before for their neighbours too,
  and so on. The sparse matrices between these rows are made once.
* **Constant sums.** What a first layer sums over neighbours does not depend on weights, and is summed once.
* **Linear first layer.** With :math:`Z(W)` the output of a first layer that is linear in its weights,
  :math:`Z(\alpha W_1 + (1 - \alpha) W_2) = \alpha Z(W_1) + (1 - \alpha) Z(W_2)`: two products serve all ratios.
* **Sparse features.** Linear layers multiply constant features that hold mostly zeros as a sparse matrix.
* **One wide product.** Mixtures stand side by side as columns, so the indices of a sparse matrix are read once for all.

Source: the ideas are those of SGC and SIGN (arXiv 1902.07153, 2004.11198) for constant sums, applied to soups.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import TypeAlias

import torch
from torch import Tensor, nn

from graphsparse.nn.fused import FusedConv
from graphsparse.nn.inference import Layers, Step
from graphsparse.nn.linear import is_plain
from graphsparse.ops import Adjacency, spmm
from graphsparse.ops.blocks import blocks
from graphsparse.ops.remember import remember
from graphsparse.soups.evaluation.judge import Judge
from graphsparse.soups.states import State, mix_tensors

#: Takes the number of a mixture, rows, and the logits there.
Take: TypeAlias = Callable[[int, slice, Tensor], object]
#: Rows that are run through the model at once: few enough to stay near the processor for all ratios.
ROWS = 4096
#: Most bytes of what is held of mixtures that stand side by side.
WIDE = 1 << 29


@dataclass
class _Conv:
    """A layer on the rows that count.

    Attributes:
        number: Number of its output among the values.
        step: The layer.
        adj: The edges into the wanted rows, from the rows that these need; the wanted ones come first.
        total: What it sums over neighbours, where that is constant.
    """

    number: int
    step: Step
    adj: Adjacency
    total: Tensor | None = None

    @property
    def module(self) -> FusedConv:
        """The layer."""
        module: FusedConv = self.step.module
        return module

    @property
    def sums_first(self) -> bool:
        """Whether its sum over neighbours may come before any weight."""
        return self.module.is_product and (self.module.commutes or not self.module.near_first)


@dataclass(eq=False)
class _Mixture:
    """A mixture of two states.

    Attributes:
        first: State.
        second: State.
        ratio: Share of the first one.
        ends: Outputs of the linear steps for both.
        hidden: Outputs of its layers that are still needed, and the rows from which they are there.
    """

    first: State
    second: State
    ratio: float
    ends: tuple[dict[int, Tensor], dict[int, Tensor]] = ({}, {})
    hidden: dict[int, tuple[int, Tensor]] = field(default_factory=dict)


class CachedForward:
    """Logits of some nodes, for one state or for many mixtures of two.

    Args:
        layers: The model, which takes the weights of the states, and the graph.
        nodes: The nodes whose logits are wanted.
    """

    def __init__(self, layers: Layers, nodes: Tensor) -> None:
        self._steps, self._num_nodes = layers.steps, nodes.numel()
        self._targets: dict[str, Tensor] = dict(layers.model.state_dict(keep_vars=True))
        self._convs: list[_Conv] = []
        rows = nodes
        for number in range(len(self._steps), 0, -1):
            if self._steps[number - 1].is_conv:
                adj, rows = _edges_into(layers.operator(self._steps[number - 1]), rows)
                self._convs.insert(0, _Conv(number, self._steps[number - 1], adj))
        self._prepare(layers.x[rows])
        #: Bytes that are held of one mixture.
        self._held = 0

    def _prepare(self, x: Tensor) -> None:
        """Sum what is constant, and find out what is needed where; the rows of a layer begin with the next one's."""
        #: Steps whose output is linear in their weights: a row of it can be mixed in the place of weights.
        self._linear = {i for i, s in enumerate(self._steps, 1) if s.inputs == (0,) and is_plain(s.module)}
        needed = [x.size(0) if self._linear else self._num_nodes]
        for conv in self._convs:
            if conv.step.inputs == (0,) and conv.sums_first and conv.module.prepare(x) is x:
                conv.total = spmm(conv.adj, x[: conv.adj.num_src], conv.module.reduction or "")
                self._linear |= {conv.number} if conv.module.is_linear else set()
                needed.append(conv.adj.num_dst if conv.module.has_root else 0)
            elif 0 in self._sources(conv.step.uses):
                needed.append(conv.adj.num_src)
        self._x = x[: max(needed)].clone()
        self._written = self._names(i for i in range(1, len(self._steps) + 1) if i not in self._linear)

    def _sources(self, numbers: Iterable[int]) -> set[int]:
        """Return the outputs of layers, and perhaps the features, that some values are made of row by row."""
        found: set[int] = set()
        for number in numbers:
            is_source = number == 0 or self._steps[number - 1].is_conv
            found |= {number} if is_source else self._sources(self._steps[number - 1].uses)
        return found

    def _names(self, numbers: Iterable[int]) -> list[str]:
        """Return the names of the tensors of some steps, one name of each."""
        modules = [m for number in numbers if isinstance(m := self._steps[number - 1].module, nn.Module)]
        own = {id(tensor) for module in modules for tensor in chain(module.parameters(), module.buffers())}
        first = {id(tensor): name for name, tensor in reversed(self._targets.items())}
        return [name for key, name in first.items() if key in own]

    def logits(self, state: State) -> Tensor:
        """Return the logits ``[n, C]`` of a state.

        Args:
            state: State dict.
        """
        parts: list[Tensor] = []
        with torch.no_grad():
            ends = self._linear_outputs(state)
            self._run([_Mixture(state, state, 1.0, (ends, ends))], lambda _, rows, logits: parts.append(logits))
        return torch.cat(parts)

    def scan(self, soup: State, other: State, ratios: Sequence[float], judge: Judge) -> None:
        """Have the mixtures of two states judged.

        Args:
            soup: State dict.
            other: State dict.
            ratios: Shares of ``soup``.
            judge: Takes in the logits of the mixtures.
        """
        with torch.no_grad():
            ends = self._at_soup(soup), self._linear_outputs(other)
            start = 0
            while start < len(ratios):
                stop = min(start + self._side_by_side(), len(ratios))
                mixtures = [_Mixture(soup, other, ratio, ends) for ratio in ratios[start:stop]]
                self._run(mixtures, partial(_add, judge, start), partial(_hopeful, judge, start, stop))
                start = stop

    def _at_soup(self, soup: State) -> dict[int, Tensor]:
        """Return the outputs of linear steps for the soup, which stays the same from scan to scan until it grows."""
        return remember([*soup.values(), self], ("linear outputs", *soup), lambda: self._linear_outputs(soup))

    def _linear_outputs(self, state: State) -> dict[int, Tensor]:
        self._load(_Mixture(state, state, 1.0), self._names(self._linear))
        found = {i: self._steps[i - 1].run(self._x) for i in self._linear if not self._steps[i - 1].is_conv}
        for conv in self._convs:
            if conv.number in self._linear and conv.total is not None:
                own = self._x[: conv.adj.num_dst]
                found[conv.number] = conv.module.from_near(conv.total, own, transformed=False, fresh=False)
        return found

    def _side_by_side(self) -> int:
        """Return how many mixtures may stand side by side; one, until it is known what that takes."""
        shared = all(conv.module.is_product for conv in self._convs)
        return max(1, WIDE // self._held) if self._held and shared else 1

    def _load(self, mixture: _Mixture, names: Iterable[str]) -> None:
        """Give the model some weights of a mixture."""
        for name in names:
            self._targets[name].copy_(mix_tensors(mixture.first[name], mixture.second[name], mixture.ratio))

    def _run(self, mixtures: list[_Mixture], take: Take, which: Callable[[], Sequence[int]] | None = None) -> None:
        """Run mixtures side by side, and hand their logits over in blocks of nodes.

        Args:
            mixtures: The mixtures.
            take: Takes number of the mixture, rows and logits.
            which: Says which mixtures still matter; all when ``None``.
        """
        # The output of the last layer is made in blocks as long as it matters, if blocks of it cost no more.
        sent, last = None, self._convs[-1] if self._convs[-1].module.is_product else None
        for k, conv in enumerate(self._convs):
            if conv.number in self._linear:
                continue
            sent = None if conv.total is not None else self._send(conv, mixtures)
            step = ROWS if conv.module.is_product else conv.adj.num_dst
            for rows in blocks(0 if conv is last else conv.adj.num_dst, step):
                for mixture, near in zip(mixtures, _near(conv, sent, rows, len(mixtures)), strict=True):
                    self._load(mixture, self._written)
                    out = self._output(conv, mixture, near, sent, rows)
                    if conv.number not in mixture.hidden:
                        mixture.hidden[conv.number] = 0, out.new_empty(conv.adj.num_dst, *out.shape[1:])
                    mixture.hidden[conv.number][1][rows] = out
            held = [hidden for _, hidden in mixtures[0].hidden.values()] + ([] if sent is None else [sent[:, 0]])
            self._held = max(self._held, sum(value.nbytes for value in held))
            later = self._convs[k:] if conv is last else self._convs[k + 1 :]
            needed = self._sources({len(self._steps)}.union(*(other.step.uses for other in later)))
            for mixture in mixtures:
                mixture.hidden = {i: hidden for i, hidden in mixture.hidden.items() if i in needed}
        if last is not None and last.number in self._linear:
            last = None
        for rows in blocks(self._num_nodes, ROWS):
            left = range(len(mixtures)) if which is None else which()
            if not left:
                return
            nears = [] if last is None else _near(last, sent, rows, len(mixtures))
            for i in left:
                self._load(mixtures[i], self._written)
                if last is not None:
                    mixtures[i].hidden[last.number] = rows.start, self._output(last, mixtures[i], nears[i], sent, rows)
                take(i, rows, self._value(len(self._steps), mixtures[i], rows))

    def _send(self, conv: _Conv, mixtures: list[_Mixture]) -> Tensor:
        """Return what nodes give their neighbours, one mixture beside the other, ``[rows, mixtures, F]``."""
        sent: Tensor | None = None
        for rows in blocks(conv.adj.num_src, ROWS):
            for i, mixture in enumerate(mixtures):
                self._load(mixture, self._written)
                found = conv.module.transform(self._value(conv.step.inputs[0], mixture, rows))
                if sent is None:
                    sent = found.new_empty(conv.adj.num_src, len(mixtures), found.size(1))
                sent[rows, i] = found
        assert sent is not None
        return sent

    def _output(self, conv: _Conv, mixture: _Mixture, near: Tensor | None, sent: Tensor | None, rows: slice) -> Tensor:
        """Return some rows of the output of a layer."""
        module, source = conv.module, conv.step.inputs[0]
        extra = {name: self._value(number, mixture, rows) for name, number in conv.step.extra.items()}
        if near is None:
            assert sent is not None
            own, adj = self._value(source, mixture, rows), conv.adj.rows(rows.start, rows.stop)
            return module.rows(adj, sent[:, 0], sent[rows, 0], own, **extra)
        root = self._value(source, mixture, rows) if module.has_root else None
        fresh = conv.total is None
        transformed = fresh and module.transforms_first
        return module.from_near(near, root, transformed=transformed, fresh=fresh, **extra)

    def _value(self, number: int, mixture: _Mixture, rows: slice) -> Tensor:
        """Return some rows of a value, computed from the layers before it."""
        if number == 0:
            return self._x[rows]
        if number in mixture.hidden:
            start, hidden = mixture.hidden[number]
            return hidden[rows.start - start : rows.stop - start]
        if number in self._linear:
            first, second = (end[number] for end in mixture.ends)
            # Not as weights are mixed: equal values that are finite stay equal here, too.
            return torch.lerp(second[rows], first[rows], mixture.ratio)
        step = self._steps[number - 1]
        return step.run(*(self._value(i, mixture, rows) for i in step.inputs))


def _near(conv: _Conv, sent: Tensor | None, rows: slice, size: int) -> Sequence[Tensor | None]:
    """Return what comes from neighbours into some rows, for each mixture; ``None`` where a layer does not just sum."""
    if conv.total is not None:
        return [conv.total[rows]] * size
    if not conv.module.is_product or sent is None:
        return [None] * size
    adj = conv.adj.rows(rows.start, rows.stop)
    return spmm(adj, sent.flatten(1), conv.module.reduction or "").chunk(size, 1)


def _edges_into(operator: Adjacency, wanted: Tensor) -> tuple[Adjacency, Tensor]:
    """Return the edges into some nodes, and the nodes that they join, the wanted ones first."""
    (source, target), value = operator.to_edge_index()
    place = torch.full((operator.num_src,), -1, device=wanted.device)
    place[wanted] = torch.arange(wanted.numel(), device=wanted.device)
    kept = place[target] >= 0
    source, target = source[kept], place[target[kept]]
    others = source[place[source] < 0].unique()
    rows = torch.cat([wanted, others])
    place[rows] = torch.arange(rows.numel(), device=wanted.device)
    edges = torch.stack([place[source], target])
    value = None if value is None else value[kept]
    return Adjacency.from_edge_index(edges, value, (rows.numel(), wanted.numel()), symmetric=False), rows


def _add(judge: Judge, start: int, i: int, rows: slice, logits: Tensor) -> None:
    judge.add(start + i, rows, logits)


def _hopeful(judge: Judge, start: int, stop: int) -> list[int]:
    return [candidate - start for candidate in judge.hopeful() if start <= candidate < stop]
