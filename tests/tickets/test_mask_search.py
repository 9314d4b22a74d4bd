import pytest
import torch
from torch import nn
from torch_geometric.nn import GCN

from graphsparse.nn import Supermask
from graphsparse.tickets.mask_search import PRESETS, mask_search

KEEP = {"epochs": None, "lr": None, "weight_decay": None}


@pytest.mark.parametrize("preset", list(PRESETS))
def test_every_preset_makes_a_supermask(preset):
    search = mask_search(preset, {}, **KEEP)
    model = Supermask(GCN(8, 16, 2, 3), 0.5, total_steps=search.epochs, **search.supermask)
    assert len(model.plan.sparsities) == (3 if preset == "multicoated" else 1)
    assert model.plan.scope == ("layer" if "edge_popup" in preset else "global")
    assert model.plan.transform == ("identity" if preset in ("ugt", "edge_popup") else "abs")
    assert model.law == ("kaiming_uniform" if preset in ("ugt", "edge_popup") else "signed_constant")
    assert (model.current_sparsity == 0) == (preset in ("ugt", "multicoated"))


def test_arguments_replace_those_of_the_preset():
    search = mask_search("multicoated", {"coats": 5}, epochs=7, lr=0.5, weight_decay=0.1)
    assert search.supermask["coats"] == 5
    assert search.supermask["scaled"] is True
    assert (search.epochs, search.lr, search.weight_decay) == (7, 0.5, 0.1)
    assert PRESETS["multicoated"].supermask["coats"] == 3


def test_original_edge_popup_has_momentum_and_a_cosine():
    model = nn.Linear(2, 2)
    optimizer, scheduler = mask_search("edge_popup_original", {}, epochs=4, lr=None, weight_decay=None).make_optimizer(
        model
    )
    assert isinstance(optimizer, torch.optim.SGD)
    assert optimizer.defaults["momentum"] == 0.9
    rates = []
    for _ in range(4):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    torch.testing.assert_close(torch.tensor(rates), 0.05 * (1 + torch.cos(torch.pi * torch.arange(4) / 4)))


def test_scores_do_not_decay_by_default():
    optimizer, scheduler = mask_search("ugt", {}, **KEEP).make_optimizer(nn.Linear(2, 2))
    assert scheduler is None
    assert optimizer.defaults["weight_decay"] == 0


def test_unknown_preset():
    with pytest.raises(ValueError, match="'preset' must be one of .*'ugt'.* \\(got 'best'\\)"):
        mask_search("best", {}, **KEEP)
