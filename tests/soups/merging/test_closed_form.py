import weakref

import numpy as np
import pytest
import torch
from torch_geometric import nn
from torch_geometric.utils import to_dense_adj

from graphsparse.soups import merge
from graphsparse.testing import random_graph

DATA = random_graph()
OWNER = torch.arange(60) % 3
WIDE = random_graph(num_nodes=20, num_features=50)  # fewer nodes than features


def gcn(norm=None, layers=2):
    return nn.GCN(8, 6, layers, 3, norm=norm)


def network(make, seed):
    """A network with running statistics and biases that are not those of a fresh one."""
    torch.manual_seed(seed)
    model = make()
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.dim() == 1:
                tensor.copy_(torch.rand_like(tensor) + 0.5)
        model.train()(DATA.x, DATA.edge_index)
    return model.eval()


def states(make, num=3):
    return [network(make, seed).state_dict() for seed in range(num)]


def normalised(edge_index, num_nodes):
    a = to_dense_adj(edge_index, max_num_nodes=num_nodes)[0].double() + torch.eye(num_nodes)
    return a / a.sum(0).sqrt() / a.sum(1, keepdim=True).sqrt()


def linear_maps(kind, state, data):
    """Inputs and weights of both maps of a network, written out by hand with dense matrices."""
    s = {name: value.double() for name, value in state.items()}
    x, ones = data.x.double(), torch.ones(data.num_nodes, 1)
    found = []
    for i in range(2):
        name = f"convs.{i}."
        if kind == "SAGE":
            a = to_dense_adj(data.edge_index, max_num_nodes=data.num_nodes)[0].double().t()
            z = torch.cat([a / a.sum(1, keepdim=True).clamp(min=1) @ x, x, ones], 1)
            w = torch.cat(
                [s[name + "lin_l.weight"].t(), s[name + "lin_r.weight"].t(), s[name + "lin_l.bias"].unsqueeze(0)]
            )
        else:
            z = torch.cat([normalised(data.edge_index, data.num_nodes) @ x, ones], 1)
            w = torch.cat([s[name + "lin.weight"].t(), s[name + "bias"].unsqueeze(0)])
        if kind == "BatchNorm" and i == 0:
            n = "norms.0.module."
            scale = s[n + "weight"] / (s[n + "running_var"] + 1e-5).sqrt()
            w = w * scale
            w[-1] += s[n + "bias"] - s[n + "running_mean"] * scale
        found.append((z, w))
        x = (z @ w).relu()
    return found


def ridge_to_mean(systems, mean, ridge):
    """The minimum by numpy's least squares of all rows under each other."""
    total = sum((z.square().sum(0) / len(z)).sum() for z, _ in systems) / len(mean)
    rows = [z.numpy() / len(z) ** 0.5 for z, _ in systems] + [np.eye(len(mean)) * (ridge * float(total)) ** 0.5]
    values = [y.numpy() / len(y) ** 0.5 for _, y in systems] + [mean.numpy() * (ridge * float(total)) ** 0.5]
    return torch.from_numpy(np.linalg.lstsq(np.concatenate(rows), np.concatenate(values), rcond=None)[0])


@pytest.mark.parametrize("data", [DATA, WIDE], ids=["tall", "wide"])
@pytest.mark.parametrize("kind", ["GCN", "SAGE", "BatchNorm"])
def test_gnnmerge_is_the_least_squares_solution_of_every_map(kind, data):
    def make():
        width = data.num_features
        if kind == "SAGE":
            return nn.GraphSAGE(width, 6, 2, 3)
        return nn.GCN(width, 6, 2, 3, norm="batch_norm" if kind == "BatchNorm" else None)

    given = []
    for seed in range(3):
        torch.manual_seed(seed)
        model = make()
        model.train()(data.x, data.edge_index)
        given.append(model.state_dict())
    owner = torch.arange(data.num_nodes) % 3
    found = merge(given, make(), data, "gnnmerge", responsibility=owner, ridge=0.01)
    maps = [linear_maps(kind, state, data) for state in given]
    merged = linear_maps(kind, found.state_dict, data)
    for i in range(2):
        own = [(z[owner == k], z[owner == k] @ w) for k, (z, w) in enumerate(network[i] for network in maps)]
        mean = torch.stack([network[i][1] for network in maps]).mean(0)
        expected = ridge_to_mean(own, mean, 0.01)
        torch.testing.assert_close(merged[i][1], expected, rtol=1e-5, atol=1e-5)


