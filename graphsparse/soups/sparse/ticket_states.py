"""Tickets as ingredients: their state dicts, once it is clear that they have the same edges."""

from collections.abc import Sequence
from typing import TypeGuard

import torch
from torch_geometric.data import Data

from graphsparse.soups.evaluation.evaluator import Evaluator
from graphsparse.soups.states.states import State, States
from graphsparse.tickets import Ticket


class TicketStates:
    """The state dicts of tickets with one common edge mask.

    Weights that were trained on one set of edges are not judged on another, and edge masks have no mean. So all tickets
    must be of the same graph and keep the same edges of it, and the evaluator must judge on these.

    Args:
        tickets: The tickets.
        evaluator: Judges on what :meth:`~graphsparse.tickets.Ticket.sparsify` returns.

    Raises:
        TypeError: If one is no ticket.
        ValueError: If tickets differ in their graph or its edges, or the evaluator has a graph of another size.
    """

    def __init__(self, tickets: Sequence[Ticket], evaluator: Evaluator) -> None:
        self.tickets = tickets
        for i, ticket in enumerate(tickets):
            if not isinstance(ticket, Ticket):
                raise TypeError(f"ingredient {i} is no ticket, and ingredient 0 is one (got {type(ticket).__name__})")
            _check_same_edges(tickets[0], ticket, i)
        check_judged_graph(tickets[0], evaluator.data)

    def __len__(self) -> int:
        """Return the number of tickets."""
        return len(self.tickets)

    def __getitem__(self, index: int, /) -> State:
        """Return the state dict of a ticket."""
        return self.tickets[index].state_dict


def are_tickets(ingredients: Sequence[Ticket] | States) -> TypeGuard[Sequence[Ticket]]:
    """Say whether ingredients are tickets; the first one tells."""
    return isinstance(ingredients, Sequence) and len(ingredients) > 0 and isinstance(ingredients[0], Ticket)


def ticket_states(ingredients: Sequence[Ticket] | States, evaluator: Evaluator) -> States:
    """Return the state dicts of tickets, checked; of ingredients that are state dicts themselves, just these.

    Args:
        ingredients: Tickets, or state dicts.
        evaluator: What judges them.

    Raises:
        TypeError: If there are tickets and others.
        ValueError: If tickets have no common edge mask, or the evaluator another graph.

    Example:
        >>> from torch_geometric.nn import GCN
        >>> from graphsparse.testing import random_graph
        >>> from graphsparse.tickets import find_ticket
        >>> from graphsparse.training import Training
        >>> data, make_model = random_graph(), lambda: GCN(8, 16, 2, 3)
        >>> options = {"edge_sparsity": 0.3, "training": Training(epochs=2)}
        >>> tickets = [find_ticket(make_model, data, weight_sparsity=s, **options) for s in (0.2, 0.5)]
        >>> evaluator = Evaluator(make_model(), tickets[0].sparsify(data))
        >>> len(ticket_states(tickets, evaluator))
        2
    """
    return TicketStates(ingredients, evaluator) if are_tickets(ingredients) else ingredients  # type: ignore[return-value]


def _check_same_edges(first: Ticket, ticket: Ticket, index: int) -> None:
    if ticket.graph != first.graph:
        raise ValueError(
            f"ticket {index} was found for another graph than ticket 0: its fingerprint is {ticket.graph}, "
            f"not {first.graph} (nodes-edges-digest)"
        )
    if first.edge_mask is None or ticket.edge_mask is None:
        return  # both belong to no particular graph
    if not torch.equal(ticket.edge_mask.cpu(), first.edge_mask.cpu()):
        raise ValueError(
            f"ticket {index} keeps other edges than ticket 0: tickets of a soup must have one common edge mask. "
            "Find them with the same 'edge_sparsity' and 'score', or give their 'state_dict's to have all of them "
            "judged on the graph of the evaluator"
        )


def check_judged_graph(ticket: Ticket, data: Data) -> None:
    """Refuse a graph that cannot be the sparsified graph of a ticket.

    Numbers of nodes and edges are compared: a fingerprint is that of the graph before edges were removed.

    Args:
        ticket: The ticket.
        data: The graph of an evaluator.

    Raises:
        ValueError: If it has other numbers of nodes or edges.
    """
    if ticket.graph is None or ticket.edge_mask is None:
        return
    nodes, edges = int(ticket.graph.split("-")[0]), int(ticket.edge_mask.count_nonzero())
    if (data.num_nodes, data.num_edges) != (nodes, edges):
        raise ValueError(
            f"'evaluator' must judge on the sparsified graph of the tickets, with {nodes} nodes and {edges} entries of "
            f"edge_index: build it on ticket.sparsify(data) (got {data.num_nodes} nodes and {data.num_edges} entries)"
        )
