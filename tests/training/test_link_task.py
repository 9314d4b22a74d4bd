import math
import pickle
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch_geometric.data import Data
from torch_geometric.nn import GCN, GraphSAGE

from graphsparse.metrics import auroc, average_precision
from graphsparse.testing import random_graph
from graphsparse.training import LinkTask, Training, clipped_adam, fit, link_training
from graphsparse.training.link_task import LinkNeighborBatches, link_average_precision, link_loss, links_of


def as_set(pairs):
    return set(map(tuple, pairs.t().tolist()))


def both_ways(links):
    return links | {(v, u) for u, v in links}


@pytest.fixture(scope="module")
def graph():
    graph = random_graph()
    return Data(x=graph.x, edge_index=graph.edge_index)


@pytest.fixture(scope="module")
def split():
    generator = torch.Generator().manual_seed(5)
    pairs = torch.randint(60, (2, 400), generator=generator)
    pairs = pairs[:, pairs[0] != pairs[1]]
    return {"val": (pairs[:, :30], pairs[:, 30:130]), "test": (pairs[:, 130:150], pairs[:, 150:250])}


def batches_of(graph, num_neighbors, batch_size=10_000):
    return LinkNeighborBatches(graph, num_neighbors=num_neighbors, batch_size=batch_size, seed=0)


def nodes_of(batch, graph):
    """The nodes of a batch, which features tell."""
    return (batch.graph.x[:, None] == graph.x[None]).all(2).nonzero()[:, 1]


def test_links_are_each_edge_once():
    edge_index = torch.tensor([[0, 1, 1, 2, 2], [1, 0, 2, 1, 2]])
    links, at = links_of(Data(edge_index=edge_index))
    assert as_set(links) == {(0, 1), (1, 2)}
    assert torch.equal(edge_index[:, at], links)
    assert as_set(links_of(Data(edge_index=edge_index), directed=True)[0]) == {(0, 1), (1, 0), (1, 2), (2, 1)}


def test_loss_is_that_of_two_cross_entropies():
    links, rest = torch.randn(5), torch.randn(20)
    expected = F.binary_cross_entropy_with_logits(links, torch.ones(5)) + F.binary_cross_entropy_with_logits(
        rest, torch.zeros(20)
    )
    assert torch.allclose(link_loss(links, rest), expected)
    assert torch.allclose(link_loss(links, rest), link_loss(links, rest.repeat(7)))  # their number does not matter


def test_weight_0_equals_no_link_and_is_finite_for_huge_logits():
    links, rest = torch.tensor([0.3, -2.0, 1.0]), torch.randn(4)
    weight = torch.tensor([1.0, 0.0, 1.0])
    assert torch.allclose(link_loss(links, rest, weight), link_loss(links[[0, 2]], rest))
    assert link_loss(torch.tensor([-1e4]), torch.tensor([1e4])) == 2e4


def test_average_precision_is_that_of_the_package():
    links, rest = torch.randn(5), torch.randn(20)
    marked = torch.tensor([True] * 5 + [False] * 20)
    assert link_average_precision(links, rest) == average_precision(torch.cat([links, rest]), marked)


@pytest.mark.parametrize("batched", [False, True])
def test_any_model_is_trained_on_links_and_judged_on_those_that_are_held_out(graph, batched):
    """Links of a graph within whose classes all links are; inner products of the vectors score them."""
    data = random_graph(200)
    inside = data.y[data.edge_index[0]] == data.y[data.edge_index[1]]
    data = Data(x=data.x + 4 * F.one_hot(data.y, 8), edge_index=data.edge_index[:, inside])
    links = links_of(data)[0]
    order = torch.randperm(links.size(1), generator=torch.Generator().manual_seed(0))
    rest = torch.randint(200, (2, 400), generator=torch.Generator().manual_seed(1))
    rest = rest[:, rest[0] < rest[1]]
    held = {"val": (links[:, order[:30]], rest[:, :80]), "test": (links[:, order[30:60]], rest[:, 80:160])}
    kept = links[:, order[60:]]
    seen = Data(x=data.x, edge_index=torch.cat([kept, kept.flip(0)], 1))
    loader = batches_of(seen, [-1, -1], 64) if batched else None
    model = GraphSAGE(8, 16, 2)
    result = fit(model, LinkTask(seen, held, loader=loader), link_training(epochs=30, lr=1e-2))
    assert result.metric == "average precision"
    h = model.eval()(seen.x, seen.edge_index)
    scores = [(h[u] * h[v]).sum(1) for u, v in held["test"]]
    assert result.test == pytest.approx(link_average_precision(*scores), abs=1e-6)
    assert auroc(torch.cat(scores), torch.arange(110) < 30) > 0.7
    assert result.val == max(entry["val"] for entry in result.history)
    hidden = LinkTask(seen, held).without_test()
    assert fit(GraphSAGE(8, 16, 2), hidden, epochs=1).test is None


