import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.nn import GCN, GraphConv
from torch_geometric.transforms import GCNNorm
from torch_geometric.utils import degree

from graphsparse.loader.layerwise import FastGCNBatches, LadiesBatches, LayerwiseBatches, sum_by
from graphsparse.testing import random_graph
from graphsparse.utils.call_model import call_model

DATA = GCNNorm()(random_graph(num_nodes=40, seed=3))
DATA = DATA.apply(lambda value: value.double() if value.is_floating_point() else value)
P = torch.zeros(40, 40, dtype=torch.float64).index_put(
    (DATA.edge_index[1], DATA.edge_index[0]), DATA.edge_weight, accumulate=True
)
BOTH = pytest.mark.parametrize("kind", [FastGCNBatches, LadiesBatches])


def everywhere(data=DATA):
    """The same graph with every node a training node, so that a batch may hold all rows."""
    data = data.clone()
    data.train_mask = torch.ones(data.num_nodes, dtype=torch.bool)
    return data


def matrix(batch, layer):
    """The weights of a layer as a matrix of the whole graph, ``[N, N]``."""
    (source, target), weight = batch.layer_edges[layer]
    return torch.zeros_like(P).index_put((batch.n_id[target], batch.n_id[source]), weight, accumulate=True)


def linear(batch):
    """What linear layers without weights make of the features of a batch, and which nodes are seeds."""
    x = batch.x
    for (source, target), weight in batch.layer_edges:
        x = torch.zeros_like(x).index_add(0, target, weight[:, None] * x[source])
    return x[: batch.batch_size], batch.n_id[: batch.batch_size]


