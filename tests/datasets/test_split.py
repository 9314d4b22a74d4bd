import pytest
import torch

from graphsparse.datasets.split import per_class_split, stratified_split


def classes(*sizes):
    return torch.cat([torch.full((size,), label) for label, size in enumerate(sizes)])


def test_stratified_sizes_by_hand():
    y = classes(10, 5, 1, 100)[torch.randperm(116, generator=torch.Generator().manual_seed(0))]
    sizes = [torch.bincount(y[mask], minlength=4).tolist() for mask in stratified_split(y)]
    assert sizes == [[6, 3, 1, 60], [2, 1, 0, 20], [2, 1, 0, 20]]


def test_stratified_masks_divide_the_nodes():
    masks = torch.stack(stratified_split(classes(40, 30), 0.5, 0.1, seed=1))
    assert masks.sum(0).tolist() == [1] * 70


@pytest.mark.parametrize("split", [stratified_split, lambda y, seed: per_class_split(y, 5, 20, 20, seed=seed)])
def test_seeded_and_local(split):
    y = classes(40, 40)
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first, again, other = split(y, seed=1), split(y, seed=1), split(y, seed=2)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])


def test_stratified_draws_are_uniform():
    y = classes(10, 20)
    counts = sum(stratified_split(y, seed=seed)[0].double() for seed in range(600)) / 600
    assert (counts - 0.6).abs().max() < 0.09


def test_per_class_numbers():
    y = classes(200, 300, 1500)
    train, val, test = per_class_split(y, 7, 100, 50)
    assert torch.bincount(y[train]).tolist() == [7, 7, 7]
    assert (int(val.sum()), int(test.sum())) == (100, 50)
    assert int(torch.stack([train, val, test]).sum(0).max()) == 1


@pytest.mark.parametrize(
    ("num_nodes", "num_val", "num_test", "expected"),
    [
        (3000, None, None, (500, 1000)),
        (1640, None, None, (500, 1000)),
        (900, None, None, (253, 507)),
        (900, 300, None, (300, 460)),
        (900, None, 100, (253, 100)),
    ],
)
def test_per_class_scales_to_small_graphs(num_nodes, num_val, num_test, expected):
    _, val, test = per_class_split(torch.arange(num_nodes) % 7, 20, num_val, num_test)
    assert (int(val.sum()), int(test.sum())) == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"train_per_class": 0}, "'train_per_class' must be at least 1"),
        ({"num_val": 0}, "'num_val' must be at least 1"),
        ({"train_per_class": 41}, "'train_per_class' is 41, but the smallest class has 40 nodes"),
        ({"num_val": 30, "num_test": 11}, "need 30 [+] 11 nodes.*leave 40"),
        ({"num_val": 40}, "at least one each"),
    ],
)
def test_per_class_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        per_class_split(classes(40, 40), **arguments)


def test_per_class_wants_integers():
    with pytest.raises(TypeError, match="'num_test' must be an integer"):
        per_class_split(classes(40, 40), num_test=2.5)


def test_stratified_bad_fractions():
    with pytest.raises(ValueError, match="'train' and 'val'"):
        stratified_split(classes(4, 4), 0.9, 0.2)
