r"""Logits of many mixtures of states at a fraction of the cost of as many passes over the graph.

Five things are done, none of which changes a result beyond rounding:

* **Only rows that count.** The last layer is computed for the judged nodes, the one before for their neighbours too,
  and so on. The sparse matrices between these rows are made once.
* **Constant sums.** What the first layer sums over neighbours does not depend on weights, and is summed once.
* **Linear first layer.** With :math:`Z(W)` the output of a first layer that is linear in its weights,
  :math:`Z(\alpha W_1 + (1 - \alpha) W_2) = \alpha Z(W_1) + (1 - \alpha) Z(W_2)`: two products serve all ratios.
* **Sparse features.** Linear layers multiply constant features that hold mostly zeros as a sparse matrix.
* **One wide product.** Mixtures stand side by side as columns, so the indices of a sparse matrix are read once for all.

Source: the ideas are those of SGC and SIGN (arXiv 1902.07153, 2004.11198) for constant sums, applied to soups.
"""

import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeAlias, cast

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from graphsparse.nn.linear import use_faster
from graphsparse.soups.evaluation.judge import Judge
from graphsparse.soups.evaluation.stages import AnyStage, Stage, make_stage
from graphsparse.soups.states import State, mix_tensors, wide_type
from graphsparse.utils.in_edges import InEdges
from graphsparse.utils.layerwise_inference import taken_apart
from graphsparse.utils.replay import Arguments, Call, EdgePlaceholder, Replay
from graphsparse.utils.trace_layers import LayerCall, trace_layers

#: Takes the number of a mixture, rows, and the logits there.
Take: TypeAlias = Callable[[int, slice, Tensor], object]
#: Rows that are run through the model at once: few enough to stay near the processor for all ratios.
ROWS = 4096
#: Most bytes of the features of mixtures that stand side by side.
WIDE = 1 << 29


class TracedModel:
    """A model whose calls of layers are known, and the graph that it is run on.

    Args:
        model: A private copy of the model, in evaluation mode; it takes the weights of the states.
        data: The graph.
        call: How to call the model on a graph.

    Raises:
        ValueError: If the model does more between its layers than work on each node alone.
        TypeError: If the features are not dense.
    """

    def __init__(self, model: nn.Module, data: Data, call: Call) -> None:
        use_faster(model)
        self.model = model
        self.device = next((t.device for t in (*model.parameters(), *model.buffers())), torch.device("cpu"))
        self.edge_key, edge_index, self.per_node, self.per_edge = taken_apart(data)
        if self.edge_key != "edge_index":
            raise ValueError("'data' has 'adj_t', not 'edge_index'")
        self.edges = InEdges.sort(edge_index, int(data.num_nodes or 0))
        self.replay = Replay(model, call)
        with torch.no_grad():
            self.trace = trace_layers(self.replay, self._sample, self.edges.num_nodes, self.edges.num_edges)
        self.targets: dict[str, Tensor] = dict(model.state_dict(keep_vars=True))

    def _sample(self, rows: Tensor | slice, edges: Tensor | slice) -> Data:
        """Return some rows and edges; the model may write into them."""
        values = {name: value[rows].to(self.device, copy=True) for name, value in self.per_node.items()}
        values |= {name: value[edges].to(self.device, copy=True) for name, value in self.per_edge.items()}
        return self.block(values)

    def block(self, values: dict[str, Tensor]) -> Data:
        """Return rows, and some edges, as a graph whose edges are a placeholder."""
        block = Data(**values)
        block[self.edge_key] = EdgePlaceholder.make(self.device)
        return block

    def edge_values(self, call: LayerCall, ids: Tensor | slice) -> dict[int, Tensor]:
        """Return, for each leaf with values per edge, those of some edges of the input."""
        found = {}
        for i, leaf in enumerate(call.leaves):
            if leaf.kind == "edges":
                if not isinstance(leaf.source, str):
                    raise ValueError(f"the model computes values of edges for layer {call.name}")
                found[i] = self.per_edge[leaf.source][ids].to(self.device)
        return found


@dataclass
class _Fixed:
    """Rows that are there, from some row on."""

    value: Tensor
    start: int = 0

    def rows(self, rows: slice) -> Tensor:
        """Return some of them; the model may write into them."""
        return self.value[rows.start - self.start : rows.stop - self.start].clone()


