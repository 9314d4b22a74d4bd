"""Methods that look at weights alone, against plain formulas on two dozen numbers."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from graphsparse.soups import merge

#: A model of 24 parameters, and one of them in four tensors.
MODELS = {
    "one matrix": lambda: nn.Linear(6, 4, bias=False),
    "four tensors": lambda: nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)),
}


def networks(kind, num, seed=0, spread=0.3):
    """A start and networks near it, in which some entries moved by nothing and some by the same."""
    torch.manual_seed(seed)
    base = MODELS[kind]().state_dict()
    states = []
    for _ in range(num):
        delta = {name: spread * torch.randn_like(value) for name, value in base.items()}
        for value in delta.values():
            flat = value.view(-1)
            flat[::5] = 0.25 * flat[::5].sign()  # ties in size
            flat[1::7] = 0  # zeros
        states.append({name: value + delta[name] for name, value in base.items()})
    return base, states


def flat(state):
    return torch.cat([value.double().flatten() for value in state.values()]).numpy()


def merged(kind, states, method, base=None, **options):
    return merge(states, MODELS[kind](), method=method, base=base, **options)


def deltas(base, states):
    return np.stack([flat(state) - flat(base) for state in states])


def trimmed(delta, smallest, largest=0):
    """Sort by size, then by index, in plain Python."""
    order = sorted(range(len(delta)), key=lambda i: (abs(delta[i]), i))
    kept = set(order[smallest : len(delta) - largest])
    return np.array([value if i in kept else 0.0 for i, value in enumerate(delta)])


each = pytest.mark.parametrize("kind", MODELS)
several = pytest.mark.parametrize("num", [1, 2, 3, 8])


@each
@several
def test_mean_and_task_arithmetic(kind, num):
    base, states = networks(kind, num)
    average = np.mean([flat(state) for state in states], axis=0)
    found = merged(kind, states, "mean")
    np.testing.assert_allclose(flat(found.state_dict), average, atol=1e-7)
    assert found.weights.tolist() == [1 / num] * num
    np.testing.assert_allclose(flat(merged(kind, states, "task_arithmetic", base).state_dict), average, atol=1e-7)
    scaled = flat(merged(kind, states, "task_arithmetic", base, scale=-0.7).state_dict)
    np.testing.assert_allclose(scaled, flat(base) - 0.7 * deltas(base, states).mean(0), atol=1e-7)


@each
@several
@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.8])
def test_ties(kind, num, sparsity):
    base, states = networks(kind, num)
    kept = np.stack([trimmed(delta, math.floor(sparsity * len(delta))) for delta in deltas(base, states)])
    expected = np.zeros(kept.shape[1])
    for p, column in enumerate(kept.T):
        agree = [value for value in column if value * column.sum() > 0]
        expected[p] = np.mean(agree) if agree else 0
    found = merged(kind, states, "ties", base, sparsity=sparsity, scale=0.9)
    np.testing.assert_allclose(flat(found.state_dict), flat(base) + 0.9 * expected, atol=1e-6)


def test_ties_trims_exactly_so_many_and_a_sum_of_zero_is_none():
    base = {"weight": torch.zeros(4, 6)}
    state = {"weight": torch.full((4, 6), 0.5)}
    other = {"weight": -state["weight"]}
    found = merged("one matrix", [state], "ties", base, sparsity=0.75).state_dict["weight"].flatten()
    assert found.tolist() == [0] * 18 + [0.5] * 6  # of equal ones the first are trimmed
    assert not merged("one matrix", [state, other], "ties", base, sparsity=0).state_dict["weight"].any()


@each
@several
def test_breadcrumbs(kind, num):
    base, states = networks(kind, num)
    size = len(flat(base))
    gone, largest = math.floor(0.5 * size), math.floor(0.1 * size)
    assert largest > 0
    kept = np.stack([trimmed(delta, gone - largest, largest) for delta in deltas(base, states)])
    found = merged(kind, states, "breadcrumbs", base, sparsity=0.5, outliers=0.1, scale=1.1)
    np.testing.assert_allclose(flat(found.state_dict), flat(base) + 1.1 * kept.mean(0), atol=1e-6)


@each
@several
def test_model_stock(kind, num):
    base, states = networks(kind, num, spread=1)
    if num == 8:
        states[3] = base  # has not moved, so that its angles are right ones
    found = merged(kind, states, "model_stock", base).state_dict
    for name, start in base.items():
        moved = [(state[name] - start).double().flatten() for state in states]
        cosines = [torch.cosine_similarity(a, b, dim=0) for i, a in enumerate(moved) for b in moved[:i]]
        cosine = max(float(sum(cosines) / len(cosines)), 0) if num > 1 else 1
        t = num * cosine / (1 + (num - 1) * cosine)
        expected = start + t * sum(moved).view_as(start) / num
        torch.testing.assert_close(found[name].double(), expected, atol=1e-6, rtol=0)


def test_model_stock_of_opposite_ways_stays_at_the_start():
    base, (state,) = networks("four tensors", 1)
    other = {name: 2 * value - state[name] for name, value in base.items()}
    found = merged("four tensors", [state, other], "model_stock", base).state_dict
    assert all(torch.equal(found[name], value) for name, value in base.items())
    still = merged("four tensors", [base, base], "model_stock", base).state_dict
    assert all(torch.equal(still[name], value) for name, value in base.items())


@pytest.mark.parametrize(
    ("method", "options"), [("dare", {"sparsity": 0.7}), ("della", {"sparsity": 0.6, "spread": 0.3})]
)
def test_what_is_dropped_at_random_is_made_up_for_by_the_rest(method, options):
    base, states = networks("one matrix", 2, spread=1)
    draws = [flat(merged("one matrix", states, method, base, seed=seed, **options).state_dict) for seed in range(500)]
    draws, expected = np.stack(draws), np.mean([flat(state) for state in states], axis=0)
    error = draws.std(0) / len(draws) ** 0.5
    assert (np.abs(draws.mean(0) - expected) <= 4 * error + 1e-6).all()
    assert len({draw.tobytes() for draw in draws}) == len(draws)


def test_dare_divides_what_it_keeps_and_draws_anew_for_every_network():
    base, state = {"weight": torch.zeros(4, 6)}, {"weight": torch.ones(4, 6)}
    one = merged("one matrix", [state], "dare", base, sparsity=0.75).state_dict["weight"]
    assert set(one.unique().tolist()) == {0.0, 4.0}
    two = merged("one matrix", [state] * 2, "dare", base, sparsity=0.5).state_dict["weight"]
    assert set(two.unique().tolist()) == {0.0, 1.0, 2.0}


def test_della_keeps_large_entries_more_often_row_by_row():
    base = {"weight": torch.zeros(4, 6)}
    ranks = torch.tensor([[0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0], [2, 0, 1, 5, 3, 4], [0, 0, 0, 0, 0, 0]])
    state = {"weight": (1.0 + ranks) * torch.tensor([[1.0], [-10], [0.1], [3]])}
    options = {"sparsity": 0.5, "spread": 0.4}
    kept = torch.zeros(4, 6)
    for seed in range(500):
        found = merged("one matrix", [state], "della", base, seed=seed, **options).state_dict["weight"]
        kept += found != 0
        ratio = (found / state["weight"])[:3]
        density = 0.1 + 0.8 * ranks[:3] / 5
        torch.testing.assert_close(ratio, torch.where(found[:3] != 0, 1 / density, 0.0))
    ranks[3] = torch.arange(6)  # equal ones in the order of their indices
    density = 0.1 + 0.8 * ranks / 5
    assert ((kept / 500 - density).abs() < 4 * (density * (1 - density) / 500).sqrt()).all()


def slerp(first, second, ratio):
    """The formula, with the angle from both vectors."""
    one, other = np.linalg.norm(first), np.linalg.norm(second)
    u, v = first / one, second / other
    angle = 2 * math.atan2(np.linalg.norm(u - v), np.linalg.norm(u + v))
    if angle < 1e-9:
        return ratio * first + (1 - ratio) * second
    mixed = (math.sin(ratio * angle) * u + math.sin((1 - ratio) * angle) * v) / math.sin(angle)
    return (ratio * one + (1 - ratio) * other) * mixed


@each
@pytest.mark.parametrize("ratio", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("spread", [1e-4, 0.3, 3.0])
def test_slerp(kind, ratio, spread):
    _, states = networks(kind, 2, spread=spread)
    found = merged(kind, states, "slerp", ratio=ratio).state_dict
    for name in found:
        first, second = (state[name].double().numpy().ravel() for state in states)
        np.testing.assert_allclose(found[name].numpy().ravel(), slerp(first, second, ratio), atol=1e-6)


@each
def test_karcher_of_two_is_halfway_on_the_great_circle(kind):
    _, states = networks(kind, 2, spread=2)
    found = merged(kind, states, "karcher").state_dict
    for name in found:
        first, second = (state[name].double().numpy().ravel() for state in states)
        np.testing.assert_allclose(found[name].numpy().ravel(), slerp(first, second, 0.5), atol=1e-6)


@pytest.mark.parametrize("num", [3, 8, 40])
@pytest.mark.parametrize("spread", [0.01, 0.3, 3.0])
def test_karcher_is_where_the_logarithms_cancel_out(num, spread):
    _, states = networks("one matrix", num, spread=spread)
    found = merged("one matrix", states, "karcher").state_dict["weight"].double().flatten()
    vectors = torch.stack([state["weight"].double().flatten() for state in states])
    torch.testing.assert_close(found.norm(), vectors.norm(dim=1).mean(), rtol=1e-6, atol=0)
    mean, units = found / found.norm(), vectors / vectors.norm(dim=1, keepdim=True)
    across = units - (units @ mean).unsqueeze(1) * mean
    logs = across / across.norm(dim=1, keepdim=True) * torch.atan2(across.norm(dim=1), units @ mean).unsqueeze(1)
    assert float(logs.mean(0).norm()) < 1e-6


def test_vectors_without_a_direction():
    one = torch.arange(24.0).view(4, 6)
    states = [{"weight": one}, {"weight": torch.zeros(4, 6)}]
    for method in ("slerp", "karcher"):  # the length is the mean, the direction that of the other
        torch.testing.assert_close(merged("one matrix", states, method).state_dict["weight"], one / 2)
        assert not merged("one matrix", states[1:] * 2, method).state_dict["weight"].any()
        opposite = merged("one matrix", [{"weight": one}, {"weight": -3 * one}], method).state_dict["weight"]
        torch.testing.assert_close(opposite, -one)


def test_what_does_not_fit_is_refused():
    base, states = networks("four tensors", 3)
    for method, options, message in [
        ("slerp", {}, "'states' must hold two networks for 'slerp' (got 3)"),
        ("slerp", {"ratio": 1.5}, "'ratio' must be in"),
        ("ties", {"sparsity": 1.0}, "'sparsity' is the fraction removed"),
        ("dare", {"sparsity": -0.1}, "'sparsity' is the fraction removed"),
        ("dare", {"scale": math.inf}, "'scale' must be a finite number"),
        ("della", {"sparsity": 0.5, "spread": 0.5}, "'spread' must leave all"),
        ("della", {"sparsity": 0.1, "spread": 0.2}, "'spread' must leave all"),
        ("breadcrumbs", {"sparsity": 0.1, "outliers": 0.2}, "'outliers' must be at most 'sparsity'"),
    ]:
        with pytest.raises(ValueError, match=message.replace("(", r"\(").replace(")", r"\)")):
            merged("four tensors", states, method, base, **options)
