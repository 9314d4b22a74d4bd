import pytest
import torch
from torch_geometric.nn import GAT, GIN

from graphsparse.testing import random_graph
from graphsparse.transfer.models.link_batches import dealt, make_link_batches
from graphsparse.transfer.models.link_model import build_link_model, encode, message_graph, sage_encoder
from graphsparse.typing import has_module

NEEDS = pytest.mark.skipif(not (has_module("torch_sparse") or has_module("pyg_lib")), reason="PyG's sampler needs it")
SAMPLERS = ["graphsparse", pytest.param("pyg", marks=NEEDS)]


def pairs(num, seed):
    return torch.randint(60, (2, num), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    "encoder", [sage_encoder(16), lambda width: GAT(width, 16, 2), lambda width: GIN(width, 16, 2)]
)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_full_fan_out_gives_the_scores_of_the_whole_graph(sampler, encoder):
    graph = message_graph(random_graph())
    model = build_link_model(encoder, "dot", graph, seed=0).eval()
    links, rest = pairs(23, 0), pairs(69, 1)
    h = encode(model, graph)
    expected, negative = model.decoder(h, links), model.decoder(h, rest)
    loader = make_link_batches(sampler, graph, num_neighbors=[-1, -1], batch_size=5, seed=0)
    seen, rest_scores = [], []
    for batch in loader.epoch(links, rest):
        scores = model.decoder(model(batch.graph.x, batch.graph.edge_index), batch.pairs)
        num = batch.picked.numel()
        assert torch.allclose(scores[:num], expected[batch.picked], atol=1e-5)
        seen.append(batch.picked)
        rest_scores.append(scores[num:])
    assert torch.cat(seen).sort().values.tolist() == list(range(23))
    assert torch.allclose(torch.cat(rest_scores), negative, atol=1e-5)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_edges_name_those_of_the_whole_graph(sampler):
    graph = message_graph(random_graph())
    graph.edge_weight = torch.rand(graph.num_edges)
    loader = make_link_batches(sampler, graph, num_neighbors=[3, 2], batch_size=5, seed=0)
    for batch in loader.epoch(pairs(11, 0), pairs(33, 1)):
        part = batch.graph
        assert torch.equal(part.n_id[part.edge_index], graph.edge_index[:, part.e_id])
        assert torch.equal(part.edge_weight, graph.edge_weight[part.e_id])
        assert torch.equal(part.x, graph.x[part.n_id])


def test_batches_follow_from_the_seed():
    graph = message_graph(random_graph())
    loaders = [make_link_batches("graphsparse", graph, num_neighbors=[2], batch_size=5, seed=4) for _ in range(2)]
    first, second = (list(loader.epoch(pairs(11, 0), pairs(5, 1))) for loader in loaders)
    again = list(loaders[0].epoch(pairs(11, 0), pairs(5, 1)))
    assert all(torch.equal(a.graph.e_id, b.graph.e_id) for a, b in zip(first, second, strict=True))
    assert not torch.equal(torch.cat([b.picked for b in first]), torch.cat([b.picked for b in again]))


def test_every_non_link_is_dealt_once():
    groups = list(dealt(torch.arange(10), 31, 4))
    assert torch.cat([rest for _, rest in groups]).tolist() == list(range(31))
    assert [len(links) for links, _ in groups] == [4, 4, 2]


def test_unknown_sampler():
    with pytest.raises(ValueError, match="'sampler' must be one of"):
        make_link_batches("dgl", message_graph(random_graph()), num_neighbors=[2])
