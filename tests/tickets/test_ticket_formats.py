"""The forms in which a ticket is run."""

import pytest
import torch
from models import MODELS

from graphsparse.nn import CompactLinear, CSRLinear, Supermask, fastest_form
from graphsparse.nn.inference_forms import FORMS
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
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", MODELS)
def test_every_format_gives_the_logits_of_the_dense_model(name, form):
    found, model = untrained(name)
    fast = found.materialize(MODELS[name], format=form)
    assert not fast.training
    expected = predict(model, DATA)
    assert (predict(fast, DATA) - expected).abs().max() <= 1e-6 * expected.abs().max()


def test_the_format_is_what_was_asked_for():
    found, model = untrained()
    kinds = {form: {type(part) for part in found.materialize(MODELS["GCN"], format=form).modules()} for form in FORMS}
    assert kinds["dense"] == {type(part) for part in model.modules()}
    assert "graphsparse.nn.gcn_conv" in {kind.__module__ for kind in kinds["sparse_features"]}
    assert [form for form in FORMS if CSRLinear in kinds[form]] == ["csr"]
    assert [form for form in FORMS if CompactLinear in kinds[form]] == ["compact"]
    assert list(found.materialize(MODELS["GCN"]).state_dict()) == list(found.state_dict)


def test_auto_measures_and_tells(monkeypatch):
    found, model = untrained()
    given = []

    def quick(model, data, *, budget):
        given.append((data, budget))
        return fastest_form(model, data, budget=0)

    monkeypatch.setitem(Ticket.choose_format.__globals__, "fastest_form", quick)
    rows = []
    fast = found.materialize(MODELS["GCN"], format="auto", data=DATA, log=rows.append)
    assert given == [(DATA, 1.5)]
    assert [row["form"] for row in rows] == list(FORMS)
    assert [row["chosen"] for row in rows].count(True) == 1
    assert all(row["milliseconds"] > 0 and row["bytes"] > 0 and row["left_out"] is None for row in rows)
    torch.testing.assert_close(predict(fast, DATA), predict(model, DATA))
    assert found.materialize(MODELS["GCN"], format="auto", data=DATA) is not None
    choice = found.choose_format(MODELS["GCN"], DATA, budget=0.25)
    assert given[-1] == (DATA, 0.25)
    assert choice.reason.startswith(f"{choice.chosen}: ")


def test_refuses():
    found, _ = untrained()
    with pytest.raises(ValueError, match="'data' must be given with format='auto'"):
        found.materialize(MODELS["GCN"], format="auto")
    with pytest.raises(ValueError, match=r"'format' must be one of \('dense', .*\) or 'auto' \(got 'fast'\)"):
        found.materialize(MODELS["GCN"], format="fast")
    for form in ("csr", "auto"):
        with pytest.raises(ValueError, match="'make_model' builds another model"):
            found.materialize(MODELS["GIN"], format=form, data=DATA)
