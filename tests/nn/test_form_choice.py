import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch_geometric.data import Data
from torch_geometric.nn import GCN

from graphsparse.nn import CompactLinear, FormChoice, FormFigures, fastest_form, form_choice
from graphsparse.nn.form_choice import simplest_of_fastest
from graphsparse.nn.inference_forms import FORMS
from graphsparse.testing import random_graph

DATA = random_graph(seed=1)
QUICK = {"budget": 0.0}


def sparse_model():
    torch.manual_seed(0)
    model = GCN(8, 16, 2, 3)
    with torch.no_grad():
        model.convs[0].lin.weight[::2] = 0
    return model


@pytest.fixture
def takes(monkeypatch):
    """Return a function that says how long each form takes, by a clock that only its runs move."""

    def set_times(**milliseconds):
        now, form_of, build, run = [0.0], {}, form_choice._build, form_choice._run

        def built(model, form):
            made = build(model, form)
            form_of[id(made)] = form
            return made

        def timed(model, data, call):
            now[0] += milliseconds[form_of[id(model)]] / 1e3
            return run(model, data, call)

        monkeypatch.setattr(form_choice, "_build", built)
        monkeypatch.setattr(form_choice, "_run", timed)
        monkeypatch.setattr(form_choice.time, "perf_counter", lambda: now[0])

    return set_times


def test_the_fastest_is_chosen(takes):
    takes(dense=23.24, sparse_features=4.0, compact=1.9, csr=34.0)
    choice = fastest_form(sparse_model(), DATA, **QUICK)
    assert choice.chosen == "compact"
    assert any(isinstance(module, CompactLinear) for module in choice.model.modules())
    assert str(choice) == choice.reason == "compact: 1.9 ms, dense 23.2 ms, sparse_features 4 ms, csr 34 ms"
    assert {name: row.milliseconds for name, row in choice.table.items()} == pytest.approx(
        {"dense": 23.24, "sparse_features": 4.0, "compact": 1.9, "csr": 34.0}
    )


@pytest.mark.parametrize(
    ("times", "chosen"), [((1.04, 1.2, 1.04, 1.0), "dense"), ((1.06, 1.0, 1.1, 0.97), "sparse_features")]
)
def test_the_simplest_of_equals_is_chosen(takes, times, chosen):
    takes(**dict(zip(FORMS, times, strict=True)))
    choice = fastest_form(sparse_model(), DATA, **QUICK)
    assert choice.chosen == chosen
    assert "(as fast as any within 5 %, and simpler)" in choice.reason


@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=4))
def test_rule(times):
    chosen = simplest_of_fastest(dict(zip(FORMS, times, strict=False)))
    place = FORMS.index(chosen)
    assert times[place] <= 1.05 * min(times)
    assert all(time > 1.05 * min(times) for time in times[:place])


def test_medians_and_turns(monkeypatch):
    now, ran = [0.0], []

    def run(name, seconds):
        ran.append(name)
        now[0] += next(seconds)
        return torch.ones(1)

    monkeypatch.setattr(form_choice.time, "perf_counter", lambda: now[0])
    # The first of each pair of a short run isn't counted; a long one runs alone.
    short = itertools.chain([9e-3, 1e-3, 9e-3, 7e-3, 9e-3, 2e-3], itertools.repeat(1e-3))
    long = iter([0.5, 0.9, 0.6])
    times = form_choice._milliseconds([lambda: run("a", short), lambda: run("b", long)], budget=1.0)
    assert times == pytest.approx([2.0, 600.0])
    assert ran == ["a", "a", "b"] * 3
    # Short runs go on until the time is up: 10 turns of 2 ms.
    assert form_choice._milliseconds([lambda: run("a", short)], budget=0.0199) == pytest.approx([1.0])
    assert len(ran) == 9 + 20


