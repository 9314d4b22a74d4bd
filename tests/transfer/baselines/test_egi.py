import math

import networkx as nx
import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.nn import GIN
from torch_geometric.utils import to_networkx

from graphsparse.loader.in_graph import InGraph
from graphsparse.testing import random_graph
from graphsparse.transfer.baselines.egi import EgoObjective, ego_rings


def test_rings_are_those_of_breadth_first_search():
    graph = random_graph()
    roots = torch.tensor([0, 7, 7, 30])
    rings = ego_rings(InGraph(graph.edge_index, 60), roots, 3, -1, torch.Generator())
    network = to_networkx(graph, to_undirected=True)
    for i, root in enumerate(roots.tolist()):
        distance = nx.single_source_shortest_path_length(network, root)
        before = torch.tensor([root])
        for hop, ring in enumerate(rings, 1):
            mine = ring.root == i
            assert sorted(ring.nodes[mine].tolist()) == sorted(v for v, d in distance.items() if d == hop)
            inner = roots if hop == 1 else rings[hop - 2].nodes
            edges = mine[ring.child]
            found = set(zip(inner[ring.parent[edges]].tolist(), ring.nodes[ring.child[edges]].tolist(), strict=True))
            assert found == {
                (u, v) for u in before.tolist() for v in network[u] if distance[u] == hop - 1 and distance[v] == hop
            }
            before = ring.nodes[mine]


def test_fan_out_bounds_the_links_of_a_node():
    graph = random_graph()
    rings = ego_rings(InGraph(graph.edge_index, 60), torch.arange(60), 2, 2, torch.Generator().manual_seed(0))
    assert all(torch.bincount(ring.parent).max() <= 2 for ring in rings)


def test_loss_of_one_root_and_one_link_by_hand():
    graph = Data(x=torch.randn(2, 3), edge_index=torch.tensor([[1, 0], [0, 1]]), num_nodes=2)
    objective = EgoObjective(GIN(3, 4, 2), 3, 4, graph, 0, num_roots=1, hops=1)
    objective._linked = torch.tensor([0])
    h = objective.encoder(graph.x, graph.edge_index)
    message = objective.own[0](graph.x[0]).relu()
    hidden = objective.of_root(h[0]) + objective.of_message(message) + objective.of_features(graph.x[1])
    d = float(objective.last(hidden.relu()).detach())
    # With one root the permuted one is the same.
    expected = (math.log1p(math.exp(-d)) + d - math.log(2)) - (math.log(2) - math.log1p(math.exp(-d)))
    assert float(objective().detach()) == pytest.approx(expected, abs=1e-5)


def test_learns():
    torch.manual_seed(0)
    objective = EgoObjective(GIN(8, 16, 2), 8, 16, random_graph(), 0, num_roots=30)
    optimizer = torch.optim.Adam(objective.parameters(), lr=1e-2)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = objective()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-5:]) < sum(losses[:5]) - 0.1


def test_a_graph_without_links():
    with pytest.raises(ValueError, match="the source has no link"):
        EgoObjective(GIN(3, 4, 2), 3, 4, Data(x=torch.ones(2, 3), edge_index=torch.empty(2, 0).long()), 0)
