"""Mixing coefficients by gradient descent."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import repeat
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import Data

from graphsparse.loader.parts import ClusterBatches
from graphsparse.nn.accelerate import accelerate
from graphsparse.ops.check import check_count, check_number
from graphsparse.soups.evaluation.evaluator import Evaluator
from graphsparse.soups.evaluation.plain_forward import call_with_state
from graphsparse.soups.recipes.soup import Acceptance, Ingredients, soup
from graphsparse.soups.states import State, States, tied_names
from graphsparse.training.check import check_callable, check_one_graph
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
        if bool(((y != 0) & (y != 1))[known].any()):
            raise ValueError(
                "there is no loss for these labels, give 'loss': several labels per node must be 0, 1 or NaN"
            )
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


@soup(name="learned", source="arXiv 2503.11612; Wortsman et al., arXiv 2203.05482, Appendix I")
def learned_soup(
    ingredients: Ingredients,
    acceptance: Acceptance,
    *,
    epochs: int = 50,
    lr: float = 0.1,
    num_parts: int = 1,
    parts_per_step: int = 1,
    loss: Loss = node_loss,
) -> None:
    r"""Learn how much of each ingredient goes into each tensor, by gradient descent on the loss of judged nodes.

    .. math:: W_j = \sum_i a_{ji} W_{ij}, \qquad a_j = \operatorname{softmax}(r_j)

    The weights of the ingredients stay as they are, only :math:`r` is learned, from a uniform start, by Adam with a
    learning rate that falls to 0 along a cosine. The gradient is never taken through the mixture: one backward pass
    gives the derivative :math:`G_j` with respect to mixed weights, and

    .. math:: \frac{\partial L}{\partial a_{ji}} = \langle G_j, W_{ij} \rangle

    needs one ingredient at a time. So memory is that of two or three states and of one pass over the graph, whatever
    the number of ingredients, of which each is read twice per step. Floating buffers follow the parameters of their
    layer; running statistics of batch normalisation are constants of a step.

    The best mixture on the accepting nodes is kept, and it must exceed the uniform soup and every ingredient to be
    returned, so the score of the result is never below that of the best ingredient, exactly. With halves the loss is
    that of the other nodes: coefficients cannot be accepted for having learned the labels that they are judged by.

    Where a pass over the graph with its gradient does not fit into memory, the graph is cut once into ``num_parts``
    parts :math:`K`, with about as many fitting nodes in each, and a step sees the subgraph of ``parts_per_step`` of
    them :math:`R`, with the edges between them. Parts are shuffled and walked through, so that each is seen equally
    often, and candidates are judged after every walk, on the whole graph in the way of the evaluator. The loss of a
    step is weighted by its number of fitting nodes,

    .. math:: L = \frac{K}{R\,n} \sum_{v \in \text{step}} \ell_v ,

    which is that of all :math:`n` of them for :math:`R = K`; steps without any are passed over.

    Args:
        ingredients: State dicts: a list, or a store that reads them from disk.
        evaluator: Scores them on its nodes; further keywords are those of every :func:`~graphsparse.soups.soup`.
        epochs: Number of steps.
        lr: Learning rate at the start.
        num_parts: Number of parts that the graph is cut into.
        parts_per_step: Parts in a step; fewer at the end of a walk where they do not come out even.
        loss: Mean loss from the logits and labels of some nodes; cross-entropy, or for several labels per node,
            ``[N, T]``, binary cross-entropy by default.

    Returns:
        The soup. ``weights`` are one vector for each floating tensor, or one for all where the uniform soup or an
        ingredient is not exceeded. The trace has for each step its ``epoch``, the ``loss`` and, where it was asked for,
        ``val``, after an entry for epoch 0 with the score to exceed.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If there is no ingredient, one does not fit the model or holds values that are not numbers, an
            option is out of range, the labels are none that ``loss`` is defined for, or a layer of the model keeps the
            first graph it sees and there are parts.
        FloatingPointError: If the loss is no longer finite.

    Example:
        >>> from torch_geometric.nn import GCN
        >>> from graphsparse.soups import Evaluator
        >>> from graphsparse.testing import random_graph
        >>> models = [GCN(8, 16, 2, 3) for _ in range(3)]
        >>> evaluator = Evaluator(models[0], random_graph())
        >>> found = learned_soup([model.state_dict() for model in models], evaluator, epochs=5)
        >>> found.val >= max(found.ingredient_vals)
        True

    Source: *Enhanced Soups for Graph Neural Networks*, arXiv 2503.11612, where coefficients are a softmax of a softmax,
    the loss is of all judged nodes, and the last epoch is returned whatever its score; learned soups: Wortsman et al.,
    arXiv 2203.05482, Appendix I.
    """
    for count, name in ((epochs, "epochs"), (num_parts, "num_parts"), (parts_per_step, "parts_per_step")):
        check_count(count, name)
    if parts_per_step > num_parts:
        raise ValueError(f"'parts_per_step' must be at most 'num_parts', {num_parts} (got {parts_per_step})")
    check_number(lr, "lr", least=0, strictly=True)
    check_callable(loss, "loss")
    fit, judge = acceptance.fit, acceptance.judge
    followed = followed_tensors(fit.model)
    names = learned_names(followed)
    model = accelerate(fit.model)
    batches = repeat((fit.data, 1.0)) if num_parts == 1 else _walks(fit, num_parts, parts_per_step, acceptance.seed)
    walk = -(-num_parts // parts_per_step)
    raw = torch.zeros(len(names), len(ingredients), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([raw], lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs)

    floor = acceptance.val
    state = ingredients.combine(raw.detach().softmax(1)[0])
    uniform = judge.score(state)
    if uniform >= floor:
        acceptance.take(state, val=uniform, keep=False)
    acceptance.note(epoch=0, val=acceptance.val)
    for epoch, (data, weight) in zip(acceptance.steps(range(1, epochs + 1)), batches, strict=False):
        found, gradient = state_gradient(
            model, fit.prepared(state), names, data, weight=weight, loss=loss, call=fit.call
        )
        del state  # two states are enough: the gradient, and the ingredient that is read
        (raw.grad,) = torch.autograd.grad(raw.softmax(1), raw, inner_products(ingredients, gradient))
        del gradient
        optimizer.step()
        schedule.step()
        state = ingredients.combine(by_name(raw.detach().softmax(1), followed))
        entry = {"epoch": epoch, "loss": found}
        if epoch == epochs or epoch % walk == 0:
            entry["val"] = judge.score(state)
            if entry["val"] > acceptance.val:
                acceptance.take(state, val=entry["val"], keep=False)
        acceptance.note(**entry)


def _walks(fit: Evaluator, num_parts: int, parts_per_step: int, seed: int) -> Iterator[tuple[Data, float]]:
    """Yield subgraphs with fitting nodes and the weights of their losses, walk after walk."""
    check_one_graph(fit.model)
    mask = fit.data.mask
    batches = ClusterBatches(
        fit.data,
        num_parts=num_parts,
        parts_per_batch=parts_per_step,
        node_weight=1 + (mask.numel() // fit.num_nodes) * mask.long(),
        partition_seed=seed,
        seed=seed,
    )
    while True:
        for batch in batches:
            if present := int(batch.mask.sum()):
                yield batch, present * num_parts / (fit.num_nodes * parts_per_step)


@torch.no_grad()
def inner_products(ingredients: States, gradient: State) -> Tensor:
    r"""Return the derivative of a loss with respect to the shares of ingredients in each tensor, ``[tensors, N]``.

    .. math:: s_{ji} = \langle G_j, W_{ij} \rangle
    """
    columns = []
    for i in range(len(ingredients)):
        state = ingredients[i]
        column = [torch.dot(g.reshape(-1).double(), state[n].reshape(-1).double()) for n, g in gradient.items()]
        columns.append(torch.stack(column).cpu())
        del state  # before the next one is read
    return torch.stack(columns, dim=1)


def followed_tensors(model: nn.Module) -> dict[str, list[str]]:
    """Return for each floating tensor the parameters whose shares it takes the mean of: of a parameter, itself.

    Two names of one tensor follow the first. Buffers have no gradient and follow the parameters beside them, or all.
    """
    state = model.state_dict()
    learned = [name for name, value in model.named_parameters() if value.is_floating_point() and name in state]
    if not learned:
        raise ValueError("'evaluator' has a model without floating parameters, so there is nothing to learn")
    ties = tied_names(model)
    found = {}
    for name in (name for name, value in state.items() if value.is_floating_point()):
        first = ties.get(name, name)
        beside = [other for other in learned if other.rpartition(".")[0] == name.rpartition(".")[0]]
        found[name] = [first] if first in learned else beside or learned
    return found


def learned_names(followed: Mapping[str, list[str]]) -> list[str]:
    """Return the names of the parameters that are learned, of what :func:`followed_tensors` has found."""
    return [name for name, others in followed.items() if others == [name]]


def by_name(shares: Tensor, followed: Mapping[str, list[str]]) -> dict[str, Tensor]:
    """Return the weights of every floating tensor from the shares of those that are learned, ``[tensors, N]``."""
    own = dict(zip(learned_names(followed), shares, strict=True))
    return {name: torch.stack([own[other] for other in others]).mean(dim=0) for name, others in followed.items()}
