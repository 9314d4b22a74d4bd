"""The recipe "add a link baseline" of CONTRIBUTING: a few lines outside the package, with public names only."""

import inspect

import networkx as nx
import pytest
import torch
from torch_geometric.utils import to_networkx
from transfer_pairs import small_pair

from graphsparse.transfer import BASELINES, LinkPredictor, register_baseline


@register_baseline("jaccard")
class Jaccard(LinkPredictor):
    """Scores pairs by the share of the neighbours of either end that both have."""

    def learn(self, pair, split, seed):
        linked = torch.zeros(pair.num_nodes, pair.num_nodes)
        linked[tuple(pair.graph("target", without=split).edge_index)] = 1
        return {"linked": linked}

    def rate(self, pairs):
        first, second = (self.state["linked"][end] for end in pairs)
        return (first * second).sum(1) / (first + second).clamp(max=1).sum(1).clamp(min=1)


def test_at_most_25_lines():
    assert len(inspect.getsource(Jaccard).splitlines()) <= 25


def test_scores_under_a_split_and_is_saved_like_every_other(tmp_path):
    pair, split = small_pair()
    scorer = BASELINES["jaccard"](pair, split)
    graph = to_networkx(pair.graph("target", without=split, features=False), to_undirected=True)
    pairs = torch.cat([split.test, split.test_neg, split.val], 1)
    expected = [score for _, _, score in nx.jaccard_coefficient(graph, pairs.t().tolist())]
    assert scorer.score(pairs).tolist() == pytest.approx(expected)
    assert max(expected) > 0
    scorer.save(tmp_path / "jaccard.safetensors")
    again = LinkPredictor.load(tmp_path / "jaccard.safetensors", pair)
    assert isinstance(again, Jaccard)
    assert torch.equal(again.score(pairs), scorer.score(pairs))


def test_checks_are_those_of_the_base(tmp_path):
    pair, split = small_pair()
    with pytest.raises(ValueError, match="another pair"):
        BASELINES["jaccard"](pair, small_pair(1)[1])
    with pytest.raises(RuntimeError, match="this Jaccard has learned nothing yet"):
        Jaccard().score(split.test)
    with pytest.raises(ValueError, match="no self-loops"):
        Jaccard().fit(pair, split).score(torch.tensor([[3], [3]]))


def test_a_name_is_taken_once():
    register_baseline("jaccard")(Jaccard)  # the same again, as in a notebook
    for name in ("jaccard", "pagerank"):
        with pytest.raises(ValueError, match=f"'name' is taken by .* .got '{name}'"):
            register_baseline(name)(LinkPredictor)