def test_a_wrong_form_is_refused(monkeypatch, takes):
    takes(dense=9.0, sparse_features=4.0, compact=1.0, csr=2.0)
    build = form_choice._build

    def broken(model, form):
        made = build(model, form)
        if form == "compact":
            made.convs[0].lin.small.mul_(1 + 1e-3)
        if form == "csr":
            made.convs[1].lin.value[0] = float("nan")
        return made

    monkeypatch.setattr(form_choice, "_build", broken)
    choice = fastest_form(sparse_model(), DATA, **QUICK)
    assert choice.chosen == "sparse_features"
    assert 1e-5 < choice.table["compact"].deviation < 1e-2
    assert choice.table["compact"].milliseconds is None
    assert "compact left out: its logits deviate by" in choice.reason
    assert "csr left out: its logits deviate by nan" in choice.reason
    assert fastest_form(sparse_model(), DATA, tolerance=0.1, **QUICK).chosen == "compact"


def test_a_form_that_fails_is_left_out(monkeypatch):
    def call(model, data):
        if any(isinstance(module, CompactLinear) for module in model.modules()):
            raise RuntimeError("out of order")
        return model(data.x, data.edge_index)

    choice = fastest_form(sparse_model(), DATA, call=call, **QUICK)
    assert choice.table["compact"] == FormFigures("compact", left_out="out of order")
    assert "compact left out: out of order" in choice.reason
    with pytest.raises(RuntimeError, match="in every form"):
        fastest_form(sparse_model(), DATA, call=lambda *_: (_ for _ in ()).throw(RuntimeError("in every form")))


def test_what_changes_nothing_is_left_out():
    choice = fastest_form(nn.Sequential(nn.ReLU()), Data(x=torch.randn(3, 3)), call=lambda m, d: m(d.x), **QUICK)
    assert choice.table["compact"].left_out == "no linear layer has a row or column of zeros"
    assert choice.table["csr"].left_out == "there is no linear layer to hold in compressed rows"
    assert choice.table["dense"].multiply_accumulates == choice.table["dense"].bytes == 0


def test_figures():
    model = sparse_model().train()
    choice = fastest_form(model, DATA, **QUICK)
    assert isinstance(choice, FormChoice)
    assert model.training
    assert not choice.model.training
    assert list(choice.table) == list(FORMS)
    dense, _, compact, csr = choice.table.values()
    assert dense.deviation == 0
    assert dense.bytes == 4 * (8 * 16 + 16 + 16 * 3 + 3)
    assert compact.bytes == 4 * (8 * 8 + 16 + 16 * 3 + 3) + 8 * 8
    assert csr.bytes == 8 * (8 * 8 + 16 * 3) + 4 * (17 + 4) + 4 * (16 + 3)
    num, edges = DATA.num_nodes, DATA.num_edges
    assert dense.multiply_accumulates == num * (8 * 16 + 16 * 3) + (edges + num) * (16 + 3)
    assert csr.multiply_accumulates == dense.multiply_accumulates - num * 64
    assert choice.sparsity == pytest.approx((64 + 19) / 195)  # biases start at zero
    rows = list(choice.rows())
    assert [row["form"] for row in rows] == list(FORMS)
    assert [row["form"] for row in rows if row["chosen"]] == [choice.chosen]
    assert all(row["sparsity"] == choice.sparsity and row["deviation"] <= 1e-5 for row in rows)
    assert repr(choice) == f"FormChoice({choice})"


def test_forms_to_choose_from():
    choice = fastest_form(sparse_model(), DATA, ["csr"], **QUICK)
    assert choice.chosen == "csr"
    assert list(choice.table) == ["csr"]
    with pytest.raises(ValueError, match="'forms' holds none that can be chosen .compact: no linear layer has a row"):
        fastest_form(GCN(8, 4, 1), DATA, ["compact"], **QUICK)


def test_refuses():
    for forms in ("dense", [], ["dense", "auto"]):
        with pytest.raises(ValueError, match=r"'forms' must be some of \('dense'"):
            fastest_form(sparse_model(), DATA, forms)
    with pytest.raises(TypeError, match="'model' must be a torch module"):
        fastest_form(sparse_model, DATA)
    with pytest.raises(TypeError, match=r"'model' must return a tensor \(got tuple\)"):
        fastest_form(sparse_model(), DATA, call=lambda model, data: (data.x,))
    for name in ("budget", "tolerance"):
        with pytest.raises(ValueError, match=f"'{name}' must not be negative"):
            fastest_form(sparse_model(), DATA, **{name: -1.0})
        with pytest.raises(ValueError, match=f"'{name}' must not be negative"):
            fastest_form(sparse_model(), DATA, **{name: float("nan")})