def test_own_decoder_call_metric_and_inference(graph, split):
    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.decoder = GCN(8, 4, 1), Far()

        def forward(self, edges, features):
            return self.conv(features, edges)

    class Far(nn.Module):
        def forward(self, h, pairs):
            return -(h[pairs[0]] - h[pairs[1]]).square().sum(1)

    def mean_gap(links, rest):
        return float((links.mean() - rest.mean()).detach())

    model, calls = Encoder(), []

    def call(model, data):
        calls.append(data)
        return model(data.edge_index, data.x)

    task = LinkTask(graph, split, metric=mean_gap, call=call)
    result = fit(model, task, epochs=2)
    assert result.metric.endswith("mean_gap")
    h = model.conv(graph.x, graph.edge_index)
    gap = mean_gap(*(model.decoder(h, pairs) for pairs in split["test"]))
    assert result.test == pytest.approx(gap, rel=1e-5)
    assert len(calls) > 2
    twice = LinkTask(graph, split, call=call, inference=lambda model, data: 2 * call(model, data))
    assert torch.allclose(twice.evaluate(model.eval(), 0).logits, 4 * task.evaluate(model, 0).logits, rtol=1e-5)


def test_an_epoch_has_all_links_and_fresh_non_links(graph, split):
    task = LinkTask(graph, split, num_neg=3)
    (first,), (second,) = list(task.batches()), list(task.batches())
    num = links_of(graph)[0].size(1)
    assert first.pairs.size(1) == 4 * num
    assert torch.equal(first.pairs[:, :num], links_of(graph)[0])
    edges = as_set(graph.edge_index)
    for batch in (first, second):
        assert not edges & as_set(batch.pairs[:, num:])
    assert not torch.equal(first.pairs, second.pairs)


@pytest.mark.parametrize("batched", [False, True])
def test_so_many_links_an_epoch_drawn_anew_and_all_of_them_messages(graph, split, batched):
    task = LinkTask(graph, split, links_per_epoch=20, loader=batches_of(graph, [-1, -1]) if batched else None)
    links, epochs = as_set(links_of(graph)[0]), []
    for _ in range(2):
        (batch,) = list(task.batches())
        nodes = nodes_of(batch, graph) if batched else torch.arange(60)
        if not batched:
            assert torch.equal(batch.graph.edge_index, graph.edge_index)
        epochs.append(as_set(nodes[batch.pairs[:, : batch.picked.numel()]]))
        assert batch.pairs.size(1) == 4 * 20
        assert len(epochs[-1]) == 20
        assert epochs[-1] <= both_ways(links)
    assert epochs[0] != epochs[1]


def test_a_limit_that_is_not_reached_changes_nothing(graph, split):
    for weight in (None, torch.rand(graph.num_edges)):
        first, second = (LinkTask(graph, split, links_per_epoch=n, link_weight=weight) for n in (None, 10**6))
        for a, b in zip(first.batches(), second.batches(), strict=True):
            assert torch.equal(a.pairs, b.pairs)


def test_weights_belong_to_the_links_that_were_drawn(graph, split):
    edge_weight = torch.arange(graph.num_edges) / graph.num_edges
    expected = dict(zip(map(tuple, graph.edge_index.t().tolist()), edge_weight.tolist(), strict=True))
    for loader in (None, batches_of(graph, [2, 2], 7)):
        task = LinkTask(graph, split, link_weight=edge_weight, links_per_epoch=20, loader=loader)
        for batch in task.batches():
            nodes = torch.arange(60) if loader is None else nodes_of(batch, graph)
            links = nodes[batch.pairs[:, : batch.picked.numel()]].sort(0).values
            assert [expected[tuple(pair)] for pair in links.t().tolist()] == batch.weight.tolist()


def test_weighted_loss_is_that_of_the_formula_and_links_of_weight_0_are_passed_over(graph, split):
    model = GraphSAGE(8, 16, 2)
    heavy = graph.edge_index.sum(0) % 2 == 0
    task = LinkTask(graph, split, link_weight=heavy.float())
    (batch,) = task.batches()
    h, num = model(graph.x, graph.edge_index), batch.picked.numel()
    scores = (h[batch.pairs[0]] * h[batch.pairs[1]]).sum(1)
    kept = heavy[links_of(graph)[1]]
    expected = F.softplus(-scores[:num][kept]).mean() + F.softplus(scores[num:]).mean()
    assert torch.allclose(task.loss(model, batch, None), expected, atol=1e-5)
    assert torch.allclose(task.loss(model, batch, torch.sum), expected + scores.sum(), atol=1e-3)
    batch.weight.zero_()
    assert task.loss(model, batch, None) is None


