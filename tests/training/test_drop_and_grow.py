import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from models import MODELS
from resuming import Kill, assert_same_result, kill_in, no_kill
from torch_geometric.loader import RandomNodeLoader

from graphsparse.ops.select import drop_and_grow
from graphsparse.testing import random_graph
from graphsparse.training import DropAndGrow, FixedMask, NodeTask, build_model, fit

OPTIMIZERS = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=1e-2),
    "Adam": lambda p: torch.optim.Adam(p, lr=0.05, weight_decay=1e-2),
    "AdamW, amsgrad": lambda p: torch.optim.AdamW(p, lr=0.05, amsgrad=True),
}


def two(seed=0, shapes=((10, 10), (4, 10))):
    generator = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]


def step(optimizer, parameters, number):
    """One step along gradients that follow from its number; every third entry never has one."""
    generator = torch.Generator().manual_seed(number)
    for parameter in parameters:
        gradient = torch.randn(parameter.shape, generator=generator)
        gradient.view(-1)[::3] = 0
        parameter.grad = gradient
    optimizer.step()


def moments(optimizer, parameter):
    return [v for v in optimizer.state[parameter].values() if v is not None and v.shape == parameter.shape]


@pytest.mark.parametrize("growth", ["gradient", "random"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_after_every_of_200_steps(optimizer, growth):
    """Counts are exact, what is not kept is 0, what is grown starts from nothing, no move is after the end."""
    parameters = two()
    made = OPTIMIZERS[optimizer](parameters)
    mask = DropAndGrow(made, 0.7, end=150, every=7, growth=growth)
    counts = [int(kept.sum()) for kept in FixedMask(OPTIMIZERS[optimizer](two()), 0.7).kept]
    assert sum(counts) == 140 - int(0.7 * 140)
    ever, moved_at, live_zeros = [kept.clone() for kept in mask.kept], [], 0
    for number in range(1, 201):
        before, kept = [p.detach().clone() for p in parameters], mask.support()
        step(made, parameters, number)
        assert [int(now.sum()) for now in mask.support()] == counts
        for parameter, old, now, was in zip(parameters, kept, mask.support(), before, strict=True):
            assert not parameter[~now].any()
            assert not parameter[now & ~old].any()
            assert all(not value[now & ~old].any() for value in moments(made, parameter))
            assert not torch.equal(parameter[now & old], was[now & old])
        if any(not torch.equal(old, now) for old, now in zip(kept, mask.support(), strict=True)):
            moved_at.append(number)
        if number % 7 == 3:  # some steps after a move
            live_zeros += sum(int((p[now] == 0).sum()) for p, now in zip(parameters, mask.support(), strict=True))
        ever = [a | b for a, b in zip(ever, mask.support(), strict=True)]
    assert set(moved_at) <= set(range(7, 150, 7))
    assert len(moved_at) > 10
    assert mask.explored == sum(int(one.sum()) for one in ever) / 140 > 0.45
    assert live_zeros > 0 or growth == "gradient"  # kept, and still 0, as no gradient ever comes to them


def test_growth_is_that_of_a_dense_reference():
    (weight,) = two(shapes=((10, 10),))
    made = torch.optim.SGD([weight], lr=0.1)
    mask = DropAndGrow(made, 0.8, end=100, every=5, fraction=0.5)
    moves = 0
    for number in range(1, 100):
        kept, before = mask.kept[0].clone(), weight.detach().clone()
        step(made, [weight], number)
        if number % 5:
            continue
        share = 0.25 * (1 + math.cos(math.pi * number / 100))
        values = before - 0.1 * weight.grad
        alive = [i for i in range(100) if kept.view(-1)[i]]
        alive.sort(key=lambda i: abs(float(values.view(-1)[i])))
        stay = set(alive[int(share * 20) :])
        rest = sorted((i for i in range(100) if i not in stay), key=lambda i: -abs(float(weight.grad.view(-1)[i])))
        expected = stay | set(rest[: int(share * 20)])
        assert set(mask.kept[0].view(-1).nonzero().view(-1).tolist()) == expected
        still = torch.tensor(sorted(stay))
        torch.testing.assert_close(weight.detach().view(-1)[still], values.view(-1)[still])
        moves += not torch.equal(kept, mask.kept[0])
    assert moves > 10


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_drop_and_grow_against_sorted_lists(data):
    size = data.draw(st.integers(1, 12))
    numbers = st.lists(st.integers(0, 3), min_size=size, max_size=size)  # many ties
    kept = data.draw(st.lists(st.booleans(), min_size=size, max_size=size))
    sizes, scores = data.draw(numbers), data.draw(numbers)
    number = data.draw(st.integers(0, sum(kept)))
    found = drop_and_grow(torch.tensor(kept), torch.tensor(sizes).float(), torch.tensor(scores).float(), number)
    stay = sorted((i for i in range(size) if kept[i]), key=lambda i: (sizes[i], i))[number:]
    rest = sorted((i for i in range(size) if i not in stay), key=lambda i: (-scores[i], i))
    assert sorted(stay + rest[:number]) == found.nonzero().view(-1).tolist()


def train(project, epochs=40, **options):
    return fit(build_model(MODELS["GCN"], 0), random_graph(), epochs=epochs, lr=0.05, project=project, **options)


@pytest.mark.parametrize("options", [{"every": 0}, {"fraction": 0.0}, {"end": 0}])
def test_what_never_moves_is_a_fixed_mask(options):
    options = {"end": 30} | options
    ours = train(lambda optimizer: DropAndGrow(optimizer, 0.8, **options))
    assert_same_result(ours, train(lambda optimizer: FixedMask(optimizer, 0.8)))


def test_nothing_is_grown_in_a_tensor_that_is_kept_whole():
    parameters, plain = (two(shapes=((20, 20), (1, 20))) for _ in range(2))
    made, simple = (torch.optim.Adam(p, lr=0.1) for p in (parameters, plain))
    mask = DropAndGrow(made, 0.5, end=40, every=2)
    assert [bool(kept.all()) for kept in mask.kept] == [False, True]
    for number in range(1, 40):
        step(made, parameters, number)
        step(simple, plain, number)
        assert torch.equal(parameters[1], plain[1])


@pytest.mark.parametrize("options", [{}, {"growth": "random"}, {"accumulate": 4}], ids=str)
def test_the_state_of_the_optimiser_in_mid_training_gives_the_same_rest(options):
    def start():
        parameters = two()
        made = torch.optim.Adam(parameters, lr=0.1)
        return parameters, made, DropAndGrow(made, 0.8, end=60, every=6, **options)

    parameters, made, mask = start()
    for number in range(1, 29):  # 28 is within the steps whose gradients are summed for the move at 30
        step(made, parameters, number)
    middle, state = copy.deepcopy(parameters), copy.deepcopy(made.state_dict())
    others, again, resumed = start()
    with torch.no_grad():
        for other, value in zip(others, middle, strict=True):
            other.copy_(value)
    again.load_state_dict(state)
    for number in range(29, 70):
        step(made, parameters, number)
        step(again, others, number)
    for first, second in zip(
        [*parameters, *mask.kept, *mask.fired], [*others, *resumed.kept, *resumed.fired], strict=True
    ):
        assert torch.equal(first, second)
    assert mask.explored == resumed.explored


@pytest.mark.parametrize("growth", ["gradient", "random"])
def test_a_killed_training_goes_on(growth, tmp_path):
    def project(optimizer, sparsity=0.8):
        return DropAndGrow(optimizer, sparsity, end=30, every=4, accumulate=3, growth=growth)

    whole, path = train(project, after_step=[no_kill]), tmp_path / "a.pt"
    with pytest.raises(Kill):
        train(project, after_step=[kill_in(22)], checkpoint=path, checkpoint_every=3)
    with pytest.raises(ValueError, match=r"belongs to another training(.|\n)*every=4"):
        train(lambda o: DropAndGrow(o, 0.8, end=30, every=5), after_step=[no_kill], checkpoint=path)
    again = train(project, after_step=[no_kill], checkpoint=path)
    assert_same_result(again, whole)
    for name, mask in whole.weight_masks.items():
        assert torch.equal(again.weight_masks[name], mask)


def test_gradients_of_several_steps_are_averaged():
    (weight,) = two(shapes=((10, 10),))
    made, seen = torch.optim.SGD([weight], lr=0.1), {}

    class Spy(DropAndGrow):
        def grow_score(self, parameter):
            seen[self.num_steps] = super().grow_score(parameter).clone()
            return seen[self.num_steps]

    Spy(made, 0.8, end=20, every=5, accumulate=3)
    slopes = []
    for number in range(1, 20):
        step(made, [weight], number)
        slopes.append(weight.grad.abs())
    assert list(seen) == [5, 10, 15]
    for number, score in seen.items():
        torch.testing.assert_close(score, torch.stack(slopes[number - 3 : number]).mean(0))


class Largest(DropAndGrow):
    """Grows by the moments, as a user writes it."""

    def grow_score(self, parameter):
        state = self.optimizer.state[parameter]
        return (state["exp_avg"] / (state["exp_avg_sq"].sqrt() + 1e-8)).abs()


def test_another_score_and_a_loader():
    data = random_graph(200)
    task = NodeTask(data, loader=RandomNodeLoader(data, num_parts=3, shuffle=True))
    for kind in (Largest, DropAndGrow):
        model = build_model(MODELS["GCN"], 0)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
        mask = kind(optimizer, 0.8, end=40, every=6, accumulate=3)
        result = fit(model, task, epochs=20, optimizer=optimizer)
        assert sum(int(kept.sum()) for kept in result.weight_masks.values()) == 176 - int(0.8 * 176)
        assert mask.num_steps == 60
        assert mask.explored > 0.25


def test_moments_that_are_kept():
    found = {}
    for how in ("reset", "keep"):
        (weight,) = two(shapes=((10, 10),))
        made = torch.optim.Adam([weight], lr=0.1)
        mask = DropAndGrow(made, 0.8, end=9, every=5, moments=how)
        old = mask.kept[0]
        for number in range(1, 6):
            step(made, [weight], number)
        grown = mask.kept[0] & ~old
        assert grown.any()
        found[how] = made.state[weight]["exp_avg"][grown]
    assert not found["reset"].any()
    assert found["keep"].all()


def test_a_gradient_that_is_no_number():
    (weight,) = two(shapes=((10, 10),))
    made = torch.optim.SGD([weight], lr=0.1)
    DropAndGrow(made, 0.8, end=9, every=1)
    weight.grad = torch.full((10, 10), torch.nan)
    with pytest.raises(FloatingPointError, match="the score of one, is not a number after 1 steps"):
        made.step()


class Short(DropAndGrow):
    def grow_score(self, parameter):
        return parameter.sum(0)


def test_a_score_of_another_shape():
    (weight,) = two(shapes=((10, 10),))
    made = torch.optim.SGD([weight], lr=0.1)
    Short(made, 0.8, end=9, every=1)
    with pytest.raises(ValueError, match=r"'grow_score' must return .* \[10, 10\] \(got \[10\]\)"):
        step(made, [weight], 1)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"growth": "weight"}, ValueError, "'growth' must be 'gradient' or 'random'.*'weight'"),
        ({"every": -1}, ValueError, "'every' must be at least 0.*-1"),
        ({"fraction": 1.5}, ValueError, r"'fraction' must be in \[0, 1\].*1.5"),
        ({"end": 2.5}, TypeError, "'end' must be an integer.*2.5"),
        ({"accumulate": 11}, ValueError, "'accumulate' must be at most 'every', which is 10.*11"),
        ({"moments": "drop"}, ValueError, "'moments' must be 'reset' or 'keep'"),
        ({"scope": "uniform"}, ValueError, "'scope' must be"),
        ({"sparsity": 1.0}, ValueError, "'sparsity' is the fraction removed"),
    ],
    ids=str,
)
def test_bad_input(options, error, message):
    made = torch.optim.SGD(two())
    with pytest.raises(error, match=message):
        DropAndGrow(made, **{"sparsity": 0.5, "end": 10, **options})
    assert not made._optimizer_step_post_hooks  # nothing is left attached
