import copy
import gc
import threading
import weakref

import pytest
import torch

from graphsparse.ops import Adjacency
from graphsparse.ops.remember import _kept, remember, remember_repeated
from graphsparse.testing import toy_edge_index


class Counter:
    """Counts how often something is computed."""

    def __init__(self, function=lambda: torch.zeros(3)):
        self.count = 0
        self.function = function

    def __call__(self):
        self.count += 1
        return self.function()


@pytest.fixture
def without_collector():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def test_computed_once_for_each_key():
    x, compute = torch.ones(3), Counter()
    found = [remember([x], "a", compute) for _ in range(3)]
    assert compute.count == 1
    assert found[0] is found[1] is found[2]
    assert remember([x], "b", compute) is not found[0]
    assert remember([torch.ones(3)], "a", compute) is not found[0]
    assert remember([x[:]], "a", compute) is not found[0]
    assert compute.count == 4


def test_nothing_and_falsehood_are_results():
    x = torch.ones(3)
    for value in (None, False, ""):
        compute = Counter(lambda value=value: value)
        assert [remember([x], ("key", value), compute) for _ in range(3)] == [value] * 3
        assert compute.count == 1


def test_second_time():
    x, compute = torch.ones(3), Counter()
    assert remember_repeated([x], "a", compute) is None
    assert remember_repeated([x], "b", compute) is None
    assert compute.count == 0
    first = remember_repeated([x], "a", compute)
    assert first is not None
    assert remember_repeated([x], "a", compute) is first
    assert compute.count == 1
    x.add_(1)
    assert remember_repeated([x], "a", compute) is None
    assert remember_repeated([x], "a", compute) is not first


@pytest.mark.parametrize("position", [0, 1, 2])
def test_change_in_place(position):
    inputs, compute = [torch.ones(3), torch.ones(3), torch.ones(2, 3)], Counter()
    remember(inputs, "a", compute)
    changes = [
        lambda x: x.add_(1),
        lambda x: x[..., :1].mul_(2),
        lambda x: x.detach().zero_(),
        lambda x: x.copy_(torch.rand_like(x)),
        lambda x: x.resize_(7),
    ]
    for number, change in enumerate(changes):
        with torch.no_grad() if number % 2 else torch.inference_mode():
            change(inputs[position])
        for _ in range(2):
            remember(inputs, "a", compute)
        assert compute.count == number + 2


@pytest.mark.parametrize("make", [torch.Tensor.to_sparse, torch.Tensor.to_sparse_csr, torch.Tensor.to_sparse_csc])
def test_change_of_sparse_values(make):
    matrix, compute = make(torch.eye(3)), Counter()
    for _ in range(2):
        remember([matrix], "a", compute)
    assert compute.count == 1
    matrix.values().mul_(2)
    remember([matrix], "a", compute)
    assert compute.count == 2


def test_several_inputs():
    x, others, compute = torch.ones(3), [torch.ones(3), torch.ones(3)], Counter()
    adj = Adjacency.from_edge_index(toy_edge_index())
    for _ in range(2):
        for inputs in ([x, others[0]], [x, others[1]], [x, adj], [others[0], x], [x, others[0], adj], [x]):
            remember(inputs, "a", compute)
    assert compute.count == 6


def test_result_that_was_changed_is_computed_anew():
    x, compute = torch.ones(3), Counter(lambda: torch.ones(3))
    remember([x], "a", compute).add_(5)
    for _ in range(2):
        assert remember([x], "a", compute).tolist() == [1, 1, 1]
    assert compute.count == 2


def test_lives_as_long_as_each_input(without_collector):
    for dying in (0, 1):
        inputs = [torch.ones(3), torch.ones(3)]
        result = weakref.ref(remember(inputs, "a", lambda: Adjacency.from_edge_index(toy_edge_index())))
        assert result() is not None
        del inputs[dying]
        assert result() is None
    inputs = [torch.ones(3), Adjacency.from_edge_index(toy_edge_index())]
    result = weakref.ref(remember(inputs, "a", lambda: Adjacency.from_edge_index(toy_edge_index())))
    inputs.pop()
    assert result() is None


def test_nothing_stays_behind(without_collector):
    before = len(_kept)
    x = torch.ones(3)
    for _ in range(100):
        other = torch.ones(3)
        remember([x, other], "a", lambda: 1)
        remember([other, x], "a", lambda: 1)
    del other
    assert len(_kept) == before + 1
    assert len(_kept[x]) == 0
    del x
    assert len(_kept) == before


def test_old_results_go_when_an_input_changes(without_collector):
    x = torch.ones(3)
    result = weakref.ref(remember([x], "a", lambda: Adjacency.from_edge_index(toy_edge_index())))
    x.add_(1)
    remember([x], "a", lambda: None)
    assert result() is None


def test_another_object_at_the_same_place():
    x, seen = torch.ones(3), set()
    for number in range(50):
        other = torch.full((3,), float(number))
        seen.add(id(other))
        assert remember([x, other], "a", lambda other=other: other[0].item()) == number
        del other
    assert len(seen) < 50  # or nothing was tested


def test_computed_without_gradients():
    x = torch.ones(3, requires_grad=True)
    assert not remember([x], "a", lambda: x * 2).requires_grad
    with torch.no_grad():
        assert remember([x], "b", torch.is_grad_enabled) is False
    assert torch.is_grad_enabled()


def test_inference_mode():
    x = torch.ones(3)
    with torch.inference_mode():
        found = remember([x], "a", lambda: x * 2)
        own = torch.ones(3)
        compute = Counter()
        for _ in range(2):
            remember([own], "a", compute)
            remember([x, own], "a", compute)
            assert remember_repeated([own], "a", compute) is None
    assert compute.count == 4  # no versions are counted for tensors made in this mode
    assert not found.is_inference()
    weight = torch.ones(3, requires_grad=True)
    (remember([x], "a", lambda: None) * weight).sum().backward()
    assert weight.grad.tolist() == [2, 2, 2]


def test_error_is_not_a_result():
    x = torch.ones(3)
    with pytest.raises(ZeroDivisionError):
        remember([x], "a", lambda: 1 / 0)
    assert remember([x], "a", lambda: 2) == 2


def test_parameters_and_copies():
    weight, compute = torch.nn.Parameter(torch.ones(3)), Counter()
    remember([weight], "a", compute)
    twin = copy.deepcopy(weight)
    remember([twin], "a", compute)
    assert compute.count == 2
    optimizer = torch.optim.SGD([weight], 0.1)
    weight.sum().backward()
    optimizer.step()
    remember([weight], "a", compute)
    assert compute.count == 3


def test_threads():
    x, failures = torch.ones(3), []

    def work(number):
        try:
            for step in range(200):
                own = torch.ones(3)
                assert remember([x], number, lambda: number) == number
                assert remember([own, x], step, lambda step=step: step) == step
        except Exception as failure:
            failures.append(failure)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
