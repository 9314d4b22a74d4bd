import pytest
import torch
from torch import nn

from graphsparse.training import HeldMask


def train(model, optimizer, steps=5):
    torch.manual_seed(0)
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(20, 4)).square().sum().backward()
        optimizer.step()


def test_masked_weights_stay_zero_and_others_learn():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 2))
    # Every hidden unit keeps a way out, without which its weights would not learn.
    masks = [torch.rand(6, 4) < 0.5, torch.eye(2, 6, dtype=torch.bool)]
    before = [model[0].weight.detach().clone(), model[1].weight.detach().clone()]
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    held = HeldMask(optimizer, [~mask for mask in masks])
    train(model, optimizer)
    for layer, mask, old in zip(model, masks, before, strict=True):
        assert (layer.weight[mask] == 0).all()
        assert (layer.weight[~mask] != old[~mask]).all()
    held.remove()
    train(model, optimizer)
    assert model[0].weight[masks[0]].count_nonzero() > 0


def test_only_what_is_not_excluded_has_a_mask():
    model = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    mask = torch.ones(2, 6, dtype=torch.bool)
    HeldMask(optimizer, lambda parameters: [~mask for _ in parameters], exclude=lambda p: p is not model[1].weight)
    assert model[1].weight.count_nonzero() == 0
    assert model[0].weight.count_nonzero() == 24


@pytest.mark.parametrize("masks", [[], [torch.ones(3, 4, dtype=torch.bool)], [torch.ones(6, 4)]])
def test_masks_that_do_not_fit(masks):
    model = nn.Linear(4, 6)
    with pytest.raises(ValueError, match=r"'kept' must hold bool masks of the shapes \[\[6, 4\]\]"):
        HeldMask(torch.optim.Adam(model.parameters()), masks)
