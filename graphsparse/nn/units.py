"""Which channels of a model belong together, for any model: found by probes, without a table of layers."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor, nn
from torch_geometric.data import Batch, Data, HeteroData

from graphsparse.nn.products import Axis, Products, check_plain, forget_graphs, input_grams
from graphsparse.utils.call_model import Call, call_model, eval_mode
from graphsparse.utils.copy_model import copy_model

#: Of every column that something reaches: which entry of an axis reached it, -1 for none.
_Reached: TypeAlias = dict[Axis, Tensor]
#: What the columns of the output go by, in the place of the name of a weight.
_OUTPUT = ""
#: Edges of which the nodes are taken that a model is probed on.
_FEW = 12


@dataclass(frozen=True, eq=False)
class ChannelUnits:
    r"""The channels of a model that may be removed, each with all entries of tensors that must go with it.

    A unit is the smallest set of entries that can only go together: a row of the weight that makes a channel, its bias,
    its scale, shift and statistics in a batch normalisation, and the columns of all weights that read it. Residual
    connections and the maximum over layers join the channels of several layers; a head of attention is one unit.

    Made by :func:`channel_units`.

    Args:
        labels: For every axis ``(name, axis)`` of a tensor that units have a part in, the unit of each of its entries,
            int64, -1 for an entry that stays in any case.
        made: The axes whose entries make a channel.
        read: The axes whose entries read one.
        shapes: The shapes of the tensors.
        fixed: Why other channels stay, a clause for each module or weight.
        num_units: Number of units ``U``.
    """

    labels: Mapping[Axis, Tensor]
    made: frozenset[Axis]
    read: frozenset[Axis]
    shapes: Mapping[str, torch.Size]
    fixed: tuple[str, ...]
    num_units: int

    def sums(self, values: Mapping[str, Tensor], axes: frozenset[Axis]) -> Tensor:
        """Return for each unit the sum of the values of its entries.

        Args:
            values: A number for each entry, by name of the tensor; tensors that are missing count nothing.
            axes: The axes that count, ``made``, ``read`` or a part of them.

        Returns:
            Float64 ``[U]``.
        """
        total = torch.zeros(self.num_units, dtype=torch.float64)
        for (name, axis), label in self.labels.items():
            if (name, axis) in axes and name in values:
                value = values[name].detach().double().cpu().movedim(axis, 0).reshape(len(label), -1).sum(1)
                total.index_add_(0, label[label >= 0], value[label >= 0])
        return total

    def norms(self, model: nn.Module) -> Tensor:
        """Return for each unit the sum of the squares of all parameters that make it, float64 ``[U]``."""
        return self.sums({name: parameter.detach() ** 2 for name, parameter in model.named_parameters()}, self.made)

    def spread(self, value: Tensor) -> dict[str, Tensor]:
        """Return for each entry the smallest of the values of the units that it belongs to, by name of the tensor.

        Args:
            value: A number of at most ``U`` for each unit ``[U]``; an entry of no unit gets ``U``.
        """
        found: dict[str, Tensor] = {}
        for (name, axis), label in self.labels.items():
            entry = torch.where(label >= 0, value[label.clamp(min=0)], torch.full_like(value[:1], self.num_units))
            shape = [-1 if i == axis else 1 for i in range(len(self.shapes[name]))]
            spread = entry.view(shape).expand(self.shapes[name])
            found[name] = torch.minimum(found[name], spread) if name in found else spread
        return found

    def grams(self, model: nn.Module, data: Data | HeteroData, call: Call | None = None) -> dict[Axis, Tensor]:
        r"""Return :math:`X^\top X` of the inputs of every weight that reads channels, over all nodes.

        Args:
            model: The model, which is not changed.
            data: The graph, of which all nodes are used.
            call: As for :func:`channel_units`.

        Returns:
            Float64 ``[C, C]`` by axis.
        """
        return input_grams(model, data, call=call, axes=self.labels.keys())

    def layers(self) -> Tensor:
        """Return for each unit the number of its layer, int64 ``[U]``: that of the first weight that makes it."""
        found, num = torch.full((self.num_units,), -1), 0
        made = [axis for axis in self.labels if axis in self.made]
        for axis in sorted(made, key=lambda axis: len(self.shapes[axis[0]]) == 1):  # biases know no layer
            label = self.labels[axis]
            new = label[(label >= 0) & (found[label] < 0)]
            found[new] = num
            num += bool(len(new))
        return found


def channel_units(
    model: nn.Module, data: Data | HeteroData, call: Call | None = None, *, whole: bool = False
) -> ChannelUnits:
    r"""Find the channels of a model that may be removed, and what must go with each.

    Entries of a tensor are set to NaN and the model is run on a few nodes. At every product with a matrix of the model
    the columns that are NaN are noted, and replaced by 0. Entries that reach the same column belong to one unit. An
    axis of C entries takes :math:`2 \lceil \log_2 C \rceil` runs, bit by bit of the index; where channels are mixed, as
    by attention, its entries are probed one by one. What reaches the output, comes from the features, or would take a
    whole axis with it, such as everything before a ``LayerNorm``, is no unit.

    Args:
        model: Any model of plain layers. It is not changed.
        data: The graph; of a ``Data`` the nodes of a few edges are used, a ``Batch`` or ``HeteroData`` as it is.
        call: ``(model, data) -> output`` for a model with another signature than ``model(x, edge_index)``.
        whole: Whether what would take a whole axis with it is one unit, for those who want to exchange channels inside
            of a unit and not to remove it.

    Raises:
        TypeError: If ``data`` is no graph of PyG.
        ValueError: If the model holds layers of :func:`~graphsparse.nn.accelerate`, or scripted or compiled ones, or no
            channel can be removed; the message says why.

    Example:
        >>> from torch_geometric.nn import GCN
        >>> from graphsparse.testing import random_graph
        >>> units = channel_units(GCN(8, 16, 3, 3, norm="batch_norm"), random_graph())
        >>> units.num_units, units.layers().bincount()
        (32, tensor([16, 16]))
        >>> units.labels["convs.0.lin.weight", 0]
        tensor([ 0,  1,  2,  3,  4,  5,  6,  7,  8,  9, 10, 11, 12, 13, 14, 15])
    """
    if not isinstance(data, Data | HeteroData):
        raise TypeError(f"'data' must be a graph of PyG, Data or HeteroData (got {type(data).__name__})")
    check_plain(model)
    probes = _Probes(model, data, call)
    links = list(probes.links(whole))
    # Every entry of every axis is a node of a graph, and 0 is what stays: the features and the output.
    start, size, shapes = {}, 1, probes.shapes()
    for axis in dict.fromkeys([*probes.read, *(axis for axis, _, _, _ in links)]):
        start[axis], size = size, size + shapes[axis[0]][axis[1]]
    rows, cols = [torch.zeros(0, dtype=torch.long)], [torch.zeros(0, dtype=torch.long)]
    for made, entry, read, column in links:
        rows.append(start[made] + entry)
        cols.append(torch.zeros_like(column) if read[0] == _OUTPUT else start[read] + column)
    for read, column in probes.from_features():
        rows.append(start[read] + column)
        cols.append(torch.zeros_like(column))
    found = _components(torch.cat(rows), torch.cat(cols), size)
    stays, fixed = torch.zeros(size, dtype=torch.bool), list(dict.fromkeys(probes.opaque))
    stays[found[0]] = True
    axes = {axis: found[at : at + shapes[axis[0]][axis[1]]] for axis, at in start.items()}
    made_by, read_by = torch.zeros(size, dtype=torch.bool), torch.zeros(size, dtype=torch.bool)
    for axis, label in axes.items():
        (read_by if axis in probes.read else made_by)[label] = True
        if axis in probes.both:
            made_by[label] = True
    for axis, label in sorted(axes.items(), key=lambda entry: (entry[0] in probes.read, -len(shapes[entry[0][0]]))):
        if not whole and len(label) > 1 and bool((label == label[0]).all()) and not stays[label[0]]:
            stays[label[0]] = True
            if made_by[label[0]] and read_by[label[0]]:
                fixed.append(probes.why(axis))
    cut = made_by & read_by & ~stays
    if not cut.any():
        why = "; ".join(fixed) or "all of them reach the output or come from the features"
        raise ValueError(f"'model' has no channels that can be removed: {why}")
    # Units are numbered in the order of the axes, those of the first layer first.
    order = torch.cat(list(axes.values()))
    order = order[cut[order]]
    known, first = np.unique(order.numpy(), return_index=True)
    number = torch.full((size,), -1)
    number[torch.from_numpy(known[np.argsort(first)])] = torch.arange(len(known))
    labels = {axis: number[label] for axis, label in axes.items() if bool(cut[label].any())}
    names = {name for name, _ in labels}
    return ChannelUnits(
        labels,
        frozenset(axis for axis in axes if axis not in probes.read or axis in probes.both),
        frozenset(probes.read),
        {name: shape for name, shape in shapes.items() if name in names},
        tuple(fixed),
        len(known),
    )


class _Probes:
    """A copy of a model with NaN in some of its entries, on a few nodes."""

    def __init__(self, model: nn.Module, data: Data | HeteroData, call: Call | None) -> None:
        self.model, self.data, self.call = forget_graphs(copy_model(model)), few_nodes(data), call
        module: Any
        for module in self.model.modules():
            if "cached" in vars(module):
                module.cached = False  # what it keeps of a run with NaN is not what it computes in the next one
        tensors = [*self.model.named_parameters(), *self.model.named_buffers()]
        self.tensors: dict[str, Tensor] = {n: t for n, t in tensors if t.is_floating_point() and t.dim() > 0}
        #: The axes of matrices that are summed over in a product.
        self.read = [axis for axis in self.run(torch.isnan) if axis[0] != _OUTPUT]
        #: Those that make a channel in another product.
        self.both = {axis for axis in self.read if (axis[0], 1 - axis[1]) in self.read}
        #: What channels are lost in.
        self.opaque: list[str] = []

    def shapes(self) -> dict[str, torch.Size]:
        """Return the shape of every tensor."""
        return {name: tensor.shape for name, tensor in self.tensors.items()}

    def run(self, test: Callable[[Tensor], Tensor], data: Data | HeteroData | None = None) -> dict[Axis, Tensor]:
        """Return which columns pass a test at some node, at each product with a matrix and in the output."""
        found: dict[Axis, Tensor] = {}

        def note(axis: Axis, x: Tensor) -> None:
            hit = test(x).reshape(-1, x.size(-1) if x.dim() > 1 else 1).any(0).cpu()
            found[axis] = found[axis] | hit if axis in found else hit

        def see(axis: Axis, x: Tensor) -> Tensor:
            note(axis, x)
            return x.masked_fill(x.isnan(), 0)

        with torch.no_grad(), eval_mode(self.model), Products(self.model, see):
            output = call_model(self.model, self.data if data is None else data, self.call)
        for i, leaf in enumerate(tensors_in(output)):
            note((_OUTPUT, i), leaf)
        return found

    def probe(self, name: str, axis: int, index: Tensor) -> dict[Axis, Tensor]:
        """Return which columns are NaN if some entries of a tensor are."""
        tensor = self.tensors[name].data
        before = tensor.clone()
        tensor.index_fill_(axis, index.to(tensor.device), float("nan"))
        try:
            return self.run(torch.isnan)
        finally:
            tensor.copy_(before)

    def links(self, whole: bool) -> Iterator[tuple[Axis, Tensor, Axis, Tensor]]:
        """Yield what every tensor reaches: entries of an axis, and the columns of another that these reach."""
        for name, tensor in self.tensors.items():
            summed = [axis for axis in range(tensor.dim()) if (name, axis) in self.read]
            matrix, clean = bool(summed), []
            # Of a matrix the axis that makes channels. Of others, such as attention vectors, every axis whose entries
            # reach columns of their own; the last ones are the likely ones.
            axes = [axis for axis in range(tensor.dim()) if summed != [axis] and tensor.size(axis) > 1]
            for axis in reversed(axes):
                reached = self.by_bits(name, axis)
                if reached is not None:
                    clean.append(axis)
                    for read, entry in reached.items():
                        hit = entry >= 0
                        yield (name, axis), entry[hit], read, hit.nonzero().squeeze(1)
                elif matrix or tensor.dim() == 1:
                    clean.append(axis)
                    yield from self.one_by_one(name, axis)
            if axes and not clean:  # all that it reaches stays
                if whole:
                    yield from self.as_one(name, axes[0])
                    continue
                everything = self.probe(name, axes[0], torch.arange(tensor.size(axes[0])))
                for read, hit in everything.items():
                    column = hit.nonzero().squeeze(1)
                    if read[0] != _OUTPUT and len(column):
                        yield (name, axes[0]), torch.zeros_like(column), read, column
                        owner = name.rpartition(".")[0]
                        kind = type(self.model.get_submodule(owner)).__name__
                        self.opaque.append(f"{owner or 'model'!r} ({kind}) mixes all channels")
                yield (name, axes[0]), torch.zeros(1, dtype=torch.long), (_OUTPUT, 0), torch.zeros(1, dtype=torch.long)

    def by_bits(self, name: str, axis: int) -> _Reached | None:
        """Return which entry reaches each column; ``None`` if one is reached by several."""
        index = torch.arange(self.tensors[name].size(axis))
        found: _Reached = {}
        for bit in range((len(index) - 1).bit_length()):
            on = (index >> bit) & 1 == 1
            ones, zeros = self.probe(name, axis, index[on]), self.probe(name, axis, index[~on])
            for read, one in ones.items():
                if bool((one & zeros[read]).any()):
                    return None
                entry = found.setdefault(read, torch.where(one | zeros[read], 0, -1))
                entry += one.long() << bit
        return found

    def one_by_one(self, name: str, axis: int) -> Iterator[tuple[Axis, Tensor, Axis, Tensor]]:
        """Yield what each entry of an axis reaches."""
        size = self.tensors[name].size(axis)
        everything = self.probe(name, axis, torch.arange(size))
        for i in range(size):
            reached = self.probe(name, axis, torch.tensor([i]))
            if i == 0 and all(bool(torch.equal(reached[read], hit)) for read, hit in everything.items()):
                yield from self.as_one(name, axis)  # the first reaches all of it: then all are one
                return
            for read, hit in reached.items():
                column = hit.nonzero().squeeze(1)
                yield (name, axis), torch.full_like(column, i), read, column

    def as_one(self, name: str, axis: int) -> Iterator[tuple[Axis, Tensor, Axis, Tensor]]:
        """Yield what all entries of an axis reach, as if each reached all of it."""
        size = self.tensors[name].size(axis)
        for read, hit in self.probe(name, axis, torch.arange(size)).items():
            column = hit.nonzero().squeeze(1)
            if len(column):
                yield (name, axis), torch.zeros_like(column), read, column
                yield (name, axis), torch.arange(size), read, column[:1].expand(size)

    def from_features(self) -> Iterator[tuple[Axis, Tensor]]:
        """Yield the columns that features of nodes reach without a product with a matrix before."""
        data = self.data.clone()
        for store in data.node_stores:
            for key, value in list(store.items()):
                if isinstance(value, Tensor) and value.is_floating_point() and value.layout == torch.strided:
                    store[key] = torch.full_like(value, float("nan")) if key != "y" else value
        reached = self.run(torch.isnan, data)
        for read in self.read:
            yield read, reached[read].nonzero().squeeze(1)

    def why(self, axis: Axis) -> str:
        """Say why an axis stays as a whole, by the name of the module that mixes its channels, if there is one."""
        mixing: list[str] = []

        def look(name: str) -> Callable[[nn.Module, Any, Any], None]:
            def hook(module: nn.Module, args: Any, output: Any) -> None:
                if args and isinstance(args[0], Tensor) and isinstance(output, Tensor) and args[0].dim() > 1:
                    before = args[0].isnan().flatten(0, -2).any(0)
                    after = output.isnan().reshape(-1, output.size(-1)).any(0)
                    if bool(before.any()) and not bool(before.all()) and bool(after.all()):
                        mixing.append(f"{name!r} ({type(module).__name__})")

            return hook

        leaves = [(name, module) for name, module in self.model.named_modules() if not list(module.children())]
        hooks = [module.register_forward_hook(look(name)) for name, module in leaves]
        try:
            if axis not in self.read:
                self.probe(*axis, torch.tensor([0]))
        finally:
            for hook in hooks:
                hook.remove()
        by = f"{mixing[0]} mixes" if mixing else "what follows mixes"
        return f"{by} all channels of {axis[0]!r}"


def tensors_in(output: Any) -> list[Tensor]:
    """Return the tensors of what a model returned: one, or several in tuples, lists and dictionaries."""
    if isinstance(output, Mapping):
        output = list(output.values())
    if isinstance(output, Sequence) and not isinstance(output, str):
        return [tensor for part in output for tensor in tensors_in(part)]
    return [output] if isinstance(output, Tensor) and output.layout == torch.strided else []


def few_nodes(data: Data | HeteroData) -> Data | HeteroData:
    """Return the graph of the nodes of a few edges; a batch of graphs and one of several types as they are."""
    edges = None if isinstance(data, Batch | HeteroData) else data.get("edge_index")
    return data if edges is None or edges.size(1) == 0 else data.subgraph(edges[:, :_FEW].unique())


def _components(rows: Tensor, cols: Tensor, size: int) -> Tensor:
    graph = coo_array((np.ones(len(rows)), (rows.numpy(), cols.numpy())), shape=(size, size))
    return torch.from_numpy(connected_components(graph, directed=False)[1]).long()
