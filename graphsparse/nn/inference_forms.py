"""The forms in which a sparse model can be run."""

import copy
import itertools
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

from torch import nn

from graphsparse.nn.accelerate import accelerate
from graphsparse.nn.compact_linear import CompactLinear, live_rows
from graphsparse.nn.csr_linear import CSRLinear
from graphsparse.nn.frozen_linear import FrozenLinear
from graphsparse.nn.linear import is_plain

#: What a model is run as; see :func:`inference_form`.
InferenceForm: TypeAlias = Literal["dense", "sparse_features", "compact", "csr"]
#: All of them, the simplest first.
FORMS: tuple[InferenceForm, ...] = ("dense", "sparse_features", "compact", "csr")


def inference_form(model: nn.Module, form: InferenceForm) -> nn.Module:
    """Return a model that computes the same in one of four forms, for inference.

    =================== ======================================================================================
    ``dense``           the model as it is
    ``sparse_features`` :func:`~graphsparse.nn.accelerate`: convolutions as sparse products, constant features that
                        hold mostly zeros multiplied as sparse matrices; dense weights, zeros included
    ``compact``         that, and linear layers without the rows and columns of their weights that are zero as a
                        whole, where there are any: :class:`~graphsparse.nn.CompactLinear`
    ``csr``             the former, and linear layers that hold the entries of their weights that are not zero:
                        :class:`~graphsparse.nn.CSRLinear`
    =================== ======================================================================================

    Which one is the fastest depends on the model, its sparsity, the graph and the machine;
    :func:`~graphsparse.nn.fastest_form` measures it.

    Attention vectors and whatever else is no linear layer stay dense. So do the linear layers that are more than their
    weight and bias: those of a subclass, parametrised, with hooks, or inside a scripted or compiled module.

    The model that comes in is left as it is, its mode too. The result is in evaluation mode. It **shares the weights**
    of the model, except for those that ``compact`` and ``csr`` hold in another form: these are copies, of the weights
    as they are now, and their keys in the state dict are others.

    Args:
        model: Any model. In no form but ``dense`` may a layer still wait for its first input, to know its width.
        form: The form.

    Warns:
        UserWarning: As :func:`~graphsparse.nn.accelerate`, of the layers that it leaves as they are.

    Raises:
        TypeError: If ``model`` is no module.
        ValueError: If there is no such form, or a layer has not seen its first input.

    Example:
        >>> import torch
        >>> from torch_geometric.nn import GCN
        >>> from graphsparse.testing import random_graph
        >>> model, data = GCN(8, 16, 2, 3).eval(), random_graph()
        >>> with torch.no_grad():
        ...     _ = model.convs[1].lin.weight.mul_(torch.rand(3, 16) > 0.9)
        >>> sparse = inference_form(model, "csr")
        >>> sparse.convs[1].lin
        CSRLinear(in_features=16, out_features=3, bias=False, nonzero=...)
        >>> torch.allclose(sparse(data.x, data.edge_index), model(data.x, data.edge_index), atol=1e-5)
        True
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"'model' must be a torch module (got {type(model).__name__})")
    if form not in FORMS:
        raise ValueError(f"'form' must be one of {FORMS} (got {form!r})")
    if form == "dense":
        # Tensors that the copy is told to have copied already are shared.
        held: dict[int, Any] = {id(tensor): tensor for tensor in itertools.chain(model.parameters(), model.buffers())}
        new = copy.deepcopy(model, held)
    else:
        new = accelerate(model)
    # What is scripted or compiled is not copied, and stays the user's.
    theirs = {id(module) for module in model.modules()}
    if form == "compact":
        new = _replace_linear(new, theirs, _compact)
    elif form == "csr":
        new = _replace_linear(new, theirs, lambda weight, bias: CSRLinear(weight, bias))
    for module in new.modules():
        if id(module) not in theirs:
            module.training = False
    return new


def _compact(weight: nn.Parameter, bias: nn.Parameter | None) -> CompactLinear | None:
    nothing_dead = live_rows(weight) is None and live_rows(weight.t()) is None
    return None if nothing_dead else CompactLinear(weight, bias)


def _replace_linear(
    model: nn.Module,
    keep: set[int],
    make: Callable[[nn.Parameter, nn.Parameter | None], FrozenLinear | None],
) -> nn.Module:
    """Replace the linear layers of a model that may be changed; layers with the same tensors become the same layer."""
    made: dict[tuple[int, int], FrozenLinear | None] = {}

    def replacement(layer: nn.Module) -> nn.Module:
        if not is_plain(layer) or not _can_be_frozen(layer.weight):
            return layer
        key = (id(layer.weight), id(layer.bias))
        if key not in made:
            made[key] = make(layer.weight, layer.bias)  # type: ignore[arg-type]
        return made[key] or layer

    for module in list(model.modules()):
        if id(module) not in keep:
            for name, child in module._modules.items():
                module._modules[name] = None if child is None else replacement(child)
    return replacement(model)


def _can_be_frozen(weight: Any) -> bool:
    return isinstance(weight, nn.Parameter) and weight.dim() == 2 and weight.is_floating_point()
