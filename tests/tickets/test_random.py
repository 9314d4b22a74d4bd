import pytest
import torch
from models import MODELS

from graphsparse.edges import sparsify_edge
from graphsparse.testing import random_graph
from graphsparse.tickets import find_random_ticket

OPTIONS = {"edge_sparsity": 0.4, "weight_sparsity": 0.6, "epochs": 3}


@pytest.mark.parametrize("scope", ["tensor", "global"])
def test_exact_numbers(scope):
    data = random_graph()
    ticket = find_random_ticket(MODELS["GCN"], data, scope=scope, seed=5, **OPTIONS)
    expected = sparsify_edge(data.edge_index, 0.4, "random", num_nodes=data.num_nodes, seed=5)[1]
    assert torch.equal(ticket.edge_mask, expected)
    sizes = [mask.numel() for mask in ticket.weight_masks.values()]
    removed = [int((~mask).sum()) for mask in ticket.weight_masks.values()]
    if scope == "tensor":
        assert removed == [int(0.6 * n) for n in sizes]
    assert abs(sum(removed) - int(0.6 * sum(sizes))) < len(sizes)


def test_choice_follows_the_seed_and_not_the_training():
    data = random_graph()
    masks = [
        find_random_ticket(MODELS["GCN"], data, seed=seed, lr=lr, **OPTIONS).weight_masks
        for seed, lr in [(0, 0.01), (0, 0.1), (1, 0.01)]
    ]
    for name in masks[0]:
        assert torch.equal(masks[0][name], masks[1][name])
        assert not torch.equal(masks[0][name], masks[2][name])


def test_levels_are_nested():
    data = random_graph()
    small, large = (
        find_random_ticket(MODELS["GCN"], data, edge_sparsity=s, weight_sparsity=s, epochs=1) for s in (0.3, 0.7)
    )
    assert not (large.edge_mask & ~small.edge_mask).any()
    for name, mask in large.weight_masks.items():
        assert not (mask & ~small.weight_masks[name]).any()


def test_bad_sparsity():
    with pytest.raises(ValueError, match="'edge_sparsity'"):
        find_random_ticket(MODELS["GCN"], random_graph(), edge_sparsity=1.2, weight_sparsity=0)
    with pytest.raises(ValueError, match="'weight_sparsity'"):
        find_random_ticket(MODELS["GCN"], random_graph(), edge_sparsity=0, weight_sparsity=-1)
