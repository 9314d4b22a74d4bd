import copy
import functools
import itertools
import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch_geometric.nn import GCN, Sequential

from graphsparse.testing import random_graph
from graphsparse.tickets import Untrained, find_ticket
from graphsparse.training import Training, build_model, seeded


def draw():
    return torch.rand(3).tolist(), random.random(), np.random.rand(3).tolist()  # noqa: NPY002 - the global state


def test_same_seed_same_numbers_from_every_global_generator():
    with seeded(5):
        first = draw()
    with seeded(5):
        second = draw()
    with seeded(6):
        third = draw()
    assert first == second
    assert all(a != b for a, b in zip(first, third, strict=True))


@pytest.mark.parametrize("error", [None, KeyboardInterrupt])
def test_caller_goes_on_as_if_nothing_had_been_drawn(error):
    with seeded(1):
        expected = draw()
    with seeded(1):
        try:
            with seeded(2):
                draw()
                if error:
                    raise error
        except KeyboardInterrupt:
            pass
        assert draw() == expected


def test_a_seed_that_is_refused_halfway_leaves_everything_alone():
    with seeded(1):
        expected = draw()
    with seeded(1):
        with pytest.raises(TypeError), seeded(1.5):  # NumPy takes integers only, and is the last to be seeded
            pass
        assert draw() == expected


def test_large_and_negative_seeds():
    for seed in (-1, 2**40):
        with seeded(seed):
            draw()


def test_built_models_start_equal():
    first, second, other = (build_model(lambda: GCN(4, 8, 2, 3), seed) for seed in (0, 0, 1))
    for p, q in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(p, q)
    assert not torch.equal(first.convs[0].lin.weight, other.convs[0].lin.weight)


def built_by_build_model(make_model):
    return build_model(make_model, seed=0)


def built_in_a_block(make_model):
    with seeded(0):
        return make_model()


@pytest.mark.parametrize("build", [built_by_build_model, built_in_a_block])
def test_sequentials_of_one_seed_each_run_their_own_forward_pass(build, monkeypatch):
    # PyG generates a forward pass, and may take one for another, only where the file that builds can be imported.
    monkeypatch.setitem(sys.modules, Path(__file__).stem, sys.modules[__name__])
    double, add = (lambda x: 2 * x, "x -> x"), (lambda x: x + 1, "x -> y")
    one = build(lambda: Sequential("x", [double, double]))
    other = build(lambda: Sequential("x", [double, add, (lambda x, y: x * y, "x, y -> z")]))
    x = torch.tensor([3.0])
    assert (one(x), other(x), copy.deepcopy(one)(x)) == (12, 42, 12)


def test_a_model_instead_of_a_function_is_refused():
    model = GCN(4, 8, 2, 3)
    with pytest.raises(TypeError, match="'make_model' must be a function"):
        build_model(model, 0)
    with pytest.raises(TypeError, match="'make_model' must return a torch.nn.Module.*int"):
        build_model(lambda: 3, 0)


class Encoded(nn.Module):
    def __init__(self, encoder):
        super().__init__()
        self.encoder, self.last = encoder, nn.Linear(8, 3)

    def forward(self, x, edge_index):
        return self.last(self.encoder(x, edge_index))


class Holder:
    def __init__(self):
        self.model = None

    def make(self):
        self.model = self.model or GCN(8, 8, 2, 3)
        return self.model


def tied_to(weight):
    model = GCN(8, 8, 2, 3)
    model.convs[0].lin.weight = weight
    return model


def old_models():
    """Return functions that give out what was there before, by what it is and where it stands."""
    model, encoder, table = GCN(8, 8, 2, 3), GCN(8, 8, 2), torch.randn(5, 8)
    norm, activation = nn.BatchNorm1d(8, affine=False), nn.ReLU()
    return {
        "the same model": (lambda: model, "convs.0"),
        "an encoder": (lambda: Encoded(encoder), "encoder.convs.0"),
        "a frozen encoder": (lambda: Encoded(copy.deepcopy(encoder).requires_grad_(False)), None),
        "a method": (Holder().make, "convs.0"),
        "a partial function over an instance": (functools.partial(Holder.make, Holder()), "convs.0"),
        "a cache": (functools.lru_cache(lambda: GCN(8, 8, 2, 3)), "convs.0"),
        "two in turn": (itertools.cycle([GCN(8, 8, 2, 3), GCN(8, 8, 2, 3)]).__next__, "convs.0"),
        "one weight": (functools.partial(tied_to, model.convs[0].lin.weight), "convs.0.lin.weight"),
        "a table that is trained": (
            lambda: nn.Sequential(nn.Embedding.from_pretrained(table, freeze=False)),
            "0.weight",
        ),
        "a table that is not": (lambda: nn.Sequential(nn.Embedding.from_pretrained(table), nn.Linear(8, 3)), None),
        "running statistics": (lambda: nn.Sequential(norm, nn.Linear(8, 3)), "0"),
        "an activation": (lambda: nn.Sequential(nn.Linear(8, 3), activation), None),
        "a copy": (lambda: copy.deepcopy(model), None),
    }


@pytest.mark.parametrize("name", old_models())
def test_a_model_must_be_new(name):
    make_model, part = old_models()[name]
    if part is None:
        first, *others = (build_model(make_model, 0) for _ in range(3))
        assert all(other is not first for other in others)
        return
    with pytest.raises(ValueError, match=f"must build a new model each time, but '{part}.*was built before"):
        _ = [build_model(make_model, 0) for _ in range(3)]


def test_an_old_model_is_neither_trained_nor_filled_with_the_weights_of_a_ticket():
    data, model = random_graph(), GCN(8, 8, 2, 3)
    before = copy.deepcopy(model.state_dict())
    ticket = find_ticket(lambda: GCN(8, 8, 2, 3), data, weight_sparsity=0.5, training=Training(epochs=1))
    for call in (
        lambda: find_ticket(lambda: model, data, weight_sparsity=0.5, training=Training(epochs=1)),
        lambda: find_ticket(lambda: model, data, weight_sparsity=0.5, method=Untrained(epochs=1)),
        lambda: ticket.materialize(lambda: model),
    ):
        with pytest.raises(ValueError, match="must build a new model each time"):
            call()
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_nothing_is_kept_of_models_that_are_gone():
    for _ in range(50):  # their memory is used again and again
        build_model(lambda: GCN(8, 32, 2, 3), 0)


def test_a_model_on_the_cpu_touches_no_gpu(monkeypatch):
    """To read the generator of a GPU opens a context on it: hundreds of megabytes that belong to nobody."""

    def touched(*_, **__):
        raise AssertionError("a GPU was touched")

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    for name in ("get_rng_state", "set_rng_state", "_lazy_init"):
        monkeypatch.setattr(torch.cuda, name, touched)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available=False: torch.device("cuda"))
    with seeded(3):
        draw()


def test_the_seed_of_the_caller_stays_that_of_gpus_used_later(monkeypatch):
    asked = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", asked.append)
    torch.manual_seed(5)
    with seeded(3):
        draw()
    assert asked == [5, 3, 5]


@pytest.mark.cuda
def test_the_generator_of_a_device(device):
    torch.manual_seed(7)
    expected = torch.rand(3, device=device)
    with seeded(0):
        first = torch.rand(3, device=device)
    torch.manual_seed(7)
    with seeded(0):
        assert torch.equal(torch.rand(3, device=device), first)
    assert torch.equal(torch.rand(3, device=device), expected)
