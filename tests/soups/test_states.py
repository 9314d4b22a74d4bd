import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from models import NormAndTie

from graphsparse.soups import combine, mix
from graphsparse.soups.states import check_states, tie, tied_names

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


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        (torch.ones(3), ValueError, r"'weights' must hold one weight for each of 2 states \(got \[3\]\)"),
        (torch.ones(2, 1), ValueError, r"got \[2, 1\]"),
        ([0.5, 0.5], TypeError, r"'weights' must be a tensor .* \(got list\)"),
        (None, TypeError, r"got NoneType"),
        (torch.tensor([0.5, torch.nan]), ValueError, r"'weights' must hold finite numbers \(got \[0.5, nan\]\)"),
        (torch.tensor([0.5, torch.inf]), ValueError, "finite"),
        (torch.tensor([True, False]), TypeError, r"got torch.bool"),
        (torch.ones(2, dtype=torch.complex64), TypeError, r"got torch.complex64"),
        ({}, ValueError, r"'weights' must name the floating tensors: missing names \['w'\]"),
        ({"w": torch.ones(2), "n": torch.ones(2)}, ValueError, r"further names \['n'\]"),
        ({"w": [0.5, 0.5]}, TypeError, r"'weights\['w'\]' must be a tensor"),
        ({"w": torch.ones(1)}, ValueError, r"'weights\['w'\]' must hold one weight for each of 2"),
    ],
)
def test_weights_that_are_none(weights, error, message):
    with pytest.raises(error, match=message):
        combine(two(), weights)


def test_bad_ratio():
    with pytest.raises(ValueError, match="'ratio' must be in"):
        mix(*two(), 1.5)


CHANGES = pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("w"), "ingredient 1 does not fit ingredient 0: missing keys \\['w'\\]"),
        (lambda s: s.update(v=torch.ones(1)), "further keys \\['v'\\]"),
        (lambda s: s.update(w=torch.ones(3, 4)), "'w' has shape \\[3, 4\\] and torch.float32, not \\[4, 3\\]"),
        (lambda s: s.update(w=s["w"].double()), "torch.float64, not \\[4, 3\\] and torch.float32"),
        (lambda s: s["w"].fill_(torch.nan), "ingredient 1 holds values that are not numbers, in 'w'"),
    ],
)


@CHANGES
def test_states_that_do_not_fit(change, message):
    states = two()
    change(states[1])
    with pytest.raises(ValueError, match=message):
        check_states(states)
    with pytest.raises(ValueError, match=message):
        combine(states, torch.ones(2))
    if "numbers" not in message:
        with pytest.raises(
            ValueError, match=message.replace("ingredient 1 does not fit ingredient 0", "'second' does not fit 'first'")
        ):
            mix(*states, 0.5)


def test_what_is_no_state():
    for states, error in (([], ValueError), (two()[0], TypeError), ([two()[0], [1]], TypeError), (None, TypeError)):
        with pytest.raises(error, match="'states' must"):
            combine(states, torch.ones(len(states or ())))


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


def test_names_of_a_tied_weight():
    assert tied_names(NormAndTie()) == {"third.lin.weight": "second.lin.weight"}


def test_a_read_state_is_tied_again():
    model = NormAndTie()
    copies = {name: value.clone() for name, value in model.state_dict().items()}
    found = tie(copies, tied_names(model))
    assert list(found) == list(copies)
    assert found["third.lin.weight"] is found["second.lin.weight"]
    assert copies["third.lin.weight"] is not copies["second.lin.weight"]


def test_buffers_may_be_tied():
    model = torch.nn.Module()
    model.register_buffer("a", torch.ones(2))
    model.register_buffer("b", model.a)
    assert tied_names(model) == {"b": "a"}
