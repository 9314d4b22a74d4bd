import pytest
import torch
from torch import nn
from torch_geometric.nn import GAT, GCN, GraphSAGE

from graphsparse.testing import random_graph
from graphsparse.transfer import sage_encoder
from graphsparse.transfer.models.link_model import (
    LinkModel,
    build_link_model,
    encode,
    encode_layerwise,
    message_graph,
    takes_edge_weight,
)


@pytest.mark.parametrize("make", [lambda f: GCN(f, 16, 2), lambda f: GAT(f, 16, 2, heads=2), sage_encoder(16)])
def test_own_convolutions_and_layers_one_by_one_give_what_pyg_gives(make):
    graph = random_graph()
    plain, fast = (build_link_model(make, graph, seed=3, fast=fast) for fast in (False, True))
    expected = encode(plain, graph)
    assert torch.allclose(encode(fast, graph), expected, atol=1e-5)
    assert torch.allclose(encode_layerwise(fast, graph), expected, atol=1e-5)
    assert list(plain.state_dict()) == list(fast.state_dict())


def test_rows_of_features_are_divided_by_their_length():
    graph = random_graph()
    model = build_link_model(sage_encoder(16), graph, seed=0)
    scaled = message_graph(graph)
    scaled.x = graph.x * torch.rand(60, 1).add(0.1)
    assert torch.allclose(encode(model, graph), encode(model, scaled), atol=1e-5)


def test_input_dropout_only_in_training():
    graph = random_graph()
    model = build_link_model(sage_encoder(16, dropout=0.0), graph, seed=0, input_dropout=0.5)
    assert torch.equal(encode(model, graph), encode(model, graph))
    model.train()
    assert not torch.equal(model(graph.x, graph.edge_index), model(graph.x, graph.edge_index))


def test_what_a_model_reads_of_a_graph():
    graph = random_graph()
    assert sorted(message_graph(graph).keys()) == ["edge_index", "x"]
    graph.edge_weight = torch.rand(graph.num_edges)
    assert message_graph(graph).edge_weight is graph.edge_weight


def test_who_takes_edge_weights():
    assert takes_edge_weight(GCN(3, 4, 2))
    assert not takes_edge_weight(GraphSAGE(3, 4, 2))
    assert not takes_edge_weight(nn.Linear(3, 4))


def test_a_module_is_used_as_it_is_and_the_decoder_is_as_wide_as_its_vectors():
    graph = random_graph()
    encoder = GraphSAGE(8, 16, 2)
    model = build_link_model(encoder, graph, seed=0, directed=True)
    assert model.encoder.convs[0].lin_l.weight is encoder.convs[0].lin_l.weight
    assert model.decoder.weight.shape == (16, 16)


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        ("sage", "'encoder' must be a torch.nn.Module, or a function"),
        (lambda f: "sage", "must return a torch.nn.Module"),
    ],
)
def test_what_is_no_encoder(encoder, message):
    with pytest.raises(TypeError, match=message):
        build_link_model(encoder, random_graph(), seed=0)


@pytest.mark.parametrize(
    ("error", "options"), [(TypeError, {"hidden": 2.5}), (ValueError, {"num_layers": 0}), (ValueError, {"dropout": 2})]
)
def test_options_of_the_encoder(error, options):
    with pytest.raises(error, match=f"'{next(iter(options))}' must be"):
        sage_encoder(**options)


def with_few_words():
    graph = random_graph()
    generator = torch.Generator().manual_seed(1)
    graph.x = (torch.rand(60, 40, generator=generator) < 0.05) * torch.rand(60, 40, generator=generator)
    return graph


@pytest.mark.parametrize(
    "make", [lambda f: GCN(f, 16, 2), lambda f: GAT(f, 16, 2, heads=2), sage_encoder(16, dropout=0)]
)
def test_sparse_features_give_what_dense_ones_give(make):
    graph, found = with_few_words(), []
    for sparse in (True, False):
        model = build_link_model(make, graph, seed=3)
        assert model.sparse_input
        model.sparse_input = sparse
        h = model.train()(graph.x, graph.edge_index)
        h.square().sum().backward()
        found.append([h, *(p.grad for p in model.parameters()), encode(model, graph)])
    for a, b in zip(*found, strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_dropout_of_sparse_features_keeps_so_large_a_share_and_scales_it():
    x = torch.eye(2000)
    model = LinkModel(Words(), nn.Identity(), input_dropout=0.25).train()
    first, second = model(x, None).diagonal(), model(x, None).diagonal()
    assert sorted(first.unique().tolist()) == pytest.approx([0, 1 / 0.75])
    assert abs(float((first > 0).float().mean()) - 0.75) < 0.04  # four standard errors
    assert not torch.equal(first, second)
    assert torch.equal(model.eval()(x, None), x)


class Words(nn.Module):
    """An encoder that gives the features back."""

    def forward(self, x, edge_index):
        return torch.nn.functional.linear(x, torch.eye(x.size(1)))


def test_features_that_are_changed_in_place_are_seen():
    graph = with_few_words()
    model = build_link_model(sage_encoder(16), graph, seed=0)
    before = encode(model, graph)
    graph.x.mul_(torch.rand(60, 40))
    model.sparse_input = False
    expected = encode(model, graph)
    model.sparse_input = True
    assert torch.allclose(encode(model, graph), expected, atol=1e-5)
    assert not torch.allclose(before, expected, atol=1e-3)
