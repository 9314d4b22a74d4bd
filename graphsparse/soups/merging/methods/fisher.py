"""Fisher merging: a mean with a weight for each parameter, by how much the outputs of its network depend on it."""

import torch
from torch import Tensor, nn

from graphsparse.ops import constant
from graphsparse.ops.check import check_count
from graphsparse.soups.merging.domain import Domain
from graphsparse.soups.merging.merge import MergeRun, merge_method
from graphsparse.soups.merging.outputs import logits_of, network_of
from graphsparse.soups.states import State
from graphsparse.utils.counter_random import CounterRandom

#: Smallest weight of a parameter, where the weights of a network are a vector of length 1.
_FLOOR = 1e-10


@merge_method("fisher", needs=("graph",), source="Matena and Raffel, arXiv 2111.09832")
def fisher(run: MergeRun, *, nodes: int = 128) -> State:
    r"""Average each parameter with the diagonal of the Fisher information of each network as weights.

    .. math::
        \theta = \frac{\sum_i f_i \odot \theta_i}{\sum_i f_i}, \qquad
        f_i \propto \frac{1}{|S_i|} \sum_{v \in S_i} \sum_c p_{vc}
        \left(\frac{\partial \log p_{vc}}{\partial \theta_i}\right)^2

    over nodes :math:`S_i` drawn from those that network :math:`i` answers for, with the probabilities :math:`p` of its
    own classes; each :math:`f_i` has length 1, and no entry below 1e-10. The square is one of the gradient of each node
    and class, so this takes as many backward passes over the whole graph.

    Args:
        run: Networks and what they answer for.
        nodes: How many nodes of each network are drawn.
    """
    check_count(nodes, "nodes")
    network = network_of(run.model, run.domains)
    total, weights = torch.zeros(2, len(run.vector(run[0])), dtype=torch.float64)
    for i, (state, domain) in enumerate(zip(run, run.domains, strict=True)):
        drawn = CounterRandom(run.seed, f"nodes of network {i}").uniform(len(domain.nodes)).argsort(stable=True)
        sample = Domain(domain.data, domain.nodes[drawn[:nodes]], domain.classes)
        found = run.vector(_diagonal(network, state, sample, run.parameters))
        weight = (found / found.norm().clamp(min=1e-300)).clamp(min=_FLOOR)
        total += weight * run.vector(state)
        weights += weight
    return run.with_parameters(total / weights)


@torch.enable_grad()
def _diagonal(network: nn.Module, state: State, domain: Domain, names: list[str]) -> dict[str, Tensor]:
    """Return the mean over nodes of the squared gradients of all classes, by name of the parameter."""
    device = next(network.parameters()).device
    own = {name: state[name].to(device, copy=True).requires_grad_() for name in names}
    with constant(domain.data):
        log_p = logits_of(network, {**state, **own}, domain).log_softmax(1)
        found = {name: torch.zeros_like(value, dtype=torch.float64) for name, value in own.items()}
        for row, share in zip(log_p, log_p.detach().exp() / len(log_p), strict=True):
            for entry, p in zip(row, share.tolist(), strict=True):
                grads = torch.autograd.grad(entry, list(own.values()), retain_graph=True, materialize_grads=True)
                for value, grad in zip(found.values(), grads, strict=True):
                    value.addcmul_(grad.double(), grad.double(), value=p)
    return found
