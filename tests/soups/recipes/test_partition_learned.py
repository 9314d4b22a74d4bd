import pytest
import torch
from models import MODELS
from soup_helpers import random_states
from torch_geometric.nn import GCN
from torch_geometric.utils import subgraph

from graphsparse.loader.parts import ClusterBatches
from graphsparse.soups.evaluation.evaluator import Evaluator
from graphsparse.soups.recipes import partition_learned
from graphsparse.soups.recipes.learned import learned_soup
from graphsparse.soups.recipes.partition_learned import partition_learned_soup
from graphsparse.testing import random_graph


def steps(monkeypatch, **options):
    """The graphs and weights that a soup takes its steps on, and the evaluator that it was given."""
    found = []
    walked, drawn = partition_learned._walked, partition_learned._drawn

    def noted(batches):
        for batch, weight in batches:
            found.append((batch, weight))
            yield batch, weight

    monkeypatch.setattr(partition_learned, "_walked", lambda batches, num: noted(walked(batches, num)))
    monkeypatch.setattr(partition_learned, "_drawn", lambda batches: noted(drawn(batches)))
    data = random_graph(90)
    data.id = torch.arange(90)
    data.edge_weight = torch.rand(data.num_edges)
    evaluator = Evaluator(MODELS["GCN"](), data)
    partition_learned_soup(random_states(MODELS["GCN"], 2), evaluator, **options)
    return found, evaluator


def weighted(edge_index, edge_weight):
    return {(u, v): w for u, v, w in zip(*edge_index.tolist(), edge_weight.tolist(), strict=True)}


@pytest.mark.parametrize("kind", ["GCN", "GraphSAGE", "GAT", "BatchNorm and a tied weight"])
@pytest.mark.parametrize("compat", [None, "es2025"])
def test_all_parts_in_each_step_is_the_learned_soup(kind, compat):
    data = random_graph(90)
    data.x = data.x.double()

    def make_model():
        return MODELS[kind]().double()

    states = random_states(make_model, 3)
    expected = learned_soup(states, Evaluator(make_model(), data), epochs=8, compat=compat)
    found = partition_learned_soup(
        states, Evaluator(make_model(), data), num_parts=5, parts_per_step=5, epochs=8, compat=compat
    )
    assert len(found.trace) == len(expected.trace) == 9
    for one, other in zip(found.trace, expected.trace, strict=True):
        assert one == pytest.approx(other, rel=1e-9)
    for name, value in expected.state_dict.items():
        torch.testing.assert_close(found.state_dict[name], value, rtol=1e-8, atol=1e-10)


def test_parts_are_walked_through_and_keep_the_edges_between_them(monkeypatch):
    found, evaluator = steps(monkeypatch, num_parts=6, parts_per_step=2, epochs=9)
    assert len(found) == 9
    data = evaluator.data
    for walk in range(3):
        seen = torch.cat([batch.id for batch, _ in found[3 * walk : 3 * walk + 3]])
        assert torch.equal(seen.sort().values, torch.arange(90))
    assert len({tuple(batch.id.tolist()) for batch, _ in found}) > 3  # the walks differ
    for batch, _ in found:
        expected = weighted(*subgraph(batch.id, data.edge_index, data.edge_weight))
        assert weighted(batch.id[batch.edge_index], batch.edge_weight) == expected


def test_losses_of_a_walk_weigh_every_node_alike(monkeypatch):
    found, evaluator = steps(monkeypatch, num_parts=6, parts_per_step=2, epochs=3)
    fit, _ = evaluator.halves(0)
    # The weight is that of the mean over the nodes that are there; a node has the same one in every step.
    assert sum(weight for _, weight in found) == pytest.approx(3)
    for batch, weight in found:
        assert weight / int(batch.mask.sum()) == pytest.approx(3 / fit.num_nodes)
        assert (batch.y[~batch.mask] == -1).all()


def test_steps_without_judged_nodes_are_passed_over(monkeypatch):
    found, _ = steps(monkeypatch, num_parts=60, parts_per_step=1, epochs=40)
    assert len(found) == 40
    assert all(batch.mask.any() for batch, _ in found)
    assert all(batch.num_nodes < 10 for batch, _ in found)


def test_released_rule_draws_anew(monkeypatch):
    found, _ = steps(monkeypatch, num_parts=6, parts_per_step=2, epochs=12, compat="es2025")
    assert {weight for _, weight in found} == {1.0}
    counts = torch.bincount(torch.cat([batch.id for batch, _ in found]), minlength=90)
    assert counts.min() < counts.max()  # no walk


def test_judged_nodes_are_spread_over_the_parts():
    data = random_graph(600)
    data.val_mask = torch.arange(600) < 60  # of which random nodes would be in clusters
    batches = ClusterBatches(
        data, num_parts=6, parts_per_batch=1, node_weight=1 + (600 // 60) * data.val_mask.long(), partition_seed=0
    )
    counts = [int(batch.val_mask.sum()) for batch in batches]
    assert max(counts) <= 2 * min(counts)


def test_accepts_after_every_walk(monkeypatch):
    data = random_graph(90)
    states = random_states(MODELS["GCN"], 2)
    result = partition_learned_soup(states, Evaluator(MODELS["GCN"](), data), num_parts=7, parts_per_step=3, epochs=8)
    assert [entry["epoch"] for entry in result.trace if "score" in entry] == [0, 3, 6, 8]


@pytest.mark.parametrize(
    ("options", "error", "name"),
    [
        ({"num_parts": 0}, ValueError, "num_parts"),
        ({"num_parts": 61}, ValueError, "num_parts"),
        ({"num_parts": 4.0}, TypeError, "num_parts"),
        ({"parts_per_step": 0}, ValueError, "parts_per_step"),
        ({"num_parts": 4, "parts_per_step": 5}, ValueError, "parts_per_step"),
        ({"eval_every": 0}, ValueError, "eval_every"),
    ],
)
def test_bad_options(options, error, name):
    with pytest.raises(error, match=f"'{name}'"):
        partition_learned_soup(random_states(MODELS["GCN"], 2), Evaluator(MODELS["GCN"](), random_graph()), **options)


def test_a_layer_that_keeps_its_first_graph():
    def make_model():
        return GCN(8, 16, 2, 3, cached=True)

    with pytest.raises(ValueError, match="cached=True"):
        partition_learned_soup(random_states(make_model, 2), Evaluator(make_model(), random_graph()), num_parts=8)
