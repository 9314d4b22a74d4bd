import pytest
import torch
from models import MODELS

from graphsparse.soups import SoupResult
from graphsparse.soups.sparse.soup_ticket import soup_ticket
from graphsparse.testing import random_graph
from graphsparse.tickets import Ticket, find_ticket
from graphsparse.training import Training


def test_saved_loaded_and_materialised(tmp_path):
    data = random_graph()
    like = find_ticket(MODELS["GCN"], data, edge_sparsity=0.3, weight_sparsity=0.5, training=Training(epochs=3))
    state = {name: 2 * value for name, value in like.state_dict.items()}
    ticket = soup_ticket(SoupResult(state, None, 0.75, [0.5, 0.7]), like, config={"method": "lottery_pool"})
    ticket.save(tmp_path / "soup.safetensors")
    ticket = Ticket.load(tmp_path / "soup.safetensors")
    assert ticket.config == {"method": "lottery_pool", "seed": 0}
    assert ticket.metrics["score"] == 0.75
    assert ticket.sparsify(data).num_edges == like.sparsify(data).num_edges
    assert ticket.weight_masks.keys() == like.weight_masks.keys()
    for name, mask in like.weight_masks.items():
        assert torch.equal(ticket.weight_masks[name], mask)
    for name, value in ticket.materialize(MODELS["GCN"]).state_dict().items():
        assert torch.equal(value, state[name])


def test_of_no_particular_graph():
    state = {"w": torch.tensor([[0.0, 1.0]]), "v": torch.ones(1, 2), "b": torch.zeros(2), "n": torch.zeros(1, 2).int()}
    ticket = soup_ticket(SoupResult(state, None, 0.5, [0.5]))
    assert ticket.edge_mask is None
    assert list(ticket.weight_masks) == ["w"]
    assert ticket.weight_masks["w"].tolist() == [[False, True]]


def test_bad_input():
    with pytest.raises(TypeError, match="'soup' must be"):
        soup_ticket({})
    with pytest.raises(TypeError, match="'like' must be"):
        soup_ticket(SoupResult({}, None, 0.5, [0.5]), {})
