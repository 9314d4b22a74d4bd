"""The forms in which a ticket is run."""

import pytest
import torch
from models import MODELS

from graphsparse.nn import CSRLinear, Supermask
from graphsparse.testing import random_graph
from graphsparse.tickets import Ticket
from graphsparse.training import predict

DATA = random_graph(seed=1)


def untrained(name="GCN", sparsity=0.9):
    """Return a ticket of random scores, some of whose rows and columns are dead."""
    torch.manual_seed(0)
    masked = Supermask(MODELS[name](), sparsity, total_steps=1)
    masked.step()
    model = masked.materialize()
    return Ticket(model.state_dict(), {}), model


@pytest.mark.filterwarnings("ignore:accelerate.. left these layers:UserWarning")
@pytest.mark.parametrize("form", ["dense", "csr"])
@pytest.mark.parametrize("name", MODELS)
def test_every_format_gives_the_logits_of_the_dense_model(name, form):
    found, model = untrained(name)
    fast = found.materialize(MODELS[name], format=form)
    assert not fast.training
    expected = predict(model, DATA)
    assert (predict(fast, DATA) - expected).abs().max() <= 1e-6 * expected.abs().max()


def test_the_format_is_what_was_asked_for():
    found, model = untrained()
    dense, csr = (
        {type(part) for part in found.materialize(MODELS["GCN"], format=f).modules()} for f in ("dense", "csr")
    )
    assert dense == {type(part) for part in model.modules()}
    assert CSRLinear in csr
    assert list(found.materialize(MODELS["GCN"]).state_dict()) == list(found.state_dict)


def test_refuses():
    found, _ = untrained()
    with pytest.raises(ValueError, match=r"'format' must be 'dense' or 'csr' \(got 'fast'\)"):
        found.materialize(MODELS["GCN"], format="fast")
    with pytest.raises(ValueError, match="'make_model' builds another model"):
        found.materialize(MODELS["GIN"], format="csr")
