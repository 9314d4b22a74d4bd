import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.nn import GIN
from torch_geometric.utils import degree
from transfer_pairs import small_pair

from graphsparse.nn import accelerate
from graphsparse.testing import random_graph
from graphsparse.transfer.baselines.dgi import InfomaxObjective
from graphsparse.transfer.baselines.egi import EgoObjective
from graphsparse.transfer.baselines.options import BaselineOptions
from graphsparse.transfer.baselines.pretraining import PretrainedLinkPredictor, one_hot_degree
from graphsparse.transfer.data.leak import assert_no_leak
from graphsparse.transfer.models.link_training import LinkTraining

OPTIONS = BaselineOptions(
    hidden=8, student_hidden=8, student_training=LinkTraining(epochs=6, eval_every=2), pretraining_epochs=5
)


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
    first = PretrainedLinkPredictor(watched, inputs, options=OPTIONS).fit(pair, split, seed=1)
    torch.manual_seed(1)
    second = PretrainedLinkPredictor(objective, inputs, options=OPTIONS).fit(pair, split, seed=1)
    other = PretrainedLinkPredictor(objective, inputs, options=OPTIONS).fit(pair, split, seed=2)
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
    with pytest.raises(TypeError, match="'x' must be torch.float32, as the weights are .got torch.float64"):
        PretrainedLinkPredictor(InfomaxObjective, "features", options=OPTIONS).fit(double, split)


def test_names(data):
    with pytest.raises(ValueError, match="'inputs'"):
        PretrainedLinkPredictor(InfomaxObjective, "words")
    with pytest.raises(ValueError, match="'messages'"):
        PretrainedLinkPredictor(InfomaxObjective, messages="union")
    with pytest.raises(RuntimeError, match="nothing has been learned"):
        PretrainedLinkPredictor(InfomaxObjective).score(data[1].test)
