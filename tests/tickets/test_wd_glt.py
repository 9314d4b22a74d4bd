"""WD-GLT: the transport distance between predicted classes as a term of the loss."""

from dataclasses import replace

import pytest
import torch
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from torch_geometric.data import Data
from torch_geometric.nn import GCN

from graphsparse.nn import SoftMasks
from graphsparse.testing import random_graph
from graphsparse.tickets import WDGLT, TicketRun, find_ticket
from graphsparse.tickets.mask_terms import Transport, sinkhorn_cost
from graphsparse.training import NodeTask, Training

LOSS = Transport(weight=0.3, points=1000, eps=0.05, sweeps=10, seed=0)


def make_model():
    return GCN(8, 16, 2, 3)


def test_cost_with_little_entropy_is_that_of_the_best_assignment():
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.rand(7, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    cost = cdist(x, y)
    best = cost[linear_sum_assignment(cost)].mean()
    assert sinkhorn_cost(x, y, eps=1e-3, sweeps=2000).item() == pytest.approx(best, rel=1e-3)


def test_equal_points_have_a_gradient():
    x = torch.zeros(3, 2, requires_grad=True)
    sinkhorn_cost(x, torch.tensor([[0.0, 0.0], [1.0, 0.0]])).backward()
    assert x.grad.isfinite().all()


def by_formula(logits, classes):
    """All in one graph, with the plan from a loop over exponentials."""
    q, total = logits.softmax(1), 0
    for c in range(logits.size(1)):
        x, y = q[classes == c], q[classes != c]
        if min(len(x), len(y)) < 2:
            continue
        cost = (x.unsqueeze(1) - y).square().sum(2).sqrt()
        v = torch.full((len(y),), 1 / len(y), dtype=q.dtype)
        for _ in range(10):
            u = 1 / len(x) / ((-cost / 0.05).exp() @ v)
            v = 1 / len(y) / ((-cost / 0.05).exp().t() @ u)
        total = total - (u.view(-1, 1) * (-cost / 0.05).exp() * v * cost).sum()
    return 0.3 * total


def test_term_and_its_gradient_are_those_of_the_formula():
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(20, 4, generator=generator, dtype=torch.float64).requires_grad_()
    found, expected = LOSS(logits, Data(), 0), by_formula(logits, logits.argmax(1))
    assert found.item() == pytest.approx(expected.item(), rel=1e-9)
    torch.testing.assert_close(*(torch.autograd.grad(value, logits)[0] for value in (found, expected)))
    with_context = torch.cat([logits, torch.randn(9, 4, dtype=torch.float64)])
    assert LOSS(with_context, Data(batch_size=20), 0).item() == pytest.approx(expected.item(), rel=1e-9)


def test_draws_follow_from_seed_and_epoch():
    logits = torch.randn(300, 3, generator=torch.Generator().manual_seed(0))
    few, state = replace(LOSS, points=10), torch.get_rng_state()
    values = [few(logits, Data(), epoch).item() for epoch in (0, 0, 1)]
    assert torch.equal(torch.get_rng_state(), state)
    assert values[0] == values[1] != values[2]
    assert values[0] == pytest.approx(LOSS(logits, Data(), 0).item(), abs=0.2)


def masks_after(mode, epochs):
    run = TicketRun(make_model, NodeTask(random_graph()), [], Training(epochs=epochs, lr=0.05, weight_decay=0.0))
    keep = run.everything()
    soft = SoftMasks(run.model(), weights=keep.weights, edges=keep.edges)
    last = {}
    terms = WDGLT(mode=mode).terms(run)
    terms["after_step"] = [*terms["after_step"], lambda model, epoch: last.update(edge=model.edge.detach().clone())]
    run.train(soft, "mask", **terms)
    return last["edge"]


def test_masks_of_edges_stay_between_zero_and_one_and_ascend_where_asked():
    down, up = (masks_after(mode, 1) for mode in ("descent", "minmax"))
    assert (down < 1).any()
    assert (up < 1).any()
    assert not ((down < 1) & (up < 1)).any()  # all start at 1, and what one lowers the other would raise
    for mode in ("descent", "minmax"):
        later = masks_after(mode, 30)
        assert later.min() == 0
        assert later.max() == 1


def test_bad_options():
    for options in ({"transport": -1.0}, {"points": 1}, {"eps": 0.0}, {"sweeps": 0}, {"mode": "max"}):
        with pytest.raises(ValueError, match=f"'{next(iter(options))}'"):
            WDGLT(**options)
    data = random_graph()
    data.y = data.y.float()
    with pytest.raises(ValueError, match="'target' must be 'multiclass'"):
        find_ticket(lambda: GCN(8, 4, 2, 1), NodeTask(data, target="regression"), edge_sparsity=0.1, method="wd-glt")
