import copy
import itertools
import math
import warnings

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from models import MODELS
from resuming import Kill, assert_same_result, kill_in, no_kill

from graphsparse.testing import random_graph
from graphsparse.training import L0Projection, build_model, fit

everything = lambda parameter: False  # noqa: E731


def parameters(*values):
    return [torch.nn.Parameter(torch.tensor(value)) for value in values]


def random_parameters(*shapes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]


def zeros(tensors):
    return sum(int((tensor == 0).sum()) for tensor in tensors)


def size(tensors):
    return sum(tensor.numel() for tensor in tensors)


def projected(tensors, sparsity, **options):
    options.setdefault("exclude", everything)
    projection = L0Projection(torch.optim.SGD(tensors, lr=0.1), sparsity, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tiny tensors may become zero as a whole
        projection.project()
    return projection


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=4),
    part=st.integers(0, 63),
    scope=st.sampled_from(["global", "tensor"]),
)
def test_exact_count(sizes, part, scope):
    tensors = random_parameters(*sizes)
    projected(tensors, part / 64, scope=scope)  # a float without rounding error
    count = lambda num: part * num // 64  # noqa: E731
    if scope == "global":
        assert zeros(tensors) == count(size(tensors))
    else:
        assert [zeros([t]) for t in tensors] == [count(t.numel()) for t in tensors]


@settings(max_examples=40, deadline=None)
@given(values=st.lists(st.integers(-3, 3), min_size=1, max_size=7), data=st.data())
def test_is_the_euclidean_projection(values, data):
    """No vector with as few non-zeros is nearer: every support is tried."""
    num_zeros = data.draw(st.integers(0, len(values) - 1))
    before = torch.tensor(values, dtype=torch.float64)
    (after,) = tensors = [torch.nn.Parameter(before.clone())]
    projected(tensors, (num_zeros + 0.5) / len(values))
    distance = float((after.detach() - before).square().sum())
    best = min(sum(values[i] ** 2 for i in gone) for gone in itertools.combinations(range(len(values)), num_zeros))
    assert distance == best
    assert zeros(tensors) >= num_zeros


def test_ranking_is_global_or_by_tensor():
    tensors = parameters([[1.0, -2.0]], [[-3.0, 4.0, 0.5, 6.0]])
    projected(tensors, 0.5)
    assert [tensor.tolist() for tensor in tensors] == [[[0, 0]], [[-3, 4, 0, 6]]]
    tensors = parameters([[1.0, -2.0]], [[-3.0, 4.0, 0.5, 6.0]])
    projected(tensors, 0.5, scope="tensor")
    assert [tensor.tolist() for tensor in tensors] == [[[0, -2]], [[0, 4, 0, 6]]]


def test_first_of_equal_magnitudes_go():
    tensors = parameters([[1.0, -1.0]], [[-1.0, 1.0]])
    projected(tensors, 0.75)
    assert [tensor.tolist() for tensor in tensors] == [[[0, 0]], [[0, 1]]]


def test_zeros_that_are_there_count():
    tensors = parameters([[0.0, 5.0, 0.0, 1.0]])
    projected(tensors, 0.5)
    assert tensors[0].tolist() == [[0, 5, 0, 1]]


def test_idempotent_and_no_change_at_sparsity_zero():
    tensors = random_parameters((4, 5), (6,))
    before = [tensor.detach().clone() for tensor in tensors]
    projected(tensors, 0.0)
    assert all(torch.equal(a, b) for a, b in zip(tensors, before, strict=True))
    projection = projected(tensors, 0.4)
    once = [tensor.detach().clone() for tensor in tensors]
    projection.project()
    assert all(torch.equal(a, b) for a, b in zip(tensors, once, strict=True))
    assert zeros(tensors) == 10


def test_a_zero_with_a_large_gradient_comes_back():
    (weight,) = tensors = parameters([[0.1, 1.0, 2.0, 3.0]])
    optimizer = torch.optim.SGD(tensors, lr=1.0)
    L0Projection(optimizer, 0.25)
    weight.grad = torch.zeros(1, 4)
    optimizer.step()
    assert weight.tolist() == [[0, 1, 2, 3]]
    weight.grad = torch.tensor([[-5.0, 0, 0, 0]])
    optimizer.step()
    assert weight.tolist() == [[5, 0, 2, 3]]


