"""REPAIR: the mean of networks, with the mean and the deviation that each channel has in them."""

from collections.abc import Iterable

import torch
from torch import Tensor

from graphsparse.soups.merging.domain import Domain
from graphsparse.soups.merging.linear_maps import LinearMaps
from graphsparse.soups.merging.merge import MergeRun, merge_method
from graphsparse.soups.states import State

#: A variance that is a smaller share of the squared mean, or of the largest variance, is 0 but for rounding.
_CONSTANT = 1e-12


@merge_method("repair", needs=("graph",), source="REPAIR, arXiv 2211.08403; Deep Graph Mating, NeurIPS 2024")
def repair(run: MergeRun, *, last: int | None = None) -> State:
    r"""Take the mean of networks, and give each channel the mean and the deviation over nodes that it has in them.

    In a mean of networks channels vary less than in any of them. From the first linear map on, each map is changed to

    .. math::
        W \leftarrow W \operatorname{diag}(\tau / \sigma), \qquad
        b \leftarrow (b - \mu)\, \tau / \sigma + \tfrac{1}{N} \textstyle\sum_i \mu_i, \qquad
        \tau^2 = \tfrac{1}{N} \textstyle\sum_i \sigma_i^2

    where :math:`\mu, \sigma` are mean and deviation of what the map gives before the activation, those of the merged
    network after the maps before it were changed. A channel of no deviation keeps its scale, and a map without bias
    its means. A batch normalisation that follows a map belongs to it. Means and variances are over the nodes that each
    network answers for, of equal weight for each network. Networks from different weights need :func:`align` first.

    With ``last`` only the last maps are changed. This is the place of the paper's LFNorm, which does the same to
    messages :math:`W h_u` over edges. After a mean over neighbours that can be written into weights and bias as well;
    after the aggregation of a GCN a shift of messages is another one for each node, the sum of its row of
    :math:`\hat A`, and no bias holds that. Here outputs of the map are changed, after aggregation, for all layers.

    Args:
        run: Networks and what they answer for.
        last: How many maps to change, from the last one back; all of them by default.

    Raises:
        ValueError: If ``last`` is out of range.
    """
    models: dict[int, LinearMaps] = {}
    for domain in run.domains:
        if id(domain.data) not in models:
            models[id(domain.data)] = LinearMaps(run.model, domain.data)
    maps = models[id(run.domains[0].data)].maps
    if last is not None and (not isinstance(last, int) or not 1 <= last <= len(maps)):
        raise ValueError(f"'last' must be in [1, {len(maps)}], the number of linear maps (got {last!r})")
    numbers = range(len(maps) - (last or len(maps)), len(maps))
    targets = [torch.zeros(())] * len(maps)
    for state, domain in zip(run, run.domains, strict=True):
        for number, found in _moments(models[id(domain.data)], state, [domain], numbers).items():
            targets[number] = targets[number] + found / len(run)
    merged = dict(run.mean())
    for number in numbers:
        m, own = maps[number], torch.zeros(())
        for graph, model in models.items():
            domains = [domain for domain in run.domains if id(domain.data) == graph]
            own = own + _moments(model, merged, domains, [number])[number] / len(run)
        (mean, var), (to_mean, to_var) = own, targets[number]
        is_constant = var <= _CONSTANT * (mean.square() + var.max())
        scale = torch.where(is_constant, 1.0, (to_var / var).sqrt())
        matrix = m.matrix(merged) * scale
        if m.is_affine:
            matrix[-1] += to_mean - mean * scale
        moments = to_mean if m.is_affine else mean * scale, var * scale.square()
        merged.update(m.tensors(matrix, merged, moments))
        run.note(map=m.name, scale=float(scale.log().mean().exp()), constant=int(is_constant.sum()))
    return merged


def _moments(model: LinearMaps, state: State, domains: Iterable[Domain], numbers: Iterable[int]) -> dict[int, Tensor]:
    """Return the sums over domains of mean and variance of what maps give ``[2, channels]``."""
    found: dict[int, Tensor] = {}

    def see(number: int, z: Tensor) -> None:
        if number in numbers:
            m = model.maps[number]
            out = m.inputs(z) @ m.matrix(state).to(z.device)
            parts = [torch.stack(torch.var_mean(out[domain.nodes], 0, correction=0)[::-1]) for domain in domains]
            found[number] = torch.stack(parts).sum(0).cpu()

    model.run(state, see)
    return found
