"""Weighted sums of networks: the mean, and means on the sphere of all directions, tensor by tensor."""

import torch
from torch import Tensor

from graphsparse.ops.check import check_share
from graphsparse.soups.merging.merge import MergeRun, merge_method
from graphsparse.soups.states import State, floating

#: Where the next step of a mean on a sphere is none, and after how many steps it is looked for no longer.
_SMALL, _STEPS = 1e-12, 1000


@merge_method("mean", source="Wortsman et al., arXiv 2203.05482")
def mean(run: MergeRun) -> State:
    r"""Average all networks, :math:`\theta = \frac{1}{N} \sum_i \theta_i`: the uniform soup, without an evaluator."""
    return run.mean()


@merge_method("slerp", source="Shoemake, SIGGRAPH 1985")
def slerp(run: MergeRun, *, ratio: float = 0.5) -> State:
    r"""Go from one of two networks to the other on a great circle, tensor by tensor, and keep the mean length.

    .. math::
        \theta = (\alpha \lVert \theta_1 \rVert + (1 - \alpha) \lVert \theta_2 \rVert) \left(
        \frac{\sin \alpha \Omega}{\sin \Omega} \frac{\theta_1}{\lVert \theta_1 \rVert}
        + \frac{\sin (1 - \alpha) \Omega}{\sin \Omega} \frac{\theta_2}{\lVert \theta_2 \rVert} \right)

    with the angle :math:`\Omega` between the two. It is ``karcher`` of two, where more is said.

    Args:
        run: Two networks.
        ratio: Share :math:`\alpha` of the first, in [0, 1].
    """
    check_share(ratio, "ratio")
    if len(run) != 2:
        raise ValueError(f"'states' must hold two networks for 'slerp' (got {len(run)}); 'karcher' takes any number")
    return _on_spheres(run, torch.tensor([ratio, 1 - ratio], dtype=torch.float64))


@merge_method("karcher", source="Karcher, CPAM 30(5), 1977; of two networks: Shoemake, SIGGRAPH 1985")
def karcher(run: MergeRun) -> State:
    r"""Average directions of each tensor on a sphere, and lengths on their own.

    .. math::
        \theta = \frac{1}{N} \sum_i \lVert \theta_i \rVert \cdot
        \arg\min_{\lVert u \rVert = 1} \sum_i \angle(u, \theta_i)^2

    A plain mean is shorter than what it is made of; this one is not. The minimum is a weighted sum of the directions
    with weights that follow from their inner products, so this takes ``N (N + 1) / 2`` reads of a state, of which two
    are in memory. A tensor that is zero has no direction, but counts as a length; where directions cancel out, the
    plain mean is taken.
    """
    return _on_spheres(run, torch.full((len(run),), 1 / len(run), dtype=torch.float64))


def _on_spheres(run: MergeRun, shares: Tensor) -> State:
    """Return a weighted sum with weights for each parameter, and the shares for all else."""
    grams = _inner_products(run)
    return run.mean({name: _weights(grams[name], shares) if name in grams else shares for name in floating(run[0])})


def _inner_products(run: MergeRun) -> dict[str, Tensor]:
    """Return the inner products of all networks for each parameter, under all of its names, float64 ``[N, N]``."""
    names = [name for name, value in run.model.named_parameters(remove_duplicate=False) if value.is_floating_point()]
    found = {name: torch.zeros(len(run), len(run), dtype=torch.float64) for name in names}
    for i, one in enumerate(run):
        for j in range(i + 1):
            other = one if i == j else run[j]
            for name, gram in found.items():
                gram[i, j] = gram[j, i] = one[name].double().flatten() @ other[name].double().flatten()
    return found


def _weights(gram: Tensor, shares: Tensor) -> Tensor:
    """Return the weights of the mean on a sphere from inner products of vectors and their shares."""
    length = gram.diagonal().sqrt()
    unit = torch.where(length > 0, length, 1)
    # Vectors with the same inner products, in as few dimensions as there are vectors, each of length 1 or 0.
    values, vectors = torch.linalg.eigh(gram / unit.outer(unit))
    points = vectors * values.clamp(min=0).sqrt()
    centre = shares @ points
    if float(centre.norm()) <= 1e-6:
        return shares
    centre = centre / centre.norm()
    for _ in range(_STEPS):
        across = points - (points @ centre).outer(centre)
        sine = across.norm(dim=1)
        stretch = torch.where(sine > 1e-6, torch.atan2(sine, points @ centre) / sine, 1)  # angle / sine
        step = (shares * stretch) @ across
        size = step.norm()
        if size < _SMALL:
            break
        centre = size.cos() * centre + size.sin() * step / size
    weights = shares * stretch  # where steps are 0, the centre is made of these
    found: Tensor = (shares * length).sum() * weights / (weights @ points).norm() / unit
    return found
