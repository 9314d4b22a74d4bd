"""The derivative of a loss with respect to the tensors of a state dict."""

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import Data

from graphsparse.soups.evaluation.plain_forward import call_with_state
from graphsparse.soups.states import State
from graphsparse.utils.call_model import Call, call_model

#: A loss, the mean over its rows, from the logits ``[n, C]`` and the labels of some nodes.
Loss: TypeAlias = Callable[[Tensor, Tensor], Tensor]


def node_loss(logits: Tensor, y: Tensor) -> Tensor:
    """Return the mean cross-entropy of classes ``[n]``, or of yes and no for each of several labels ``[n, T]``.

    Args:
        logits: ``[n, C]`` for classes, or ``[n, 1]`` for two of them; ``[n, T]`` for several labels.
        y: Labels; with several ones, labels that are not known are NaN and do not count.

    Raises:
        ValueError: If the labels are none of these, or the model is too narrow for them.

    Example:
        >>> node_loss(torch.zeros(2, 4), torch.tensor([0, 3]))
        tensor(1.3863)
    """
    if y.dim() == 2 and y.shape == logits.shape:
        known = ~y.isnan() if y.is_floating_point() else torch.ones_like(y, dtype=torch.bool)
        return F.binary_cross_entropy_with_logits(logits[known], y[known].to(logits.dtype))
    if y.dim() != 1 or y.is_floating_point() or logits.dim() != 2:
        raise ValueError(
            "there is no loss for these labels, give 'loss': cross-entropy needs logits [n, C] and 'data.y' with one "
            f"class per node or C labels (got logits {list(logits.shape)}, 'data.y' {list(y.shape)} of {y.dtype})"
        )
    width = max(logits.size(1), 2)  # one logit is for two classes
    if int(y.min()) < 0 or int(y.max()) >= width:
        raise ValueError(
            f"there is no loss for these labels, give 'loss': 'data.y' runs from {int(y.min())} to {int(y.max())}, but "
            f"the model returns {logits.size(1)} outputs, for {width} classes"
        )
    if logits.size(1) == 1:
        return F.binary_cross_entropy_with_logits(logits.view(-1), y.to(logits.dtype))
    return F.cross_entropy(logits, y)


def state_gradient(
    model: nn.Module,
    state: State,
    names: Sequence[str],
    data: Data,
    *,
    weight: float = 1.0,
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
        loss: From logits and labels.
        call: How to call the model on a graph.
    """
    device = data.y.device
    leaves = {name: state[name].detach().to(device).requires_grad_() for name in names}
    # Further names of one tensor must lead to the leaf too.
    leaf_of = {id(state[name]): leaf for name, leaf in leaves.items()}
    full = {name: leaf_of[id(value)] if id(value) in leaf_of else value.to(device) for name, value in state.items()}
    with torch.enable_grad():
        logits = call_with_state(model, full, data, call)[data.mask]
        logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
        found = weight * loss(logits, data.y[data.mask])
        value = float(found.detach())
        if not math.isfinite(value):
            raise FloatingPointError(f"the loss is {value}; a smaller 'lr' may help")
        grads = torch.autograd.grad(found, list(leaves.values()), allow_unused=True)
    pairs = zip(leaves.items(), grads, strict=True)
    return value, {name: torch.zeros_like(leaf) if grad is None else grad for (name, leaf), grad in pairs}
