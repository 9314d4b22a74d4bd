"""Channels of a model that can be exchanged without changing what it computes, and state dicts in another order."""

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn
from torch_geometric.data import Data, HeteroData

from graphsparse.nn import ChannelUnits, channel_units
from graphsparse.nn.products import Axis, forget_graphs
from graphsparse.nn.units import few_nodes, tensors_in
from graphsparse.soups.states import State
from graphsparse.utils.call_model import Call, call_model, eval_mode
from graphsparse.utils.copy_model import copy_model


@dataclass(frozen=True, eq=False)
class Slot:
    """Where channels stand in a tensor.

    Args:
        name: Name of the tensor.
        axes: The first and the last of the axes that they stand on, taken together as one.
        index: The positions of each channel there, int64 ``[channels, positions]``.
    """

    name: str
    axes: tuple[int, int]
    index: Tensor

    @property
    def axis(self) -> Axis:
        """The tensor and the first axis."""
        return self.name, self.axes[0]

    def rows(self, value: Tensor) -> Tensor:
        """Return all that belongs to each channel, float64 ``[channels, entries]``."""
        found = value.flatten(*self.axes).movedim(self.axes[0], 0)[self.index.to(value.device)]
        return found.reshape(len(self.index), -1).double()

    def reordered(self, value: Tensor, order: Tensor) -> Tensor:
        """Return a tensor with channel ``order[i]`` in the place of channel ``i``."""
        flat, first = value.flatten(*self.axes), self.axes[0]
        to, of = (index.flatten().to(value.device) for index in (self.index, self.index[order]))
        return flat.index_copy(first, to, flat.index_select(first, of)).view_as(value)


@dataclass(frozen=True, eq=False)
class ChannelGroup:
    """Channels that can be exchanged with each other, such as those of a layer.

    Args:
        slots: Where they stand.
        blocks: How many blocks move as a whole, heads of attention for instance; else the number of channels.
        width: How many channels a block has, which change places inside of it.
        start: The number of the first channel among those of all groups.
    """

    slots: tuple[Slot, ...]
    blocks: int
    width: int
    start: int

    @cached_property
    def size(self) -> int:
        """Number of channels."""
        return self.blocks * self.width

    def own(self, order: Tensor) -> Tensor:
        """Return the part of an order of all channels that is this group's, counted from 0."""
        return order[self.start : self.start + self.size] - self.start

    def reordered(self, state: State, order: Tensor) -> dict[str, Tensor]:
        """Return a state dict with channel ``order[i]`` of the group in the place of its channel ``i``."""
        found = dict(state)
        if not torch.equal(order, torch.arange(self.size)):
            for slot in self.slots:
                if slot.name in found:
                    found[slot.name] = slot.reordered(found[slot.name], order)
        return found


def permute(state: State, groups: Sequence[ChannelGroup], order: Tensor) -> dict[str, Tensor]:
    """Return a state dict that computes the same with channels in another order.

    Args:
        state: The state dict; it stays as it is, and tensors without channels are shared with it.
        groups: Groups as :func:`channel_groups` finds them.
        order: The channel that comes to the place of each one, int64 ``[channels of all groups]``.

    Example:
        >>> from torch_geometric.nn import GCN
        >>> from graphsparse.testing import random_graph
        >>> model = GCN(8, 4, 2, 3)
        >>> groups = channel_groups(model, random_graph())
        >>> state = permute(model.state_dict(), groups, torch.tensor([3, 2, 1, 0]))
        >>> torch.equal(state["convs.0.lin.weight"], model.convs[0].lin.weight.flip(0))
        True
        >>> torch.equal(state["convs.1.lin.weight"], model.convs[1].lin.weight.flip(1))
        True
    """
    found = dict(state)
    for group in groups:
        found = group.reordered(found, group.own(order))
    return found


def channel_groups(model: nn.Module, data: Data | HeteroData, call: Call | None = None) -> list[ChannelGroup]:
    """Find the channels of a model that can be exchanged without changing what it computes.

    Channels are found as by :func:`~graphsparse.nn.channel_units`, and those that stand in the same tensors, on the
    same axes, are a group. Where channels only go together, as a head of attention, or all those before a
    ``LayerNorm``, they may still change places among themselves. On a few nodes it is tried whether every group may be
    reordered at random, and those that may not are left out.

    Args:
        model: Any model of plain layers. It is not changed.
        data: A graph that it takes.
        call: ``(model, data) -> output`` for a model with another signature than ``model(x, edge_index)``.

    Raises:
        ValueError: If no channels can be exchanged; the message names what they go through.

    Warns:
        UserWarning: If some channels go together and cannot be exchanged, by the names of their layers.

    Example:
        >>> from torch_geometric.nn import GAT
        >>> from graphsparse.testing import random_graph
        >>> [(group.blocks, group.width) for group in channel_groups(GAT(8, 8, 3, 3, heads=4), random_graph())]
        [(4, 2), (4, 2)]
    """
    units, few = channel_units(model, data, call, whole=True), few_nodes(data)
    trial = _Trial(model, few, call)
    groups: list[ChannelGroup] = []
    fixed: list[str] = []
    start = 0
    for entries in _alike(units, trial.state):
        group = next((group for group in _layouts(entries, units, start) if trial.passes(group)), None)
        if group is None:
            owners = dict.fromkeys(name.rpartition(".")[0] for name, axis in entries if (name, axis) in units.made)
            fixed += [f"{owner!r} ({type(model.get_submodule(owner)).__name__})" for owner in owners]
        elif group.size > 1:
            groups.append(group)
            start += group.size
    told = f"the channels of {', '.join(fixed)} cannot change places" if fixed else "there is but one in a layer"
    if not groups:
        raise ValueError(f"'model' has no channels that can be exchanged: {told}")
    if fixed:
        warnings.warn(f"{told}: they stay in their order", UserWarning, stacklevel=3)
    return groups


