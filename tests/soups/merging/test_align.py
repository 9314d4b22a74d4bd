"""Channels in another order: networks compute what they did, and one that was shuffled is brought back."""

import copy
import itertools
import warnings

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import nn
from torch_geometric.nn import GAT, GCN, GIN, GATConv, GCNConv, GraphSAGE, Sequential
from torch_geometric.utils import to_dense_adj

from graphsparse.soups import align, combine
from graphsparse.testing import random_graph

HOW = ("weights", "activations", "messages")


class Residual(nn.Module):
    """Two layers, each added to what came before."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(8, 6), nn.Linear(6, 3)
        self.convs = nn.ModuleList(GCNConv(6, 6) for _ in range(2))
        self.norms = nn.ModuleList(nn.BatchNorm1d(6) for _ in range(2))

    def forward(self, x, edge_index):
        x = self.first(x)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = x + norm(conv(x, edge_index)).relu()
        return self.last(x)


class Repeated(nn.Module):
    """One layer, under two names, that is called twice."""

    def __init__(self):
        super().__init__()
        self.first, self.conv, self.last = nn.Linear(8, 6), GCNConv(6, 6), nn.Linear(6, 3)
        self.again = self.conv

    def forward(self, x, edge_index):
        x = self.first(x).relu()
        return self.last(self.again(self.conv(x, edge_index).relu(), edge_index).relu())


def averaged_heads():
    layers = [(GATConv(8, 5, heads=3, concat=False), "x, e -> x"), nn.ELU(), (GATConv(5, 3), "x, e -> x")]
    return Sequential("x, e", layers)


def norm(name):
    return [(f"{name}.{key}", 0) for key in ("weight", "bias", "running_mean", "running_var")]


def conv(name):
    return [(f"{name}.lin.weight", 0), (f"{name}.bias", 0)]


def sage(name):
    return [(f"{name}.lin_l.weight", 0), (f"{name}.lin_l.bias", 0), (f"{name}.lin_r.weight", 0)]


def reads_sage(name):
    return [(f"{name}.lin_l.weight", 1), (f"{name}.lin_r.weight", 1)]


def linear(name):
    return [(f"{name}.weight", 0), (f"{name}.bias", 0)]


def gat(name):
    return [*conv(name), (f"{name}.att_src", (1, 2)), (f"{name}.att_dst", (1, 2))]


#: A model, how many heads its channels are in, and of each group where channels stand, first where they are made:
#: an axis, or several that count as one; the third entry is where they begin.
CASES = {
    "GCN": (
        lambda: GCN(8, 6, 3, 3),
        1,
        [[*conv("convs.0"), ("convs.1.lin.weight", 1)], [*conv("convs.1"), ("convs.2.lin.weight", 1)]],
    ),
    "SAGE": (
        lambda: GraphSAGE(8, 6, 3, 3),
        1,
        [[*sage("convs.0"), *reads_sage("convs.1")], [*sage("convs.1"), *reads_sage("convs.2")]],
    ),
    "SAGE that projects": (
        lambda: GraphSAGE(8, 6, 2, 3, project=True),
        1,
        [
            [*linear("convs.0.lin"), ("convs.0.lin_l.weight", 1)],
            [*sage("convs.0"), ("convs.1.lin.weight", 1), ("convs.1.lin_r.weight", 1)],
            [*linear("convs.1.lin"), ("convs.1.lin_l.weight", 1)],
        ],
    ),
    "GIN": (
        lambda: GIN(8, 6, 2, 3),
        1,
        [
            [*linear("convs.0.nn.lins.0"), ("convs.0.nn.lins.1.weight", 1)],
            [*linear("convs.0.nn.lins.1"), ("convs.1.nn.lins.0.weight", 1)],
            [*linear("convs.1.nn.lins.0"), ("convs.1.nn.lins.1.weight", 1)],
        ],
    ),
    "GAT, one head": (lambda: GAT(8, 6, 2, 3), 1, [[*gat("convs.0"), ("convs.1.lin.weight", 1)]]),
    "GAT, four heads": (
        lambda: GAT(8, 8, 2, 3, heads=4),
        4,
        [[*gat("convs.0"), ("convs.1.lin.weight", 1)]],
    ),
    "BatchNorm": (
        lambda: GCN(8, 6, 3, 3, norm="batch_norm"),
        1,
        [
            [*conv("convs.0"), *norm("norms.0.module"), ("convs.1.lin.weight", 1)],
            [*conv("convs.1"), *norm("norms.1.module"), ("convs.2.lin.weight", 1)],
        ],
    ),
    "LayerNorm": (
        lambda: GCN(8, 6, 2, 3, norm="layer_norm"),
        1,
        [[*conv("convs.0"), *linear("norms.0"), ("convs.1.lin.weight", 1)]],
    ),
    "all layers": (
        lambda: GCN(8, 6, 2, 3, jk="cat"),
        1,
        [[*conv("convs.0"), ("convs.1.lin.weight", 1), ("lin.weight", 1)], [*conv("convs.1"), ("lin.weight", 1, 6)]],
    ),
    "largest of layers": (
        lambda: GCN(8, 6, 2, 3, jk="max"),
        1,
        [[*conv("convs.0"), *conv("convs.1"), ("convs.1.lin.weight", 1), ("lin.weight", 1)]],
    ),
    "residual": (
        Residual,
        1,
        [
            [
                *linear("first"),
                *(slot for i in "01" for slot in (*conv(f"convs.{i}"), *norm(f"norms.{i}"))),
                *((f"convs.{i}.lin.weight", 1) for i in "01"),
                ("last.weight", 1),
            ]
        ],
    ),
}


def generic(make, seed=0):
    """Return a model whose tensors have no zeros and no equal entries, and whose channels are alive."""
    torch.manual_seed(seed)
    model = make().eval()
    with torch.no_grad():
        for value in model.state_dict().values():
            if value.is_floating_point():
                value.copy_(1 + 2 * torch.rand(value.shape) if value.dim() == 1 else torch.randn(value.shape) / 2 + 0.1)
    return model


def saved(model):
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def logits(model, state, data=None):
    data = random_graph() if data is None else data
    model = copy.deepcopy(model)
    model.load_state_dict(state)
    with torch.no_grad():
        return model.eval()(data.x, data.edge_index)


def shuffle(state, groups, heads=1, seed=0, leave=None):
    """Return a state dict with channels in a random order: heads as wholes, and channels inside of each."""
    random, found = np.random.default_rng(seed), {name: value.clone() for name, value in state.items()}
    for group in groups:
        size = len(state[group[1][0]])
        blocks = np.arange(size).reshape(heads, -1)[random.permutation(heads)]
        order = torch.from_numpy(np.concatenate([random.permutation(block) for block in blocks]))
        for name, axis, *start in group:
            if (name, axis) != leave:
                first, last = (axis, axis) if isinstance(axis, int) else axis
                index = torch.arange(state[name].flatten(first, last).size(first))
                index[sum(start) : sum(start) + size] = order + sum(start)
                flat = found[name].flatten(first, last)
                found[name] = flat.index_select(first, index).view_as(state[name])
    return found


def close(found, expected):
    return bool((found - expected).abs().max() <= 1e-5 * expected.abs().max())


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize("name", CASES)
def test_what_was_shuffled_comes_back(name):
    """The shuffled network computes the same, and aligned it is the network itself, bit for bit."""
    make, heads, groups = CASES[name]
    model, data = generic(make), random_graph()
    state = saved(model)
    other = shuffle(state, groups, heads)
    assert not same(other, state)
    assert close(logits(model, other), logits(model, state))
    for how in HOW:
        aligned = align([state, other], model, data, how=how)
        assert same(aligned[1], state), how
        assert same(aligned[0], state)
    assert same(saved(model), state)


@pytest.mark.parametrize("name", CASES)
def test_every_slot_counts(name):
    """The lists above hold nothing that could be left out."""
    make, heads, groups = CASES[name]
    model = generic(make)
    state, expected = saved(model), logits(model, saved(model))
    for group in groups:
        for slot, axis, *_ in group:
            wrong = shuffle(state, groups, heads, leave=(slot, axis))
            assert (logits(model, wrong) - expected).abs().max() > 1e-3 * expected.abs().max(), (slot, axis)


@pytest.mark.parametrize(("name", "how"), zip(CASES, HOW * 4, strict=False))
def test_another_network_computes_what_it_did(name, how):
    model, other = generic(CASES[name][0]), generic(CASES[name][0], seed=1)
    aligned = align([saved(model), saved(other)], model, random_graph(), how=how)
    assert not same(aligned[1], saved(other))
    assert aligned.orders[0].tolist() == sorted(aligned.orders[1].tolist())
    assert close(logits(model, aligned[1]), logits(other, saved(other)))


def test_averaged_heads():
    """The channels of all heads of a layer that takes their mean change places together."""
    model = generic(averaged_heads)
    state, order = saved(model), torch.tensor([4, 2, 0, 1, 3])
    other = dict(state)
    for name in ("module_0.att_src", "module_0.att_dst"):
        other[name] = state[name][:, :, order]
    other["module_0.bias"] = state["module_0.bias"][order]
    other["module_0.lin.weight"] = state["module_0.lin.weight"].view(3, 5, 8)[:, order].flatten(0, 1)
    other["module_2.lin.weight"] = state["module_2.lin.weight"][:, order]
    for how in HOW:
        assert same(align([state, other], model, random_graph(), how=how)[1], state)


def best(similarity):
    return linear_sum_assignment(similarity, maximize=True)[1].tolist()


def two(make):
    models = [generic(make, seed) for seed in range(2)]
    return models, [saved(model) for model in models]


def normalised(data):
    matrix = to_dense_adj(data.edge_index)[0].double().numpy() + np.eye(data.num_nodes)
    degree = matrix.sum(0) ** -0.5
    return degree[:, None] * matrix * degree


def test_similarities():
    """What is compared, computed with dense matrices, of two networks with nothing in common."""
    data, ((model, _), states) = random_graph(), two(lambda: GCN(8, 7, 2, 3))
    weights, biases = ([state[f"convs.0.{key}"].double().numpy() for state in states] for key in ("lin.weight", "bias"))
    readers = [state["convs.1.lin.weight"].double().numpy() for state in states]
    messages = [normalised(data) @ data.x.double().numpy() @ weight.T for weight in weights]
    hidden = [np.maximum(m + bias, 0) for m, bias in zip(messages, biases, strict=True)]
    expected = {
        "messages": messages[0].T @ messages[1],
        "activations": np.corrcoef(*hidden, rowvar=False)[:7, 7:],
        "weights": weights[0] @ weights[1].T + np.outer(*biases) + readers[0].T @ readers[1],
    }
    orders = {how: align(states, model, data, how=how).orders[1].tolist() for how in HOW}
    assert orders == {how: best(similarity) for how, similarity in expected.items()}
    assert len(set(map(tuple, orders.values()))) == 3


def test_messages_of_sage():
    """They are what comes from the neighbours, without what comes from the node itself."""
    data, ((model, _), states) = random_graph(), two(lambda: GraphSAGE(8, 7, 2, 3))
    matrix = to_dense_adj(data.edge_index)[0].double().numpy().T
    near = matrix / np.maximum(matrix.sum(1, keepdims=True), 1) @ data.x.double().numpy()
    messages = [near @ state["convs.0.lin_l.weight"].double().numpy().T for state in states]
    assert align(states, model, data).orders[1].tolist() == best(messages[0].T @ messages[1])


def test_messages_of_attention():
    """They are what a head sums up with its own weights; heads go as wholes."""
    data, (models, states) = random_graph(), two(lambda: GAT(8, 6, 2, 3, heads=3))
    messages = []
    for model in models:
        conv = copy.deepcopy(model.convs[0])
        conv.bias.data.zero_()
        messages.append(conv(data.x, data.edge_index).detach().double().view(-1, 3, 2))
    pairs = torch.einsum("nau,nbv->abuv", *messages).numpy()
    inside = [[best(pair) for pair in row] for row in pairs]
    gains = np.array([[sum(pairs[a, b][[0, 1], inside[a][b]]) for b in range(3)] for a in range(3)])
    expected = [2 * b + v for a, b in enumerate(best(gains)) for v in inside[a][b]]
    assert align(states, models[0], data).orders[1].tolist() == expected


@pytest.mark.parametrize("how", HOW)
def test_dead_channels(how):
    """Constant channels are like no other one: they are never NaN, and of a copy they stay where they are."""
    model, data = generic(lambda: GCN(8, 6, 2, 3), seed=1), random_graph()
    state = saved(model)
    for name in ("convs.0.lin.weight", "convs.0.bias"):
        state[name][1:4] = 0
    assert align([state, state], model, data, how=how).orders[1].tolist() == list(range(6))
    other = generic(lambda: GCN(8, 6, 2, 3), seed=2)
    order = align([state, saved(other)], model, data, how=how).orders[1]
    assert sorted(order.tolist()) == list(range(6))


@pytest.mark.parametrize("how", HOW)
def test_copies_give_the_copy(how):
    model = generic(CASES["GAT, four heads"][0])
    aligned = align([saved(model)] * 3, model, random_graph(), how=how)
    assert same(combine(aligned, torch.full((3,), 1 / 3)), saved(model))


@pytest.mark.parametrize(
    ("how", "name"),
    [("weights", "GAT, one head"), ("activations", "GCN"), ("messages", "GAT, four heads"), ("messages", "residual")],
)
def test_order_of_states_and_of_channels(how, name):
    """Neither changes what a mean of aligned networks computes."""
    make, heads, groups = CASES[name]
    (model, _), (one, other) = two(make)
    data, half = random_graph(), torch.full((2,), 0.5)
    aligned = align([one, other], model, data, how=how)
    expected = logits(model, combine(aligned, half))
    for states in ([one, shuffle(other, groups, heads)], [shuffle(one, groups, heads), other]):
        assert close(logits(model, combine(align(states, model, data, how=how), half)), expected)
    turned = align([other, one], model, data, how=how)
    assert close(logits(model, combine(turned, half)), expected)
    assert torch.equal(turned.orders[1], aligned.orders[1].argsort())
    assert torch.equal(align([other, one], model, data, how=how, reference=1).orders[0], aligned.orders[1])


def distance(states):
    names = [name for name, value in states[0].items() if value.is_floating_point()]
    pairs = itertools.combinations(states, 2)
    return sum(float((a[name].double() - b[name].double()).square().sum()) for a, b in pairs for name in names)


def test_weights_of_many():
    """No exchange of two channels of any network brings them closer, and more than two are closer than by pairs."""
    models = [generic(lambda: GCN(8, 6, 2, 3), seed) for seed in range(4)]
    states, group = [saved(model) for model in models], [*conv("convs.0"), ("convs.1.lin.weight", 1)]
    aligned = list(align(states, models[0], how="weights"))
    by_pairs = [states[0], *(align([states[0], state], models[0], how="weights")[1] for state in states[1:])]
    assert distance(aligned) < distance(by_pairs) < distance(states)
    for i, (u, v) in itertools.product(range(1, 4), itertools.combinations(range(6), 2)):
        swapped = {name: value.clone() for name, value in aligned[i].items()}
        for name, axis in group:
            index = torch.arange(6)
            index[[u, v]] = torch.tensor([v, u])
            swapped[name] = swapped[name].index_select(axis, index)
        assert distance([*aligned[:i], swapped, *aligned[i + 1 :]]) >= distance(aligned) * (1 - 1e-12)


def plain_descent(first, state, groups):
    """Assign one group of channels after the other until nothing changes."""
    while True:
        before = state
        for group in groups:
            size = len(first[group[0][0]])
            rows = [
                [s[name].movedim(axis, 0).reshape(size, -1).double() for name, axis in group] for s in (first, state)
            ]
            order = torch.tensor(best(sum(a @ b.T for a, b in zip(*rows, strict=True)).numpy()))
            state = state | {name: state[name].index_select(axis, order) for name, axis in group[:-1]}
            name, axis = group[-1]  # what reads one group makes the next one
            state[name] = state[name].index_select(axis, order)
        if same(before, state):
            return state


def test_weights_of_several_layers():
    """They are never further apart than after a plain descent, which depends on the order that is there, and closer."""
    make, _, groups = CASES["GCN"]
    gains = []
    for seed in (1, 5, 12):
        model = generic(make, 2 * seed)
        states = [saved(model), saved(generic(make, 2 * seed + 1))]
        found = align(states, model, how="weights")[1]
        gains.append(distance([states[0], plain_descent(*states, groups)]) - distance([states[0], found]))
    assert min(gains) >= 0
    assert max(gains) > 1


@pytest.mark.parametrize("name", ["GCN", "residual"])
def test_weights_need_no_graph(name):
    make, heads, groups = CASES[name]
    model = generic(make)
    states = [saved(model), *(shuffle(saved(model), groups, heads, seed) for seed in range(2))]
    assert all(same(state, states[0]) for state in align(states, model, how="weights"))


class Reads(list):
    """States that note which of them are read."""

    read: list

    def __getitem__(self, index):
        self.read.append(index)
        return super().__getitem__(index)


def test_states_are_read_when_asked_for():
    (model, _), given = two(lambda: GCN(8, 6, 2, 3))
    states, before = Reads(given), copy.deepcopy(given)
    states.read = []
    aligned = align(states, model, random_graph())
    states.read.clear()
    assert len(aligned) == 2
    assert torch.equal(aligned[1]["convs.0.bias"], given[1]["convs.0.bias"][aligned.orders[1]])
    assert states.read == [1]
    assert all(same(*pair) for pair in zip(given, before, strict=True))


def test_a_layer_with_two_names():
    """It moves once, and files that hold it twice are read as one."""
    model = generic(Repeated)
    state = saved(model)
    group = [*linear("first"), *conv("conv"), *conv("again"), ("last.weight", 1)]
    group += [(f"{name}.lin.weight", 1) for name in ("conv", "again")]
    other = shuffle(state, [group])
    assert close(logits(model, other), logits(model, state))
    for how in HOW:
        found = align([state, other], model, random_graph(), how=how)[1]
        assert same(found, state)
        assert found["again.lin.weight"] is found["conv.lin.weight"]


def test_heads_of_fewer_classes():
    """Networks that know fewer classes are aligned by what they have in common."""
    model, small = generic(lambda: GCN(8, 6, 2, 5)), generic(lambda: GCN(8, 6, 2, 3), seed=1)
    for how in HOW:
        aligned = align([saved(model), saved(small)], model, random_graph(), how=how)
        assert close(logits(small, aligned[1]), logits(small, saved(small)))
        assert aligned.orders[1].tolist() != list(range(6))


class Secret(torch.Tensor):
    """A tensor that nothing may be done with."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        raise AssertionError(f"labels are read by {func}")


