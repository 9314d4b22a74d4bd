import math

import pytest
import torch
import torch.nn.functional as F
from torch_geometric.data import Data
from torch_geometric.transforms import GCNNorm

from graphsparse.loader.saint import SaintWalkBatches
from graphsparse.testing import random_graph
from graphsparse.training.node_task import NodeTask

DATA = GCNNorm()(random_graph(num_nodes=40, seed=2))
DATA = DATA.apply(lambda value: value.double() if value.is_floating_point() else value)
OPTIONS = {"roots": 5, "walk_length": 2, "seed": 3}


def messages(edge_index, edge_weight, x):
    return torch.zeros_like(x).index_add(0, edge_index[1], edge_weight[:, None] * x[edge_index[0]])


class Constant(torch.nn.Module):
    """Logits of a node that do not depend on the batch it is in: its first features."""

    def forward(self, x, edge_index, edge_weight=None):
        return x[:, :3]


def loss(batch):
    return NodeTask(DATA).loss(Constant(), batch, None)


WHOLE_LOSS = F.cross_entropy(DATA.x[DATA.train_mask, :3], DATA.y[DATA.train_mask])


def test_walks_on_a_path():
    """Node i hears from i - 1 alone, so a walk goes down the path, and stays at its end."""
    path = Data(x=torch.ones(9, 1), edge_index=torch.stack([torch.arange(8), torch.arange(1, 9)]))
    path.train_mask = torch.ones(9).bool()
    loader = SaintWalkBatches(path, roots=1, walk_length=3, num_steps=50, coverage=0)
    assert len(loader) == 50
    tops = set()
    for batch in loader:
        nodes = batch.n_id.tolist()
        assert nodes == list(range(max(nodes[-1] - 3, 0), nodes[-1] + 1))
        assert batch.num_edges == len(nodes) - 1
        assert "loss_weight" not in batch
        tops.add(nodes[-1])
    assert len(tops) > 6


def test_steps_go_to_every_neighbour_as_often():
    star = Data(x=torch.ones(4, 1), edge_index=torch.tensor([[1, 2, 3], [0, 0, 0]]), train_mask=torch.ones(4).bool())
    loader = SaintWalkBatches(star, roots=1, walk_length=1, num_steps=3000, coverage=0)
    pairs = [batch.n_id.tolist() for batch in loader if batch.num_nodes == 2]
    count = torch.tensor([pairs.count([0, leaf]) for leaf in (1, 2, 3)]).double()
    assert count.sum() == len(pairs)
    assert ((count - 250).abs() < 5 * math.sqrt(3000 / 12 * 11 / 12)).all()


def test_over_the_counted_subgraphs_the_estimates_are_exact():
    """The mean over the very subgraphs that were counted is that of the whole graph, whatever the walks."""
    loader = SaintWalkBatches(DATA, **OPTIONS, coverage=60)
    again = iter(SaintWalkBatches(DATA, **OPTIONS, num_steps=loader.num_counted, coverage=0))
    total, losses, seen = torch.zeros_like(DATA.x), 0.0, torch.zeros(40)
    for batch in again:
        nodes, place = batch.n_id, batch.e_id
        where = loader._graph._edge_id.argsort()[place]
        weight = batch.edge_weight * loader._node_count[nodes][batch.edge_index[1]] / loader._edge_count[where]
        total[nodes] += messages(batch.edge_index, weight, batch.x)
        seen[nodes] += 1
        batch.loss_weight = loader.num_counted / (loader._node_count[nodes].double() * DATA.train_mask.sum())
        losses += float(loss(batch) or 0)
    assert seen.min() > 0
    assert (loader._edge_count > 0).all()
    torch.testing.assert_close(total / seen[:, None], messages(DATA.edge_index, DATA.edge_weight, DATA.x))
    assert losses / loader.num_counted == pytest.approx(float(WHOLE_LOSS))


def test_unbiased_on_fresh_subgraphs():
    """The sums and the loss are right on average, up to 5 standard errors of counts and draws together."""
    loader = SaintWalkBatches(DATA, **OPTIONS, num_steps=800, coverage=300)
    assert loader.needs_weighted_sums
    expected = messages(DATA.edge_index, DATA.edge_weight, DATA.x)
    total, square, seen, losses = torch.zeros_like(expected), torch.zeros_like(expected), torch.zeros(40), []
    for batch in loader:
        out = messages(batch.edge_index, batch.edge_weight, batch.x)
        total[batch.n_id] += out
        square[batch.n_id] += out.square()
        seen[batch.n_id] += 1
        losses.append(float(loss(batch) or 0))
    mean = total / seen[:, None]
    variance = square / seen[:, None] - mean.square()
    # The counts are of as good as independent draws, fewer or more of them, with the same variance.
    error = (variance * (1 / seen + 1 / loader._node_count)[:, None]).sqrt()
    assert ((mean - expected).abs() < 5 * error).all()
    losses = torch.tensor(losses)
    error = losses.std() * math.sqrt(1 / len(losses) + 1 / loader.num_counted)
    assert abs(losses.mean() - WHOLE_LOSS) < 5 * error
    assert error < 0.05 * WHOLE_LOSS  # the test can fail
    without = SaintWalkBatches(DATA, **OPTIONS, num_steps=200, coverage=0)
    plain = torch.stack([messages(b.edge_index, b.edge_weight, b.x).abs().sum() for b in without]).mean()
    assert (
        plain < 0.8 * torch.stack([messages(b.edge_index, b.edge_weight, b.x).abs().sum() for b in loader]).mean()
    )  # the edges that a subgraph lacks are made up for


def test_without_normalisation_weights_are_left_alone():
    loader = SaintWalkBatches(DATA, **OPTIONS, coverage=0)
    assert not loader.needs_weighted_sums
    assert loader.num_counted == 0
    for batch in loader:
        assert torch.equal(batch.edge_weight, DATA.edge_weight[batch.e_id])
        assert torch.equal(batch.n_id[batch.edge_index], DATA.edge_index[:, batch.e_id])
        assert "loss_weight" not in batch


def test_an_epoch_draws_about_every_node_once():
    assert len(SaintWalkBatches(DATA, roots=4, walk_length=2, coverage=0)) == 4  # 40 / 12
    assert len(SaintWalkBatches(DATA, roots=4, walk_length=2, coverage=0, num_steps=9)) == 9


def test_no_edges_at_all():
    data = Data(x=torch.ones(3, 1), edge_index=torch.empty(2, 0, dtype=torch.int64), train_mask=torch.ones(3).bool())
    data.edge_weight = torch.empty(0)
    batch = next(iter(SaintWalkBatches(data, roots=4)))
    assert batch.edge_index.shape == (2, 0)
    assert batch.loss_weight.isfinite().all()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"roots": 0}, ValueError, "'roots'"),
        ({"walk_length": 0}, ValueError, "'walk_length'"),
        ({"num_steps": 0}, ValueError, "'num_steps'"),
        ({"coverage": -1}, ValueError, "'coverage'"),
        ({"coverage": math.nan}, ValueError, "'coverage'"),
        ({"coverage": True}, TypeError, "'coverage'"),
        ({"data": random_graph()}, ValueError, "normalize=False"),
    ],
)
def test_bad_options(options, error, message):
    with pytest.raises(error, match=message):
        SaintWalkBatches(**{"data": DATA, **options})