def _alike(units: ChannelUnits, state: State) -> Iterator[dict[Axis, Tensor]]:
    """Yield groups of units that stand on the same axes: their entries ``[units, entries of each]`` by axis."""
    labels = {axis: label for axis, label in units.labels.items() if axis[0] in state}
    counts = torch.stack([label[label >= 0].bincount(minlength=units.num_units) for label in labels.values()])
    patterns, pattern = torch.unique(counts, dim=1, return_inverse=True)
    for i in dict.fromkeys(pattern.tolist()):  # the first layer first
        mine = pattern == i
        found = {}
        for (axis, label), count in zip(labels.items(), patterns[:, i].tolist(), strict=True):
            if count:
                at = ((label >= 0) & mine[label]).nonzero().squeeze(1)
                found[axis] = at[label[at].argsort(stable=True)].view(-1, count)
        yield found


def _layouts(entries: dict[Axis, Tensor], units: ChannelUnits, start: int) -> Iterator[ChannelGroup]:
    """Yield what the entries of units may be: blocks of channels, copies of channels, or blocks that move as wholes."""
    counts = {axis: at.size(1) for axis, at in entries.items()}
    parts = min(counts.values())
    channels = min((count for (name, _), count in counts.items() if len(units.shapes[name]) < 3), default=parts)
    for split, width in dict.fromkeys([(parts, channels // parts), (1, channels), (parts, 1)]):
        if all(count % split == 0 for count in counts.values()):
            slots = [_slot(axis, at, split, width, units.shapes[axis[0]]) for axis, at in entries.items()]
            if all(slot is not None for slot in slots):
                blocks = len(next(iter(entries.values()))) * split
                yield ChannelGroup(tuple(slot for slot in slots if slot is not None), blocks, width, start)


def _slot(axis: Axis, at: Tensor, split: int, width: int, shape: torch.Size) -> Slot | None:
    """Return where channels stand if every unit is split into blocks of some width."""
    (name, first), at = axis, at.reshape(len(at) * split, -1)
    if at.size(1) % width == 0:
        return Slot(name, (first, first), at.view(len(at), -1, width).mT.reshape(len(at) * width, -1))
    # The entries are heads, and channels stand on another axis, as in the vectors of an attention.
    others = [other for other in range(len(shape)) if other != first and shape[other] == width]
    if not others:
        return None
    axes = min(first, others[-1]), max(first, others[-1])
    grid = torch.arange(math.prod(shape[axes[0] : axes[1] + 1])).view(shape[axes[0] : axes[1] + 1])
    found = grid.movedim((first - axes[0], others[-1] - axes[0]), (0, 1)).reshape(shape[first], width, -1)[at]
    return Slot(name, axes, found.transpose(1, 2).reshape(len(at) * width, -1))


class _Trial:
    """A model with weights that are not 0, on a few nodes."""

    def __init__(self, model: nn.Module, data: Data | HeteroData, call: Call | None) -> None:
        self.model, self.data, self.call = forget_graphs(copy_model(model)), data, call
        self.random = torch.Generator().manual_seed(0)
        self.state = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        for value in self.state.values():
            if value.is_floating_point():  # what is 0 at first, as biases are, would hide a wrong place
                value += 0.1 * torch.rand(value.shape, generator=self.random).to(value)
        self.before = outputs(self.model, self.state, self.data, self.call)

    def passes(self, group: ChannelGroup) -> bool:
        """Return whether the outputs stay when blocks and the channels in them are shuffled."""
        inner = torch.rand(group.blocks, group.width, generator=self.random).argsort(1)
        order = (inner + group.width * torch.randperm(group.blocks, generator=self.random).unsqueeze(1)).flatten()
        found = outputs(self.model, group.reordered(self.state, order), self.data, self.call)
        return same(found, self.before, 1e-4)


def outputs(model: nn.Module, state: State, data: Data | HeteroData, call: Call | None) -> list[Tensor]:
    """Return what a model gives with the weights of a state, which it then has."""
    load(model, state)
    with torch.no_grad(), eval_mode(model):
        return tensors_in(call_model(model, data, call))


def load(model: nn.Module, state: State) -> None:
    """Give a model the weights of a state; a head may have fewer outputs."""
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):  # of tied ones the first name
        if name in state:
            tensor.data = state[name].to(tensor.device)


def same(found: list[Tensor], expected: list[Tensor], tolerance: float) -> bool:
    """Return whether outputs are equal but for rounding."""
    pairs = zip(found, expected, strict=True)
    return all(float((one - other).abs().max()) <= tolerance * float(other.abs().max()) for one, other in pairs)
