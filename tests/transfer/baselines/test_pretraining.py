import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.nn import GIN
from torch_geometric.utils import degree
from transfer_pairs import small_pair

from graphsparse.nn import accelerate
from graphsparse.testing import random_graph
from graphsparse.training import link_training
from graphsparse.transfer import BaselineOptions, assert_no_leak
from graphsparse.transfer.baselines.egi import EgoObjective
from graphsparse.transfer.baselines.pretraining import InfomaxObjective, PretrainedLinkPredictor, one_hot_degree

TRAINING = link_training(epochs=6, eval_every=2)
OPTIONS = BaselineOptions(hidden=8, student_hidden=8, student_training=TRAINING, pretraining_epochs=5)


@pytest.fixture(scope="module")
def data():
    return small_pair()


def test_degrees():
    graph = random_graph()
    found = one_hot_degree(graph, 6)
    assert torch.equal(found.argmax(1), degree(graph.edge_index[1], 60).long().clamp(max=5))
    assert torch.equal(found.sum(1), torch.ones(60))
    assert one_hot_degree(Data(edge_index=torch.empty(2, 0).long(), num_nodes=3), 2).tolist() == [[1.0, 0.0]] * 3


@pytest.mark.parametrize("objective", [InfomaxObjective, EgoObjective])
def test_sparse_features_give_the_loss_and_the_gradients_of_dense_ones(objective):
    dense = random_graph()
    dense.x = dense.x * (dense.x > 1.2)
    sparse = dense.clone()
    sparse.x = dense.x.to_sparse_csr()
    found = []
    for graph in (dense, sparse):
        torch.manual_seed(0)
        made = objective(accelerate(GIN(8, 16, 2)), 8, 16, graph, 0)
        torch.manual_seed(1)
        loss = made()
        loss.backward()
        found.append([loss, *(weight.grad for weight in made.parameters() if weight.grad is not None)])
    assert len(found[0]) == len(found[1]) > 4
    for expected, given in zip(*found, strict=True):
        assert torch.allclose(expected, given, atol=1e-5)


@pytest.mark.parametrize("inputs", ["degree", "features"])
@pytest.mark.parametrize("objective", [InfomaxObjective, EgoObjective])
def test_learns_the_source_without_what_is_held_out_and_follows_from_the_seed(data, objective, inputs):
    pair, split = data
    seen = []

    def watched(encoder, width, channels, graph, seed):
        seen.append(graph)
        return objective(encoder, width, channels, graph, seed)

    torch.manual_seed(0)
    first = PretrainedLinkPredictor(watched, inputs, settings=OPTIONS).fit(pair, split, seed=1)
    torch.manual_seed(1)
    second = PretrainedLinkPredictor(objective, inputs, settings=OPTIONS).fit(pair, split, seed=1)
    other = PretrainedLinkPredictor(objective, inputs, settings=OPTIONS).fit(pair, split, seed=2)
    assert torch.equal(first.score(split.test), second.score(split.test))
    assert not torch.equal(first.score(split.test), other.score(split.test))
    source = pair.graph("source", without=split)
    assert torch.equal(seen[0].edge_index, source.edge_index)
    assert_no_leak(split, pair, graph=Data(edge_index=seen[0].edge_index, n_id=source.n_id, num_nodes=source.num_nodes))
    assert seen[0].x.size(1) == (128 if inputs == "degree" else 8)
    assert min(entry["val"] for entry in first.results[0].history) == first.results[0].val


def test_features_of_another_type_than_the_weights(data):
    pair, split = data
    double = pair.with_x(pair.union().x.double())
    with pytest.raises(TypeError, match="x' must be torch.float32, as the weights are .got torch.float64"):
        PretrainedLinkPredictor(InfomaxObjective, "features", settings=OPTIONS).fit(double, split)


def test_loss_of_infomax_is_that_of_the_paper():
    graph = random_graph()
    encoder = GIN(8, 16, 2)
    objective = InfomaxObjective(encoder, 8, 16, graph, 0)
    torch.manual_seed(3)
    found = objective()
    torch.manual_seed(3)
    shuffled = graph.x[torch.randperm(60)]
    real, false = encoder(graph.x, graph.edge_index), encoder(shuffled, graph.edge_index)
    summary = real.mean(0).sigmoid()
    d_real, d_false = (z @ objective.infomax.weight @ summary for z in (real, false))
    expected = -d_real.sigmoid().log().mean() - (1 - d_false.sigmoid()).log().mean()
    assert torch.allclose(found, expected, atol=1e-5)


def test_infomax_learns():
    torch.manual_seed(0)
    objective = InfomaxObjective(GIN(8, 16, 2), 8, 16, random_graph(), 0)
    optimizer = torch.optim.Adam(objective.parameters(), lr=1e-2)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = objective()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]
    assert objective.encoder is objective.infomax.encoder
