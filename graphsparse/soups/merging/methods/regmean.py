"""RegMean: one regression for each matrix of any model, on what it is multiplied by in each network."""

from collections import defaultdict
from typing import Any

from torch import Tensor

from graphsparse.nn.products import Axis, input_grams
from graphsparse.ops.check import check_number
from graphsparse.soups.merging.least_squares import LeastSquares
from graphsparse.soups.merging.merge import MergeRun, merge_method
from graphsparse.soups.states import State
from graphsparse.utils.copy_model import copy_model


@merge_method("regmean", needs=("graph",), source="Jin et al., arXiv 2212.09849")
def regmean(run: MergeRun, *, ridge: float = 1e-3) -> State:
    r"""Find for each matrix the one whose products are closest to those in each network on its own nodes.

    .. math::
        \min_W \sum_i \frac{1}{|V_i|} \sum_{v \in V_i} \lVert x_i(v) W - x_i(v) W_i \rVert^2
        + \rho \lVert W - \tfrac{1}{N} \textstyle\sum_i W_i \rVert^2

    with :math:`x_i(v)` what the matrix of network :math:`i` is multiplied by, in a GCN or GAT before aggregation, and
    :math:`\rho` a share of the mean diagonal of :math:`\sum_i X_i^\top X_i / |V_i|`. Any model of plain layers is
    taken; of those that ``gnnmerge`` takes, that is the better one, for it sees what is aggregated. Copies give the
    copy, bit for bit. What is no matrix is averaged, biases too, and matrices that are multiplied by sparse features.

    Args:
        run: Networks and what they answer for.
        ridge: The share :math:`\rho` is made of.
    """
    check_number(ridge, "ridge", least=0)
    first, merged, model = run[0], dict(run.mean()), copy_model(run.model)
    grams, cross = defaultdict[Axis, Any](int), defaultdict[Axis, Any](int)
    for state, domain in zip(run, run.domains, strict=True):
        model.load_state_dict(state)
        for axis, gram in input_grams(model, domain.data, domain.nodes).items():
            gram /= len(domain.nodes)
            grams[axis] += gram
            cross[axis] += gram @ (_columns(state, axis) - _columns(first, axis))  # exactly 0 for copies
    rows = sum(len(domain.nodes) for domain in run.domains)
    for (name, at), gram in grams.items():
        if (name, 1 - at) in grams:
            continue  # multiplied from both sides, for which no regression is right
        problem, before = LeastSquares(gram, cross[name, at], rows), _columns(first, (name, at))
        matrix = before + problem.solve(ridge * (problem.scale() or 1.0), _columns(merged, (name, at)) - before)
        run.note(matrix=name, columns=len(matrix), **problem.report())
        merged[name] = matrix.movedim(0, at).to(merged[name].dtype).contiguous()
    return merged


def _columns(state: State, axis: Axis) -> Tensor:
    """Return a matrix of a state with the axis first that is summed over, float64."""
    return state[axis[0]].double().movedim(axis[1], 0)
