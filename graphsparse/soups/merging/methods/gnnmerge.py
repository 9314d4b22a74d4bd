"""GNNMerge: one regression for every linear map, on the aggregated inputs that each network has on its own nodes."""

from graphsparse.soups.merging.least_squares import LeastSquares
from graphsparse.soups.merging.linear_maps import LinearMap, maps_on
from graphsparse.soups.merging.merge import MergeRun, merge_method
from graphsparse.soups.states import State


@merge_method(
    "gnnmerge",
    needs=("graph",),
    heads=True,
    statistics=True,
    source="GNNMerge, arXiv 2503.03384; RegMean, arXiv 2212.09849",
)
def gnnmerge(run: MergeRun, *, ridge: float = 1e-3) -> State:
    r"""Find for every linear map the weights whose outputs are closest to those of each network on its own nodes.

    .. math::
        \min_W \sum_i \frac{1}{|V_i|} \sum_{v \in V_i} \lVert z_i(v) W - z_i(v) W_i \rVert^2
        + \rho \lVert W - \tfrac{1}{N} \textstyle\sum_i W_i \rVert^2

    with :math:`z_i(v)` what the map of network :math:`i` is applied to at node :math:`v`, after aggregation, and
    :math:`\rho` a share of the mean diagonal of :math:`\sum_i Z_i^\top Z_i / |V_i|`. Maps do not wait for each other,
    so that networks on several machines send one Gram matrix :math:`Z_i^\top Z_i / |V_i|` for each map beside their
    weights: :func:`~graphsparse.soups.write_statistics`. Copies give the copy, bit for bit.

    A batch normalisation that follows a map belongs to it: outputs are compared after it. The merged one has the
    statistics of the merged map on these nodes. Heads of different classes have no logits in common: the last map is
    then found for probabilities, as in ``"rounds"``. What is in no map, such as the scale of a ``LayerNorm``, is
    averaged.

    Args:
        run: Networks and what they answer for.
        ridge: The share :math:`\rho` is made of.
    """
    first, merged = run[0], dict(run.mean())
    maps: list[LinearMap] = []
    models = maps_on(run.model, run.domains) if run.statistics is None else []
    for index, state in enumerate(run):
        known = None if run.statistics is None else run.statistics(index)
        if known is None:
            domain = run.domains[index]
            model = models[index]
            found, given = model.maps, model.inputs(state, domain.nodes)
        else:
            found, given = known.maps, known.grams
        if not maps:
            maps, problems = found, [LeastSquares() for _ in found]
            priors = [0 * m.matrix(merged) for m in maps]
        elif found != maps:
            raise ValueError(f"the statistics of network {index} are of other layers than those of network 0")
        for m, own, problem, prior in zip(maps, given, problems, priors, strict=True):
            if run.has_own_heads and m is maps[-1]:
                z = m.inputs(own)
                problem.add(z, domain.targets(z @ m.matrix(state), run.num_outputs), 1 / len(z))
                continue
            shift = m.matrix(state) - m.matrix(first)  # exactly 0 for copies
            if known is None:
                z = m.inputs(own)
                problem.add(z, z @ shift, 1 / len(z))
            else:
                problem.add_sums(own, own @ shift, known.rows)
            prior += shift / len(run)
    for m, problem, prior in zip(maps, problems, priors, strict=True):
        if run.has_own_heads and m is maps[-1]:
            matrix = problem.solve_standardised(ridge, m.is_affine)
        else:
            matrix = m.matrix(first) + problem.solve(ridge * problem.scale(), prior)
        run.note(map=m.name, columns=len(matrix), **problem.report())
        merged.update(m.tensors(matrix, first, problem.moments(matrix) if m.norm else (matrix, matrix)))
    return merged