def test_rounds_take_the_inputs_of_the_merged_network():
    given = states(gcn)
    found = merge(given, gcn(), DATA, "rounds", responsibility=OWNER, ridge=0.01, target="logits")
    merged = linear_maps("GCN", found.state_dict, DATA)
    maps = [linear_maps("GCN", state, DATA) for state in given]
    for i in range(2):
        z = merged[i][0]  # its first map is found before its second
        own = [(z[k == OWNER], (maps[k][i][0] @ maps[k][i][1])[k == OWNER]) for k in range(3)]
        expected = ridge_to_mean(own, torch.stack([network[i][1] for network in maps]).mean(0), 0.01)
        torch.testing.assert_close(merged[i][1], expected, rtol=1e-4, atol=1e-5)


def targets(maps, owner):
    """Probabilities that each network gives its own nodes, one network after the other."""
    last = [network[-1] for network in maps]
    return torch.cat([(z @ w).softmax(1)[owner == k] for k, (z, w) in enumerate(last)])


def standardised_ridge(z, y, weight, ridge):
    """Ridge on columns of mean 0 and deviation 1, by numpy, with the intercept found from the means."""
    weight = weight / weight.sum()
    mean, target = weight @ z, weight @ y
    scale = (weight @ (z - mean).square()).sqrt()
    rows = ((z - mean) / scale * weight.sqrt().unsqueeze(1)).numpy()
    left = (y - target) * weight.sqrt().unsqueeze(1)
    w = np.linalg.lstsq(
        np.concatenate([rows, np.eye(z.size(1)) * ridge**0.5]),
        np.concatenate([left.numpy(), np.zeros((z.size(1), y.size(1)))]),
        rcond=None,
    )[0]
    w = torch.from_numpy(w) / scale.unsqueeze(1)
    return torch.cat([w, (target - mean @ w).unsqueeze(0)])


def test_condense_chooses_units_that_leave_the_smallest_residual_and_solves_for_the_head():
    given, owner = states(gcn, 2), torch.arange(60) % 2
    found = merge(given, gcn(), DATA, "condense", responsibility=owner)
    maps = [linear_maps("GCN", state, DATA) for state in given]
    y = targets(maps, owner)
    order = torch.cat([(owner == k).nonzero().squeeze(1) for k in range(2)])
    weight = torch.cat([1 / (owner == k).sum().double().expand(int((owner == k).sum())) for k in range(2)])
    # All units of both networks on the whole graph, after the aggregation of the second layer.
    candidates = torch.cat([network[1][0][:, :-1] for network in maps], 1)[order]
    chosen = []
    for _ in range(6):
        residuals = {}
        for j in set(range(12)) - set(chosen):
            z = torch.cat([candidates[:, [*chosen, j]], torch.ones(60, 1)], 1) * weight.sqrt().unsqueeze(1)
            left = (y * weight.sqrt().unsqueeze(1)).numpy()
            w = np.linalg.lstsq(z.numpy(), left, rcond=None)[0]
            residuals[j] = float(((left - z.numpy() @ w) ** 2).sum())
        chosen.append(min(residuals, key=residuals.get))
    first = found.state_dict["convs.0.lin.weight"]
    both = torch.cat([state["convs.0.lin.weight"] for state in given])
    assert sorted(chosen) == sorted(int((both == row).all(1).nonzero()) for row in first)
    merged = linear_maps("GCN", found.state_dict, DATA)[1]
    expected = standardised_ridge(merged[0][order][:, :-1], y, weight, 1e-3)
    torch.testing.assert_close(merged[1], expected, rtol=1e-4, atol=1e-5)
    assert found.trace[0]["units"] == [sum(j < 6 for j in chosen), sum(j >= 6 for j in chosen)]


CHAINS = {
    "GCN": gcn,
    "GCN, 3 layers": lambda: gcn(layers=3),
    "BatchNorm": lambda: gcn("batch_norm"),
    "SAGE": lambda: nn.GraphSAGE(8, 6, 2, 3),
    "GIN": lambda: nn.GIN(8, 6, 2, 3, norm="batch_norm"),
}
OTHERS = {
    "SAGE project": lambda: nn.GraphSAGE(8, 6, 2, 3, project=True),
    "SAGE normalize": lambda: nn.GraphSAGE(8, 6, 2, 3, normalize=True),
    "LayerNorm": lambda: nn.GCN(8, 6, 2, 3, norm="layer_norm", norm_kwargs={"mode": "node"}),
    "jumping knowledge": lambda: nn.GCN(8, 6, 3, 3, jk="cat"),
    "GCNII": lambda: nn.Sequential(
        "x, edge_index",
        [
            (torch.nn.Linear(8, 6), "x -> h"),
            (nn.GCN2Conv(6, 0.1, 0.5, 1), "h, h, edge_index -> a"),
            torch.nn.ReLU(),
            (nn.GCN2Conv(6, 0.1, 0.5, 2, shared_weights=False), "a, h, edge_index -> b"),
            (torch.nn.Linear(6, 3), "b -> b"),
        ],
    ),
}


