import torch
from models import NormAndTie

from graphsparse.soups.states.ties import tie, tied_names


def test_names_of_a_tied_weight():
    assert tied_names(NormAndTie()) == {"third.lin.weight": "second.lin.weight"}


def test_a_read_state_is_tied_again():
    model = NormAndTie()
    copies = {name: value.clone() for name, value in model.state_dict().items()}
    found = tie(copies, tied_names(model))
    assert list(found) == list(copies)
    assert found["third.lin.weight"] is found["second.lin.weight"]
    assert copies["third.lin.weight"] is not copies["second.lin.weight"]


def test_buffers_may_be_tied():
    model = torch.nn.Module()
    model.register_buffer("a", torch.ones(2))
    model.register_buffer("b", model.a)
    assert tied_names(model) == {"b": "a"}