def test_full_fan_out_and_one_batch_give_the_loss_of_the_whole_graph(graph, split):
    model, losses = GraphSAGE(8, 16, 2), []
    for loader in (None, batches_of(graph, [-1, -1])):
        task = LinkTask(graph, split, loader=loader)
        (batch,) = task.batches()
        losses.append(task.loss(model, batch, None))
    assert torch.allclose(losses[0], losses[1], atol=1e-5)


@pytest.mark.parametrize("batched", [False, True])
def test_killed_training_goes_on_bit_for_bit(graph, split, tmp_path, batched):
    class StopError(Exception):
        pass

    def kill(entry):
        if entry["epoch"] == 5:
            raise StopError

    def run(model, num_neg=3, **fields):
        loader = batches_of(graph, [3, 2], 16) if batched else None
        task = LinkTask(graph, split, loader=loader, links_per_epoch=40, num_neg=num_neg)
        return fit(model, task, link_training(epochs=8, lr=1e-2, eval_every=2, **fields))

    def model():
        torch.manual_seed(0)
        return GraphSAGE(8, 16, 2, dropout=0.5)

    whole = run(model())
    saved = {"checkpoint": tmp_path / "links.pt", "checkpoint_every": 1}
    with pytest.raises(StopError):
        run(model(), **saved, log=kill)
    again = run(model(), **saved)
    assert all(torch.equal(whole.state_dict[name], again.state_dict[name]) for name in whole.state_dict)
    assert whole.history == again.history
    with pytest.raises(ValueError, match="'checkpoint' .* belongs to another training: 'num_neg'"):
        run(model(), num_neg=2, **saved)


def test_what_is_refused(graph, split):
    model = GraphSAGE(8, 16, 2)
    none = Data(x=graph.x, edge_index=graph.edge_index[:, :0])
    with pytest.raises(ValueError, match="the training graph has no link to learn from"):
        fit(model, LinkTask(none, split), epochs=1)
    for i, kind in enumerate(("links", "non-links")):
        val = [pairs[:, :0] if place == i else pairs for place, pairs in enumerate(split["val"])]
        with pytest.raises(ValueError, match=f"'split' holds no {kind} under 'val'"):
            LinkTask(graph, {"val": tuple(val)})
    with pytest.raises(ValueError, match="'link_weight' is 0 for every link"):
        LinkTask(graph, split, link_weight=torch.zeros(graph.num_edges))
    with pytest.raises(TypeError, match="'metric' must be a function"):
        LinkTask(graph, split, metric="auc")
    with pytest.raises(ValueError, match="'num_neg' must be at least 1"):
        LinkTask(graph, split, num_neg=0)
    for bad in (math.nan, math.inf):
        x = graph.x.clone()
        x[3, 2] = bad
        with pytest.raises(ValueError, match="'eval_data.x' holds NaN or infinity"):
            fit(model, LinkTask(graph, split, eval_data=Data(x=x, edge_index=graph.edge_index)), epochs=1)
    with pytest.raises(TypeError, match="'data.x' must be torch.float32, as the weights are .got torch.float64"):
        fit(model, LinkTask(Data(x=graph.x.double(), edge_index=graph.edge_index), split), epochs=1)

    class OneNumber(GraphSAGE):
        def forward(self, x, edge_index):
            return super().forward(x, edge_index).sum()

    with pytest.raises(ValueError, match=r"'model' must return one vector per node, \[60, d\] .got \[\]"):
        fit(OneNumber(8, 16, 2), LinkTask(graph, split), epochs=1)
    broken = GraphSAGE(8, 16, 2)
    with torch.no_grad():
        broken.convs[0].lin_l.weight.fill_(math.nan)
    with pytest.raises(FloatingPointError, match="a score is not a number"):
        LinkTask(graph, split).evaluate(broken, 7)


def test_gradients_are_clipped_together():
    """The first step of Adam does not tell how long a gradient is; what it is given does."""
    weight, other = nn.Parameter(torch.zeros(4)), nn.Parameter(torch.zeros(1))
    for make, length in ((clipped_adam, 2.0), (partial(clipped_adam, clip=0.5), 0.5), (None, math.sqrt(4e4 + 1))):
        optimizer, _ = Training(optimizer=make).make_optimizer([weight, other])
        optimizer.zero_grad()
        (100 * weight.sum() + other.sum()).backward()
        optimizer.step()
        assert torch.cat([weight.grad, other.grad]).norm().item() == pytest.approx(length, rel=1e-3)
    assert pickle.loads(pickle.dumps(link_training(epochs=3))) == link_training(epochs=3)
    found = link_training(epochs=60, lr=5e-3)
    assert (found.epochs, found.lr, found.weight_decay, found.eval_every) == (60, 5e-3, 0.0, 5)
