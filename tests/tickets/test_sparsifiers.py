"""Tickets whose edges are chosen by any sparsifier that a mask of undirected edges can hold."""

import pytest
import torch
from models import MODELS

from graphsparse.edges import Sparsifier, sparsifier, sparsify_edge
from graphsparse.testing import random_graph
from graphsparse.tickets import OneShot, Ticket, find_ticket, find_tickets
from graphsparse.training import Training

METHODS = {
    "k_neighbor": "k_neighbor",
    "local rule and forest": Sparsifier("jaccard", local="exponent", core="forest"),
    "weights of the graph": Sparsifier("disparity"),
    "drawn, without new weights": sparsifier("dspar", reweight=False),
}


def graph():
    data = random_graph()
    key = torch.minimum(*data.edge_index) * data.num_nodes + torch.maximum(*data.edge_index)
    data.edge_weight = 1 + key % 7 / 7.0
    return data


@pytest.mark.parametrize("name", METHODS)
def test_the_mask_of_a_ticket_is_that_of_the_graph(name, tmp_path):
    data = graph()
    ticket = find_ticket(
        MODELS["GCN"], data, edge_sparsity=0.4, method=OneShot(METHODS[name]), training=Training(epochs=2)
    )
    options = {"num_nodes": data.num_nodes, "seed": 0, "edge_weight": data.edge_weight, "x": data.x}
    expected = sparsify_edge(data.edge_index, 0.4, METHODS[name], **options)[1]
    assert torch.equal(ticket.edge_mask, expected)
    ticket.save(tmp_path / "ticket.safetensors")
    assert torch.equal(Ticket.load(tmp_path / "ticket.safetensors").edge_mask, expected)


def test_what_is_drawn_is_not_nested():
    assert OneShot("k_neighbor").nested
    assert not OneShot(sparsifier("dspar", reweight=False)).nested
    tickets = find_tickets(
        MODELS["GCN"], graph(), targets=[(0.2, 0.0), (0.5, 0.0)], method=OneShot("l_spar"), training=Training(epochs=1)
    )
    less, more = (ticket.edge_mask for ticket in tickets)
    assert not bool((more & ~less).any())


@pytest.mark.parametrize(
    ("method", "message"),
    [("dspar", "not new weights for edges"), (sparsifier("k_neighbor", directed=True), "not one direction of an edge")],
)
def test_what_a_file_cannot_hold_is_refused(method, message):
    with pytest.raises(ValueError, match=message):
        OneShot(method)


def test_edges_of_weight_0_are_refused():
    data = graph()
    data.edge_weight[:2] = 0
    with pytest.raises(ValueError, match="'data' holds edges of weight 0"):
        find_ticket(MODELS["GCN"], data, edge_sparsity=0.4, method=OneShot("disparity"), training=Training(epochs=1))
