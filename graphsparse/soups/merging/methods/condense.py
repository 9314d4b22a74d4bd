"""Condense: the hidden units of all networks side by side, cut to the number that one network has."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from graphsparse.nn import ChannelUnits, channel_units
from graphsparse.nn.features import sparse_if_worth_it
from graphsparse.ops import spmm
from graphsparse.soups.merging.domain import Domain, Target, check_target
from graphsparse.soups.merging.head import solved_head
from graphsparse.soups.merging.least_squares import LeastSquares
from graphsparse.soups.merging.linear_maps import LinearMap, maps_on
from graphsparse.soups.merging.merge import MergeRun, merge_method
from graphsparse.soups.states import State

#: Numbers that the units of several networks may have on the largest graph at once: half a gigabyte.
_NUMBERS = 1 << 27


@merge_method("condense", needs=("graph",), heads=True, source="graphsparse")
def condense(
    run: MergeRun,
    *,
    ridge: float = 1e-3,
    target: Target = "probabilities",
    max_rows: int = 16_384,
    max_units: int = 4096,
) -> State:
    r"""Take the hidden units of all networks that together explain best what each of them says on its own nodes.

    Networks side by side, with :math:`N d` units in a hidden layer in place of :math:`d`, lose nothing. Of them
    :math:`d` units are chosen, one after the other, by what they explain of the outputs :math:`T` of the next map:

    .. math::
        \arg\max_j \; \lVert B_j \rVert^2 / G_{jj}, \qquad
        G = \sum_i \tfrac{1}{|V_i|} Z_i^\top Z_i, \quad B = \sum_i \tfrac{1}{|V_i|} Z_i^\top T_i

    with the inputs :math:`Z` that the units give that map, centred, and what the chosen ones explain projected out of
    both. A chosen unit keeps its weights, bias and normalisation in the first layer; in later ones it is fitted to its
    network's outputs from the inputs that the merged network has. The last map is found as in ``"rounds"``.

    Nothing is averaged, so that networks need no common start and no alignment, and permuting the units of a network
    changes nothing. With ``target="probabilities"`` copies do not give just the copy, but a network that says the same.

    Args:
        run: Networks and what they answer for.
        ridge: Share of the variance of each column that is added to it.
        target: ``"logits"`` where outputs are no classes.
        max_rows: Most nodes that are looked at; of each network's the same share is drawn.
        max_units: Most units to choose from; of each network's those with the largest weights, times their deviation.

    Raises:
        ValueError: If hidden layers are joined, as by residual connections, jumping knowledge or a ``LayerNorm``.
    """
    check_target(target, run.num_outputs)
    parents = _Parents(run, _drawn(run, max_rows), dict(run.mean()))
    for number in range(len(parents.maps) - 1):
        parents.take_layer(number, ridge, target, max_units)
    head = solved_head(run, parents.domains, parents.models, parents.merged, ridge, target)
    return {**parents.merged, **head}


class _Parents:
    """All networks side by side, and the merged one as far as it is found.

    Attributes:
        models: The model on the graph of each domain, one for each graph.
        maps: Its linear maps.
        merged: The merged network.
    """

    def __init__(self, run: MergeRun, domains: Sequence[Domain], merged: dict[str, Tensor]) -> None:
        self.run, self.domains, self.merged = run, domains, merged
        self.models = maps_on(run.model, domains)
        self.maps, self._units = self.models[0].maps, channel_units(run.model, domains[0].data)

    def inputs(self, state: State, i: int, number: int) -> Tensor:
        """Return what a map is applied to at the nodes of a domain."""
        return self.models[i].inputs(state, self.domains[i].nodes)[number]

    def take_layer(self, number: int, ridge: float, target: Target, max_units: int) -> None:
        """Choose the units of a hidden layer among those of all networks."""
        # Before a normalisation, which each unit brings along.
        m, after = replace(self.maps[number], norm=None), self.maps[number + 1]
        slots, everything = _slots(self._units, m, after), torch.arange(len(self.merged[m.weights[0]]))
        problem, kept, targets, candidates = LeastSquares(), list[Tensor](), list[Tensor](), list[Tensor]()
        for i, state in enumerate(self.run):
            own = self.inputs(state, i, number + 1)
            out = after.inputs(own) @ after.matrix(state)
            if after is self.maps[-1]:
                targets.append(self.domains[i].targets(out, self.run.num_outputs, target))
            else:  # outputs of each network in columns of their own
                wide = out.new_zeros(len(out), len(self.run), out.size(1))
                wide[:, i] = out
                targets.append(wide.flatten(1))
            candidates.append(self._candidate(m, state, i, number, ridge))
            kept.append(everything)
            if len(everything) * len(self.run) > max_units:
                most = max(max_units // len(self.run), 1)
                kept[i] = _strongest(own, after.matrix(state), len(after.weights), most)
        for z, wanted in zip(self._side_by_side(m, candidates, kept, number), targets, strict=True):
            problem.add(torch.cat([z, z.new_ones(len(z), 1)], 1), wanted, 1 / len(z))
        chosen = _choose(problem, len(after.weights), len(everything))
        network = torch.cat([torch.full_like(units, i) for i, units in enumerate(kept)])[chosen]
        unit = torch.cat(kept)[chosen]
        self.merged.update({name: self.merged[name].clone() for name in slots})
        for i, state in enumerate(self.run):
            place = (network == i).nonzero().squeeze(1)
            parts = {**state, **m.tensors(candidates[i], self.merged, (candidates[i], candidates[i]))}
            for name, entries in slots.items():
                self.merged[name][entries[place]] = parts[name][entries[unit[place]]]
        if self.maps[number].norm:
            self._renew_statistics(number)
        counts = torch.bincount(network, minlength=len(self.run)).tolist()
        self.run.note(map=m.name, rows=problem.rows, units=counts)

    def _candidate(self, m: LinearMap, state: State, i: int, number: int, ridge: float) -> Tensor:
        """Return the map of a network, in later layers from the inputs that the merged network has."""
        matrix = m.matrix(state)
        if number == 0:
            return matrix
        problem, out = LeastSquares(), m.inputs(self.inputs(state, i, number)) @ matrix
        problem.add(m.inputs(self.inputs(self.merged, i, number)), out, 1 / len(out))
        return problem.solve(ridge * problem.scale())

    def _side_by_side(
        self, m: LinearMap, candidates: Sequence[Tensor], kept: Sequence[Tensor], number: int
    ) -> list[Tensor]:
        """Return for each domain the inputs of the next map that the units of all networks give, ``[n, columns]``."""
        graphs, given, outs = {id(model): model for model in self.models}, {}, {}
        for key, model in graphs.items():
            z = model.inputs(self.merged, torch.arange(len(model.layers.x)))[number]
            z = m.inputs(z).to(z)
            given[key] = z, sparse_if_worth_it(z)
        rows, width = max(len(z) for z, _ in given.values()), candidates[0].size(1)
        at_once = max(_NUMBERS // (rows * width), 1)
        parts: list[list[Tensor]] = [[] for _ in self.domains]
        for j, state in enumerate(self.run):
            for key, model in graphs.items():
                z, sparse = given[key]
                if j % at_once == 0:  # so many networks in one product, which is cheaper than one after the other
                    matrix = torch.cat([candidate.to(z) for candidate in candidates[j : j + at_once]], 1)
                    outs[key] = z @ matrix if sparse is None else spmm(sparse, matrix)
                own = outs[key][:, j % at_once * width :][:, :width]
                shown: dict[int, Tensor] = {}
                model.run(state, shown.__setitem__, {number: own.contiguous().to(model.layers.device)})
                for i, domain in enumerate(self.domains):
                    if self.models[i] is model:
                        near = shown[number + 1].cpu()[domain.nodes]
                        parts[i].append(near.view(len(near), -1, width)[:, :, kept[j]])
        return [torch.cat(part, 2).flatten(1) for part in parts]

    def _renew_statistics(self, number: int) -> None:
        """Let a normalisation do the same with the statistics that the chosen units have."""
        m = self.maps[number]
        matrix = m.matrix(self.merged)
        outputs = [m.inputs(self.inputs(self.merged, i, number)) @ matrix for i in range(len(self.domains))]
        mean = torch.stack([out.mean(0) for out in outputs]).mean(0)
        var = torch.stack([(out - mean).square().mean(0) for out in outputs]).mean(0)
        self.merged.update(m.tensors(matrix, self.merged, (mean, var)))


def _strongest(inputs: Tensor, matrix: Tensor, blocks: int, most: int) -> Tensor:
    """Return the units with the largest weights in the next map, times their deviation."""
    strength = inputs.double().std(0) * matrix[: inputs.size(1)].norm(dim=1)
    order = strength.view(blocks, -1).square().sum(0).argsort(descending=True, stable=True)
    strongest: Tensor = order[:most].sort().values
    return strongest


def _drawn(run: MergeRun, max_rows: int) -> list[Domain]:
    """Return the domains with so many nodes at most, the same share of each."""
    total = sum(len(domain.nodes) for domain in run.domains)
    if total <= max_rows:
        return list(run.domains)
    generator, found = torch.Generator().manual_seed(run.seed), []
    for domain in run.domains:
        size = max(len(domain.nodes) * max_rows // total, 1)
        index = torch.randperm(len(domain.nodes), generator=generator)[:size]
        found.append(replace(domain, nodes=domain.nodes[index.sort().values]))
    return found


def _slots(units: ChannelUnits, m: LinearMap, after: LinearMap) -> dict[str, Tensor]:
    """Return for each tensor that makes a hidden layer the entry of each of its units; refuse joined layers."""
    label = units.labels.get((m.weights[0], 0)) if m.is_transposed else None
    read = {(name, 1) for name in after.weights}
    made = {(name, 0) for name in (*m.weights, *m.bias)}
    if label is None or bool((label < 0).any()) or not after.is_transposed:
        why = "; ".join(units.fixed) or f"what follows {m.name!r} joins its units with others"
        raise ValueError(f"'condense' cannot choose among the units of {m.name!r}: {why}; take 'gnnmerge' or 'rounds'")
    slots = {}
    for (name, axis), own in units.labels.items():
        if not bool(torch.isin(own, label).any()):
            continue
        entries = (own == label.unsqueeze(1)).nonzero()[:, 1]
        is_known = (name, axis) in made | read or (len(units.shapes[name]) == 1 and axis == 0 and name not in m.bias)
        if not is_known or len(entries) != len(label):
            raise ValueError(
                f"'condense' cannot choose among the units of {m.name!r}: they are joined with those of {name!r}; take "
                "'gnnmerge' or 'rounds'"
            )
        if (name, axis) not in read:
            slots[name] = entries
    return slots


def _choose(problem: LeastSquares, blocks: int, width: int) -> Tensor:
    """Return the units that explain most of the targets, one after the other; each has a column in every block."""
    gram, cross = problem.centred()
    columns = torch.arange(len(gram)).view(blocks, -1)
    least, free, chosen = 1e-6 * gram.diagonal(), torch.ones(columns.size(1), dtype=torch.bool), []
    for _ in range(min(width, columns.size(1))):
        size = gram.diagonal()
        gain = torch.where(size > least, cross.square().sum(1) / size, 0.0)
        unit = int(torch.where(free, gain[columns].sum(0), -1.0).argmax())
        free[unit] = False
        chosen.append(unit)
        for column in columns[:, unit]:
            if gram[column, column] > least[column]:
                row, share = gram[column] / gram[column, column], cross[column].clone()
                cross -= torch.outer(row, share)
                gram -= torch.outer(row, gram[column].clone())
    return torch.tensor(chosen)
