"""The recipe "add an edge score" of CONTRIBUTING: a few lines outside the package, with public names only."""

import inspect

import networkx as nx
import pytest
import torch
from models import MODELS

from graphsparse.edges import edge_score, edge_score_rule, sparsify_edge
from graphsparse.testing import random_graph
from graphsparse.tickets import OneShot, find_ticket
from graphsparse.training import Training
from graphsparse.transforms import SparsifyEdges


@edge_score_rule("preferential_attachment")
def preferential_attachment(edges, seed):
    degree = edges.degree()
    return edges.fill(lambda u, v: degree[u] * degree[v])


def removed_by_networkx(data, sparsity):
    graph = nx.Graph(edge for edge in data.edge_index.t().tolist() if edge[0] != edge[1])
    edges = sorted(tuple(sorted(edge)) for edge in graph.edges)
    order = sorted(edges, key=lambda edge: graph.degree[edge[0]] * graph.degree[edge[1]])  # stable: ties by end points
    return set(order[: int(sparsity * len(order))])


def test_at_most_ten_lines():
    assert len(inspect.getsource(preferential_attachment).splitlines()) <= 10


def test_works_wherever_a_score_is_named():
    data = random_graph()
    kept, mask = sparsify_edge(data.edge_index, 0.4, "preferential_attachment", num_nodes=data.num_nodes)
    removed = removed_by_networkx(data, 0.4)
    assert {tuple(sorted(edge)) for edge in data.edge_index[:, ~mask].t().tolist()} == removed
    assert torch.equal(SparsifyEdges(0.4, "preferential_attachment")(data).edge_index, kept)
    method, training = OneShot("preferential_attachment"), Training(epochs=2)
    ticket = find_ticket(MODELS["GCN"], data, edge_sparsity=0.4, method=method, training=training)
    assert torch.equal(ticket.edge_mask, mask)


def test_a_name_is_taken_once():
    with pytest.raises(ValueError, match=r"'name' is taken by .*degree\.teddy \(got 'teddy'\)"):
        edge_score_rule("teddy")(preferential_attachment)
    edge_score_rule("preferential_attachment")(preferential_attachment)  # the same again, as in a notebook
    assert edge_score(torch.tensor([[0, 1], [1, 2]]), "preferential_attachment").tolist() == [2, 2]


def test_nan_is_refused():
    edge_score_rule("no_number")(lambda edges, seed: torch.full((edges.num_edges,), torch.nan))
    with pytest.raises(ValueError, match="NaN"):
        sparsify_edge(torch.tensor([[0, 1], [1, 2]]), 0.5, "no_number")