@BOTH
def test_form_of_a_batch(kind):
    loader = kind(DATA, num_layers=3, batch_size=5, layer_size=5)
    train = DATA.train_mask.nonzero().flatten()
    epochs = [list(loader), list(loader)]
    for epoch in epochs:
        assert len(epoch) == len(loader) == -(-len(train) // 5)
        assert sorted(torch.cat([b.n_id[: b.batch_size] for b in epoch]).tolist()) == train.tolist()
    for batch in epochs[0]:
        nodes = batch.n_id
        assert len(nodes.unique()) == len(nodes)
        assert torch.equal(batch.x, DATA.x[nodes])
        assert torch.equal(batch.y, DATA.y[nodes])
        assert batch.edge_index is None
        assert "edge_weight" not in batch
        targets = nodes[: batch.batch_size]
        for layer in (2, 1, 0):
            rows = matrix(batch, layer)
            assert (P[rows != 0] > 0).all()
            drawn = rows.any(0).nonzero().flatten()
            assert len(drawn) <= 5
            assert torch.isin(rows.any(1).nonzero().flatten(), targets).all()
            # every drawn node keeps its edges into all targets
            assert torch.equal(rows[targets][:, drawn] != 0, P[targets][:, drawn] != 0)
            targets = torch.cat([targets, drawn]).unique()
        assert torch.equal(targets, nodes.sort().values)
    assert [b.n_id.tolist() for b in epochs[0]] != [b.n_id.tolist() for b in epochs[1]]


def test_one_layer_of_fastgcn_is_unbiased_with_the_variance_of_the_textbook():
    """For s draws with probabilities q the variance is (sum_u (P_vu x_u)^2 / q_u - (P x)_v^2) / s."""
    draws, size = 600, 6
    data = everywhere()
    data.train_mask[20:] = False
    loader = FastGCNBatches(data, num_layers=1, batch_size=20, layer_size=size)
    share = P.square().sum(0) / P.square().sum()
    x, target = DATA.x, P[:20] @ DATA.x
    second = (P[:20].square() / share).nan_to_num() @ x.square()
    variance = (second - target.square()) / size
    found = torch.zeros(draws, 20, 8, dtype=torch.float64)
    for i in range(draws):
        (batch,) = loader
        out, seeds = linear(batch)
        found[i, seeds] = out
    assert ((found.mean(0) - target).abs() < 5 * (variance / draws).sqrt()).all()
    ratio = found.var(0) / variance
    assert ratio.mean() == pytest.approx(1, abs=0.1)


def test_two_layers_of_fastgcn_are_unbiased():
    draws = 600
    loader = FastGCNBatches(everywhere(), num_layers=2, batch_size=40, layer_size=10)
    found = torch.zeros(draws, 40, 8, dtype=torch.float64)
    for i in range(draws):
        (batch,) = loader
        out, seeds = linear(batch)
        found[i, seeds] = out
    target = P @ P @ DATA.x
    error = found.std(0) / draws**0.5
    assert ((found.mean(0) - target).abs() < 5 * error).all()
    # With the same draws in both layers the expectation would differ by far more than that.
    share = P.square().sum(0) / P.square().sum()
    same = target + (P * (P.diagonal() / share)) @ DATA.x / 10 - target / 10
    assert ((same - target).abs() > 5 * error).any()


def test_ladies_draws_neighbours_of_the_layer_above_in_proportion_and_weighs_them():
    """A node is there with probability 1 - (1 - q)^s; within a row the weights are P_vu times draws over q."""
    draws, size = 600, 6
    data = everywhere()
    data.train_mask[20:] = False  # the rows of U
    loader = LadiesBatches(data, num_layers=1, batch_size=20, layer_size=size)
    share = P[:20].square().sum(0) / P[:20].square().sum()
    there, once = torch.zeros(40, dtype=torch.float64), 0
    for _ in range(draws):
        (batch,) = loader
        rows = matrix(batch, 0)[:20]
        drawn = rows.any(0)
        there += drawn
        if int(drawn.sum()) == size:  # no node was drawn twice
            once += 1
            expected = torch.where(drawn, P[:20] / share, 0)
            expected *= (P[:20].sum(1) / expected.sum(1).clamp(min=1e-12)).unsqueeze(1)
            torch.testing.assert_close(rows, torch.where(rows.any(1, keepdim=True), expected, 0))
    probability = 1 - (1 - share) ** size
    assert ((there - draws * probability).abs() <= 5 * (draws * probability * (1 - probability)).sqrt()).all()
    assert once > 50


def test_layers_of_fastgcn_are_independent():
    draws = 600
    loader = FastGCNBatches(everywhere(), num_layers=2, batch_size=40, layer_size=8)
    drawn = torch.zeros(2, draws, 40)
    for i in range(draws):
        (batch,) = loader
        for layer in range(2):
            drawn[layer, i] = matrix(batch, layer).any(0)
    first, second = ((d - d.mean(0)) / d.std(0) for d in drawn)
    correlation = first.t() @ second / draws
    assert correlation.abs().max() < 5 / draws**0.5
    torch.testing.assert_close(drawn[0].mean(0), drawn[1].mean(0), atol=5 * (0.5 / draws) ** 0.5, rtol=0)


def test_rows_of_ladies_have_the_sum_that_they_have_in_the_graph():
    loader = LadiesBatches(everywhere(), num_layers=2, batch_size=40, layer_size=5)
    drawn = 0
    for _ in range(20):
        (batch,) = loader
        for layer in range(2):
            rows = matrix(batch, layer)
            there = rows.any(1)
            torch.testing.assert_close(rows.sum(1)[there], P.sum(1)[there])
            drawn += int(there.sum())
    assert 0 < drawn < 20 * 2 * 40


def test_ladies_with_room_for_all_is_exact():
    data, model = DATA, GCN(8, 16, 2, 3, normalize=False).double().eval()
    whole = call_model(model, data)
    for batch in LadiesBatches(data, num_layers=2, batch_size=6, layer_size=40):
        torch.testing.assert_close(call_model(model, batch)[: batch.batch_size], whole[batch.n_id[: batch.batch_size]])
    neighbours = (P[:6] > 0).any(0).sum()
    data = everywhere()
    data.train_mask[6:] = False
    for size in (int(neighbours), 1000):
        (batch,) = LadiesBatches(data, num_layers=1, batch_size=6, layer_size=size)
        assert torch.equal(matrix(batch, 0)[:6], P[:6])


def test_a_layer_has_the_nodes_of_the_next_for_root_weights():
    """Averaged over draws, a linear model with root weights is right."""

    class Linear(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.convs = torch.nn.ModuleList(GraphConv(8, 8).double() for _ in range(2))

        def forward(self, x, edge_index, edge_weight):
            for conv in self.convs:
                x = conv(x, edge_index, edge_weight)
            return x

    torch.manual_seed(0)
    model = Linear().eval()
    whole = call_model(model, DATA).detach()
    loader = FastGCNBatches(everywhere(), num_layers=2, batch_size=40, layer_size=12)
    found = torch.zeros(300, 40, 8, dtype=torch.float64)
    for i in range(300):
        (batch,) = loader
        found[i, batch.n_id[:40]] = call_model(model, batch)[:40].detach()
    assert ((found.mean(0) - whole).abs() < 5 * found.std(0) / 300**0.5).all()


def matrix_of(batch, num_nodes):
    (source, target), weight = batch.layer_edges[0]
    return torch.zeros(num_nodes, num_nodes).index_put((batch.n_id[target], batch.n_id[source]), weight)


@BOTH
def test_no_edges_and_no_weights(kind):
    for edge_index in (torch.empty(2, 0, dtype=torch.int64), torch.tensor([[0, 1], [1, 2]])):
        data = Data(x=torch.ones(3, 1), edge_index=edge_index, edge_weight=torch.zeros(edge_index.size(1)))
        data.train_mask = torch.ones(3).bool()
        (batch,) = kind(data)
        assert len(batch.layer_edges) == 2
        assert all(weight.isfinite().all() for _, weight in batch.layer_edges)


def test_mean_normalised_graphs():
    """With a mean as P the rows of LADIES sum to 1, which is the division by their sum of the paper."""
    plain = random_graph(num_nodes=40, seed=3)
    data = everywhere(plain)
    data.edge_weight = 1 / degree(plain.edge_index[1], 40)[plain.edge_index[1]]
    (batch,) = LadiesBatches(data, num_layers=1, layer_size=10)
    rows = matrix_of(batch, 40).sum(1)
    torch.testing.assert_close(rows[rows != 0], torch.ones(int((rows != 0).sum())))


def test_sum_by():
    assert sum_by(torch.tensor([2, 0, 2]), torch.tensor([1.0, 2.0, 4.0]), 4).tolist() == [2, 0, 5, 0]
    with pytest.raises(TypeError, match="abstract"):
        LayerwiseBatches(DATA)


@BOTH
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_layers": 0}, ValueError, "'num_layers'"),
        ({"batch_size": 1.5}, TypeError, "'batch_size'"),
        ({"layer_size": 0}, ValueError, "'layer_size'"),
        ({"layer_size": "12"}, TypeError, "'layer_size'"),
        ({"layer_size": [3, 4]}, TypeError, "'layer_size'"),
        ({"data": random_graph()}, ValueError, "normalize=False"),
    ],
)
def test_bad_options(kind, options, error, message):
    with pytest.raises(error, match=message):
        kind(**{"data": DATA, **options})
