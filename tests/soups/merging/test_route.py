"""Each node by the network that answers for it."""

import pytest
import torch
from soup_helpers import random_states
from torch_geometric.nn import GAT, GCN

from graphsparse.soups import Evaluator, ensemble, route
from graphsparse.testing import random_graph


def make():
    return GAT(8, 6, 2, 3, heads=2)


def own(num):
    """Owners of the 60 nodes, by turns."""
    return torch.arange(60) % num


def loaded(state):
    model = make().eval()
    model.load_state_dict(state)
    return model


def test_every_node_is_answered_by_its_own_network():
    data, states = random_graph(), random_states(make, 3)
    logits = route(states, make(), data, own(3))
    assert logits.dtype == torch.float64
    for i, state in enumerate(states):
        expected = loaded(state)(data.x, data.edge_index).log_softmax(1)
        torch.testing.assert_close(logits[own(3) == i], expected[own(3) == i].double(), rtol=1e-5, atol=1e-5)


@pytest.mark.cuda
def test_on_a_device(device):
    states = random_states(make, 3)
    there = [{name: value.to(device) for name, value in state.items()} for state in states]
    logits = route(there, make().to(device), random_graph().to(device), own(3))
    torch.testing.assert_close(logits.cpu(), route(states, make(), random_graph(), own(3)), rtol=1e-4, atol=1e-4)


def test_several_are_averaged_and_none_is_not_a_number():
    data, states = random_graph(), random_states(make, 2)
    logits = route(states, make(), data, [torch.tensor([3, 5]), torch.tensor([5, 9])])
    p = [loaded(state)(data.x, data.edge_index).softmax(1).double() for state in states]
    torch.testing.assert_close(logits[5], ((p[0] + p[1]) / 2)[5].log(), rtol=1e-5, atol=1e-5)
    known = ~logits.isnan().any(1)
    assert known.nonzero().flatten().tolist() == [3, 5, 9]


def test_all_for_all_is_the_ensemble_of_probabilities():
    data, states = random_graph(), random_states(make, 3)
    expected = ensemble(states, Evaluator(make(), data), mean="probabilities").logits
    torch.testing.assert_close(route(states, make(), data)[data.val_mask].float(), expected)


def test_classes_that_are_not_known_have_no_probability():
    data, classes = random_graph(), [[2], [0, 2]]
    states = [GCN(8, 6, 2, len(known)).state_dict() for known in classes]
    logits = route(states, GCN(8, 6, 2, 3), data, own(2), classes)
    assert logits[0].tolist() == [-torch.inf, -torch.inf, 0]
    assert torch.isneginf(logits[1]).tolist() == [False, True, False]
    torch.testing.assert_close(logits.exp().sum(1), torch.ones(60, dtype=torch.float64))


def test_a_store_of_parts_answers_for_its_own_parts_on_their_edges_alone():
    class Store(list):
        def parts(self, halo=False):
            return [(own(2) == i).nonzero().squeeze(1) for i in range(2)]

    data = random_graph()
    states = Store(random_states(make, 2))
    logits = route(states, make(), data)
    for i, state in enumerate(states):
        part = data.subgraph(own(2) == i)
        expected = loaded(state)(part.x, part.edge_index).log_softmax(1)
        torch.testing.assert_close(logits[own(2) == i], expected.double(), rtol=1e-5, atol=1e-5)


def test_what_does_not_fit_is_refused():
    data, states = random_graph(), random_states(make, 2)
    with pytest.raises(TypeError, match="'data' must be a torch_geometric Data"):
        route(states, make(), [data, data])
    with pytest.raises(ValueError, match="numbers of 2 networks"):
        route(states, make(), data, own(3))
    with pytest.raises(ValueError, match="does not fit the model"):
        route(states, GCN(8, 6, 2, 3), data)
    with pytest.raises(ValueError, match="'classes' must name the class of each output"):
        route(states, make(), data, own(2), [[0, 1], [2]])
