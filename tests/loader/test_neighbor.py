import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.nn import GraphSAGE

from graphsparse.loader.in_graph import InGraph, new_generator
from graphsparse.loader.neighbor import NeighborBatches, draw_into
from graphsparse.testing import random_graph

DATA = random_graph(num_nodes=200, seed=1)


def sources(edge_index, num_nodes):
    """For each node the edges into it, by a loop."""
    found = {node: [] for node in range(num_nodes)}
    for edge, dst in enumerate(edge_index[1].tolist()):
        found[dst].append(edge)
    return found


def test_all_neighbours_give_the_logits_of_the_whole_graph():
    model = GraphSAGE(8, 16, 3, 3).eval()
    whole = model(DATA.x, DATA.edge_index)
    loader = NeighborBatches(DATA, num_neighbors=[-1, -1, -1], batch_size=5)
    seen = []
    for batch in loader:
        seeds = batch.n_id[: batch.batch_size]
        logits = model(batch.x, batch.edge_index)[: batch.batch_size]
        torch.testing.assert_close(logits, whole[seeds])
        seen += seeds.tolist()
    assert sorted(seen) == DATA.train_mask.nonzero().flatten().tolist()


@pytest.mark.parametrize("fan_outs", [[3, 2], [1], [2, -1, 1], [1000, 3]])
def test_hops_by_definition(fan_outs):
    into = sources(DATA.edge_index, 200)
    loader = NeighborBatches(DATA, num_neighbors=fan_outs, batch_size=16)
    assert len(loader) == len(list(loader)) == 5
    for batch in loader:
        nodes = batch.n_id.tolist()
        assert len(set(nodes)) == len(nodes)
        assert torch.equal(batch.x, DATA.x[batch.n_id])
        assert torch.equal(batch.n_id[batch.edge_index], DATA.edge_index[:, batch.e_id])
        assert len(set(batch.e_id.tolist())) == batch.num_edges
        drawn = sources(batch.edge_index, len(nodes))
        frontier, met = range(batch.batch_size), batch.batch_size
        for fan_out in fan_outs:
            new = set()
            for node in frontier:
                size = len(into[nodes[node]])
                assert len(drawn[node]) == (size if fan_out < 0 else min(size, fan_out))
                new |= {int(batch.edge_index[0, edge]) for edge in drawn[node]}
            frontier = sorted(node for node in new if node >= met)
            assert frontier == list(range(met, met + len(frontier)))  # in the batch for a reason, and once
            met += len(frontier)
        assert met == len(nodes)
        assert all(not drawn[node] for node in frontier)


def test_every_edge_is_drawn_as_often():
    edge_index = torch.tensor([[1, 2, 3, 4, 5, 0, 0, 2], [0, 0, 0, 0, 0, 1, 3, 3]])
    graph, generator = InGraph(edge_index, 6), new_generator(0)
    count, draws = torch.zeros(8), 2000
    for _ in range(draws):
        place, target = draw_into(graph, torch.tensor([3, 0, 1, 2]), 2, generator)
        edges = graph.edge_id(place)
        assert target.tolist() == [0, 0, 1, 1, 2]
        assert torch.equal(edge_index[1, edges], torch.tensor([3, 0, 1, 2])[target])
        assert len(set(edges.tolist())) == 5
        count[edges] += 1
    assert (count[5:] == draws).all()
    # of 5 edges 2: 5 standard deviations
    assert ((count[:5] - draws * 0.4).abs() < 5 * (draws * 0.4 * 0.6) ** 0.5).all()


def test_the_mean_over_drawn_neighbours_is_right_on_average():
    generator, graph = new_generator(0), InGraph(DATA.edge_index, 200)
    nodes = (graph.degree() > 3).nonzero().flatten()
    value = torch.randn(200, dtype=torch.float64, generator=generator)
    draws = []
    for _ in range(1000):
        place, target = draw_into(graph, nodes, 3, generator)
        drawn = value[graph.source[place].long()]
        draws.append(torch.zeros(len(nodes), dtype=torch.float64).index_add(0, target, drawn) / 3)
    found = torch.stack(draws)
    expected = torch.stack([value[DATA.edge_index[0, DATA.edge_index[1] == node]].mean() for node in nodes])
    assert ((found.mean(0) - expected).abs() < 5 * found.std(0) / 1000**0.5).all()


def test_epochs_differ_and_seeds_count():
    def epochs(seed):
        loader = NeighborBatches(DATA, num_neighbors=[2, 2], batch_size=30, seed=seed)
        return [torch.cat([batch.e_id for batch in loader]).tolist() for _ in range(2)]

    assert epochs(0) == epochs(0)
    assert epochs(0)[0] != epochs(0)[1]
    assert epochs(0) != epochs(1)


def test_no_edges_at_all():
    data = Data(x=torch.ones(3, 1), edge_index=torch.empty(2, 0, dtype=torch.int64), train_mask=torch.ones(3).bool())
    (batch,) = NeighborBatches(data, num_neighbors=[2, -1])
    assert batch.edge_index.shape == (2, 0)
    assert batch.num_nodes == 3


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_neighbors": 3}, TypeError, "'num_neighbors' must be a list of fan-outs"),
        ({"num_neighbors": [2.5]}, TypeError, "'num_neighbors' must be an integer"),
        ({"num_neighbors": []}, ValueError, "'num_neighbors' must hold positive fan-outs"),
        ({"num_neighbors": [3, 0]}, ValueError, "'num_neighbors' must hold positive fan-outs"),
        ({"num_neighbors": [-2]}, ValueError, "'num_neighbors' must be at least -1"),
        ({"batch_size": 0}, ValueError, "'batch_size' must be at least 1"),
    ],
)
def test_bad_options(options, error, message):
    with pytest.raises(error, match=message):
        NeighborBatches(DATA, **options)
