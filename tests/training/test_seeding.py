import random

import numpy as np
import pytest
import torch
from torch_geometric.nn import GCN

from graphsparse.training import build_model, seeded


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


def test_a_model_instead_of_a_function_is_refused():
    model = GCN(4, 8, 2, 3)
    with pytest.raises(TypeError, match="'make_model' must be a function"):
        build_model(model, 0)
    with pytest.raises(TypeError, match="'make_model' must return a torch.nn.Module.*int"):
        build_model(lambda: 3, 0)


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
