"""FastGLT: one pruning, and exchanges that keep the counts."""

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.nn import GCN

from graphsparse.edges.undirected import undirected_edges
from graphsparse.nn import SoftMasks
from graphsparse.testing import random_graph
from graphsparse.tickets import FastGLT, find_tickets
from graphsparse.tickets.mask_terms import Spread, closeness, mean_difference
from graphsparse.training import Masks, PruneAndMend, Training

NUMBERS = st.lists(st.floats(-10, 10, width=32), min_size=1, max_size=30)


@settings(max_examples=50, deadline=None)
@given(NUMBERS)
def test_mean_difference_is_the_double_sum(numbers):
    m = torch.tensor(numbers, dtype=torch.float64, requires_grad=True)
    found, expected = mean_difference(m), (m.view(-1, 1) - m).abs().mean()
    assert found.item() == pytest.approx(expected.item(), abs=1e-9)
    if len(set(numbers)) == len(numbers):
        torch.testing.assert_close(*(torch.autograd.grad(value, m)[0] for value in (found, expected)))


def test_spread_adds_its_gradient():
    data = random_graph()
    soft = SoftMasks(GCN(8, 4, 2, 3).double(), edges=Masks.everything(None, data).edges)
    soft.edge.data = torch.rand(soft.edge.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    soft.edge.data[:5] = 0
    Spread(0.3, 0.2)(soft, 0)
    mask = soft.edge.detach()[5:].requires_grad_()
    difference = (mask.view(-1, 1) - mask).abs().mean()
    (0.3 * mask.sum() + 0.2 * (-difference / 2).exp() - 0.2 * (mask.var() + 1e-8).log()).backward()
    torch.testing.assert_close(soft.edge.grad[5:], mask.grad)
    assert not soft.edge.grad[:5].any()


def trained(steps, optimizer=torch.optim.Adam, **options):
    """Steps with drawn gradients, and what there was after each."""
    generator = torch.Generator().manual_seed(0)
    parameters = [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((6, 5), (90, 3))]
    made = optimizer(parameters, lr=0.1)
    mend, seen = PruneAndMend(made, 0.4, **options), []
    for _ in range(steps):
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        made.step()
        both = zip(mend.parameters, mend.kept, strict=True)
        seen.append([(p.detach().clone(), kept.clone(), p.grad.clone()) for p, kept in both])
    return mend, seen


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.SGD])
def test_counts_are_exact_after_every_step(optimizer):
    mend, seen = trained(50, optimizer, start=7, end=47, every=5, gradients=4)
    for step, entries in enumerate(seen, 1):
        for value, kept, _ in entries:
            assert int(kept.sum()) == (0.6 * kept.numel() if step >= 7 else kept.numel())
            assert not value[~kept].any()
    assert mend.holds
    moved = [not torch.equal(seen[i - 1][1][1], seen[i][1][1]) for i in range(1, 50)]
    assert [i + 1 for i, move in enumerate(moved, 1) if move] == [7, 12, 17, 22, 27, 32, 37, 42]
    assert not trained(6, start=7, end=47)[0].holds


def test_grown_weights_have_no_moments():
    mend, seen = trained(5, start=0, end=40, every=5)
    grown = seen[4][1][1] & ~seen[3][1][1]
    assert grown.any()
    state = mend.optimizer.state[mend.parameters[1]]
    assert not state["exp_avg"][grown].any()
    assert state["exp_avg"][~grown].all()


@pytest.mark.parametrize("grow_at", ["zero", "mean"])
def test_an_exchange_is_that_of_the_formula(grow_at):
    def bonus(kept):
        return torch.arange(kept.numel()).view_as(kept) / 100 * kept.sum()

    _, seen = trained(5, torch.optim.SGD, end=40, every=5, gradients=4, bonus=bonus, grow_at=grow_at)
    for i in (0, 1):
        kept, before = seen[3][i][1], seen[3][i][0] - 0.1 * seen[4][i][2]  # the last step itself
        score = sum(seen[step][i][2] for step in range(1, 5)).abs() + bonus(kept)
        swap = int(0.15 * (1 + math.cos(math.pi * 5 / 40)) * int(kept.sum()))
        alive = sorted(kept.view(-1).nonzero().flatten().tolist(), key=lambda j: abs(before.view(-1)[j].item()))
        stay = set(alive[swap:])
        rest = sorted(set(range(kept.numel())) - stay, key=lambda j: -score.view(-1)[j].item())
        value, now, _ = seen[4][i]
        assert set(now.view(-1).nonzero().flatten().tolist()) == stay | set(rest[:swap])
        new = now & ~kept
        assert new.any()
        start = before[kept].mean() if grow_at == "mean" else torch.tensor(0.0)
        torch.testing.assert_close(value[new], start.expand(int(new.sum())))


def test_closeness_is_that_of_the_kept_graph():
    data = random_graph()
    edges = undirected_edges(data.edge_index, 60)
    kept = torch.rand(edges.num_edges, generator=torch.Generator().manual_seed(0)) < 0.3
    pairs = [(int(key) // 60, int(key) % 60) for key in edges.key]
    degree = [
        max(1, sum(node in pair for pair, k in zip(pairs, kept.tolist(), strict=True) if k)) for node in range(60)
    ]
    expected = torch.tensor([(degree[u] * degree[v]) ** -1.5 for u, v in pairs])
    torch.testing.assert_close(closeness(edges, kept), expected)


def test_goes_on_in_the_middle():
    options = {"start": 2, "end": 32, "gradients": 9}
    (mend, _), (other, _) = trained(9, **options), trained(0, **options)
    other.optimizer.load_state_dict(copy.deepcopy(mend.optimizer.state_dict()))
    for p, q in zip(mend.parameters, other.parameters, strict=True):
        q.data.copy_(p.data)
    for _ in range(6):
        for one in (mend, other):
            generator = torch.Generator().manual_seed(5)
            for parameter in one.parameters:
                parameter.grad = torch.randn(parameter.shape, generator=generator)
            one.optimizer.step()
    for kept, again in zip(mend.kept, other.kept, strict=True):
        assert torch.equal(kept, again)


def test_only_what_shall_be_sparse_is_searched():
    data, make = random_graph(), lambda: GCN(8, 16, 2, 3)
    options = {"method": FastGLT(10, 2), "training": Training(epochs=3)}
    targets = [(0.0, 0.0), (0.4, 0.0), (0.0, 0.6)]
    for target, ticket in zip(targets, find_tickets(make, data, targets=targets, **options), strict=True):
        assert (ticket.metrics.get("edge_sparsity", 0), ticket.metrics["weight_sparsity"]) == pytest.approx(
            target, abs=0.01
        )


def test_bad_options():
    for options in ({"epochs": 0}, {"pretrain": -1}, {"fraction": 1.5}, {"edges_gradients": 11}, {"spread": -0.1}):
        with pytest.raises(ValueError, match=f"'{next(iter(options))}'"):
            FastGLT(**options)
    for options in ({"sparsity": 1.0}, {"start": -1}, {"gradients": 11}, {"fraction": 2}, {"grow_at": "one"}):
        with pytest.raises(ValueError, match=f"'{next(iter(options))}'"):
            PruneAndMend(torch.optim.Adam(GCN(8, 4, 2, 3).parameters()), **{"sparsity": 0.5, "end": 9, **options})
