"""Cut the channels of a model that do nothing: a smaller plain model that computes the same."""

from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Data, HeteroData
from torch_geometric.nn import MLP

from graphsparse.nn.products import forget_graphs
from graphsparse.nn.units import ChannelUnits, _Probes, channel_units, tensors_in
from graphsparse.utils.call_model import Call, call_model, eval_mode
from graphsparse.utils.copy_model import copy_model

#: Attributes of layers that hold a width, by what their weights do with it: read channels, make them, or either.
_WIDTHS = {
    "in_channels": "read",
    "in_features": "read",
    "out_channels": "made",
    "out_features": "made",
    "num_features": "any",
    "hidden_channels": "any",
    "channels": "any",
}


def shrink(model: nn.Module, data: Data | HeteroData, call: Call | None = None) -> nn.Module:
    r"""Return a smaller model that computes the same: without the channels that nothing reads, or that are zero.

    A channel is removed with all that belongs to it (see :class:`ChannelUnits`) if all weights that read it are zero,
    or all that make it are, biases too, and it is zero then. Of every layer one channel stays at least. The result has
    the layers and the keys of the model and smaller tensors, and is trained, saved and accelerated as any other.

    Args:
        model: Any model of plain layers. It is not changed.
        data: A graph that the model takes. What channels there are is found on a few of its nodes, and the outputs of
            both models for all of it are compared.
        call: ``(model, data) -> output`` for a model with another signature than ``model(x, edge_index)``.

    Raises:
        TypeError: If ``data`` is no graph of PyG.
        ValueError: If no channel of the model can be removed at all, as where a ``LayerNorm`` follows each layer; the
            message names it. Or if the smaller model would compute something else.

    Example:
        >>> from torch_geometric.nn import GCN
        >>> from graphsparse.testing import random_graph
        >>> model, data = GCN(8, 16, 2, 3).eval(), random_graph()
        >>> with torch.no_grad():
        ...     _ = model.convs[1].lin.weight[:, 4:].zero_()
        >>> small = shrink(model, data)
        >>> small.convs
        ModuleList( (0): GCNConv(8, 4) (1): GCNConv(4, 3) )
        >>> torch.allclose(small(data.x, data.edge_index), model(data.x, data.edge_index), atol=1e-6)
        True
    """
    units = channel_units(model, data, call)
    small = _cut(model, units, _alive(model, units, data, call))
    with torch.no_grad(), eval_mode(small):
        try:
            whole = forget_graphs(copy_model(model)).eval()
            found, expected = (tensors_in(call_model(either, data, call)) for either in (small, whole))
        except (RuntimeError, IndexError, ValueError) as error:
            raise ValueError(f"'model' cannot be cut: the smaller one does not run ({error})") from error
    forget_graphs(small)
    for ours, theirs in zip(found, expected, strict=True):
        gap, scale = float((ours - theirs).abs().max()), float(theirs.abs().max())
        if not gap <= torch.finfo(theirs.dtype).eps ** 0.5 * scale:
            raise ValueError(f"'model' cannot be cut: the smaller one differs by {gap:.2g} at a scale of {scale:.2g}")
    return small


def _alive(model: nn.Module, units: ChannelUnits, data: Data | HeteroData, call: Call | None) -> Tensor:
    """Return which units do something, bool ``[U]``, and at least one of every axis."""
    nonzero = {name: (parameter != 0).double() for name, parameter in model.named_parameters()}
    alive = units.sums(nonzero, units.made) > 0
    # What makes nothing of zeros is seen where it is read: a sigmoid of 0 is 0.5.
    seen = _Probes(model, data, call).run(lambda x: x != 0)
    for axis in units.read & units.labels.keys():
        label = units.labels[axis]
        alive[label[(label >= 0) & seen[axis]]] = True
    alive &= units.sums(nonzero, units.read) > 0
    for label in units.labels.values():
        if bool((label >= 0).all()) and not alive[label].any():
            alive[label[0]] = True
    return alive


def _cut(model: nn.Module, units: ChannelUnits, kept: Tensor) -> nn.Module:
    """Return a copy of the model with the entries of the kept units only."""
    keep = {axis: (label < 0) | kept[label] for axis, label in units.labels.items()}
    smaller: dict[int, Tensor] = {}
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        mine = [(axis, mask) for (other, axis), mask in keep.items() if other == name]
        if mine:
            cut = tensor.detach()
            for axis, mask in mine:
                cut = cut.index_select(axis, mask.nonzero().squeeze(1).to(cut.device))
            parameter = isinstance(tensor, nn.Parameter)
            smaller[id(tensor)] = nn.Parameter(cut, tensor.requires_grad) if parameter else cut
    small = forget_graphs(copy_model(model, smaller))
    first = {id(parameter): name for name, parameter in small.named_parameters()}  # the others are names of tied ones
    for prefix, module in reversed(list(small.named_modules())):
        start = f"{prefix}." if prefix else ""
        tensors = [*module.named_parameters(), *module.named_buffers()]
        _resize(module, [(first.get(id(t), start + name), t) for name, t in tensors], units, keep)
    return small


def _resize(
    module: Any, tensors: list[tuple[str, Tensor]], units: ChannelUnits, keep: dict[tuple[str, int], Tensor]
) -> None:
    """Bring the widths up to date that a layer remembers, where its tensors leave no doubt about them."""
    widths: dict[str, dict[int, set[int]]] = {"read": {}, "made": {}, "any": {}}
    for name, tensor in tensors:
        for axis in range(tensor.dim() if tensor.dim() < 3 else 0):
            mask, now = keep.get((name, axis)), tensor.size(axis)
            kind = "read" if (name, axis) in units.read else "made" if (name, axis) in units.made else "any"
            for one in {kind, "any"}:
                widths[one].setdefault(now if mask is None else len(mask), set()).add(now)

    def width(before: int, kind: str) -> int:
        left = widths[kind].get(before) or widths["any"].get(before, set())
        return sum(left) if len(left) == 1 else before

    for name, kind in _WIDTHS.items():
        before = vars(module).get(name)
        if isinstance(before, int):
            setattr(module, name, width(before, kind))
        elif isinstance(before, tuple) and all(isinstance(entry, int) for entry in before):
            setattr(module, name, tuple(width(entry, kind) for entry in before))
    heads, channels = vars(module).get("heads"), vars(module).get("out_channels")
    if isinstance(heads, int) and isinstance(channels, int) and heads > 1:
        module.heads = width(heads * channels, "made") // channels
    if isinstance(module, MLP):
        module.channel_list = [module.lins[0].in_channels, *(lin.out_channels for lin in module.lins)]
