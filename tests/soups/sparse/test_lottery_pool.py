from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from models import MODELS
from soup_helpers import CountedStates, random_states
from torch_geometric.nn import GCN

from graphsparse.soups.evaluation.evaluator import Evaluator
from graphsparse.soups.sparse.lottery_pool import COEFFICIENTS, by_distance, lottery_pool
from graphsparse.soups.states.prune_state import maskable_names, num_nonzero
from graphsparse.testing import random_graph
from graphsparse.tickets import find_ticket
from graphsparse.training import Training, predict

GRAPH = random_graph(num_nodes=300)
SPARSITIES = (0.0, 0.3, 0.6, 0.8)


@pytest.fixture(scope="module")
def tickets():
    """Half-trained tickets of four sparsities, from one initial model and with one edge mask."""
    options = {"edge_sparsity": 0.3, "training": Training(epochs=8)}
    return [find_ticket(MODELS["GCN"], GRAPH, weight_sparsity=s, **options) for s in SPARSITIES]


@pytest.fixture(scope="module")
def evaluator(tickets):
    return Evaluator(MODELS["GCN"](), tickets[0].sparsify(GRAPH))


def count(state):
    return num_nonzero(state, maskable_names(MODELS["GCN"]()))


def reference(tickets, target, coefficients):
    """Return states and scores step by step, with models, a sort and no line of ours but the forward pass."""
    graph = tickets[0].sparsify(GRAPH)
    model = MODELS["GCN"]()
    judged = graph.val_mask

    def accuracy(state):
        model.load_state_dict(state)
        return float((predict(model, graph).argmax(1) == graph.y)[judged].float().mean())

    def prune(state, kept):
        matrices = [name for name in state if state[name].dim() == 2]
        sizes = torch.cat([state[name].abs().flatten() for name in matrices])
        lowest = sizes.sort(descending=True).values[kept - 1]
        return {n: torch.where(v.abs() >= lowest, v, 0.0) if n in matrices else v for n, v in state.items()}

    soup = tickets[target].state_dict
    score, kept, accepted = accuracy(soup), count(soup), []
    order = [i for d in range(1, len(tickets)) for i in (target - d, target + d) if 0 <= i < len(tickets)]
    for i in order:
        other = tickets[i].state_dict
        candidates = {a: prune({n: a * soup[n] + (1 - a) * other[n] for n in soup}, kept) for a in coefficients}
        best = max(sorted(candidates, reverse=True), key=lambda a: accuracy(candidates[a]))
        if accuracy(candidates[best]) >= score:
            soup, score = candidates[best], accuracy(candidates[best])
            accepted.append((i, best))
    return soup, score, accepted


@pytest.mark.parametrize("target", range(4))
def test_steps_are_those_of_the_paper(tickets, evaluator, target):
    soup = lottery_pool(tickets, evaluator, target=target, split_validation=False)
    state, score, accepted = reference(tickets, target, COEFFICIENTS)
    assert [(step["ingredient"], step["ratio"]) for step in soup.trace if step["accepted"]] == accepted
    assert soup.score == pytest.approx(score, abs=1e-6)
    for name, value in state.items():
        torch.testing.assert_close(soup.state_dict[name], value)


def test_some_step_is_accepted(tickets, evaluator):
    found = [lottery_pool(tickets, evaluator, target=t, split_validation=False) for t in range(4)]
    assert any(soup.score > soup.ingredient_scores[t] for t, soup in enumerate(found))


@pytest.mark.parametrize("split", [True, False])
@pytest.mark.parametrize("target", range(-4, 4))
def test_density_is_kept_and_the_score_does_not_fall(tickets, evaluator, target, split):
    soup = lottery_pool(tickets, evaluator, target=target, split_validation=split)
    assert count(soup.state_dict) == count(tickets[target].state_dict)
    judge = evaluator.halves(0)[1] if split else evaluator
    assert soup.ingredient_scores == [judge.score(ticket.state_dict) for ticket in tickets]
    assert soup.score == judge.score(soup.state_dict) >= soup.ingredient_scores[target]
    assert soup.weights is None


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 4), st.integers(0, 10**6), st.booleans(), st.data())
def test_with_any_metric(num, seed, split, draw):
    generator = torch.Generator().manual_seed(seed)
    direction = torch.randn(3, generator=generator)
    # Any function of the logits, and one with few values so that there are ties.
    evaluator = Evaluator(MODELS["GCN"](), random_graph(), metric=lambda z, y: float((z.mean(0) @ direction).round()))
    states = []
    for i in range(num):
        state = {n: 3 * torch.randn(v.shape, generator=generator) for n, v in MODELS["GCN"]().state_dict().items()}
        states.append({n: torch.where(v.abs() > i, v, 0.0) if v.dim() == 2 else v for n, v in state.items()})
    target = draw.draw(st.integers(0, num - 1))
    soup = lottery_pool(states, evaluator, target=target, coefficients=(0.3, 0.6), split_validation=split)
    assert soup.score >= soup.ingredient_scores[target]
    assert count(soup.state_dict) == count(states[target])


def test_one_ticket_is_itself(tickets, evaluator):
    for chosen, target in (([tickets[2]], 0), ([tickets[2]] * 3, 1)):
        soup = lottery_pool(chosen, evaluator, target=target)
        for name, value in tickets[2].state_dict.items():
            assert torch.equal(soup.state_dict[name], value)
            assert soup.state_dict[name].data_ptr() != value.data_ptr()


