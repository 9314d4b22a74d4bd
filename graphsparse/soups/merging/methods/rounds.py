"""Layer by layer: one regression after the other, on the inputs that the merged network itself has."""

from graphsparse.soups.merging.domain import Target, check_target
from graphsparse.soups.merging.head import solved_head
from graphsparse.soups.merging.least_squares import LeastSquares
from graphsparse.soups.merging.linear_maps import maps_on
from graphsparse.soups.merging.merge import MergeRun, merge_method
from graphsparse.soups.states import State


@merge_method("rounds", needs=("graph",), heads=True, source="RegMean++, arXiv 2508.03121, with aggregated inputs")
def rounds(run: MergeRun, *, ridge: float = 1e-3, target: Target = "probabilities") -> State:
    r"""Find one map after the other, each for what the maps before it have made of the nodes.

    .. math::
        \min_W \sum_i \frac{1}{|V_i|} \sum_{v \in V_i} \lVert \bar z(v) W - y_i(v) \rVert^2
        + \rho \lVert W - \tfrac{1}{N} \textstyle\sum_i W_i \rVert^2

    with :math:`\bar z(v)` the input of the merged network at node :math:`v`, and :math:`y_i(v)` the output of the map
    of network :math:`i`, which answers for it. So a map mends what the ones before it lost. The last one is found for
    the probabilities that networks give, 0 for classes that they do not know; the columns of its input are
    standardised. Machines would exchange one Gram matrix after the other.

    Args:
        run: Networks and what they answer for.
        ridge: The share of the mean diagonal of the Gram matrix that :math:`\rho` is.
        target: ``"logits"`` where outputs are no classes, or where copies must give the copy.
    """
    check_target(target, run.num_outputs)
    first, merged = run[0], dict(run.mean())
    models = maps_on(run.model, run.domains)
    maps = models[0].maps if target == "logits" else models[0].maps[:-1]
    for number, m in enumerate(maps):
        problem, prior = LeastSquares(), 0 * m.matrix(merged)
        for state, domain, model in zip(run, run.domains, models, strict=True):
            own = m.inputs(model.inputs(state, domain.nodes)[number]) @ m.matrix(state)
            inputs = m.inputs(model.inputs(merged, domain.nodes)[number])
            problem.add(inputs, own - inputs @ m.matrix(first), 1 / len(inputs))  # exactly 0 for copies
            prior += (m.matrix(state) - m.matrix(first)) / len(run)
        matrix = m.matrix(first) + problem.solve(ridge * problem.scale(), prior)
        run.note(map=m.name, columns=len(matrix), **problem.report())
        merged.update(m.tensors(matrix, merged, problem.moments(matrix) if m.norm else (matrix, matrix)))
    return merged if target == "logits" else {**merged, **solved_head(run, run.domains, models, merged, ridge, target)}
