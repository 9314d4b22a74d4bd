import pytest
import torch
from models import MODELS

from graphsparse.testing import random_graph
from graphsparse.training import FixedMask, build_model, fit


def weights(*shapes):
    return [torch.nn.Parameter(torch.ones(shape)) for shape in shapes]


SCOPES = ("erk", "tensor", "global")


def removed(sparsity, seed=0, shapes=((20, 10), (10, 30)), **scope):
    return [~kept for kept in FixedMask(torch.optim.SGD(weights(*shapes)), sparsity, seed=seed, **scope).kept]


@pytest.mark.parametrize("sparsity", [0.0, 0.33, 0.9])
def test_counts(sparsity):
    alike = removed(sparsity, scope="tensor")
    assert [int(mask.sum()) for mask in alike] == [int(sparsity * 200), int(sparsity * 300)]
    for scope in SCOPES:
        assert sum(int(mask.sum()) for mask in removed(sparsity, scope=scope)) == int(sparsity * 500)


def test_densities_are_those_of_erdos_renyi_graphs():
    """By default. Of a GCN for Cora at 98 %, by hand: 7373 of 368640 weights are kept in the ratio of 1689 to 263."""
    shapes = ((256, 1433), (7, 256))
    kept = [mask.numel() - int(mask.sum()) for mask in removed(0.98, shapes=shapes)]
    assert kept == [round(7373 * 1689 / 1952), round(7373 * 263 / 1952)]
    # At 95 % that would be more than the last layer has: it stays whole, and the first one has the rest.
    assert [int(mask.sum()) for mask in removed(0.95, shapes=shapes)] == [366848 - (18432 - 1792), 0]


def test_zeros_stay_and_nothing_else_becomes_zero():
    data, model = random_graph(), build_model(MODELS["GCN"], 0)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05, weight_decay=5e-3)
    mask = FixedMask(optimizer, 0.6)
    support = mask.support()

    def check(model, epoch):
        for parameter, kept in zip(mask.parameters, support, strict=True):
            assert torch.equal(parameter != 0, kept)

    check(model, -1)  # from the start, not from the first step
    bias = model.convs[1].bias.detach().clone()
    fit(model, data, epochs=10, optimizer=optimizer, after_step=[check])
    assert not torch.equal(model.convs[1].bias, bias)


@pytest.mark.parametrize("scope", SCOPES)
def test_seeds_and_nesting(scope):
    low, again, other = removed(0.3, scope=scope), removed(0.3, scope=scope), removed(0.3, seed=1, scope=scope)
    for i in range(2):
        assert torch.equal(low[i], again[i])
        assert not torch.equal(low[i], other[i])
    shapes = ((3, 4), (5, 2), (2, 2), (7, 3))  # each removes one or none more from step to step, and none ever fewer
    last = removed(0.0, scope=scope, shapes=shapes)
    for count in range(1, 47):
        masks = removed((count + 0.5) / 47, scope=scope, shapes=shapes)
        assert sum(int(mask.sum()) for mask in masks) == count
        assert all(mask[before].all() for mask, before in zip(masks, last, strict=True))
        last = masks


def test_draw_is_uniform():
    counts = sum(removed(0.5, seed=seed, shapes=((4, 5),))[0].int() for seed in range(400))
    # 400 fair coins per entry: mean 200, standard deviation 10.
    assert counts.min() > 150
    assert counts.max() < 250


def test_draw_has_nothing_to_do_with_initial_weights_of_the_same_seed():
    generator = torch.Generator().manual_seed(3)
    initial = torch.rand(50, 50, generator=generator, dtype=torch.float64)
    mask = removed(0.5, seed=3, shapes=((50, 50),))[0]
    assert abs(float(initial[mask].mean()) - 0.5) < 0.05  # 0.25 if both came from one stream


@pytest.mark.parametrize("scope", SCOPES)
def test_mask_and_model_of_the_same_seed_are_independent(scope):
    """Over many layers and seeds the kept weights are as large, and as often positive, as those that were drawn."""
    kept, gone = [], []
    for seed in range(40):
        model = build_model(lambda: torch.nn.Sequential(torch.nn.Linear(20, 25), torch.nn.Linear(25, 20)), seed)
        initial = [layer.weight.detach() * layer.in_features**0.5 for layer in model]  # uniform in [-1, 1]
        masks = [~kept for kept in FixedMask(torch.optim.SGD(model.parameters()), 0.5, scope=scope, seed=seed).kept]
        for values, mask in zip(initial, masks, strict=True):
            kept.append(values[~mask])
            gone.append(values[mask])
    kept, gone = torch.cat(kept), torch.cat(gone)
    # 20000 on either side: the standard deviation of a difference of means is 0.006 at most, 0.5 or 1 if tied together.
    assert abs(float(kept.mean() - gone.mean())) < 0.03
    assert abs(float(kept.abs().mean() - gone.abs().mean())) < 0.03
    assert abs(float(kept.abs().mean()) - 0.5) < 0.03  # the scale is right, so the bound means something


def test_global_generator_is_left_alone():
    state = torch.get_rng_state()
    removed(0.5)
    assert torch.equal(torch.get_rng_state(), state)


def test_bad_input():
    optimizer = torch.optim.SGD(weights((2, 2)))
    with pytest.raises(ValueError, match="'sparsity' is the fraction removed"):
        FixedMask(optimizer, 1.0)
    with pytest.raises(ValueError, match="'scope' must be"):
        FixedMask(optimizer, 0.5, scope="all")
    with pytest.raises(TypeError, match="'optimizer' must be"):
        FixedMask(None, 0.5)
