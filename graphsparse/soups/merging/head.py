"""The last map of a merged network, solved for what each network says of its own nodes."""

from collections.abc import Sequence

from torch import Tensor

from graphsparse.soups.merging.domain import Domain, Target
from graphsparse.soups.merging.least_squares import LeastSquares
from graphsparse.soups.merging.linear_maps import LinearMaps
from graphsparse.soups.merging.merge import MergeRun
from graphsparse.soups.states import State


def solved_head(
    run: MergeRun, domains: Sequence[Domain], models: Sequence[LinearMaps], merged: State, ridge: float, target: Target
) -> dict[str, Tensor]:
    """Return the tensors of the last map, from the inputs that the merged network has.

    Args:
        run: Networks, and where what was found is noted.
        domains: What each network answers for.
        models: The model on the graph of each domain.
        merged: The merged network, whose other maps are found.
        ridge: Share of the variance of each column that is added to it.
        target: What outputs are to meet.
    """
    m, problem = models[0].maps[-1], LeastSquares()
    for state, domain, model in zip(run, domains, models, strict=True):
        out = m.inputs(model.inputs(state, domain.nodes)[-1]) @ m.matrix(state)
        inputs = m.inputs(model.inputs(merged, domain.nodes)[-1])
        problem.add(inputs, domain.targets(out, run.num_outputs, target), 1 / len(inputs))
    matrix = problem.solve_standardised(ridge, m.is_affine)
    run.note(map=m.name, columns=len(matrix), **problem.report())
    return m.tensors(matrix, merged, problem.moments(matrix) if m.norm else (matrix, matrix))
