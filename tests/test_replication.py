"""Released code: the recurrence of GITL's on a graph of six nodes, by hand; learned souping with autograd."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from models import MODELS
from pairs_reference import propagated, some_pairs
from soup_helpers import random_states

from graphsparse.replication import released_edge_propagation, released_learned_soup, released_ugs
from graphsparse.soups import Evaluator
from graphsparse.testing import random_graph
from graphsparse.tickets import UGS
from graphsparse.training import Training

# Pairs 01, 12, 23 are labelled; 34 and 35 are asked for. In the line graph each neighbours itself and
#   01: 12      12: 01 23      23: 12 34 35      34: 23 35      35: 23 34
# so that the degrees with self-loops are 2, 3, 4, 3, 3.
ANCHORS = torch.tensor([[0, 1, 2], [1, 2, 3]])
QUERIES = torch.tensor([[3, 5], [4, 3]])
Y = torch.tensor([1.0, 1.0, 0.0])
P, P_Q = torch.tensor([0.6, 0.7, 0.4]), torch.tensor([0.5, 0.2])


def by_hand():
    """Five rounds, written out term by term."""
    a, b, c, d, e = 0.6, 0.7, 0.4, 0.5, 0.2
    r6, r12, r9 = 6**0.5, 12**0.5, 3.0
    for _ in range(5):
        a, b, c, d, e = (
            0.995 * (a / 2 + b / r6) + 0.005 * 1.0,
            0.995 * (a / r6 + b / 3 + c / r12) + 0.005 * 1.0,
            0.995 * (b / r12 + c / 4 + d / r12 + e / r12) + 0.005 * 0.0,
            0.995 * (c / r12 + d / 3 + e / r9) + 0.005 * 0.5,
            0.995 * (c / r12 + d / r9 + e / 3) + 0.005 * 0.2,
        )
        a, b, c, d, e = (min(max(value, 1e-9), 1 - 1e-9) for value in (a, b, c, d, e))
    return d, e


def released(**options):
    return released_edge_propagation(ANCHORS, Y, P, QUERIES, P_Q, 6, **options)


def test_six_nodes():
    d, e = by_hand()
    assert 0.2 < e < d < 0.5  # neighbours, and nearer to one another than their scores
    expected = [0.998 * 0.5 + 0.002 * d, 0.998 * 0.2 + 0.002 * e]
    assert released().tolist() == pytest.approx(expected, abs=1e-7)
    found = (released().double() - 0.998 * P_Q) / 0.002
    assert found.tolist() == pytest.approx([d, e], abs=1e-3)  # a float of 0.5 is known to 6e-8


def test_one_round_by_hand():
    found = (released(rounds=1).double() - 0.998 * P_Q) / 0.002
    # 0.995 * (0.4 / sqrt(12) + 0.5 / 3 + 0.2 / 3) + 0.005 * 0.5
    assert found.tolist() == pytest.approx([0.3495600, 0.3480600], abs=1e-4)


def test_no_pair_moves_by_more_than_the_weight():
    assert ((released() - P_Q).abs() <= 0.002).all()


def test_equals_the_recurrence_over_all_pairs_on_the_line_graph_of_networkx():
    pairs = some_pairs()
    values = torch.rand(3, 80, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y, p, scores = values[0, :50], values[1, :50], values[2, 50:]
    options = {"rounds": 5, "alpha": 0.995, "norm": "sym", "bounds": (1e-9, 1 - 1e-9)}
    found = propagated(pairs, torch.cat([p, scores]), torch.cat([y, scores]), **options)[50:]
    ours = released_edge_propagation(pairs[:, :50], y, p, pairs[:, 50:], scores, 30)
    np.testing.assert_allclose(ours, 0.998 * scores.numpy() + 0.002 * found, rtol=0, atol=1e-8)
    with pytest.raises(ValueError, match="'queries' must hold each undirected pair once"):
        released_edge_propagation(pairs, y, p, pairs[:, :1].flip(0), scores[:1], 30)


def released_soup(states, model, data, lr, epochs, period, weight_decay):
    """Learned souping as it was released, with all states in memory: returns the soup of the last epoch."""
    names = list(states[0])
    stacked = {name: torch.stack([state[name] for state in states]) for name in names}
    raw = torch.ones(len(names), len(states), dtype=torch.float64).softmax(1).requires_grad_()
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([raw, scale], lr=lr, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, period)

    def soup():
        shares = raw.softmax(1)
        return {name: torch.einsum("i,i...->...", share, stacked[name]) for name, share in zip(names, shares)}  # noqa: B905

    for _ in range(epochs):
        optimizer.zero_grad()
        logits = scale * torch.func.functional_call(model, soup(), (data.x, data.edge_index))
        F.cross_entropy(logits[data.val_mask], data.y[data.val_mask]).backward()
        optimizer.step()
        schedule.step()
    return {name: value.detach() for name, value in soup().items()}, raw.detach().softmax(1)


@pytest.mark.parametrize("kind", ["GCN", "GAT", "GraphSAGE"])
@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
def test_released_learned_soup(kind, weight_decay):
    data = random_graph()
    data.x = data.x.double()

    def make_model():
        return MODELS[kind]().double()

    states = random_states(make_model, 4)
    evaluator = Evaluator(make_model(), data)
    result = released_learned_soup(
        states, evaluator, lr=8.0, epochs=7, weight_decay=weight_decay, restart_every=3, split_validation=False
    )
    expected, shares = released_soup(states, make_model().eval(), data, 8.0, 7, 3, weight_decay)
    for row, (name, value) in enumerate(expected.items()):
        torch.testing.assert_close(result.state_dict[name], value, rtol=1e-9, atol=1e-10)
        torch.testing.assert_close(result.weights[name], shares[row], rtol=1e-9, atol=1e-10)
    assert float((4 * shares - 1).abs().max()) > 0.01  # the start was left
    assert result.val == evaluator.score(result.state_dict)


def test_masks_of_directions_are_counted_apart():
    """Exactly as many entries go as were asked for, and some edges keep one direction."""
    data, targets = random_graph(), [(0.3, 0.2), (0.5, 0.6)]
    data.edge_index = torch.cat([data.edge_index, torch.tensor([[2], [2]])], 1)
    rows = released_ugs(MODELS["GCN"], data, targets, UGS(1e-2, 1e-2, 0.3, 0.5), Training(epochs=5))
    total, weights = data.num_edges - 1, 8 * 16 + 16 * 3
    for (edges, share), row in zip(targets, rows, strict=True):
        masks = row["masks"]
        assert int((~masks.edges).sum()) == int(edges * total)
        assert sum(int((~mask).sum()) for mask in masks.weights.values()) == int(share * weights)
        kept = {tuple(entry) for entry in data.edge_index[:, :-1][:, masks.edges].t().tolist()}
        assert 0 < sum((v, u) not in kept for u, v in kept) < len(kept)
        assert 0 <= row["test"] <= 1
    assert rows[1]["masks"].within(rows[0]["masks"])
