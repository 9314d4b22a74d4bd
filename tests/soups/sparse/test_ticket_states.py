from dataclasses import replace

import pytest
import torch
from models import MODELS

from graphsparse.soups.evaluation.evaluator import Evaluator
from graphsparse.soups.sparse.ticket_states import are_tickets, ticket_states
from graphsparse.testing import random_graph
from graphsparse.tickets import Ticket
from graphsparse.utils.fingerprint import graph_fingerprint


def make_ticket(data, keep=None, **changes):
    edge_mask = torch.ones(data.num_edges, dtype=torch.bool) if keep is None else keep
    graph = graph_fingerprint(data.edge_index, data.num_nodes)
    return replace(Ticket(MODELS["GCN"]().state_dict(), {}, edge_mask, graph), **changes)


def half(data, first):
    return (torch.arange(data.num_edges) % 2 == 0) == first


def test_their_state_dicts():
    data = random_graph()
    tickets = [make_ticket(data, half(data, True)) for _ in range(2)]
    states = ticket_states(tickets, Evaluator(MODELS["GCN"](), tickets[0].sparsify(data)))
    assert [states[i] is tickets[i].state_dict for i in range(len(states))] == [True, True]


def test_state_dicts_stay_as_they_are():
    states = [MODELS["GCN"]().state_dict()]
    assert ticket_states(states, Evaluator(MODELS["GCN"](), random_graph())) is states
    assert not are_tickets(states)
    assert not are_tickets([])


def test_tickets_of_no_particular_graph():
    tickets = [make_ticket(random_graph(), edge_mask=None, graph=None)]
    assert len(ticket_states(tickets, Evaluator(MODELS["GCN"](), random_graph()))) == 1


def test_other_edges():
    data = random_graph()
    tickets = [make_ticket(data, half(data, True)), make_ticket(data, half(data, False))]
    with pytest.raises(ValueError, match="ticket 1 keeps other edges than ticket 0"):
        ticket_states(tickets, Evaluator(MODELS["GCN"](), tickets[0].sparsify(data)))


def test_another_graph():
    first, second = random_graph(), random_graph(seed=1)
    with pytest.raises(ValueError, match="ticket 1 was found for another graph"):
        ticket_states([make_ticket(first), make_ticket(second)], Evaluator(MODELS["GCN"](), first))
    with pytest.raises(ValueError, match="ticket 1 was found for another graph"):
        ticket_states(
            [make_ticket(first), make_ticket(first, edge_mask=None, graph=None)], Evaluator(MODELS["GCN"](), first)
        )


def test_the_evaluator_must_judge_on_the_edges_of_the_tickets():
    data = random_graph()
    tickets = [make_ticket(data, half(data, True))]
    for graph in (data, random_graph(num_nodes=61)):
        with pytest.raises(ValueError, match="ticket.sparsify"):
            ticket_states(tickets, Evaluator(MODELS["GCN"](), graph))


def test_tickets_and_others():
    data = random_graph()
    with pytest.raises(TypeError, match="ingredient 1 is no ticket"):
        ticket_states([make_ticket(data), MODELS["GCN"]().state_dict()], Evaluator(MODELS["GCN"](), data))
