import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.nn import GAT, GIN, GraphSAGE

from graphsparse.testing import random_graph
from graphsparse.training.link_task import LinkNeighborBatches


def pairs(num, seed):
    return torch.randint(60, (2, num), generator=torch.Generator().manual_seed(seed))


def plain_graph():
    graph = random_graph()
    return Data(x=graph.x, edge_index=graph.edge_index)


@pytest.mark.parametrize("encoder", [GraphSAGE, GAT, GIN])
def test_full_fan_out_gives_the_scores_of_the_whole_graph(encoder):
    graph = plain_graph()
    model = encoder(8, 16, 2).eval()
    links, rest = pairs(23, 0), pairs(69, 1)
    h = model(graph.x, graph.edge_index)
    expected, negative = ((h[u] * h[v]).sum(1) for u, v in (links, rest))
    loader = LinkNeighborBatches(graph, num_neighbors=[-1, -1], batch_size=5, seed=0)
    seen, rest_scores = [], []
    for batch in loader.epoch(links, rest):
        h = model(batch.graph.x, batch.graph.edge_index)
        scores = (h[batch.pairs[0]] * h[batch.pairs[1]]).sum(1)
        num = batch.picked.numel()
        assert torch.allclose(scores[:num], expected[batch.picked], atol=1e-5)
        seen.append(batch.picked)
        rest_scores.append(scores[num:])
    assert [len(part) for part in seen] == [5, 5, 5, 5, 3]
    assert torch.cat(seen).sort().values.tolist() == list(range(23))
    # Every non-link is dealt out once, in its order.
    assert torch.allclose(torch.cat(rest_scores), negative, atol=1e-5)


def test_edges_name_those_of_the_whole_graph():
    graph = plain_graph()
    graph.edge_weight = torch.rand(graph.num_edges)
    loader = LinkNeighborBatches(graph, num_neighbors=[3, 2], batch_size=5, seed=0)
    for batch in loader.epoch(pairs(11, 0), pairs(33, 1)):
        part = batch.graph
        assert torch.equal(part.n_id[part.edge_index], graph.edge_index[:, part.e_id])
        assert torch.equal(part.edge_weight, graph.edge_weight[part.e_id])
        assert torch.equal(part.x, graph.x[part.n_id])


def test_batches_follow_from_the_seed():
    graph = plain_graph()
    loaders = [LinkNeighborBatches(graph, num_neighbors=[2], batch_size=5, seed=4) for _ in range(2)]
    first, second = (list(loader.epoch(pairs(11, 0), pairs(5, 1))) for loader in loaders)
    again = list(loaders[0].epoch(pairs(11, 0), pairs(5, 1)))
    assert all(torch.equal(a.graph.e_id, b.graph.e_id) for a, b in zip(first, second, strict=True))
    assert not torch.equal(torch.cat([b.picked for b in first]), torch.cat([b.picked for b in again]))
