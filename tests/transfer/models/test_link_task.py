import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.nn import GraphSAGE
from transfer_pairs import small_pair

from graphsparse.transfer.models.link_model import build_link_model, sage_encoder
from graphsparse.transfer.models.link_task import LinkTask, check_link_model, links_of
from graphsparse.transfer.models.validation import Validation


def as_set(pairs):
    return set(map(tuple, pairs.t().tolist()))


@pytest.fixture(scope="module")
def parts():
    pair, split = small_pair()
    return pair.enriched_target(without=split), Validation(split.val, split.val_neg)


def test_links_are_each_edge_once():
    edge_index = torch.tensor([[0, 1, 1, 2, 2], [1, 0, 2, 1, 2]])
    links, at = links_of(Data(edge_index=edge_index))
    assert as_set(links) == {(0, 1), (1, 2)}
    assert torch.equal(edge_index[:, at], links)
    assert as_set(links_of(Data(edge_index=edge_index), directed=True)[0]) == {(0, 1), (1, 0), (1, 2), (2, 1)}


def test_an_epoch_has_all_links_and_fresh_non_links(parts):
    graph, validation = parts
    task = LinkTask(graph, graph, validation, seed=0, num_neg=3)
    ((first, _),), ((second, _),) = list(task.batches()), list(task.batches())
    num = links_of(graph)[0].size(1)
    assert first.pairs.size(1) == 4 * num
    assert torch.equal(first.pairs[:, :num], links_of(graph)[0])
    edges = as_set(graph.edge_index)
    for batch in (first, second):
        assert not edges & as_set(batch.pairs[:, num:])
    assert not torch.equal(first.pairs, second.pairs)


@pytest.mark.parametrize("num_neighbors", [None, [-1, -1]])
def test_so_many_links_an_epoch_drawn_anew_and_all_of_them_messages(parts, num_neighbors):
    graph, validation = parts
    task = LinkTask(graph, graph, validation, seed=0, links_per_epoch=20, num_neighbors=num_neighbors)
    links, epochs = as_set(links_of(graph)[0]), []
    for _ in range(2):
        ((batch, _),) = list(task.batches())
        n_id = torch.arange(graph.num_nodes)
        if num_neighbors is None:
            assert torch.equal(batch.graph.edge_index, graph.edge_index)
        else:  # features tell the nodes of a batch
            n_id = (batch.graph.x[:, None] == graph.x[None]).all(2).nonzero()[:, 1]
        epochs.append(as_set(n_id[batch.pairs[:, : batch.picked.numel()]]))
        assert batch.pairs.size(1) == 4 * 20
        assert len(epochs[-1]) == 20
        assert epochs[-1] <= links | {(v, u) for u, v in links}
    assert epochs[0] != epochs[1]


@pytest.mark.parametrize("options", [{}, {"source_weight": 0.5}])
def test_a_limit_that_is_not_reached_changes_nothing(parts, options):
    graph, validation = parts
    graph = graph.clone()
    graph.edge_origin = torch.arange(graph.num_edges) % 3
    first, second = (LinkTask(graph, graph, validation, seed=0, links_per_epoch=n, **options) for n in (None, 10**6))
    for (a, _), (b, _) in zip(first.batches(), second.batches(), strict=True):
        assert torch.equal(a.pairs, b.pairs)


def test_weights_belong_to_the_links_that_were_drawn(parts):
    graph, validation = parts
    graph = graph.clone()
    graph.edge_origin = torch.arange(graph.num_edges) % 3
    task = LinkTask(graph, graph, validation, seed=0, source_weight=0.5, links_per_epoch=20)
    ((batch, weight),) = list(task.batches())
    links, at = links_of(graph)
    expected = {
        tuple(pair): 0.5 if graph.edge_origin[i] == 2 else 1.0 for pair, i in zip(links.t().tolist(), at, strict=True)
    }
    assert [expected[tuple(pair)] for pair in batch.pairs[:, :20].t().tolist()] == weight.tolist()
    assert set(weight.tolist()) == {0.5, 1.0}


def test_what_is_masked_is_what_is_learned_from_under_a_limit(parts):
    graph, validation = parts
    task = LinkTask(graph, graph, validation, seed=0, mask_ratio=0.5, links_per_epoch=20)
    ((batch, _),) = list(task.batches())
    assert batch.picked.numel() == 20
    assert batch.graph.num_edges == graph.num_edges - 2 * 20


@pytest.mark.parametrize("num_neighbors", [None, [-1, -1]])
def test_what_is_learned_from_is_no_message_with_a_mask(parts, num_neighbors):
    graph, validation = parts
    task = LinkTask(graph, graph, validation, seed=0, mask_ratio=0.3, num_neighbors=num_neighbors, batch_size=10)
    links = links_of(graph)[0]
    hidden = []
    for _ in range(2):
        learned, messages = set(), set()
        for batch, _ in task.batches():
            n_id = torch.arange(graph.num_nodes)
            if num_neighbors is not None:  # features tell the nodes of a batch
                n_id = (batch.graph.x[:, None] == graph.x[None]).all(2).nonzero()[:, 1]
            learned |= as_set(n_id[batch.pairs[:, : batch.picked.numel()]])
            messages |= as_set(n_id[batch.graph.edge_index])
        both = learned | {(v, u) for u, v in learned}
        assert len(learned) == round(0.3 * links.size(1))
        assert not both & messages
        if num_neighbors is None:
            assert messages == as_set(graph.edge_index) - both
        hidden.append(learned)
    assert hidden[0] != hidden[1]


def test_full_fan_out_and_one_batch_give_the_loss_of_the_whole_graph(parts):
    graph, validation = parts
    model = build_link_model(sage_encoder(16, dropout=0.0), "dot", graph, seed=0)
    losses = []
    for num_neighbors in (None, [-1, -1]):
        task = LinkTask(graph, graph, validation, seed=0, num_neighbors=num_neighbors, batch_size=10_000)
        (batch,) = task.batches()
        losses.append(task.loss(model, batch, 0))
    assert torch.allclose(losses[0], losses[1], atol=1e-5)


def test_source_weight_counts_links_of_the_source_less(parts):
    graph, validation = parts
    model = build_link_model(sage_encoder(16, dropout=0.0), "dot", graph, seed=0)
    task = LinkTask(graph, graph, validation, seed=0, source_weight=0.0)
    ((batch, weight),) = task.batches()
    origin = graph.edge_origin[links_of(graph)[1]]
    assert torch.equal(weight == 0, origin == 2)
    scores = model.decoder(model(graph.x, graph.edge_index), batch.pairs)
    num = batch.picked.numel()
    target = scores[:num][origin != 2]
    expected = torch.log1p(torch.exp(-target)).mean() + torch.log1p(torch.exp(scores[num:])).mean()
    assert torch.allclose(task.loss(model, (batch, weight), 0), expected, atol=1e-5)


def test_graph_without_links_is_refused(parts):
    graph, validation = parts
    empty = Data(x=graph.x, edge_index=graph.edge_index[:, :0], edge_origin=graph.edge_origin[:0])
    with pytest.raises(ValueError, match="the training graph has no link to learn from"):
        LinkTask(empty, graph, validation, seed=0)


def test_weights_need_an_encoder_that_takes_them(parts):
    graph = parts[0].clone()
    graph.edge_weight = torch.ones(graph.num_edges)
    model = build_link_model(GraphSAGE(8, 16, 2), "dot", graph, seed=0, fast=False)
    with pytest.raises(
        ValueError, match="'source_edge_weight' needs an encoder that takes edge weights .got GraphSAGE"
    ):
        check_link_model(model, [graph])
