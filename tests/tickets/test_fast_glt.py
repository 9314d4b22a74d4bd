"""FastGLT: one pruning, and exchanges that keep the counts."""

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.nn import GCN
from torch_geometric.utils import degree

from graphsparse.edges.undirected import undirected_edges
from graphsparse.nn import SoftMasks
from graphsparse.testing import random_graph
from graphsparse.tickets import FastGLT, find_tickets
from graphsparse.tickets.methods.fast_glt import PruneAndMend, Spread, mean_difference
from graphsparse.tickets.run import Target
from graphsparse.training import Masks, Training

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


def searched(steps, plan, optimizer=torch.optim.Adam):
    """Steps with drawn gradients, and what there was after each."""
    generator = torch.Generator().manual_seed(0)
    data = random_graph()
    ends = undirected_edges(data.edge_index, 60)
    weights = [torch.nn.Parameter(torch.randn(6, 5, generator=generator)) for _ in range(2)]
    edge = torch.nn.Parameter(torch.rand(ends.num_edges, generator=generator) + 0.5)
    made = optimizer([*weights, edge], lr=0.1)
    mend, seen = PruneAndMend(made, weights, edge, Target(0.4, 0.5), plan, ends=ends), []
    for _ in range(steps):
        for parameter in (*weights, edge):
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        made.step()
        seen.append(
            [
                (p.detach().clone(), kept.clone(), p.grad.clone())
                for p, kept in zip(mend.parameters, mend.kept, strict=True)
            ]
        )
    return mend, seen, ends


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.SGD])
def test_counts_are_exact_after_every_step(optimizer):
    plan = FastGLT(epochs=40, pretrain=7, edges_every=5, edges_gradients=4)
    mend, seen, ends = searched(50, plan, optimizer=optimizer)
    wanted = [15, 15, ends.num_edges - int(0.4 * ends.num_edges)]
    for step, entries in enumerate(seen, 1):
        for (value, kept, _), count in zip(entries, wanted, strict=True):
            assert int(kept.sum()) == (count if step >= 7 else kept.numel())
            assert not value[~kept].any()
    assert mend.holds
    moved = [not torch.equal(seen[i - 1][2][1], seen[i][2][1]) for i in range(1, 50)]
    assert [i + 1 for i, move in enumerate(moved, 1) if move] == [7, 12, 17, 22, 27, 32, 37, 42]


def test_an_exchange_is_that_of_the_formula():
    plan = FastGLT(epochs=40, pretrain=0, edges_every=5, edges_gradients=4, weights_every=3, weights_gradients=2)
    _, seen, ends = searched(5, plan, optimizer=torch.optim.SGD)
    u, v = ends.key // 60, ends.key % 60
    for i, (every, num) in ((0, (3, 2)), (2, (5, 4))):
        kept = seen[every - 2][i][1]
        before = seen[every - 2][i][0] - 0.1 * seen[every - 1][i][2]  # the step itself
        score = sum(seen[step][i][2] for step in range(every - num, every)).abs()
        if i == 2:
            d = degree(torch.cat([u[kept], v[kept]]), 60).clamp(min=1)
            score = score + (d[u] * d[v]) ** -1.5
        swap = int(0.15 * (1 + math.cos(math.pi * every / 40)) * int(kept.sum()))
        alive = sorted(kept.view(-1).nonzero().flatten().tolist(), key=lambda j: abs(before.view(-1)[j].item()))
        stay = set(alive[swap:])
        rest = sorted(set(range(kept.numel())) - stay, key=lambda j: -score.view(-1)[j].item())
        assert set(seen[every - 1][i][1].view(-1).nonzero().flatten().tolist()) == stay | set(rest[:swap])
        new = seen[every - 1][i][1] & ~kept
        assert new.any()
        start = before[kept].mean() if i == 2 else torch.tensor(0.0)
        torch.testing.assert_close(seen[every - 1][i][0][new], start.expand(int(new.sum())))


def test_goes_on_in_the_middle():
    plan = FastGLT(epochs=30, pretrain=2)
    (mend, _, _), (other, _, _) = searched(9, plan), searched(0, plan)
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
