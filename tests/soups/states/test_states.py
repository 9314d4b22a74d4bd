import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from graphsparse.soups.states.states import check_states, combine, mix

HALVES = (torch.float16, torch.bfloat16)


def two(dtype=torch.float32):
    torch.manual_seed(0)
    return [{"w": torch.randn(4, 3).to(dtype), "n": torch.tensor(i)} for i in (5, 6)]


def test_mixture_by_hand():
    first, second = {"w": torch.tensor([1.0, -2.0])}, {"w": torch.tensor([5.0, 2.0])}
    assert mix(first, second, 0.25)["w"].tolist() == [4.0, 1.0]


@pytest.mark.parametrize("ratio", [0.0, 1.0])
def test_ends_of_the_scale_are_copies(ratio):
    first, second = two()
    second["w"][0, 0], first["w"][0, 0] = torch.inf, -torch.inf
    mixed = mix(first, second, ratio)
    assert torch.equal(mixed["w"], (second, first)[int(ratio)]["w"])
    assert mixed["w"].data_ptr() not in (first["w"].data_ptr(), second["w"].data_ptr())


def test_values_that_are_equal_stay_even_if_infinite():
    state = {"w": torch.tensor([-torch.inf, 1 / 3])}
    assert torch.equal(mix(state, {"w": state["w"].clone()}, 0.3)["w"], state["w"])
    assert torch.equal(combine([state] * 3, torch.full((3,), 1 / 3))["w"], state["w"])


def test_others_than_floats_are_those_of_the_first():
    first, second = two()
    assert mix(first, second, 0.0)["n"] == 5
    assert combine([first, second], torch.tensor([0.0, 1.0]))["n"] == 5


@pytest.mark.parametrize("dtype", HALVES)
def test_half_precision_is_rounded_once(dtype):
    first, second = two(dtype)
    exact = 0.3 * first["w"].double() + 0.7 * second["w"].double()
    assert mix(first, second, 0.3)["w"].dtype == dtype
    for mixed in (mix(first, second, 0.3), combine([first, second], torch.tensor([0.3, 0.7]).double())):
        torch.testing.assert_close(mixed["w"].double(), exact.to(dtype).double(), rtol=torch.finfo(dtype).eps, atol=0)


@pytest.mark.parametrize("dtype", [*HALVES, torch.float32])
@given(st.lists(st.floats(0, 1), min_size=2, max_size=6).filter(lambda w: sum(w) > 0.1))
def test_equal_states_are_their_own_sum(dtype, weights):
    state = two(dtype)[0]
    weights = torch.tensor(weights, dtype=torch.float64)
    found = combine([state] * len(weights), weights / weights.sum())
    assert torch.equal(found["w"], state["w"])


def test_weights_by_name():
    first, second = ({"a": torch.full((2,), v), "b": torch.full((3,), v)} for v in (1.0, 2.0))
    found = combine([first, second], {"a": torch.tensor([1.0, 0.0]), "b": torch.tensor([0.5, 0.5])})
    assert found["a"].tolist() == [1, 1]
    assert found["b"].tolist() == [1.5] * 3


def test_two_names_of_one_tensor_stay_so():
    def tied(value):
        tensor = torch.full((2,), value)
        return {"a": tensor, "b": tensor, "c": tensor.clone()}

    for found in (mix(tied(1.0), tied(2.0), 0.5), combine([tied(1.0), tied(2.0)], torch.tensor([0.5, 0.5]))):
        assert found["a"] is found["b"]
        assert found["a"] is not found["c"]
        assert torch.equal(found["a"], found["c"])


def test_no_graph_is_built():
    first = {"w": torch.nn.Parameter(torch.ones(2))}
    assert not mix(first, first, 0.5)["w"].requires_grad
    assert not combine([first], torch.ones(1))["w"].requires_grad


def test_bad_numbers():
    with pytest.raises(ValueError, match="'ratio' must be in"):
        mix(*two(), 1.5)
    with pytest.raises(ValueError, match="one weight for each of 2 states"):
        combine(two(), torch.ones(3))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("w"), "ingredient 1 does not fit ingredient 0: missing keys \\['w'\\]"),
        (lambda s: s.update(v=torch.ones(1)), "further keys \\['v'\\]"),
        (lambda s: s.update(w=torch.ones(3, 4)), "'w' has shape \\[3, 4\\] and torch.float32, not \\[4, 3\\]"),
        (lambda s: s.update(w=s["w"].double()), "torch.float64, not \\[4, 3\\] and torch.float32"),
        (lambda s: s["w"].fill_(torch.nan), "ingredient 1 holds values that are not numbers, in 'w'"),
    ],
)
def test_states_that_do_not_fit(change, message):
    states = two()
    change(states[1])
    with pytest.raises(ValueError, match=message):
        check_states(states)


def test_complex_values_are_not_mixed():
    states = [{"w": torch.ones(2, dtype=torch.complex64)}] * 2
    with pytest.raises(ValueError, match=r"'tickets' must hold real numbers \(got complex ones in 'w'\)"):
        check_states(states, name="tickets")


def test_no_states():
    with pytest.raises(ValueError, match="'ingredients' must hold at least one"):
        check_states([])
    with pytest.raises(TypeError, match="ingredient 1 is list"):
        check_states([two()[0], [1]])
    for wrong in (two()[0], torch.ones(2, 2), iter(two()), None):
        with pytest.raises(TypeError, match="'ingredients' must be a list or a store"):
            check_states(wrong)


def test_states_must_fit_the_model():
    check_states(two(), two()[0])
    with pytest.raises(ValueError, match="ingredient 0 does not fit the model"):
        check_states(two(), {"w": torch.ones(4, 3)})
