from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from models import MODELS
from soup_helpers import CountedStates, random_states
from torch_geometric.nn import GCN

from graphsparse.ops.digest import graph_fingerprint
from graphsparse.soups import Evaluator, TicketStates, lottery_pool, uniform_soup
from graphsparse.soups.sparse import COEFFICIENTS, _prune, num_nonzero
from graphsparse.testing import random_graph
from graphsparse.tickets import Ticket, find_tickets
from graphsparse.training import Training, predict

GRAPH = random_graph(num_nodes=300)
SPARSITIES = (0.0, 0.3, 0.6, 0.8)


@pytest.fixture(scope="module")
def tickets():
    """Half-trained tickets of four sparsities, from one initial model and with one edge mask."""
    targets = [(0.3, sparsity) for sparsity in SPARSITIES]
    return TicketStates(find_tickets(MODELS["GCN"], GRAPH, targets=targets, training=Training(epochs=8)))


@pytest.fixture(scope="module")
def graph(tickets):
    return tickets.tickets[0].sparsify(GRAPH)


@pytest.fixture(scope="module")
def evaluator(graph):
    return Evaluator(MODELS["GCN"](), graph)


def reference(tickets, graph, target, coefficients):
    """Return states and scores step by step, with models, a sort and no line of ours but the forward pass."""
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

    soup = tickets[target]
    score, kept, accepted = accuracy(soup), num_nonzero(soup), []
    order = [i for d in range(1, len(tickets)) for i in (target - d, target + d) if 0 <= i < len(tickets)]
    for i in order:
        other = tickets[i]
        candidates = {a: prune({n: a * soup[n] + (1 - a) * other[n] for n in soup}, kept) for a in coefficients}
        best = max(sorted(candidates, reverse=True), key=lambda a: accuracy(candidates[a]))
        if accuracy(candidates[best]) > score:
            soup, score = candidates[best], accuracy(candidates[best])
            accepted.append((i, best))
    return soup, score, accepted


@pytest.mark.parametrize("target", range(4))
def test_steps_are_those_of_the_paper_but_for_ties(tickets, graph, evaluator, target):
    soup = lottery_pool(tickets, evaluator, target=target, split_validation=False)
    state, score, accepted = reference(tickets, graph, target, COEFFICIENTS)
    assert [(step["ingredient"], step["ratio"]) for step in soup.trace if step["accepted"]] == accepted
    assert soup.val == pytest.approx(score, abs=1e-6)
    for name, value in state.items():
        torch.testing.assert_close(soup.state_dict[name], value)


def test_some_step_is_accepted(tickets, evaluator):
    found = [lottery_pool(tickets, evaluator, target=t, split_validation=False) for t in range(4)]
    assert any(soup.val > soup.ingredient_vals[t] for t, soup in enumerate(found))


@pytest.mark.parametrize("split", [True, False])
@pytest.mark.parametrize("target", range(-4, 4))
def test_density_is_kept_and_the_score_does_not_fall(tickets, evaluator, target, split):
    soup = lottery_pool(tickets, evaluator, target=target, split_validation=split)
    assert num_nonzero(soup.state_dict) == num_nonzero(tickets[target])
    judge = evaluator.halves(0)[1] if split else evaluator
    assert soup.ingredient_vals == [judge.score(ticket) for ticket in tickets]
    assert soup.val == judge.score(soup.state_dict) >= soup.ingredient_vals[target]
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
    assert soup.val >= soup.ingredient_vals[target]
    assert num_nonzero(soup.state_dict) == num_nonzero(states[target])


def test_one_ticket_is_itself(tickets, evaluator):
    for chosen, target in (([tickets[2]], 0), ([tickets[2]] * 3, 1)):
        soup = lottery_pool(chosen, evaluator, target=target)
        for name, value in tickets[2].items():
            assert torch.equal(soup.state_dict[name], value)
            assert soup.state_dict[name].data_ptr() != value.data_ptr()


def test_a_worse_ticket_changes_nothing(tickets, graph):
    distance = Evaluator(MODELS["GCN"](), graph, metric=lambda z, y: -float(z.abs().sum()))
    other = {name: 5 * value for name, value in tickets[1].items()}
    soup = lottery_pool([tickets[1], other], distance, target=0)
    assert not soup.trace[0]["accepted"]
    assert all(torch.equal(soup.state_dict[name], value) for name, value in tickets[1].items())


def test_equal_coefficients_go_to_the_largest(tickets, graph):
    constant = Evaluator(MODELS["GCN"](), graph, metric=lambda z, y: 1.0)
    soup = lottery_pool(tickets, constant, target=0, coefficients=(0.5, 0.9, 0.2))
    assert [step["ratio"] for step in soup.trace] == [0.9] * 3
    assert not any(step["accepted"] for step in soup.trace)  # ties keep the ticket


def test_cancelled_weights_are_no_candidate(evaluator):
    state = {name: torch.ones_like(value) for name, value in MODELS["GCN"]().state_dict().items()}
    other = {name: -value for name, value in state.items()}
    soup = lottery_pool([state, other], evaluator, target=0, coefficients=(0.5,))
    assert soup.trace == [{"ingredient": 1, "ratio": 0.5, "fit": -torch.inf, "val": None, "accepted": False}]


def test_order_of_the_other_tickets(tickets, evaluator):
    for target, order in ((2, [1, 3, 0]), (0, [1, 2, 3]), (3, [2, 1, 0])):
        soup = lottery_pool(tickets, evaluator, target=target, coefficients=(0.5,))
        assert [step["ingredient"] for step in soup.trace] == order


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