@pytest.mark.parametrize("kind", CHAINS | OTHERS)
@pytest.mark.parametrize("method", ["gnnmerge", "rounds"])
def test_copies_give_the_copy(kind, method):
    make = (CHAINS | OTHERS)[kind]
    copy, model = network(make, 0), network(make, 1)
    state, before = copy.state_dict(), {name: value.clone() for name, value in model.state_dict().items()}
    options = {"target": "logits"} if method == "rounds" else {}
    found = merge([state] * 3, model, DATA, method, responsibility=OWNER, **options)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    for name, value in state.items():  # batch normalisations become others that do the same
        assert torch.equal(found.state_dict[name], value) or "running_mean" in "".join(state), name
    model = make().eval()
    model.load_state_dict(found.state_dict)
    expected = copy(DATA.x, DATA.edge_index)
    torch.testing.assert_close(model(DATA.x, DATA.edge_index), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", CHAINS)
def test_condensed_copies_say_what_the_copy_says(kind):
    copy = network(CHAINS[kind], 0)
    found = merge([copy.state_dict()] * 3, copy, DATA, "condense", responsibility=OWNER, target="logits", ridge=1e-9)
    model = CHAINS[kind]().eval()
    model.load_state_dict(found.state_dict)
    expected = copy(DATA.x, DATA.edge_index)
    torch.testing.assert_close(model(DATA.x, DATA.edge_index), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("method", ["gnnmerge", "rounds", "condense"])
def test_batch_normalisations_have_the_statistics_of_what_comes_in(method):
    given = states(CHAINS["BatchNorm"])
    model = CHAINS["BatchNorm"]().eval()
    model.load_state_dict(merge(given, model, DATA, method, responsibility=OWNER).state_dict)
    seen = []
    model.norms[0].register_forward_pre_hook(lambda norm, args: seen.append(args[0]))
    with torch.no_grad():
        model(DATA.x, DATA.edge_index)
    norm = model.norms[0].module
    torch.testing.assert_close(norm.running_mean, seen[0].mean(0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(norm.running_var, seen[0].var(0, correction=0), rtol=1e-4, atol=1e-5)


def permuted(state, order):
    """The state of a GCN of two layers with its hidden units in another order, by hand."""
    state = dict(state)
    for name in ("convs.0.lin.weight", "convs.0.bias"):
        state[name] = state[name][order]
    state["convs.1.lin.weight"] = state["convs.1.lin.weight"][:, order]
    return state


def test_condense_does_not_care_about_the_order_of_units_and_of_networks():
    given = states(gcn)
    expected = outputs(merge(given, gcn(), DATA, "condense", responsibility=OWNER))
    order = torch.tensor([3, 0, 5, 1, 2, 4])
    turned = [given[0], permuted(given[1], order), permuted(given[2], order.flip(0))]
    torch.testing.assert_close(
        outputs(merge(turned, gcn(), DATA, "condense", responsibility=OWNER)), expected, rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(
        outputs(merge(given[::-1], gcn(), DATA, "condense", responsibility=2 - OWNER)), expected, rtol=1e-4, atol=1e-5
    )


def outputs(found):
    model = gcn().eval()
    model.load_state_dict(found.state_dict)
    return model(DATA.x, DATA.edge_index)


@pytest.mark.parametrize("method", ["gnnmerge", "rounds", "condense"])
def test_networks_of_different_classes_have_one_head_together(method):
    """Two networks know one or two of three classes; each is asked at its own nodes alone."""
    heads, classes = [nn.GCN(8, 6, 2, 2), nn.GCN(8, 6, 2, 1)], [[0, 2], [1]]
    owner = torch.arange(60) % 2
    given = [head.state_dict() for head in heads]
    found = merge(given, gcn(), DATA, method, responsibility=owner, classes=classes)
    maps = [linear_maps("GCN", state, DATA) for state in given]
    wanted = torch.zeros(60, 3, dtype=torch.float64)
    for k in range(2):
        z, w = maps[k][1]
        wanted[:, classes[k]] += (z @ w).softmax(1) * (owner == k).unsqueeze(1)
    merged = linear_maps("GCN", found.state_dict, DATA)[1]
    # GNNMerge looks at the inputs that networks have themselves, the others at those of the merged one.
    own = torch.where((owner == 0).unsqueeze(1), maps[0][1][0], maps[1][1][0]) if method == "gnnmerge" else merged[0]
    expected = standardised_ridge(own[:, :-1], wanted, torch.ones(60, dtype=torch.float64), 1e-3)
    torch.testing.assert_close(merged[1], expected, rtol=1e-3, atol=1e-4)


def test_condense_draws_rows_and_leaves_weak_units_out_where_there_are_too_many():
    given = states(gcn)
    whole = merge(given, gcn(), DATA, "condense", responsibility=OWNER)
    some = merge(given, gcn(), DATA, "condense", responsibility=OWNER, max_rows=30, max_units=9)
    assert whole.trace[0]["rows"] == 60
    assert some.trace[0]["rows"] == 30
    assert max(some.trace[0]["units"]) <= 3
    again = merge(given, gcn(), DATA, "condense", responsibility=OWNER, max_rows=30, max_units=9)
    assert all(torch.equal(again.state_dict[name], value) for name, value in some.state_dict.items())


@pytest.mark.parametrize("method", ["gnnmerge", "rounds", "condense"])
def test_however_many_networks_there_are_few_are_in_memory(method):
    class Counted:
        """Networks that are made when they are asked for, and how many there are at most."""

        alive = most = 0

        def __len__(self):
            return 8

        def __getitem__(self, index):
            torch.manual_seed(index)
            state = gcn().state_dict()
            self.alive += 1
            self.most = max(self.most, self.alive)
            weakref.finalize(state["convs.0.lin.weight"], self.gone)
            return state

        def gone(self):
            self.alive -= 1

    networks = Counted()
    merge(networks, gcn(), DATA, method, responsibility=torch.arange(60) % 8)
    assert networks.most <= 4


REFUSED = {
    "gnnmerge": {"GAT": lambda: nn.GAT(8, 6, 2, 3), "max": lambda: nn.GraphSAGE(8, 6, 2, 3, aggr="max")},
    "condense": {
        "GAT": lambda: nn.GAT(8, 6, 2, 3),
        "jumping knowledge": OTHERS["jumping knowledge"],
        "LayerNorm": OTHERS["LayerNorm"],
        "GCNII": OTHERS["GCNII"],
        "normalize": OTHERS["SAGE normalize"],
    },
}


@pytest.mark.parametrize(("method", "kind"), [(m, kind) for m, kinds in REFUSED.items() for kind in kinds])
def test_layers_that_cannot_be_merged_are_refused_by_name(method, kind):
    make = REFUSED[method][kind]
    with pytest.raises(ValueError, match=r"layer 'convs|units of|sparse product|channels"):
        merge([make().state_dict()] * 2, make(), DATA, method)


def test_what_does_not_fit_is_refused():
    given, model = states(gcn), gcn()
    for options, message in [
        ({"method": "nothing"}, "'method' must be one of"),
        ({"responsibility": torch.arange(60)}, "numbers of 3 networks"),
        ({"responsibility": OWNER[:50]}, "one entry for each of 60"),
        ({"responsibility": torch.zeros(60, dtype=torch.long)}, r"responsibility\[1\].*at least one node"),
        ({"responsibility": [OWNER == 0]}, "nodes of 3 networks"),
        ({"responsibility": [torch.tensor([0, 0])] * 3}, "each node once"),
        ({"responsibility": [torch.tensor([60])] * 3}, "indices of 60 nodes"),
        ({"classes": [[0, 1, 2]] * 2}, "'classes' must hold"),
        ({"classes": [[0, 1, 1]] * 3}, r"classes\[0\]"),
        ({"data": [DATA] * 2}, "one for each of 3 networks"),
        ({"data": None}, "'data' must be a graph"),
        ({"data": [DATA, DATA, random_graph(num_features=9)]}, "features of one width"),
        ({"target": "labels"}, "'target' must be"),
    ]:
        method = options.pop("method", "rounds")
        with pytest.raises(ValueError, match=message):
            merge(given, model, options.pop("data", DATA), method, **options)
    for options, message in [
        ({"responsibility": OWNER.float()}, "number of a network"),
        ({"responsibility": [OWNER.float()] * 3}, "mask of nodes or their indices"),
        ({"strength": 1}, "strength"),
    ]:
        with pytest.raises(TypeError, match=message):
            merge(given, model, DATA, "gnnmerge", **options)
    for method in ("rounds", "condense", "distil"):  # softmax makes 1 of every single output
        with pytest.raises(ValueError, match="one output has no probabilities"):
            merge([nn.GCN(8, 6, 2, 1).state_dict()] * 2, nn.GCN(8, 6, 2, 1), DATA, method)
    with pytest.raises(ValueError, match="does not fit"):
        merge(given, nn.GCN(8, 7, 2, 3), DATA, "gnnmerge")


def test_condense_is_the_same_however_many_networks_are_multiplied_at_once(monkeypatch):
    given = [gcn().state_dict() for _ in range(3)]
    expected = outputs(merge(given, gcn(), DATA, "condense", responsibility=OWNER))
    monkeypatch.setattr("graphsparse.soups.merging.methods.condense._NUMBERS", 1)
    found = outputs(merge(given, gcn(), DATA, "condense", responsibility=OWNER))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