def test_a_worse_ticket_changes_nothing(tickets):
    graph = tickets[0].sparsify(GRAPH)
    distance = Evaluator(MODELS["GCN"](), graph, metric=lambda z, y: -float(z.abs().sum()))
    other = {name: 5 * value for name, value in tickets[1].state_dict.items()}
    soup = lottery_pool([tickets[1].state_dict, other], distance, target=0)
    assert not soup.trace[0]["accepted"]
    assert all(torch.equal(soup.state_dict[name], value) for name, value in tickets[1].state_dict.items())


def test_equal_coefficients_go_to_the_largest(tickets, evaluator):
    constant = Evaluator(MODELS["GCN"](), tickets[0].sparsify(GRAPH), metric=lambda z, y: 1.0)
    soup = lottery_pool(tickets, constant, target=0, coefficients=(0.5, 0.9, 0.2))
    assert [step["ratio"] for step in soup.trace] == [0.9] * 3
    assert all(step["accepted"] for step in soup.trace)


def test_cancelled_weights_are_no_candidate(evaluator):
    state = {name: torch.ones_like(value) for name, value in MODELS["GCN"]().state_dict().items()}
    other = {name: -value for name, value in state.items()}
    soup = lottery_pool([state, other], evaluator, target=0, coefficients=(0.5,))
    assert soup.trace == [{"ingredient": 1, "ratio": None, "fit": None, "score": None, "accepted": False}]


def test_number_of_candidates(tickets, evaluator):
    seen = []
    soup = lottery_pool(tickets, evaluator, target=2, max_candidates=2, log=seen.append)
    assert [step["ingredient"] for step in soup.trace] == [entry["ingredient"] for entry in seen] == [1, 3]
    assert by_distance(0, 4) == [1, 2, 3]
    assert by_distance(3, 4) == [2, 1, 0]


def test_no_more_than_three_states_in_memory():
    def make_model():
        return GCN(8, 64, 2, 3)

    states = random_states(make_model, 5)
    with CountedStates(states) as counted:
        del states

        def metric(logits, y):
            counted.count()
            return 1.0

        evaluator = Evaluator(make_model(), random_graph(), mode="plain", metric=metric)
        lottery_pool(counted, evaluator, target=2, coefficients=(0.3, 0.6))
    assert counted.most <= 3


def test_only_what_is_named_is_pruned():
    model = MODELS["BatchNorm and a tied weight"]
    generator = torch.Generator().manual_seed(0)
    states = []
    for _ in range(2):
        state = model().state_dict()
        for name, value in state.items():
            if name == "second.lin.weight":
                value.copy_(torch.where(torch.rand(16, 16, generator=generator) < 0.5, value, 0.0))
        states.append({name: state[name.replace("third.lin", "second.lin")] for name in state})
    soup = lottery_pool(
        states,
        Evaluator(model(), random_graph(), metric=lambda z, y: 1.0),
        target=0,
        coefficients=(0.5,),
        masked=["third.lin.weight"],
    )
    assert soup.trace[0]["accepted"]
    weight = soup.state_dict["second.lin.weight"]
    assert weight.count_nonzero() == states[0]["second.lin.weight"].count_nonzero()
    assert torch.equal(weight, soup.state_dict["third.lin.weight"])
    mean = (states[0]["first.lin.weight"] + states[1]["first.lin.weight"]) / 2
    torch.testing.assert_close(soup.state_dict["first.lin.weight"], mean)
    model().load_state_dict(soup.state_dict)


def test_bad_input(tickets, evaluator):
    with pytest.raises(ValueError, match=r"'tickets' must hold at least one state dict \(got none\)"):
        lottery_pool([], evaluator, target=0)
    for target in (4, -5):
        with pytest.raises(ValueError, match="one of 4 tickets"):
            lottery_pool(tickets, evaluator, target=target)
    for coefficients in ((), (0.0, 0.5), (1.0,), (float("nan"),)):
        with pytest.raises(ValueError, match="between 0 and 1"):
            lottery_pool(tickets, evaluator, target=0, coefficients=coefficients)
    with pytest.raises(ValueError, match="at least 1"):
        lottery_pool(tickets, evaluator, target=0, max_candidates=0)
    with pytest.raises(ValueError, match=r"'convs.1.lin.weight', which 'masked' leaves out"):
        lottery_pool(tickets[2:], evaluator, target=0, masked=["convs.0.lin.weight"])
    for options in ({"target": 0.5}, {"target": 0, "coefficients": "0.5"}, {"target": 0, "log": 1}):
        with pytest.raises(TypeError):
            lottery_pool(tickets, evaluator, **options)


def test_states_that_do_not_fit(tickets, evaluator):
    state = dict(tickets[0].state_dict)
    name = "convs.0.bias"
    for value, message in ((torch.ones(3), "shape"), (torch.full_like(state[name], torch.nan), "not numbers")):
        with pytest.raises(ValueError, match=f"ingredient 1 .*{message}"):
            lottery_pool([state, {**state, name: value}], evaluator, target=0)
    with pytest.raises(ValueError, match="ingredient 1 .*missing keys"):
        lottery_pool([tickets[0], replace(tickets[0], state_dict={name: state[name]})], evaluator, target=0)