@pytest.mark.parametrize("how", HOW[1:])
def test_no_label_is_read(how):
    (model, _), states = two(lambda: GCN(8, 6, 2, 3))
    data, expected = random_graph(), align(states, model, random_graph(), how=how).orders[1]
    data.y = data.y.as_subclass(Secret)
    data.test_mask = data.test_mask.as_subclass(Secret)
    assert torch.equal(align(states, model, data, how=how).orders[1], expected)


class Summed(nn.Module):
    """A layer whose channels can change places, and one with a share of the sum of all channels before each one."""

    def __init__(self):
        super().__init__()
        self.conv, self.middle, self.last = GCNConv(8, 6), nn.Linear(6, 5), nn.Linear(5, 3)
        self.share = nn.Parameter(torch.zeros(1))

    def forward(self, x, edge_index):
        x = self.middle(self.conv(x, edge_index).relu())
        return self.last(x + self.share * x.cumsum(1))


def test_channels_that_stay():
    _, states = two(Summed)
    with pytest.warns(UserWarning, match=r"the channels of 'middle' \(Linear\) cannot change places") as told:
        aligned = align(states, Summed(), random_graph())  # of which the share is 0, which it need not be
    assert told[0].filename == __file__
    assert torch.equal(aligned[1]["last.weight"], states[1]["last.weight"])
    assert len(aligned.orders[1]) == 6
    with pytest.raises(ValueError, match=r"no channels that can be exchanged.*'jk.lstm' \(LSTM\)"):
        align([GCN(8, 6, 2, 3, jk="lstm").state_dict()], GCN(8, 6, 2, 3, jk="lstm"), random_graph())
    with pytest.raises(ValueError, match="no channels"):
        align([GCN(8, 3, 1).state_dict()], GCN(8, 3, 1), random_graph())