def test_a_tied_weight_is_counted_and_pruned_once():
    make_model = MODELS["BatchNorm and a tied weight"]
    states = random_states(make_model, 2)
    states = [{name: state[name.replace("third.lin", "second.lin")] for name in state} for state in states]
    for name in ("first.lin.weight", "second.lin.weight", "last.weight"):
        states[0][name].masked_fill_(torch.rand(states[0][name].shape) < 0.5, 0)
    counts = iter(range(100))
    evaluator = Evaluator(make_model(), random_graph(), metric=lambda z, y: float(next(counts)))
    soup = lottery_pool(states, evaluator, target=0, coefficients=(0.5,), split_validation=False)
    assert soup.trace[0]["accepted"]
    state = soup.state_dict
    assert torch.equal(state["third.lin.weight"], state["second.lin.weight"])
    left, before = (
        sum(int(s[name].count_nonzero()) for name in ("first.lin.weight", "second.lin.weight", "last.weight"))
        for s in (state, states[0])
    )
    assert left == before
    make_model().load_state_dict(state)


# Few different values, so that there are ties and zeros.
VALUES = st.lists(st.sampled_from([-2.0, -1.0, 0.0, 0.5, 1.0, 2.0]), min_size=1, max_size=12)


@given(st.lists(VALUES, min_size=1, max_size=3), st.data())
def test_pruned_is_what_a_stable_sort_puts_first(parts, draw):
    num_kept = draw.draw(st.integers(0, sum(map(len, parts))))
    keep = np.ones(sum(map(len, parts)), bool)
    keep[np.argsort(np.abs(np.concatenate(parts)), kind="stable")[: keep.size - num_kept]] = False
    state = {str(i): torch.tensor([part]) for i, part in enumerate(parts)} | {"bias": torch.ones(2)}
    found = _prune(state, num_kept)
    for part, value, mask in zip(
        parts, found.values(), np.split(keep, np.cumsum(list(map(len, parts)))[:-1]), strict=False
    ):
        np.testing.assert_array_equal(value[0].numpy(), np.where(mask, part, 0))
    assert found["bias"].tolist() == [1, 1]


def test_bad_input(tickets, evaluator):
    with pytest.raises(ValueError, match=r"'ingredients' must hold at least one state dict \(got none\)"):
        lottery_pool([], evaluator, target=0)
    for target in (4, -5):
        with pytest.raises(ValueError, match="one of 4 tickets"):
            lottery_pool(tickets, evaluator, target=target)
    for coefficients in ((), (0.0, 0.5), (1.0,), (float("nan"),)):
        with pytest.raises(ValueError, match="'coefficients' must be"):
            lottery_pool(tickets, evaluator, target=0, coefficients=coefficients)
    for options in ({"target": 0.5}, {"target": 0, "coefficients": "0.5"}, {}):
        with pytest.raises(TypeError, match="target|coefficients"):
            lottery_pool(tickets, evaluator, **options)


def test_a_pool_as_a_ticket(tickets, evaluator, tmp_path):
    found, like = lottery_pool(tickets, evaluator, target=3), tickets.tickets[3]
    masks = {name: found.state_dict[name] != 0 for name in like.weight_masks}
    replace(like, state_dict=found.state_dict, weight_masks=masks).save(tmp_path / "soup.safetensors")
    ticket = Ticket.load(tmp_path / "soup.safetensors")
    assert ticket.sparsify(GRAPH).num_edges == like.sparsify(GRAPH).num_edges
    for name, value in ticket.materialize(MODELS["GCN"]).state_dict().items():
        assert torch.equal(value, found.state_dict[name])


def make_ticket(data, keep=None, **changes):
    edge_mask = torch.ones(data.num_edges, dtype=torch.bool) if keep is None else keep
    graph = graph_fingerprint(data.edge_index, data.num_nodes)
    return replace(Ticket(MODELS["GCN"]().state_dict(), {}, edge_mask, graph), **changes)


def half(data, first):
    return (torch.arange(data.num_edges) % 2 == 0) == first


def test_their_state_dicts():
    data = random_graph()
    tickets = [make_ticket(data, half(data, True)) for _ in range(2)]
    states = TicketStates(tickets)
    assert [states[i] is tickets[i].state_dict for i in range(len(states))] == [True, True]
    found = uniform_soup(states, Evaluator(MODELS["GCN"](), tickets[0].sparsify(data)))
    assert len(found.ingredient_vals) == 2


def test_tickets_of_no_particular_graph():
    tickets = [make_ticket(random_graph(), edge_mask=None, graph=None)]
    assert len(uniform_soup(TicketStates(tickets), Evaluator(MODELS["GCN"](), random_graph())).ingredient_vals) == 1


def test_other_edges():
    data = random_graph()
    tickets = [make_ticket(data, half(data, True)), make_ticket(data, half(data, False))]
    with pytest.raises(ValueError, match="ticket 1 keeps other edges than ticket 0"):
        TicketStates(tickets)


def test_another_graph():
    first, second = random_graph(), random_graph(seed=1)
    with pytest.raises(ValueError, match="ticket 1 was found for another graph"):
        TicketStates([make_ticket(first), make_ticket(second)])
    with pytest.raises(ValueError, match="ticket 1 was found for another graph"):
        TicketStates([make_ticket(first), make_ticket(first, edge_mask=None, graph=None)])


def test_the_evaluator_must_judge_on_the_edges_of_the_tickets():
    data = random_graph()
    tickets = [make_ticket(data, half(data, True))]
    for graph in (data, random_graph(num_nodes=61)):
        with pytest.raises(ValueError, match="ticket.sparsify"):
            uniform_soup(TicketStates(tickets), Evaluator(MODELS["GCN"](), graph))


def test_tickets_and_others():
    data = random_graph()
    with pytest.raises(TypeError, match=r"'tickets' must be tickets \(got OrderedDict at 1\)"):
        TicketStates([make_ticket(data), MODELS["GCN"]().state_dict()])
