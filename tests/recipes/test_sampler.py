"""The recipe "add a sampler" of CONTRIBUTING: a few lines outside the package, with public names only."""

import inspect

import pytest
import torch
from resuming import Kill, assert_same_result, kill_in, no_kill
from torch_geometric.nn import GCN

from graphsparse.loader import Batches
from graphsparse.soups import train_ingredients
from graphsparse.testing import random_graph
from graphsparse.training import Training, build_model, fit


class RandomEdgeBatches(Batches):
    """All nodes and a random part of the edges, of each edge both directions or none (DropEdge)."""

    def __init__(self, data, *, seed=0, keep=0.5, num_batches=2):
        super().__init__(data, seed)
        self.keep, self.num_batches = keep, num_batches
        _, self.pair = torch.unique(data.edge_index.sort(0).values, dim=1, return_inverse=True)

    def __len__(self):
        return self.num_batches

    def __iter__(self):
        for _ in range(self.num_batches):
            kept = torch.rand(int(self.pair.max()) + 1, generator=self.generator) < self.keep
            yield self.data.edge_subgraph(kept[self.pair])


def make_model():
    return GCN(8, 16, 2, 3, dropout=0.5)


def train(folder, **options):
    how = {"sampler": RandomEdgeBatches, "sampler_options": options, "training": Training(epochs=15), "workers": 0}
    return train_ingredients(make_model, random_graph(), 2, folder, **how)


def test_at_most_thirty_lines():
    assert len(inspect.getsource(RandomEdgeBatches).splitlines()) <= 30


def test_keeps_both_directions_of_an_edge_and_the_fraction_that_was_asked_for():
    data = random_graph()
    batches = list(RandomEdgeBatches(data, keep=0.3, num_batches=50))
    for batch in batches:
        edges = set(map(tuple, batch.edge_index.t().tolist()))
        assert edges == {(v, u) for u, v in edges}
    mean = sum(batch.num_edges for batch in batches) / 50 / data.num_edges
    assert mean == pytest.approx(0.3, abs=5 * (0.3 * 0.7 / (25 * data.num_edges)) ** 0.5)


def test_ingredients_are_trained_with_it_and_told_apart_by_its_options(tmp_path):
    first = train(tmp_path / "a")
    assert min(first.scores) > 0.5
    assert first.meta(0)["weights"] != first.meta(1)["weights"]  # other edges and other dropout
    assert not set(train(tmp_path / "a", keep=0.9).keys) & set(first.keys)
    again = train(tmp_path / "b")
    assert [again.meta(i)["weights"] for i in range(2)] == [first.meta(i)["weights"] for i in range(2)]


def test_a_killed_training_goes_on_with_the_same_batches(tmp_path):
    def run(hook=no_kill, **options):
        data = random_graph()
        loader = RandomEdgeBatches(data)
        return fit(build_model(make_model, 0), data, loader=loader, epochs=6, before_step=[hook], **options)

    file = {"checkpoint": tmp_path / "a.pt", "checkpoint_every": 1}
    with pytest.raises(Kill):
        run(kill_in(3), **file)
    assert_same_result(run(**file), run())