@dataclass
class _Between:
    """Rows of a linear layer at a mixture of weights."""

    first: Tensor
    second: Tensor
    ratio: float

    def rows(self, rows: slice) -> Tensor:
        """Return some of them."""
        # Not as weights are mixed: equal values that are finite stay equal here, too.
        return torch.lerp(self.second[rows], self.first[rows], self.ratio)


@dataclass(eq=False)
class _Mixture:
    """A mixture of two states, and what is known of the outputs of its layers."""

    first: State
    second: State
    ratio: float
    hidden: dict[int, _Fixed | _Between] = field(default_factory=dict)
    #: Names of the tensors that can be mixed where they are wanted.
    direct: frozenset[str] = frozenset()

    def write(self, name: str, target: Tensor) -> None:
        """Put one of its tensors into a model, which wants it again for every block of rows."""
        first, second = self.first[name], self.second[name]
        if name in self.direct:
            torch.lerp(second, first, self.ratio, out=target)
        else:
            target.copy_(mix_tensors(first, second, self.ratio))


class CachedForward:
    """Logits of some nodes, for one state or for many mixtures of two.

    Args:
        traced: The model and the graph.
        nodes: The nodes whose logits are wanted.

    Raises:
        ValueError: If a layer cannot be run on a part of the graph.
    """

    def __init__(self, traced: TracedModel, nodes: Tensor) -> None:
        self.traced, self.num_nodes = traced, nodes.numel()
        self.stages: list[Stage | AnyStage] = []
        wanted = nodes.cpu()
        for call in reversed(traced.trace.calls):
            stage = make_stage(call, traced.edges, wanted, partial(traced.edge_values, call), traced.device)
            self.stages.insert(0, stage)
            wanted = stage.rows
        #: What layers with a constant input sum over neighbours, and the input of their own rows.
        self.constant = {k: sums for k in range(len(self.stages)) if (sums := self._constant_sums(k)) is not None}
        # The rows of a stage begin with those of the next one, so one copy serves all. No one reads those of a stage
        # whose sums are known.
        run = [stage.rows for k, stage in enumerate(self.stages) if k not in self.constant]
        rows = max([nodes.cpu(), *run], key=Tensor.numel)
        self.per_node = {name: value[rows].to(traced.device) for name, value in traced.per_node.items()}
        #: Blocks of these, the same tensors each time, so that layers see that they are constant.
        self._blocks: dict[tuple[int, int], dict[str, Tensor]] = {}
        self._own_parameters = {k: self._parameters_of(k) for k in self.constant}
        #: The tensors of the last soup with their versions, and the outputs of linear layers for it.
        self._soup: tuple[list[tuple[weakref.ref[Tensor], int]], dict[int, Tensor]] = ([], {})
        self._loaded: _Mixture | None = None

    def _constant_sums(self, k: int) -> tuple[Tensor, Tensor] | None:
        stage = self.stages[k]
        if isinstance(stage, AnyStage) or not isinstance(source := stage.call.leaves[stage.input].source, str):
            return None
        stage.transform_first = False
        x = self.traced.per_node[source]
        rows = stage.rows.to(x.device)
        own = x[rows[: stage.adj.num_dst]].to(self.traced.device)
        return stage.product(x[rows].to(self.traced.device)), own

    def _parameters_of(self, k: int) -> list[Tensor]:
        """Return the parameters of a layer that nothing else in the model uses."""
        layer = self.traced.replay.order[k]
        if self.traced.replay.order.count(layer) > 1:
            return []
        within = {id(module) for module in layer.modules()}
        others = [module for module in self.traced.model.modules() if id(module) not in within]
        shared = {id(p) for module in others for p in module.parameters(recurse=False)}
        return [p for p in layer.parameters() if id(p) not in shared]

    def logits(self, state: State) -> Tensor:
        """Return the logits ``[n, C]`` of a state.

        Args:
            state: State dict.
        """
        parts: list[Tensor] = []
        with torch.no_grad():
            self._run([_Mixture(state, state, 1.0)], lambda _, rows, logits: parts.append(logits))
        self._loaded = None  # lets go of the state
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
            first, second = self._at_soup(soup), self._linear_outputs(other)
            direct = self._mixed_directly(soup, other)
            for start in range(0, len(ratios), self._side_by_side()):
                batch = range(start, min(start + self._side_by_side(), len(ratios)))
                mixtures = []
                for i in batch:
                    between = {k: _Between(first[k], second[k], ratios[i]) for k in first}
                    mixtures.append(_Mixture(soup, other, ratios[i], dict(between), direct))
                self._run(mixtures, partial(_add, judge, batch), partial(_hopeful, judge, batch))
        self._loaded = None

    def _mixed_directly(self, first: State, second: State) -> frozenset[str]:
        """Name the tensors that an interpolation alone mixes as mixing does: equal values stay equal if finite."""
        found = []
        for name, target in self.traced.targets.items():
            ends = first[name], second[name]
            is_alike = all((end.dtype, end.device) == (target.dtype, target.device) for end in ends)
            if is_alike and wide_type(target.dtype) == target.dtype and target.is_floating_point():
                found += [name] if all(bool(end.isfinite().all()) for end in ends) else []
        return frozenset(found)

    def _at_soup(self, soup: State) -> dict[int, Tensor]:
        """Return the outputs of linear layers for the soup, which stays the same from scan to scan until it grows."""
        seen, outputs = self._soup
        values = list(soup.values())
        if any(value.is_inference() for value in values):  # changes of these are not counted
            return self._linear_outputs(soup)
        if len(seen) != len(values) or any(
            tensor() is not value or version != value._version
            for (tensor, version), value in zip(seen, values, strict=True)
        ):
            outputs = self._linear_outputs(soup)
            self._soup = ([(weakref.ref(value), value._version) for value in values], outputs)
        return outputs

    def _linear_outputs(self, state: State) -> dict[int, Tensor]:
        self._load(_Mixture(state, state, 1.0))
        linear = [k for k in self.constant if cast(Stage, self.stages[k]).is_linear]
        return {k: self._from_constant(k) for k in linear}

    def _from_constant(self, k: int) -> Tensor:
        """Return the output of a layer from its constant sums and the weights that the model holds."""
        stage = cast(Stage, self.stages[k])
        total, own = self.constant[k]
        return stage.after(total, stage.root(own))

    def _side_by_side(self) -> int:
        """Return how many mixtures may stand side by side."""
        most, wanted = 1, [*(stage.rows.numel() for stage in self.stages[1:]), self.num_nodes]
        for k, stage in enumerate(self.stages):
            out = self.traced.trace.outputs[k].size(-1)
            size = wanted[k] * out
            if isinstance(stage, Stage) and k in self.constant and stage.is_linear:
                size = 0  # it is computed from the ends whenever it is asked for
            elif isinstance(stage, Stage):
                width = out if stage.transform_first else stage.call.leaves[stage.input].value.size(-1)
                size += stage.rows.numel() * width
            most = max(most, 4 * size)
        return max(1, WIDE // most)

    def _load(self, mixture: _Mixture) -> None:
        """Give the model the weights of a mixture."""
        if self._loaded is mixture:
            return
        self._loaded = None
        # What the outputs of linear layers are known for, their weights are not needed for.
        known = [k for k, found in mixture.hidden.items() if isinstance(found, _Between)]
        skip = {id(p) for k in known for p in self._own_parameters[k]}
        for name, target in self.traced.targets.items():
            if id(target) not in skip:
                mixture.write(name, target)
        self._loaded = mixture

    def _run(self, mixtures: list[_Mixture], take: Take, which: Callable[[], list[int]] | None = None) -> None:
        """Run mixtures side by side, and hand their logits over in blocks of nodes.

        Args:
            mixtures: The mixtures.
            take: Takes number of the mixture, rows and logits.
            which: Says which mixtures still matter; all when ``None``.
        """
        last = len(self.stages) - 1
        wide: Tensor = torch.empty(0)
        roots: list[Tensor | None] = []
        for k, stage in enumerate(self.stages):
            if k in self.constant:
                for mixture in mixtures:
                    if k not in mixture.hidden:
                        self._load(mixture)
                        mixture.hidden[k] = _Fixed(self._from_constant(k))
            elif isinstance(stage, AnyStage):
                for mixture in mixtures:
                    mixture.hidden[k] = _Fixed(stage.output(self._inputs(k, stage, mixture)))
            else:
                wide, roots = self._before(k, stage, mixtures)
                if k < last:
                    totals = stage.product(wide).chunk(len(mixtures), 1)
                    for mixture, total, root in zip(mixtures, totals, roots, strict=True):
                        self._load(mixture)
                        mixture.hidden[k] = _Fixed(stage.after(total, root))
            for mixture in mixtures:
                self._forget(k, mixture)
        final = self.stages[last]
        for rows in _blocks(self.num_nodes):
            left = range(len(mixtures)) if which is None else which()
            if not left:
                return
            if last not in self.constant and isinstance(final, Stage):
                totals = final.product(wide, rows.start, rows.stop).chunk(len(mixtures), 1)
            for i in left:
                self._load(mixtures[i])
                if last not in self.constant and isinstance(final, Stage):
                    root = roots[i]
                    out = final.after(totals[i], None if root is None else root[rows])
                    mixtures[i].hidden[last] = _Fixed(out, rows.start)
                take(i, rows, cast(Tensor, self._model(rows, mixtures[i])))

    def _before(self, k: int, stage: Stage, mixtures: list[_Mixture]) -> tuple[Tensor, list[Tensor | None]]:
        """Return what is summed over neighbours, one mixture beside the other, and what rows give themselves."""
        wide: Tensor | None = None
        roots: list[list[Tensor]] = [[] for _ in mixtures]
        for rows in _blocks(stage.rows.numel()):
            own = max(0, min(rows.stop, stage.adj.num_dst) - rows.start)
            for i, mixture in enumerate(mixtures):
                self._load(mixture)
                x = cast(Arguments, self._model(rows, mixture, k)).leaves[stage.input]
                found = stage.before(x)
                if wide is None:
                    wide = found.new_empty(stage.rows.numel(), len(mixtures), found.size(1))
                wide[rows, i] = found
                if own and (root := stage.root(x[:own])) is not None:
                    roots[i].append(root)
        assert wide is not None
        return wide.flatten(1), [torch.cat(parts) if parts else None for parts in roots]

    def _inputs(self, k: int, stage: AnyStage, mixture: _Mixture) -> dict[int, Tensor]:
        """Return the arguments of a call on all rows that it needs."""
        self._load(mixture)
        blocks = [cast(Arguments, self._model(rows, mixture, k)).leaves for rows in _blocks(stage.rows.numel())]
        return {i: torch.cat([leaves[i] for leaves in blocks]) for i in stage.places}

    def _model(self, rows: slice, mixture: _Mixture, stop: int | None = None) -> Arguments | Tensor:
        """Run the model on some rows, to the end or to a call, with the outputs of earlier calls in place."""
        calls = self.traced.trace.calls
        end = len(calls) if stop is None else stop
        given = self._given(rows)
        few = {name: value[:1].to(self.traced.device, copy=True) for name, value in self.traced.per_edge.items()}

        def answer(k: int, _: Arguments) -> Tensor:
            if calls[k].last_use >= end:
                return mixture.hidden[k].rows(rows)
            like = self.traced.trace.outputs[k]  # nothing needs it
            return like.new_full((rows.stop - rows.start, *like.shape[1:]), torch.nan)

        before = [value._version for value in given.values()]
        found: Arguments | Tensor = self.traced.replay.run(self.traced.block(given | few), answer, stop)
        if before != [value._version for value in given.values()]:
            raise ValueError("the model writes into the features of the graph")
        return found

    def _given(self, rows: slice) -> dict[str, Tensor]:
        """Return some rows of what the graph holds for each node."""
        bounds = (rows.start, rows.stop)
        if bounds not in self._blocks:
            self._blocks[bounds] = {name: value[rows] for name, value in self.per_node.items()}
        return self._blocks[bounds]

    def _forget(self, k: int, mixture: _Mixture) -> None:
        """Let go of outputs that no call after the ``k``-th needs."""
        for j in [j for j in mixture.hidden if self.traced.trace.calls[j].last_use <= k]:
            del mixture.hidden[j]


def _add(judge: Judge, batch: range, i: int, rows: slice, logits: Tensor) -> None:
    judge.add(batch[i], rows, logits)


def _hopeful(judge: Judge, batch: range) -> list[int]:
    return [candidate - batch.start for candidate in judge.hopeful() if candidate in batch]


def _blocks(size: int) -> Iterator[slice]:
    for start in range(0, size, ROWS):
        yield slice(start, min(start + ROWS, size))
