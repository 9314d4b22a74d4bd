"""How often the host waits for a device: not at all in a steady step."""

import pytest
import torch
from both_devices import there
from simulated_device import count_syncs
from torch_geometric.nn import GCN

from graphsparse.edges import attach_pairs
from graphsparse.nn import SoftMasks, Supermask, accelerate
from graphsparse.ops import constant
from graphsparse.ops.select import mark_smallest, smallest_k_mask
from graphsparse.testing import random_graph
from graphsparse.tickets.mask_terms import Clamp
from graphsparse.training import DropAndGrow, FixedMask, L0Projection, Masks, NMProjection, NodeTask, fit
from graphsparse.utils.call_model import call_model

pytestmark = pytest.mark.cuda

PROJECTIONS = {
    "l0": lambda model, optimizer: L0Projection(optimizer, 0.6),
    "l0, tensor": lambda model, optimizer: L0Projection(optimizer, 0.6, scope="tensor"),
    "l0, ramp": lambda model, optimizer: L0Projection(optimizer, 0.6, schedule="cubic", total_steps=4),
    "l0, frozen": lambda model, optimizer: L0Projection(optimizer, 0.6, freeze_after=2),
    "random": lambda model, optimizer: FixedMask(optimizer, 0.6),
    "between two moves": lambda model, optimizer: DropAndGrow(optimizer, 0.6, end=90, every=10, accumulate=9),
    "2:4": lambda model, optimizer: NMProjection(optimizer),
    "masks": lambda model, optimizer: Masks.everything(model).hold(model, optimizer),
}


@pytest.mark.parametrize("name", PROJECTIONS)
def test_no_step_of_a_projection_waits(name, device):
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4)).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    PROJECTIONS[name](model, optimizer)
    x = torch.randn(5, 8).to(device)

    def step():
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()

    step()
    with count_syncs() as waits:
        for _ in range(5):
            step()
    assert not waits, waits


def test_no_step_of_soft_masks_waits(device):
    data, model = attach_pairs(there(random_graph(), device)), accelerate(GCN(8, 16, 2, 3).to(device))
    keep = Masks.everything(model, data)
    soft = SoftMasks(model, weights=keep.weights, edges=keep.edges)
    optimizer = torch.optim.SGD(soft.parameters(), lr=0.1)

    def step():
        optimizer.zero_grad()
        call_model(soft, data).square().mean().backward()
        soft.add_l1(edges=0.1, weights=0.1)
        optimizer.step()
        Clamp(1.0)(soft, 0)

    with constant(data):
        for _ in range(2):  # the second one looks how sparse the features are
            step()
        with count_syncs() as waits:
            for _ in range(3):
                step()
    assert not waits, waits


@pytest.mark.parametrize("options", [{}, {"scope": "layer"}, {"transform": "abs", "coats": 2}])
def test_no_step_of_a_supermask_waits(options, device):
    x = torch.randn(5, 8).to(device)
    mask = Supermask(torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Linear(16, 4)).to(device), 0.6, **options)
    optimizer = torch.optim.SGD(mask.parameters(), lr=0.1)

    def step():
        optimizer.zero_grad()
        mask(x).square().mean().backward()
        optimizer.step()
        mask.step()

    step()
    with count_syncs() as waits:
        step()
    assert not waits, waits


def test_selection_without_a_wait_is_the_same(device):
    score = torch.randint(9, (500,)).float()
    for k in (0, 1, 77, 499, 500):
        with count_syncs() as waits:
            found = mark_smallest(score.to(device, non_blocking=True), k)
        assert torch.cuda.is_available() or not waits, waits
        assert torch.equal(found.cpu(), smallest_k_mask(score, k))
        assert int(found.sum()) == k


def test_waits_of_an_epoch(device):
    """Steps leave their losses on the device; what is read after an epoch does not grow with its steps."""
    data = there(random_graph(), device)
    counts = []
    for steps in (1, 4):
        batches = [data] * steps
        model = accelerate(GCN(8, 16, 2, 3)).to(device)
        with count_syncs() as waits:
            fit(model, data, epochs=6, eval_every=6, loader=batches)
        counts.append([line for line in waits if "loop.py" in line])
    # Once for the losses of an epoch, besides what is asked for at the ends.
    assert len(counts[0]) == len(counts[1]) <= 6


@pytest.mark.parametrize("target", ["multiclass", "binary", "regression"])
def test_no_step_on_a_whole_graph_waits(target, device):
    data = there(random_graph(), device)
    if target != "multiclass":
        data.y = torch.nn.functional.one_hot(data.y, 3).float()
        data.y[::7, 0] = torch.nan
    model, task = (
        torch.nn.Linear(8, 3).to(device),
        NodeTask(data, target=target, call=lambda model, data: model(data.x)),
    )
    task.check(model)
    (batch,) = task.batches()
    task.loss(model, batch, None)
    with count_syncs() as waits:
        task.loss(model, batch, None).backward()
    assert not waits, waits
    before = float(task.loss(model, batch, None).detach())
    data.train_mask[:20] = False  # what is written to is looked at again
    assert float(task.loss(model, batch, None).detach()) != before