def test_a_function_of_the_order_is_refused():
    """Some models show only with some weights that they are no function of channels in any order."""
    (model, _), states = two(lambda: GCN(8, 6, 2, 3))
    states[1]["convs.0.bias"][0] = 100

    def call(model, data):
        bias = model.convs[0].bias
        return model(data.x, data.edge_index) + torch.where(bias.max() > 50, bias[0], 0)

    order = align(states, model, random_graph()).orders[1]
    assert order[0] != 0
    with pytest.raises(ValueError, match="state 1 computes something else"):
        align(states, model, random_graph(), call=call)


class Store(list):
    """States that know their graph, and the nodes that they were trained on."""

    def parts(self):
        return "parts"

    def check_graph(self, data):
        raise ValueError("another graph")


def test_what_a_store_knows_stays_known():
    model = generic(lambda: GCN(8, 6, 2, 3))
    aligned = align(Store([saved(model)] * 2), model, random_graph())
    assert aligned.parts() == "parts"
    with pytest.raises(ValueError, match="another graph"):
        aligned.check_graph(random_graph())
    aligned = align([saved(model)] * 2, model, random_graph())
    assert aligned.parts() is None
    aligned.check_graph(random_graph())


def test_bad_input():
    (model, _), states = two(lambda: GCN(8, 6, 2, 3))
    data = random_graph()
    with pytest.raises(ValueError, match="'how' must be one of .*'messages'.*got 'names'"):
        align(states, model, data, how="names")
    with pytest.raises(ValueError, match="'data' must be a graph for how='activations'"):
        align(states, model, how="activations")
    with pytest.raises(TypeError, match="'data' must be a graph of PyG.*got Tensor"):
        align(states, model, data.x)
    for reference in (2, -1, "first"):
        with pytest.raises(ValueError, match=r"'reference' must be the index of one of 2 states"):
            align(states, model, data, reference=reference)
    with pytest.raises(ValueError, match="'states' must hold at least one"):
        align([], model, data)
    with pytest.raises(TypeError, match="'states' must be a list or a store"):
        align(states[0], model, data)
    with pytest.raises(ValueError, match="'convs.0.bias' has shape"):
        align([states[0], GCN(8, 5, 2, 3).state_dict()], model, data)
    with pytest.raises(TypeError, match="'model'"):
        align(states, "model", data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        align(states, model, data)


@pytest.mark.cuda
@pytest.mark.parametrize("how", HOW)
def test_on_a_device(device, how):
    """A model, its states and its graph may be on a GPU."""
    (model, _), states = two(lambda: GAT(8, 6, 2, 3, heads=2))
    expected = align(states, model, random_graph(), how=how)
    moved = [{name: value.to(device) for name, value in state.items()} for state in states]
    aligned = align(moved, model.to(device), random_graph().to(device), how=how)
    assert torch.equal(aligned.orders[1], expected.orders[1])
    assert same({name: value.cpu() for name, value in aligned[1].items()}, expected[1])
