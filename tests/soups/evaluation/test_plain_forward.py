import pytest
import torch
from models import NormAndTie
from soup_models import CACHED, two_states

from graphsparse.soups.evaluation.plain_forward import LayerwiseForward, PlainForward, call_with_state
from graphsparse.testing import random_graph
from graphsparse.utils.call_model import call_model


@pytest.mark.parametrize("name", ["GCN 2", "GAT", "GCNII"])
def test_equals_a_model_that_has_loaded_the_state(name):
    data = random_graph()
    model, state, _ = two_states(CACHED[name])
    model.eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    nodes = data.val_mask.nonzero().view(-1)
    found = PlainForward(model, data, nodes, call_model).logits(state)
    layered = LayerwiseForward(CACHED[name]().eval(), data, nodes, call_model, 7).logits(state)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    model.load_state_dict(state)
    with torch.no_grad():
        expected = model(data.x, data.edge_index)[data.val_mask]
    assert torch.equal(found, expected)
    assert torch.allclose(layered, expected, atol=1e-5)


def test_files_keep_two_copies_of_a_tied_tensor():
    data = random_graph()
    model = NormAndTie().eval()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        assert torch.equal(call_with_state(model, state, data), model(data.x, data.edge_index))


def test_edge_weights_are_refused_for_models_that_take_none():
    data = random_graph()
    data.edge_weight = torch.ones(data.num_edges)
    model, state, _ = two_states(CACHED["SAGE 2"])
    with pytest.raises(ValueError, match="edge weights"):
        call_with_state(model, state, data)