OPTIMIZERS = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=1e-2),
    "Adam": lambda p: torch.optim.Adam(p, lr=0.05, weight_decay=1e-2),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.05),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.5),
    "LBFGS": lambda p: torch.optim.LBFGS(p, lr=0.1, max_iter=3),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("scope", ["global", "tensor"])
def test_exact_after_every_step_of_any_optimizer(name, scope):
    tensors = random_parameters((7, 5), (5, 3))
    x, y = torch.randn(20, 7, generator=torch.Generator().manual_seed(1)), torch.arange(20) % 3
    optimizer = OPTIMIZERS[name](tensors)
    L0Projection(optimizer, 0.6, scope=scope)

    def closure():
        optimizer.zero_grad()
        loss = F.cross_entropy((x @ tensors[0]).relu() @ tensors[1], y)
        loss.backward()
        return loss

    for _ in range(6):
        optimizer.step(closure)
        assert [zeros([t]) for t in tensors] == [21, 9] if scope == "tensor" else zeros(tensors) == 30
    if name == "Adam":  # its state is not projected
        assert all(optimizer.state[t]["exp_avg"].ne(0).all() for t in tensors)


@pytest.mark.parametrize("kind", MODELS)
def test_every_evaluated_model_of_fit_obeys(kind):
    data, model = random_graph(), build_model(MODELS[kind], 0)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    projection = L0Projection(optimizer, 0.5)
    expected = size(projection.parameters) // 2
    counts = []
    result = fit(
        model, data, epochs=4, optimizer=optimizer, after_step=[lambda *_: counts.append(zeros(projection.parameters))]
    )
    assert counts == [expected] * 4
    assert zeros(projection.parameters) == expected  # also of the best weights, which fit loads at the end
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in result.state_dict.items())


def test_excluding_nothing_covers_biases_and_scalars():
    model = MODELS["GIN"]()
    projection = projected(list(model.parameters()), 0.9)
    assert zeros(model.parameters()) == math.floor(0.9 * size(model.parameters()))
    assert len(projection.parameters) == len(list(model.parameters()))


def test_biases_are_left_alone_by_default():
    layer = torch.nn.Linear(10, 10)
    projected([layer.weight, layer.bias], 0.9, exclude=None)
    assert (zeros([layer.weight]), zeros([layer.bias])) == (90, 0)


