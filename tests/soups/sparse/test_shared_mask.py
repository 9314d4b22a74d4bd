from dataclasses import replace

import pytest
import torch
from models import MODELS

from graphsparse.soups.evaluation.evaluator import Evaluator
from graphsparse.soups.sparse.shared_mask import check_support, mask_digest, merge_copies, shared_mask_soup
from graphsparse.testing import random_graph
from graphsparse.tickets import find_ticket
from graphsparse.tickets.ticket import Ticket
from graphsparse.training import Training

GRAPH = random_graph()


@pytest.fixture(scope="module")
def tickets():
    """Three tickets with the masks of one, and other weights."""
    first = find_ticket(MODELS["GCN"], GRAPH, edge_sparsity=0.3, weight_sparsity=0.5, training=Training(epochs=5))
    generator = torch.Generator().manual_seed(0)
    found = [first]
    for _ in range(2):
        noise = {name: torch.randn(value.shape, generator=generator) for name, value in first.state_dict.items()}
        state = {name: value * (1 + 0.3 * noise[name]) for name, value in first.state_dict.items()}
        found.append(replace(first, state_dict=state))
    return found


@pytest.fixture(scope="module")
def evaluator(tickets):
    return Evaluator(MODELS["GCN"](), tickets[0].sparsify(GRAPH))


def test_the_mean_is_zero_where_all_are(tickets, evaluator):
    soup = shared_mask_soup(tickets, evaluator)
    for name, value in soup.state_dict.items():
        torch.testing.assert_close(value, sum(ticket.state_dict[name] for ticket in tickets) / 3)
    for name, mask in tickets[0].weight_masks.items():
        assert torch.equal(soup.state_dict[name] != 0, mask)


def test_greedy_is_not_worse_than_the_best(tickets, evaluator):
    soup = shared_mask_soup(tickets, evaluator, merge="greedy", split_validation=False)
    assert soup.score == evaluator.score(soup.state_dict) >= max(soup.ingredient_scores)
    check_support(soup.state_dict, tickets[0].weight_masks, "the soup")


def test_other_masks_are_refused(tickets, evaluator):
    masks = dict(tickets[1].weight_masks)
    name = next(iter(masks))
    mask = masks[name].clone().view(-1)
    mask[mask.nonzero()[0]] = False
    state = dict(tickets[1].state_dict)
    state[name] = state[name] * mask.view(state[name].shape)
    other = replace(tickets[1], state_dict=state, weight_masks={**masks, name: mask.view(state[name].shape)})
    with pytest.raises(ValueError, match=r"ticket 2 has another weight mask than ticket 0.*lottery_pool"):
        shared_mask_soup([tickets[0], tickets[1], other], evaluator)
    with pytest.raises(ValueError, match="ticket 1 has another weight mask"):
        shared_mask_soup([tickets[0], replace(tickets[0], weight_masks={})], evaluator)


def test_weights_outside_the_mask_are_named():
    masks = {"w": torch.tensor([True, False, False])}
    with pytest.raises(ValueError, match="ingredient 1 has 2 weights outside the mask of 'w'"):
        merge_copies([{"w": torch.zeros(3)}, {"w": torch.ones(3)}], masks, None, "uniform", True, 0)
    with pytest.raises(ValueError, match=r"the soup has no tensor 'w' of shape \[3\]"):
        check_support({"w": torch.zeros(2)}, masks, "the soup")


def test_digest():
    masks = {"v": torch.tensor([True, False]), "w": torch.tensor([[True], [True]])}
    assert mask_digest(masks) == mask_digest(dict(reversed(masks.items())))
    assert mask_digest(masks) == mask_digest({name: 2 * mask.to(torch.uint8) for name, mask in masks.items()})
    others = [
        {**masks, "v": torch.tensor([False, True])},
        {**masks, "v": torch.tensor([True, False, False])},
        {**masks, "w": torch.tensor([[True, True]])},
        {"v": masks["v"]},
        {"v": masks["v"], "x": masks["w"]},
        {},
    ]
    assert len({mask_digest(other) for other in [masks, *others]}) == 7


def test_bad_input(tickets, evaluator):
    with pytest.raises(ValueError, match="got none"):
        shared_mask_soup([], evaluator)
    for wrong in (tickets[0], {"a": 1}):
        with pytest.raises(TypeError, match="list of tickets"):
            shared_mask_soup(wrong, evaluator)
    with pytest.raises(ValueError, match="'merge' must be"):
        shared_mask_soup(tickets, evaluator, merge="mean")
    state = {name: torch.full_like(value, torch.nan) for name, value in tickets[0].state_dict.items()}
    with pytest.raises(ValueError, match="ingredient 1 holds values that are not numbers"):
        shared_mask_soup([Ticket(tickets[0].state_dict, {}), Ticket(state, {})], evaluator)
