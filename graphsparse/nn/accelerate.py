"""A user's model with its convolutions exchanged for ours."""

import copy
import types
import warnings
from typing import Any

import torch
from torch import nn
from torch_geometric.nn import MessagePassing
from torch_geometric.nn.models.basic_gnn import BasicGNN

from graphsparse.nn.fused import FUSED, FusedConv, has_own_method
from graphsparse.nn.linear import FASTER, FastDropout

#: Those that keep what is computed from constant features.
_KEEPING: tuple[Any, ...] = (FusedConv, *FASTER.values())
#: What PyG derives from the class of a layer, and puts into each object.
_OF_CLASS = ("inspector", "_user_args", "_fused_user_args", "_edge_user_args")


def accelerate(model: nn.Module, *, reuse_constant: bool = True, fast_dropout: bool = False) -> nn.Module:
    """Return a model that computes the same with our layers in place of PyG's GCN, GCNII, SAGE, GIN and GAT ones.

    Linear layers of torch and of PyG, wherever they are, become such as multiply by :func:`graphsparse.ops.linear`, and
    constant features that hold mostly zeros as sparse matrices, as the convolutions do.

    The model that comes in is left as it is. **Both share their weights and buffers**: training one trains the other,
    an optimiser of one serves the other, and the keys of the state dict are the same. Move a model to its device first:
    what moves later takes the weights along, but not the buffers of the other.

    A ``GraphSAGE``, ``GIN`` or ``GAT`` of ``torch_geometric.nn.models`` takes ``edge_weight`` in its forward pass
    afterwards.

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
            compiled or have a forward pass of their own, which stay as a whole.

    Raises:
        TypeError: If ``model`` is no module.
        ValueError: If a layer has not seen its first input, which tells it the width.

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
    left: list[str] = []
    fast = _exchange(model, "", {}, left, reuse_constant, fast_dropout)
    if left:
        warnings.warn(f"accelerate() left these layers as they are: {', '.join(left)}", UserWarning, stacklevel=2)
    return fast


def _exchange(
    module: nn.Module, name: str, done: dict[int, nn.Module], left: list[str], reuse: bool, fast_dropout: bool
) -> nn.Module:
    """Copy the tree of modules, but not what it holds; a module that occurs twice does so in the copy, too."""
    if id(module) in done:
        return done[id(module)]
    if isinstance(module, torch.jit.ScriptModule) or hasattr(module, "_orig_mod"):
        # What runs is not what the tree of modules shows.
        left.append(f"{name or 'model'} ({'scripted' if isinstance(module, torch.jit.ScriptModule) else 'compiled'})")
        return module
    ours = None if "forward" in vars(module) else FUSED.get(type(module))
    new: Any = _shallow_copy(module) if ours is None else _as_ours(module, ours)
    if "forward" not in vars(module):
        new.__class__ = FASTER.get(type(new), type(new))
        if fast_dropout and type(new) is nn.Dropout:
            new.__class__ = FastDropout
    done[id(module)] = new
    for key, child in module._modules.items():
        path = f"{name}.{key}" if name else key
        new._modules[key] = None if child is None else _exchange(child, path, done, left, reuse, fast_dropout)
    if isinstance(new, _KEEPING):
        new.reuse_constant = reuse
        if hasattr(new, "fast_dropout"):
            new.fast_dropout = fast_dropout
    elif isinstance(new, MessagePassing):
        left.append(f"{name or 'model'} ({type(new).__name__})")
    if isinstance(new, BasicGNN) and all(isinstance(conv, FusedConv) for conv in new.convs):
        new.supports_edge_weight = True
    result: nn.Module = new
    return result


def _shallow_copy(module: nn.Module) -> nn.Module:
    """Return a module with the same weights. `copy.copy` would ask its class, and not every class allows it."""
    new: nn.Module = object.__new__(type(module))
    vars(new).update(_state_for(module, new))
    return new


def _state_for(module: nn.Module, new: nn.Module) -> dict[str, Any]:
    """Return the attributes of a module for a copy of it."""
    state = dict(vars(module))
    for key, value in state.items():
        # Parameters, buffers and hooks are looked up in containers, which must not be those of the other model.
        if key.startswith("_") and isinstance(value, (dict, set)):
            state[key] = copy.copy(value)
        elif isinstance(value, types.MethodType) and value.__self__ is module:
            state[key] = types.MethodType(value.__func__, new)
    return state


def _as_ours(conv: Any, ours: type[MessagePassing]) -> MessagePassing:
    """Return a layer of ours with the attributes of one of PyG's."""
    new: Any = object.__new__(ours)  # its constructor would draw weights
    MessagePassing.__init__(new, None, flow=conv.flow, node_dim=conv.node_dim)
    state = _state_for(conv, new) | {key: vars(new)[key] for key in _OF_CLASS}
    for name in ("propagate", "edge_updater"):
        if not has_own_method(conv, name):
            state.pop(name, None)
    vars(new).clear()
    vars(new).update(state | {"_explain": None, "_decomposed_layers": 1})
    new.decomposed_layers = conv.decomposed_layers
    new.explain = conv.explain
    layer: MessagePassing = new
    return layer
