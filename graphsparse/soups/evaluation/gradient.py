"""The derivative of a loss with respect to mixing coefficients, without a graph through the mixture."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch_geometric.data import Data

from graphsparse.soups.evaluation.plain_forward import call_with_state
from graphsparse.soups.states.grouping import Grouping
from graphsparse.soups.states.states import State, States
from graphsparse.utils.call_model import Call, call_model
from graphsparse.utils.eval_mode import keep_mode

#: A loss, the mean over its rows, from the logits ``[n, C]`` and the labels of some nodes.
Loss: TypeAlias = Callable[[Tensor, Tensor], Tensor]


def node_loss(logits: Tensor, y: Tensor) -> Tensor:
    """Return the mean cross-entropy of classes ``[n]``, or of yes and no for each of several labels ``[n, T]``.

    Args:
        logits: ``[n, C]``, or ``[n, T]``.
        y: Labels; with several ones, labels that are not known are NaN and do not count.

    Example:
        >>> node_loss(torch.zeros(2, 4), torch.tensor([0, 3]))
        tensor(1.3863)
    """
    if y.dim() == 1:
        return F.cross_entropy(logits, y)
    known = ~y.isnan() if y.is_floating_point() else torch.ones_like(y, dtype=torch.bool)
    return F.binary_cross_entropy_with_logits(logits[known], y[known].to(logits.dtype))


def state_gradient(
    model: nn.Module,
    state: State,
    names: list[str],
    data: Data,
    *,
    weight: float = 1.0,
    scale: Tensor | None = None,
    dropout: bool = False,
    loss: Loss = node_loss,
    call: Call = call_model,
) -> tuple[float, dict[str, Tensor]]:
    """Return the loss of a state dict on the nodes of ``data.mask``, and its derivative with respect to its tensors.

    Args:
        model: The model, in evaluation mode.
        state: State dict.
        names: Tensors to derive with respect to.
        data: The graph, with ``y`` and ``mask``.
        weight: Factor of the loss.
        scale: Factor of the logits; the derivative with respect to it is left in its ``grad``.
        dropout: Whether dropout is on.
        loss: From logits and labels.
        call: How to call the model on a graph.

    Returns:
        The loss, and one gradient for each name.

    Raises:
        FloatingPointError: If the loss is not finite.
    """
    device = data.y.device
    leaves = {name: state[name].detach().to(device).requires_grad_() for name in names}
    # Further names of one tensor must lead to the leaf too.
    leaf_of = {id(state[name]): leaf for name, leaf in leaves.items()}
    full = {name: leaf_of[id(value)] if id(value) in leaf_of else value.to(device) for name, value in state.items()}
    with torch.enable_grad(), _dropout(model) if dropout else nullcontext():
        logits = call_with_state(model, full, data, call)[data.mask]
        logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
        factor = None if scale is None else scale.detach().to(logits).requires_grad_()
        found = weight * loss(logits if factor is None else factor * logits, data.y[data.mask])
        value = float(found.detach())
        if not math.isfinite(value):
            raise FloatingPointError(f"the loss is {value}; a smaller 'lr' may help")
        inputs = [*leaves.values(), *([] if factor is None else [factor])]
        grads = torch.autograd.grad(found, inputs, allow_unused=True)
    if scale is not None:
        scale.grad = torch.zeros_like(scale) if grads[-1] is None else grads[-1].to(scale)
    pairs = zip(leaves.items(), grads[: len(leaves)], strict=True)
    return value, {name: torch.zeros_like(leaf) if grad is None else grad for (name, leaf), grad in pairs}


@torch.no_grad()
def inner_products(ingredients: States, gradient: State, grouping: Grouping) -> Tensor:
    r"""Return derivatives with respect to mixing coefficients, of which ingredients are read one at a time.

    .. math:: s_{ji} = \sum_{t \in j} \langle G_t, W_{it} \rangle

    Args:
        ingredients: State dicts :math:`W_i`.
        gradient: Derivative :math:`G_t` of the loss with respect to each trained tensor of the mixture.
        grouping: Groups :math:`j` of tensors.

    Returns:
        Float64 ``[groups, N]``, in main memory.
    """
    groups = torch.tensor([grouping.trained[name] for name in gradient])
    found = torch.zeros(grouping.count, len(ingredients), dtype=torch.float64)
    for i in range(len(ingredients)):
        state = ingredients[i]
        products = [
            torch.dot(grad.reshape(-1).double(), state[name].to(grad.device).reshape(-1).double())
            for name, grad in gradient.items()
        ]
        found[:, i].index_add_(0, groups, torch.stack(products).cpu())
        del state  # before the next one is read
    return found


@contextmanager
def _dropout(model: nn.Module) -> Iterator[None]:
    """Switch dropout on, but not batch normalisation."""
    with keep_mode(model):
        model.train()
        for module in model.modules():
            if isinstance(module, _NormBase):
                module.training = False
        yield