def steps(optimizer, tensors, num, seed=0):
    """Take steps along random gradients and yield after each."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(num):
        for tensor in tensors:
            tensor.grad = torch.randn(tensor.shape, generator=generator)
        optimizer.step()
        yield


def test_cubic_schedule():
    tensors = random_parameters((10, 10))
    optimizer = torch.optim.SGD(tensors, lr=0.1)
    projection = L0Projection(optimizer, 0.8, schedule="cubic", total_steps=4)
    assert projection.sparsity == 0
    found = [zeros(tensors) for _ in steps(optimizer, tensors, 6)]
    # 0.8 (1 - (1 - t/4)^3) = 0.4625, 0.7, 0.7875, 0.8
    assert found == [46, 70, 78, 80, 80, 80]
    assert projection.sparsity == 0.8


def test_support_is_fixed_after_freeze():
    tensors = random_parameters((10, 10))
    optimizer = torch.optim.SGD(tensors, lr=0.5)
    L0Projection(optimizer, 0.5, freeze_after=3)
    supports = [tensors[0].ne(0) for _ in steps(optimizer, tensors, 6)]
    same = [torch.equal(a, b) for a, b in itertools.pairwise(supports)]
    assert same == [False, False, True, True, True]
    assert zeros(tensors) == 50


def test_a_kept_weight_that_is_0_stays_kept():
    (weight,) = tensors = random_parameters((4, 5))
    optimizer = torch.optim.SGD(tensors, lr=0.1)
    projection = L0Projection(optimizer, 0.5)
    list(steps(optimizer, tensors, 1))
    kept = weight.ne(0)
    weight.data.zero_()
    assert torch.equal(projection.support()[0], kept)
    again = torch.optim.SGD(tensors, lr=0.1)
    other = L0Projection(again, 0.5)
    again.load_state_dict(optimizer.state_dict())
    assert torch.equal(other.support()[0], kept)
    other.project()  # of equal ones the first go: chosen anew, with the same count
    assert int(other.support()[0].sum()) == 10


def test_remove_detaches():
    tensors = random_parameters((4, 4))
    optimizer = torch.optim.SGD(tensors, lr=0.1)
    projection = L0Projection(optimizer, 0.5)
    list(steps(optimizer, tensors, 1))
    projection.remove()
    list(steps(optimizer, tensors, 1))
    assert zeros(tensors) == 0


def test_warns_once_for_each_tensor_that_is_wiped_out():
    tensors = parameters([[0.01, 0.02]], [[5.0, 6.0, 7.0, 8.0]])
    projection = L0Projection(torch.optim.SGD(tensors), 0.4)
    with pytest.warns(UserWarning, match=r"whole tensor of shape \[1, 2\] to zero"):
        projection.project()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        projection.project()


def test_nan_is_told_at_the_step_that_made_it():
    tensors = parameters([[1.0, 2.0]])
    optimizer = torch.optim.SGD(tensors, lr=1.0)
    L0Projection(optimizer, 0.5)
    tensors[0].grad = torch.tensor([[float("nan"), 0.0]])
    with pytest.raises(FloatingPointError, match="a weight is not a number after 1 steps"):
        optimizer.step()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sparsity": 1.0}, "'sparsity' is the fraction removed"),
        ({"sparsity": float("nan")}, "'sparsity' is the fraction removed"),
        ({"scope": "layer"}, "'scope' must be 'global' or 'tensor' (got 'layer')"),
        ({"schedule": "linear"}, "'schedule' must be 'constant' or 'cubic' (got 'linear')"),
        ({"schedule": "cubic"}, "'total_steps' must be at least 1"),
        ({"freeze_after": 0}, "'freeze_after' must be at least 1"),
        ({"schedule": "cubic", "total_steps": 9, "freeze_after": 5}, "'sparsity' would never be reached"),
    ],
)
def test_bad_input(options, message):
    optimizer = torch.optim.SGD(random_parameters((2, 2)))
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the message is compared below, with its brackets
        L0Projection(optimizer, **{"sparsity": 0.5, **options})
    assert message in str(caught.value)
    assert not optimizer._optimizer_step_post_hooks  # nothing is left attached


@pytest.mark.parametrize("schedule", [{"schedule": "cubic", "total_steps": 6}, {"freeze_after": 2}])
def test_another_process_goes_on_with_the_state_of_the_optimiser(schedule):
    def start(sparsity=0.6):
        (weight,) = random_parameters((4, 5))
        optimizer = torch.optim.Adam([weight], lr=0.5)
        return weight, optimizer, L0Projection(optimizer, sparsity, **schedule)

    def steps(weight, optimizer, first, last):
        for step in range(first, last):
            weight.grad = torch.randn(4, 5, generator=torch.Generator().manual_seed(step))
            optimizer.step()

    weight, optimizer, projection = start()
    steps(weight, optimizer, 0, 3)
    middle, state = weight.detach().clone(), copy.deepcopy(optimizer.state_dict())
    steps(weight, optimizer, 3, 8)
    other, again, resumed = start()
    with torch.no_grad():
        other.copy_(middle)
    again.load_state_dict(state)
    assert resumed.num_steps == 3
    steps(other, again, 3, 8)
    assert torch.equal(other, weight)
    assert resumed.sparsity == projection.sparsity


@pytest.mark.parametrize("schedule", [{"schedule": "cubic", "total_steps": 9}, {"freeze_after": 4}])
def test_a_killed_training_goes_on_with_its_projection(schedule, tmp_path):
    def train(hook=no_kill, sparsity=0.5, **options):
        model = build_model(MODELS["GCN"], 0)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
        L0Projection(optimizer, sparsity, **schedule)
        return fit(model, random_graph(), optimizer=optimizer, epochs=12, after_step=[hook], **options)

    whole, path = train(), tmp_path / "fit.pt"
    with pytest.raises(Kill):
        train(kill_in(6), checkpoint=path, checkpoint_every=1)
    with pytest.raises(ValueError, match="belongs to another training(.|\n)*sparsity=0.25"):
        train(sparsity=0.25, checkpoint=path)
    assert_same_result(whole, train(checkpoint=path))


def test_it_says_what_it_does():
    optimizer = torch.optim.SGD(random_parameters((2, 3)), lr=0.1)
    assert repr(L0Projection(optimizer, 0.5, scope="tensor")).startswith("L0Projection(sparsity=0.5, scope='tensor', ")
