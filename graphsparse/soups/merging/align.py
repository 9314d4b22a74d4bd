"""Bring the hidden channels of networks that were trained apart into one order, in which a mean makes sense."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torch_geometric.data import Data, HeteroData
from torch_geometric.nn import MessagePassing

from graphsparse.nn.products import Axis, Products, forget_graphs
from graphsparse.nn.units import few_nodes, tensors_in
from graphsparse.soups.merging.channel_groups import ChannelGroup, Slot, channel_groups, load, outputs, permute, same
from graphsparse.soups.states import State, States, check_states, tie, tied_names
from graphsparse.training.check import check_model
from graphsparse.utils.call_model import Call, call_model, eval_mode
from graphsparse.utils.copy_model import copy_model

#: A similarity of channels of the reference, in rows, with those of another network.
_HOW = ("weights", "activations", "messages")
#: Share of the largest similarity that a channel must gain by going elsewhere; less is rounding.
_TIE = 1e-9
#: Share of the inner product of all weights that a step must gain.
_ROUNDING = 1e-12
#: Rows that are brought to double precision at a time.
_ROWS = 1 << 14


class AlignedStates:
    """State dicts whose channels are brought into another order when they are read; made by :func:`align`.

    Args:
        states: The state dicts as they were.
        groups: The channels that change places.
        orders: For each state the channel that comes to the place of each one, int64 ``[channels]``. Channels are
            numbered layer by layer.
        ties: The further names of tensors that have several.
    """

    def __init__(
        self, states: States, groups: Sequence[ChannelGroup], orders: Sequence[Tensor], ties: dict[str, str]
    ) -> None:
        self.orders = list(orders)
        self._states, self._groups, self._ties = states, groups, ties

    def __len__(self) -> int:
        """Return the number of states."""
        return len(self._states)

    def __getitem__(self, index: int, /) -> dict[str, Tensor]:
        """Return a state dict that computes what it did."""
        return tie(permute(self._states[index], self._groups, self.orders[index]), self._ties)

    def parts(self) -> Any:
        """Return the nodes that each network was trained on, if the states are of a store that knows them."""
        own = getattr(self._states, "parts", None)
        return own() if callable(own) else None

    def check_graph(self, data: Data) -> None:
        """Refuse another graph than that of the store, if the states are of one."""
        own = getattr(self._states, "check_graph", None)
        if callable(own):
            own(data)


def align(
    states: States,
    model: nn.Module,
    data: Data | HeteroData | None = None,
    *,
    how: str = "messages",
    reference: int = 0,
    call: Call | None = None,
) -> AlignedStates:
    r"""Bring the hidden channels of networks into the order of one of them. Each computes exactly what it did.

    Networks from different weights may compute the same with channels in any order, and a mean of them is worthless.
    For each group of channels that can be exchanged the order :math:`\pi` is found that makes

    .. math:: \sum_u s(u, \pi(u))

    largest, with one of three similarities :math:`s` of a channel of the reference and one of another network:

    * ``"weights"``: inner product of all weights that make and read a channel, other groups in their present order,
      group after group until none gains (Git Re-Basin). It starts from the order that is there and from one that is
      found layer by layer, and the better result counts. Of more than two networks each is then compared with the mean
      of all others, as long as they come closer to each other.
    * ``"activations"``: correlation, over nodes, of what the weights read. It is 0 for a channel that is constant.
    * ``"messages"``: inner product, over nodes, of what a layer aggregates, before the bias and what comes from the
      node itself: :math:`\hat A H W` of a GCN, :math:`\operatorname{mean}(H) W_l` of GraphSAGE. It minimises
      :math:`\sum_v \lVert m(v) - P m'(v) \rVert^2`. Channels that no layer aggregates in this form, such as those
      inside of a GIN's network, which are no messages, go by activations.

    Heads of attention change places as wholes, and the channels inside of each, too. Channels that are equally similar
    stay where they are. Networks are read one at a time; of the reference the values of all layers are held.

    Aligned networks are worth a mean where they know the same. Where they know different parts of a graph, or
    different classes, take a method of :func:`merge` that knows who answers for which node.

    Args:
        states: State dicts of the networks, a list or a store. The last layer may have fewer outputs than the model's.
        model: A model that they are weights of, of plain layers. It is not changed.
        data: The graph that they are compared on; labels and masks are left out. ``"weights"`` needs none.
        how: The similarity.
        reference: The network that keeps its order.
        call: ``(model, data) -> output`` for a model with another signature than ``model(x, edge_index)``.

    Returns:
        The networks, reordered when they are read; ``orders`` has the order of each.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range, states do not fit the model, no channels can be exchanged, or an
            aligned network computes something else on a few nodes.

    Warns:
        UserWarning: If some layers have channels that cannot be exchanged, by their names.

    Example:
        >>> from torch_geometric.nn import GCN
        >>> from graphsparse.testing import random_graph
        >>> model, data = GCN(8, 4, 2, 3), random_graph()
        >>> state = model.state_dict()
        >>> other = {"convs.0.bias": state["convs.0.bias"], "convs.1.bias": state["convs.1.bias"]}
        >>> other["convs.0.lin.weight"] = state["convs.0.lin.weight"].flip(0)
        >>> other["convs.1.lin.weight"] = state["convs.1.lin.weight"].flip(1)
        >>> align([state, other], model, data).orders
        [tensor([0, 1, 2, 3]), tensor([3, 2, 1, 0])]

    Source: Ainsworth et al., *Git Re-Basin*, arXiv 2209.04836; messages as in Jing et al., *Deep Graph Mating*,
    NeurIPS 2024.
    """
    check_model(model)
    if how not in _HOW:
        raise ValueError(f"'how' must be one of {list(_HOW)} (got {how!r})")
    graph = _graph(model, data, how)
    groups, ties = channel_groups(model, graph, call), tied_names(model)
    hidden = {slot.name for group in groups for slot in group.slots if slot.axes[0] == 0}
    like = model.state_dict()
    check_states(states, like, "states", shorter=like.keys() - hidden)
    if not isinstance(reference, int) or not 0 <= reference < len(states):
        raise ValueError(f"'reference' must be the index of one of {len(states)} states (got {reference!r})")
    if how == "weights":
        orders = _by_weights(states, groups, reference)
    else:
        orders = _by_values(states, groups, _Values(model, graph, call, groups, how == "messages"), reference)
    aligned = AlignedStates(states, groups, orders, ties)
    moved = [i for i, order in enumerate(orders) if not torch.equal(order, torch.arange(len(order)))]
    if moved:
        copied, few = forget_graphs(copy_model(model)), few_nodes(graph)
        before, after = (outputs(copied, own[moved[0]], few, call) for own in (states, aligned))
        if not same(after, before, 1e-5):
            raise ValueError(f"state {moved[0]} computes something else when it is aligned, on a few nodes of 'data'")
    return aligned


def _graph(model: nn.Module, data: Any, how: str) -> Data | HeteroData:
    """Return the graph without labels, or a small one where none is needed."""
    if data is None:
        if how != "weights":
            raise ValueError(f"'data' must be a graph for how={how!r}: it looks at what networks compute")
        width = getattr(model, "in_channels", next(p for p in model.parameters() if p.dim() == 2).size(-1))
        nodes = torch.arange(8, device=next(model.parameters()).device)
        edges = torch.stack([nodes, nodes.roll(1)])
        x = torch.rand(8, width, generator=torch.Generator().manual_seed(0)).to(edges.device)
        return Data(x=x, edge_index=torch.cat([edges, edges.flip(0)], 1))
    if not isinstance(data, Data | HeteroData):
        raise TypeError(f"'data' must be a graph of PyG, Data or HeteroData (got {type(data).__name__})")
    plain = data.__copy__()
    for store in plain.node_stores:
        for key in [key for key in store if key == "y" or key.endswith("_mask")]:
            del store[key]
    return plain


def _assignment(similarity: Tensor) -> Tensor:
    """Return the column of each row, all different, of the largest sum; among equals each stays in its place."""
    stay = torch.eye(len(similarity), dtype=torch.float64) * (_TIE * float(similarity.abs().max()))
    return torch.from_numpy(linear_sum_assignment((similarity.cpu() + stay).numpy(), maximize=True)[1]).long()


def _best(similarity: Tensor, group: ChannelGroup) -> Tensor:
    """Return the best order of the channels of a group: of its blocks, and inside of each."""
    if group.width == 1:
        return _assignment(similarity)
    pairs = similarity.view(group.blocks, group.width, group.blocks, group.width).transpose(1, 2)
    inner = torch.stack([torch.stack([_assignment(pair) for pair in row]) for row in pairs])
    block = _assignment(pairs.gather(3, inner.unsqueeze(3)).sum((2, 3)))
    return (block.unsqueeze(1) * group.width + inner[torch.arange(group.blocks), block]).flatten()


def _by_weights(states: States, groups: Sequence[ChannelGroup], reference: int) -> list[Tensor]:
    """Return the orders in which weights are most similar."""
    names = list(dict.fromkeys(slot.name for group in groups for slot in group.slots))
    orders = [torch.arange(sum(group.size for group in groups)) for _ in range(len(states))]
    others = [i for i in range(len(states)) if i != reference]
    shapes = {name: states[reference][name].shape for name in names}
    for i in others:  # heads may differ
        names = [name for name in names if states[i][name].shape == shapes[name]]

    def read(i: int) -> dict[str, Tensor]:
        state = states[i]
        return {name: state[name].double() for name in names}

    first = read(reference)
    total = {name: value.clone() for name, value in first.items()}
    for i in others:
        state = read(i)
        starts = (orders[i], _layer_by_layer(first, state, groups))
        orders[i] = max((_descend(first, state, groups, order) for order in starts), key=lambda found: found[1])[0]
        for name, value in permute(state, groups, orders[i]).items():
            total[name] += value
    gained = len(others) > 1
    while gained:
        gained = False
        for i in others:
            state = read(i)
            before = permute(state, groups, orders[i])
            rest = {name: value - before[name] for name, value in total.items()}
            order, found = _descend(rest, state, groups, orders[i])
            if found > _gain(rest, before):
                orders[i], gained = order, True
                total = {name: rest[name] + value for name, value in permute(state, groups, order).items()}
    return orders


def _descend(first: State, state: State, groups: Sequence[ChannelGroup], order: Tensor) -> tuple[Tensor, float]:
    """Return an order that no group alone can improve, and the inner product of the weights in it."""
    order, now = order.clone(), permute(state, groups, order)
    value = _gain(first, now)
    while True:
        before = value
        for group in groups:
            own = _best(_of_weights(first, now, group, group.slots), group)
            new = group.reordered(now, own)
            if (found := _gain(first, new)) > value + _ROUNDING * abs(value):
                now, value = new, found
                order[group.start : group.start + group.size] = group.own(order)[own] + group.start
        if value == before:
            return order, value


def _layer_by_layer(first: State, state: State, groups: Sequence[ChannelGroup]) -> Tensor:
    """Return the order of each group by those weights alone whose other channels are in order already."""
    found = []
    for i, group in enumerate(groups):
        names = [slot.name for later in groups[i:] for slot in later.slots]
        slots = [slot for slot in group.slots if names.count(slot.name) == 1]
        own = _best(_of_weights(first, state, group, slots), group)
        state = group.reordered(state, own)
        found.append(own + group.start)
    return torch.cat(found)


def _gain(first: State, state: State) -> float:
    return sum(float((value * state[name]).sum()) for name, value in first.items())


def _of_weights(first: State, state: State, group: ChannelGroup, slots: Iterable[Slot]) -> Tensor:
    """Return the inner products of what belongs to each channel ``[channels, channels]``."""
    found = torch.zeros(group.size, group.size, dtype=torch.float64)
    for slot in slots:
        if slot.name in first:
            found += (slot.rows(first[slot.name]) @ slot.rows(state[slot.name]).t()).cpu()
    return found


def _by_values(states: States, groups: Sequence[ChannelGroup], values: "_Values", reference: int) -> list[Tensor]:
    """Return the orders in which what networks compute is most similar."""
    values.hold(states[reference])
    orders = []
    for i in range(len(states)):
        if i == reference:
            orders.append(torch.arange(sum(group.size for group in groups)))
        else:
            similar = values.similarities(states[i])
            orders.append(torch.cat([_best(s, g) + g.start for s, g in zip(similar, groups, strict=True)]))
    return orders


class _Values:
    """What a model computes on a graph that its channels can be told by: messages, or what weights read."""

    def __init__(
        self,
        model: nn.Module,
        data: Data | HeteroData,
        call: Call | None,
        groups: Sequence[ChannelGroup],
        messages: bool,
    ) -> None:
        self.model, self.data, self.call, self.groups = copy_model(model), data, call, groups
        seen: dict[Axis, bool] = {}
        self._run(few_nodes(data), lambda axis, _, is_message: seen.update({axis: is_message}))
        #: For each group where its channels are seen.
        self.slots: list[list[Slot]] = []
        for group in groups:
            sent = [slot for slot in group.slots if messages and seen.get(slot.axis) is True]
            self.slots.append(sent or [slot for slot in group.slots if seen.get(slot.axis) is False])
        #: Whether messages are looked at, by the axis that they belong to.
        self.kinds = {slot.axis: seen[slot.axis] for slots in self.slots for slot in slots}
        self.held: dict[Axis, list[Tensor]] = {}

    def hold(self, state: State) -> None:
        """Keep what a state computes."""

        def see(axis: Axis, x: Tensor, is_message: bool) -> None:
            if self.kinds.get(axis) is is_message:
                self.held.setdefault(axis, []).append(x.clone())

        load(self.model, state)
        self._run(self.data, see)

    def similarities(self, state: State) -> list[Tensor]:
        """Return for each group how similar what is held is to what a state computes ``[channels, channels]``."""
        products: dict[Axis, list[Tensor]] = {}

        def see(axis: Axis, x: Tensor, is_message: bool) -> None:
            if self.kinds.get(axis) is is_message:
                done = products.setdefault(axis, [])
                held = self.held[axis][len(done)]  # a layer may be called several times
                done.append(_products(held, x) if is_message else _correlations(held, x))

        load(self.model, state)
        self._run(self.data, see)
        found = []
        for group, slots in zip(self.groups, self.slots, strict=True):
            parts = [p[i][:, i] for slot in slots for p in products[slot.axis] for i in slot.index.t()]
            found.append(torch.stack(parts).sum(0) if parts else torch.zeros(group.size, group.size))
        return found

    def _run(self, data: Data | HeteroData, see: Callable[[Axis, Tensor, bool], None]) -> None:
        """Show what every matrix reads, and what every layer aggregates, by the axis that its columns are made by."""
        forget_graphs(self.model)
        sent: list[tuple[Axis, Tensor]] = []  # held, so that no other tensor takes their place in memory
        near: list[Tensor] = []

        def read(axis: Axis, x: Tensor) -> Tensor:
            see(axis, x.reshape(-1, x.size(-1)), False)
            if any(x.data_ptr() == other.data_ptr() and x.shape == other.shape for other in near):
                weight = self.model.get_parameter(axis[0])
                see((axis[0], 1 - axis[1]), x @ (weight.t() if axis[1] else weight), True)
            return x

        def aggregated(layer: Any, given: Any, out: Tensor) -> None:
            flat = out.flatten(1) if layer.node_dim == 0 else out.reshape(-1, out.size(-1))
            inputs = {tensor.data_ptr() for tensor in tensors_in(given[2])}
            for axis, product in sent:
                if product.data_ptr() in inputs and product.size(-1) == flat.size(1):
                    see(axis, flat, True)
            sent.clear()
            near[:] = [out]

        layers = [layer for layer in self.model.modules() if isinstance(layer, MessagePassing)]
        hooks = [layer.register_propagate_forward_hook(aggregated) for layer in layers]
        made = lambda axis, out: sent.append((axis, out))  # noqa: E731
        try:
            with torch.no_grad(), eval_mode(self.model), Products(self.model, read, made):
                call_model(self.model, data, self.call)
        finally:
            for hook in hooks:
                hook.remove()


def _products(first: Tensor, second: Tensor) -> Tensor:
    """Return the inner products of columns, float64, on CPU."""
    found = torch.zeros(first.size(1), second.size(1), dtype=torch.float64)
    for start in range(0, len(first), _ROWS):
        rows = slice(start, start + _ROWS)
        found += (first[rows].double().t() @ second[rows].double()).cpu()
    return found


def _correlations(first: Tensor, second: Tensor) -> Tensor:
    """Return the correlations of columns, 0 for a constant one."""
    products, size = _products(first, second), len(first)
    means, scales = [], []
    for x in (first, second):
        var, mean = torch.var_mean(x.double(), 0, correction=0)
        constant = x.amax(0) == x.amin(0)
        means.append(mean.cpu())
        scales.append(torch.where(constant, 0, var.rsqrt()).cpu())
    return (products / size - torch.outer(*means)) * torch.outer(*scales)
