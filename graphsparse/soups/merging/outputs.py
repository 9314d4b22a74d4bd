"""What single networks say about nodes."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from graphsparse.nn.inference import exact_copy
from graphsparse.nn.products import forget_graphs
from graphsparse.soups.evaluation.plain_forward import call_with_state
from graphsparse.soups.merging.domain import Domain
from graphsparse.soups.states import State
from graphsparse.utils.call_model import call_model
from graphsparse.utils.copy_model import copy_model


@torch.no_grad()
def network_of(model: nn.Module, domains: Sequence[Domain]) -> nn.Module:
    """Return a copy of a model with the layers of this package, in evaluation mode, to be called on several graphs.

    It is called on each of them once: from the second time on layers use what they have kept of constant features, and
    sums are rounded in another way.
    """
    network = forget_graphs(exact_copy(copy_model(model))).eval()
    module: Any
    for module in network.modules():
        if "cached" in vars(module):
            module.cached = False
    for data in {id(domain.data): domain.data for domain in domains}.values():
        call_model(network, data)
    return network


def logits_of(network: nn.Module, state: State, domain: Domain) -> Tensor:
    """Return the outputs of a network for its own nodes, ``[n, C_i]``.

    Args:
        network: What :func:`network_of` returned.
        state: Weights of the network.
        domain: What it answers for.
    """
    logits = call_with_state(network, state, domain.data)[domain.nodes]
    if logits.dim() != 2 or logits.size(1) != len(domain.classes):
        raise ValueError(
            f"'classes' must name the class of each output of a network (got {len(domain.classes)} classes for the "
            f"outputs {list(logits.shape)} at {len(domain.nodes)} nodes)"
        )
    return logits
