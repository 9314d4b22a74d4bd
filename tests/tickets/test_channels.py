"""Tickets of whole channels: which are kept, from where they start, and the smaller model that they become."""

import pytest
import torch
from torch import nn
from torch_geometric.loader import NeighborLoader, RandomNodeLoader
from torch_geometric.nn import GAT, GCN, GCNConv, GraphSAGE, global_mean_pool, to_hetero

from graphsparse.testing import random_graph, random_hetero_graph
from graphsparse.tickets import Channels, Ticket, TicketRun, find_ticket, find_tickets
from graphsparse.tickets.run import Target
from graphsparse.training import GraphTask, LinkTask, NodeTask, Training, build_model

SHORT = Training(epochs=3, lr=0.05)
#: Models by width.
MODELS = {
    "GCN": lambda width=16: GCN(8, width, 2, 3),
    "GraphSAGE": lambda width=16: GraphSAGE(8, width, 3, 3, norm="batch_norm"),
    "GAT": lambda width=16: GAT(8, width, 2, 3, heads=width // 4, jk="cat"),
}


@pytest.mark.parametrize("score", ["magnitude", "lasso"])
@pytest.mark.parametrize("name", MODELS)
def test_what_is_left_is_a_smaller_model(name, score, tmp_path):
    make_model, data = MODELS[name], random_graph()
    sizes = [sum(p.numel() for p in make_model(width).parameters() if p.dim() > 1) for width in (16, 8)]
    half = 1 - sizes[1] / sizes[0]
    ticket = find_ticket(make_model, data, weight_sparsity=half, method=Channels(score), training=SHORT)
    ticket.save(tmp_path / "ticket.safetensors")
    ticket = Ticket.load(tmp_path / "ticket.safetensors")
    small, whole = ticket.materialize(make_model, shrink=data), ticket.materialize(make_model)
    assert torch.allclose(small(data.x, data.edge_index), whole(data.x, data.edge_index), atol=1e-5)
    # As many channels in every layer as the model of half the width has, and its keys.
    narrow = make_model(8)
    narrow.load_state_dict(small.state_dict())
    sparse = ticket.materialize(make_model, shrink=data, format="csr")
    assert torch.allclose(sparse(data.x, data.edge_index), whole(data.x, data.edge_index), atol=1e-5)


def found_by(method, make_model, sparsity, data=None):
    run = TicketRun(make_model, NodeTask(data or random_graph()), [Target(0.0, sparsity)], SHORT)
    (found,) = method.find(run)
    return found, run.train(run.model(), "again").state_dict


def test_channels_with_the_largest_weights_are_kept():
    found, trained = found_by(Channels(), MODELS["GCN"], 0.75)
    norms = trained["convs.0.lin.weight"].square().sum(1) + trained["convs.0.bias"].square()
    expected = torch.zeros(16, dtype=torch.bool)
    expected[norms.topk(4).indices] = True
    assert torch.equal(found.weights["convs.0.lin.weight"], expected.unsqueeze(1).expand(16, 8))
    assert torch.equal(found.weights["convs.1.lin.weight"], expected.expand(3, 16))
    assert all(torch.equal(found.start[name], value) for name, value in trained.items())


def test_of_the_last_channel_the_smallest_weights_go():
    """A channel has 11 of 176 weights: 35 removed ones are three channels and two weights of the fourth."""
    found, trained = found_by(Channels(), MODELS["GCN"], 35 / 176)
    weights = [found.weights["convs.0.lin.weight"], found.weights["convs.1.lin.weight"].t()]
    left = torch.cat(weights, 1).sum(1)
    assert sorted(left.tolist())[:5] == [0, 0, 0, 9, 11]
    part = int((left == 9).nonzero())
    # Sizes are relative to the largest weight of their tensor.
    sizes = torch.cat([trained["convs.0.lin.weight"].abs(), trained["convs.1.lin.weight"].abs().t()], 1)
    sizes = sizes / torch.tensor([float(sizes[:, :8].max())] * 8 + [float(sizes[:, 8:].max())] * 3)
    assert torch.equal(~torch.cat(weights, 1)[part], sizes[part] <= sizes[part].sort().values[1])


def test_lasso_starts_from_the_least_squares_solution():
    make_model, data = lambda: GCN(8, 16, 2, 3, bias=False), random_graph()
    found, trained = found_by(Channels("lasso"), make_model, 0.5, data)
    kept = found.weights["convs.1.lin.weight"].any(0)
    assert int(kept.sum()) == 8
    model = build_model(make_model, 0)
    model.load_state_dict(trained)
    with torch.no_grad():
        x = model.convs[0](data.x, data.edge_index).relu().double()
    wanted = x @ trained["convs.1.lin.weight"].double().t()
    best = torch.linalg.lstsq(x[:, kept], wanted, driver="gelsd").solution
    start = found.start["convs.1.lin.weight"].double()
    error, least = (x[:, kept] @ start[:, kept].t() - wanted).norm(), (x[:, kept] @ best - wanted).norm()
    assert float(error) == pytest.approx(float(least), rel=1e-4, abs=1e-4)
    assert not start[:, ~kept].any()


class Twins(nn.Module):
    """Four channels, each of them there twice, and larger the second time."""

    def __init__(self):
        super().__init__()
        self.first, self.last = GCNConv(8, 8), nn.Linear(8, 3)
        with torch.no_grad():
            self.first.lin.weight[4:] = 2 * self.first.lin.weight[:4]
            self.last.weight[:, 4:] = self.last.weight[:, :4]

    def forward(self, x, edge_index):
        return self.last(self.first(x, edge_index).relu())


def test_lasso_keeps_one_of_two_channels_that_say_the_same():
    still = Training(epochs=1, lr=0.0)
    kept = {}
    for score in ("magnitude", "lasso"):
        run = TicketRun(Twins, NodeTask(random_graph()), [Target(0.0, 0.5)], still)
        (found,) = Channels(score).find(run)
        kept[score] = found.weights["last.weight"].any(0).view(2, 4).sum(0)
    assert kept["lasso"].tolist() == [1, 1, 1, 1]
    assert kept["magnitude"].max() == 2 or kept["magnitude"].tolist() == [1, 1, 1, 1]


def test_rewinding_starts_from_the_initial_weights():
    found, _ = found_by(Channels("lasso", start="initial"), MODELS["GCN"], 0.5)
    assert found.start is None


def test_layers_lose_channels_at_the_same_rate_and_keep_one():
    make_model = lambda: GCN(8, 16, 3, 3)  # noqa: E731
    tickets = find_tickets(
        make_model, random_graph(), targets=[(0, s) for s in (0.3, 0.6, 0.97)], method=Channels(), training=SHORT
    )
    for ticket, at_least in zip(tickets, (8, 4, 1), strict=True):
        left = [int(ticket.weight_masks[f"convs.{i}.lin.weight"].any(1).sum()) for i in range(2)]
        assert abs(left[0] - left[1]) <= 1
        assert min(left) >= at_least


class Pooled(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.last = GCNConv(8, 16), nn.Linear(16, 2)

    def forward(self, x, edge_index, batch):
        return self.last(global_mean_pool(self.conv(x, edge_index).relu(), batch))


def test_tasks_on_graphs_and_on_links():
    graphs = [random_graph(20, seed=seed) for seed in range(12)]
    for i, graph in enumerate(graphs):
        graph.y = torch.tensor([i % 2])
        del graph.train_mask, graph.val_mask, graph.test_mask
    split = {"train": list(range(8)), "valid": [8, 9], "test": [10, 11]}
    links = random_graph(80)
    pairs = torch.randint(80, (2, 40), generator=torch.Generator().manual_seed(0))
    for task, make_model, name in (
        (GraphTask(graphs, split=split, target="multiclass", batch_size=4), Pooled, "last.weight"),
        (LinkTask(links, {"val": (links.edge_index[:, :20], pairs)}), lambda: GCN(8, 16, 2, 4), "convs.1.lin.weight"),
    ):
        ticket = find_ticket(make_model, task, weight_sparsity=0.5, method=Channels("lasso"), training=SHORT)
        assert int(ticket.weight_masks[name].any(0).sum()) == 8


def test_several_types_of_nodes_in_batches():
    data = random_hetero_graph(60)

    def make_model():
        model = to_hetero(GraphSAGE((-1, -1), 16, num_layers=2, out_channels=3), data.metadata())
        with torch.no_grad():
            model(data.x_dict, data.edge_index_dict)
        return model

    def neighbors(graph):
        kind = ("paper", graph["paper"].train_mask)
        return NeighborLoader(graph, [5, 5], input_nodes=kind, batch_size=16)

    task = NodeTask(data, loader=neighbors)
    ticket = find_ticket(make_model, task, weight_sparsity=0.5, method=Channels("lasso"), training=SHORT)
    small, whole = ticket.materialize(make_model, shrink=data), ticket.materialize(make_model)
    sizes = [sum(p.numel() for p in model.parameters() if p.dim() > 1) for model in (small, whole)]
    assert sizes[0] == sizes[1] / 2
    found, expected = (model(data.x_dict, data.edge_index_dict)["paper"] for model in (small, whole))
    assert torch.allclose(found, expected, atol=1e-5)


def test_an_example_takes_no_draw_from_the_next_training():
    generator = torch.Generator().manual_seed(0)
    loader = RandomNodeLoader(random_graph(), num_parts=3, shuffle=True, generator=generator)
    run = TicketRun(MODELS["GCN"], NodeTask(random_graph(), loader=loader), [], SHORT)
    states = generator.get_state(), torch.get_rng_state()
    assert run.example().num_nodes == 20
    assert all(torch.equal(*pair) for pair in zip(states, (generator.get_state(), torch.get_rng_state()), strict=True))


def test_what_is_refused():
    with pytest.raises(ValueError, match=r"'score' must be one of \('magnitude', 'lasso'\) \(got 'l1'\)"):
        Channels("l1")
    with pytest.raises(ValueError, match=r"'start' must be one of \('trained', 'initial'\) \(got 'late'\)"):
        Channels(start="late")
    make_model = lambda: GCN(8, 16, 2, 3, norm="layer_norm")  # noqa: E731
    with pytest.raises(ValueError, match=r"'norms.0' \(LayerNorm\) mixes all channels"):
        find_ticket(make_model, random_graph(), weight_sparsity=0.5, method=Channels(), training=SHORT)
