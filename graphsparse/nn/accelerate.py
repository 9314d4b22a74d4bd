"""A user's model with its convolutions exchanged for ours."""

import warnings
from typing import Any

import torch
from torch import nn
from torch_geometric.nn import MessagePassing
from torch_geometric.nn.models.basic_gnn import BasicGNN

from graphsparse.nn.fused import FUSED, FusedConv, has_own_method
from graphsparse.nn.linear import FASTER, FastDropout
from graphsparse.utils.copy_model import copy_model

#: Those that keep what is computed from constant features.
_KEEPING: tuple[Any, ...] = (FusedConv, *FASTER.values())
#: What PyG derives from the class of a layer, and puts into each object.
_OF_CLASS = ("inspector", "_user_args", "_fused_user_args", "_edge_user_args")


def accelerate(model: nn.Module, *, reuse_constant: bool = True, fast_dropout: bool = False) -> nn.Module:
    """Return a model that computes the same with our layers in place of PyG's GCN, GCNII, SAGE, GIN and GAT ones.

    Linear layers of torch and of PyG, wherever they are, become such as multiply by :func:`graphsparse.ops.linear`, and
    constant features that hold mostly zeros as sparse matrices, as the convolutions do.

    The model that comes in is left as it is: lists, hooks and whatever else leads to its layers lead to the exchanged
    ones in the model that comes out. **Both share their weights and buffers**: training one trains the other,
    an optimiser of one serves the other, and the keys of the state dict are the same. Move a model to its device first:
    what moves later takes the weights along, but not the buffers of the other.

    A ``GraphSAGE``, ``GIN`` or ``GAT`` of ``torch_geometric.nn.models`` takes ``edge_weight`` in its forward pass
    afterwards; inside another model it ignores them as before.

    Args:
        model: Any module; layers are found at any depth. A subclass of a PyG layer is not exchanged, as it may compute
            something else.
        reuse_constant: As in our layers, the linear ones included: keep what is computed from features that are
            constant.
        fast_dropout: Exchange ``torch.nn.Dropout`` layers and the dropout of attention for
            :func:`graphsparse.ops.dropout`, which on some processors takes a fifth of the time. Under the same seed it
            drops other entries than torch does; calls of ``F.dropout`` inside of a model are not seen.

    Warns:
        UserWarning: Names the message passing layers that were left as they are, and the modules that are scripted,
            compiled or have a forward pass of their own, which stay as a whole. A scripted one is the model's own.

    Raises:
        TypeError: If ``model`` is no module.
        ValueError: If a layer has not seen its first input, which tells it the width; or if the model holds what cannot
            be copied, such as a function that leads to one of its layers.

    Example:
        >>> from torch_geometric.nn import GraphSAGE
        >>> from graphsparse.testing import random_graph
        >>> model, data = GraphSAGE(8, 16, 2, 3), random_graph()
        >>> fast = accelerate(model)
        >>> type(fast.convs[0]).__module__
        'graphsparse.nn.sage_conv'
        >>> torch.allclose(fast(data.x, data.edge_index), model(data.x, data.edge_index), atol=1e-5)
        True
        >>> fast.convs[0].lin_l.weight is model.convs[0].lin_l.weight
        True
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"'model' must be a torch module (got {type(model).__name__})")
    lazy = [name for name, weight in model.named_parameters() if nn.parameter.is_lazy(weight)]
    if lazy:
        raise ValueError(
            f"'model' needs one forward pass first, for the shape of its weights (got {lazy[0]!r} without)"
        )
    fast = copy_model(model, share=True)
    left = _exchange(fast, reuse_constant, fast_dropout)
    if left:
        warnings.warn(f"accelerate() left these layers as they are: {', '.join(left)}", UserWarning, stacklevel=2)
    return fast


def _exchange(model: nn.Module, reuse: bool, fast_dropout: bool) -> list[str]:
    """Make layers ours where they are, so that whatever leads to one sees it; name those that stay as they are."""
    left: list[str] = []
    whole = run_as_a_whole(model)
    module: Any
    for name, module in model.named_modules():
        if module in whole:
            if whole[module]:
                left.append(f"{name or 'model'} ({whole[module]})")
            continue
        if "forward" not in vars(module):
            if type(module) in FUSED:
                _make_ours(module, FUSED[type(module)])
            module.__class__ = FASTER.get(type(module), type(module))
            if fast_dropout and type(module) is nn.Dropout:
                module.__class__ = FastDropout
        if isinstance(module, _KEEPING):
            module.reuse_constant = reuse
            if hasattr(module, "fast_dropout"):
                module.fast_dropout = fast_dropout
        elif isinstance(module, MessagePassing):
            left.append(f"{name or 'model'} ({type(module).__name__})")
    # Inside another model it is given what PyG's would leave out, and has to leave it out, too.
    if isinstance(model, BasicGNN) and all(isinstance(conv, FusedConv) for conv in model.convs):
        model.supports_edge_weight = True
    return left


def run_as_a_whole(model: nn.Module) -> dict[nn.Module, str]:
    """Return the modules that are scripted or compiled, with how, and those inside, which are not what runs."""
    whole: dict[nn.Module, str] = {}
    for module in model.modules():
        how = "scripted" if isinstance(module, torch.jit.ScriptModule) else "compiled"
        if module not in whole and (how == "scripted" or hasattr(module, "_orig_mod")):
            whole |= dict.fromkeys(module.modules(), "") | {module: how}
    return whole


def _make_ours(conv: Any, ours: type[MessagePassing]) -> None:
    """Turn a layer of PyG into one of ours, in place."""
    new: Any = object.__new__(ours)  # its constructor would draw weights
    MessagePassing.__init__(new, None, flow=conv.flow, node_dim=conv.node_dim)
    decomposed_layers, explain = conv.decomposed_layers, conv.explain
    for name in ("propagate", "edge_updater"):
        if not has_own_method(conv, name):
            vars(conv).pop(name, None)
    conv.__class__ = ours
    vars(conv).update({key: vars(new)[key] for key in _OF_CLASS} | {"_explain": None, "_decomposed_layers": 1})
    conv.decomposed_layers, conv.explain = decomposed_layers, explain
