"""Condense: the hidden units of all networks side by side, cut to the number that one network has."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from graphsparse.nn import ChannelUnits, channel_units
from graphsparse.soups.merging.domain import Domain, Target, check_target
from graphsparse.soups.merging.least_squares import LeastSquares
from graphsparse.soups.merging.linear_maps import LinearMap, LinearMaps
from graphsparse.soups.merging.merge import MergeRun, merge_method
from graphsparse.soups.states import State


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
    check_target(target)
    merged, domains = dict(run.mean()), _drawn(run, max_rows)
    models = {id(domain.data): LinearMaps(run.model, domain.data) for domain in domains}
    maps, units = models[id(domains[0].data)].maps, channel_units(run.model, domains[0].data)
    for number, m in enumerate(maps[:-1]):
        plain, after = replace(m, norm=None), maps[number + 1]
        slots = _slots(units, plain, after)
        candidates = _candidates(run, domains, models, merged, number, ridge)
        kept = [torch.arange(candidates[0].size(1))] * len(run)
        wanted, own = [], []
        for i, domain in enumerate(domains):
            state = run[i]
            own.append(models[id(domain.data)].inputs(state, domain.nodes)[number + 1])
            wanted.append(
                _wanted(run, domain, after.inputs(own[i]) @ after.matrix(state), i, target, after is maps[-1])
            )
            if len(run) * len(kept[i]) > max_units:
                strength = own[i].double().std(0) * after.matrix(state)[: own[i].size(1)].norm(dim=1)
                order = strength.view(-1, len(kept[i])).square().sum(0).argsort(descending=True, stable=True)
                kept[i] = order[: max(max_units // len(run), 1)].sort().values
        problem = LeastSquares()
        for z, targets in zip(
            _side_by_side(run, domains, models, merged, candidates, kept, number), wanted, strict=True
        ):
            problem.add(torch.cat([z, z.new_ones(len(z), 1)], 1), targets, 1 / len(z))
        chosen = _choose(problem, len(after.weights), merged[m.weights[0]].size(0))
        network = torch.cat([torch.full_like(units_of, i) for i, units_of in enumerate(kept)])[chosen]
        unit = torch.cat(kept)[chosen]
        for i in range(len(run)):
            place = (network == i).nonzero().squeeze(1)
            parts = {**run[i], **plain.tensors(candidates[i], merged, (candidates[i], candidates[i]))}
            for name, entries in slots.items():
                value = merged[name].clone()
                value[entries[place]] = parts[name][entries[unit[place]]]
                merged[name] = value
        if m.norm:
            merged.update(_with_statistics(domains, models, merged, number))
        run.note(map=m.name, rows=problem.rows, units=torch.bincount(network, minlength=len(run)).tolist())
    head, problem = maps[-1], LeastSquares()
    for i, domain in enumerate(domains):
        model, state = models[id(domain.data)], run[i]
        out = head.inputs(model.inputs(state, domain.nodes)[-1]) @ head.matrix(state)
        inputs = head.inputs(model.inputs(merged, domain.nodes)[-1])
        problem.add(inputs, domain.targets(out, run.num_outputs, target), 1 / len(inputs))
    matrix = problem.solve_standardised(ridge, head.is_affine)
    run.note(map=head.name, columns=len(matrix), **problem.report())
    merged.update(head.tensors(matrix, merged, problem.moments(matrix) if head.norm else (matrix, matrix)))
    return merged


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


def _wanted(run: MergeRun, domain: Domain, out: Tensor, number: int, target: Target, is_head: bool) -> Tensor:
    """Return what the next map should give: the answer of the network, or its outputs in columns of their own."""
    if is_head:
        return domain.targets(out, run.num_outputs, target)
    found = out.new_zeros(len(out), len(run), out.size(1))
    found[:, number] = out
    return found.flatten(1)


def _candidates(
    run: MergeRun,
    domains: Sequence[Domain],
    models: dict[int, LinearMaps],
    merged: State,
    number: int,
    ridge: float,
) -> list[Tensor]:
    """Return the map of each network, in later layers from the inputs that the merged network has."""
    found = []
    for i, domain in enumerate(domains):
        model, state = models[id(domain.data)], run[i]
        plain = replace(model.maps[number], norm=None)
        matrix = plain.matrix(state)
        if number > 0:
            problem = LeastSquares()
            out = plain.inputs(model.inputs(state, domain.nodes)[number]) @ matrix
            problem.add(plain.inputs(model.inputs(merged, domain.nodes)[number]), out, 1 / len(out))
            matrix = problem.solve(ridge * problem.scale())
        found.append(matrix)
    return found


def _side_by_side(
    run: MergeRun,
    domains: Sequence[Domain],
    models: dict[int, LinearMaps],
    merged: State,
    candidates: Sequence[Tensor],
    kept: Sequence[Tensor],
    number: int,
) -> list[Tensor]:
    """Return for each domain the inputs of the next map that the units of all networks give, ``[n, columns]``."""
    inputs = {}
    for key, model in models.items():
        plain, everything = replace(model.maps[number], norm=None), torch.arange(model.layers.x.size(0))
        inputs[key] = plain, plain.inputs(model.inputs(merged, everything)[number])
    parts: list[list[Tensor]] = [[] for _ in domains]
    for j, state in enumerate(run):
        for key, model in models.items():
            shown: list[Tensor] = []

            def see(at: int, z: Tensor, key: int = key, j: int = j, shown: list[Tensor] = shown) -> Tensor | None:
                if at == number + 1:
                    shown.append(z)
                return (inputs[key][1] @ candidates[j]).to(z) if at == number else None

            model.run(state, see)
            for i, domain in enumerate(domains):
                if id(domain.data) == key:
                    z = shown[0].cpu()[domain.nodes]
                    parts[i].append(z.view(len(z), -1, candidates[j].size(1))[:, :, kept[j]])
    return [torch.cat(part, 2).flatten(1) for part in parts]


def _with_statistics(
    domains: Sequence[Domain], models: dict[int, LinearMaps], merged: State, number: int
) -> dict[str, Tensor]:
    """Return a map and its normalisation as they do the same with the statistics that the chosen units have."""
    m = models[id(domains[0].data)].maps[number]
    matrix = m.matrix(merged)
    outputs = [m.inputs(models[id(d.data)].inputs(merged, d.nodes)[number]) @ matrix for d in domains]
    mean = torch.stack([out.mean(0) for out in outputs]).mean(0)
    var = torch.stack([(out - mean).square().mean(0) for out in outputs]).mean(0)
    return m.tensors(matrix, merged, (mean, var))


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
