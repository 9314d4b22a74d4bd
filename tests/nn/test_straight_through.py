import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from graphsparse.nn.parameter_roles import parameter_roles
from graphsparse.nn.straight_through import MaskedTensor, lay_out, straight_through

LAYOUT = (
    MaskedTensor((3, 4), weight=0, score=0, columns=False),
    MaskedTensor((5, 2), weight=12, score=12, columns=True),
    MaskedTensor((1, 2, 3), weight=27, score=14, columns=False),  # something without a mask lies before it
)
NUM_WEIGHTS, NUM_SCORES = 33, 20


def draw(seed, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    scores, frozen = (torch.randn(num, generator=generator, dtype=dtype) for num in (NUM_SCORES, NUM_WEIGHTS))
    counts = torch.randint(4, (NUM_SCORES,), generator=generator, dtype=torch.uint8)
    factors = [torch.randn(entry.shape, generator=generator, dtype=dtype) for entry in LAYOUT]
    return scores, frozen, counts, factors


def loss_of(weights, factors):
    return sum((weight * factor).sum() + weight.square().sum() for weight, factor in zip(weights, factors, strict=True))


def test_views():
    flat = torch.arange(33)
    assert LAYOUT[0].of_weights(flat).tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert LAYOUT[1].of_scores(flat).tolist() == [12, 13]
    assert LAYOUT[2].of_weights(flat).tolist() == [[[27, 28, 29], [30, 31, 32]]]
    LAYOUT[2].of_scores(flat).zero_()
    assert flat[14:20].tolist() == [0] * 6


def test_values():
    scores, frozen, counts, _ = draw(0)
    first, second, third = straight_through(scores, frozen, counts, LAYOUT)
    assert torch.equal(first, frozen[:12].view(3, 4) * counts[:12].view(3, 4).float())
    assert torch.equal(second, frozen[12:22].view(5, 2) * counts[12:14].float())
    assert torch.equal(third, frozen[27:].view(1, 2, 3) * counts[14:].view(1, 2, 3).float())


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.integers(1, 5), st.booleans())
def test_gradient_by_definition(seed, coats, absolute):
    """In place of the mask: its value, with the slope of the (absolute) scores, coat by coat."""
    scores, frozen, counts, factors = draw(seed, torch.float64)
    scores.requires_grad_()
    loss_of(straight_through(scores, frozen, counts, LAYOUT, coats=coats, absolute=absolute), factors).backward()
    twin = scores.detach().clone().requires_grad_()
    key = twin.abs() if absolute else twin
    mask = counts + coats * (key - key.detach())
    loss_of([e.of_weights(frozen) * e.of_scores(mask) for e in LAYOUT], factors).backward()
    torch.testing.assert_close(scores.grad, twin.grad)


def test_gradient_is_that_of_the_weights_times_the_frozen_ones():
    scores, frozen, counts, factors = draw(1)
    scores.requires_grad_()
    weights = straight_through(scores, frozen, counts, LAYOUT)
    gradients = torch.autograd.grad(loss_of(weights, factors), [*weights, scores])
    assert torch.equal(gradients[3][:12].view(3, 4), gradients[0] * frozen[:12].view(3, 4))
    assert gradients[3][counts == 0].abs().min() > 0  # what is masked out may return


def test_frozen_weights_get_no_gradient():
    scores, frozen, counts, factors = draw(2)
    frozen.requires_grad_()
    loss_of(straight_through(scores.requires_grad_(), frozen, counts, LAYOUT), factors).backward()
    assert frozen.grad is None


def test_unused_tensors_get_zero():
    scores, frozen, counts, _ = draw(3)
    scores.requires_grad_()
    straight_through(scores, frozen, counts, LAYOUT)[0].sum().backward()
    assert scores.grad[:12].count_nonzero() == 12
    assert scores.grad[12:].count_nonzero() == 0


def test_sparse_gradient_of_an_embedding():
    scores, frozen, counts, _ = draw(4)
    counts.fill_(1)
    rows = torch.tensor([1, 3, 3])
    got = []
    for sparse in (False, True):
        scores = scores.detach().requires_grad_()
        table = straight_through(scores, frozen, counts, LAYOUT)[1]
        torch.nn.functional.embedding(rows, table, sparse=sparse).square().sum().backward()
        got.append(scores.grad)
    torch.testing.assert_close(*got)
    assert got[0][12:14].count_nonzero() == 2


def test_weights_of_a_shorter_type():
    scores, frozen, counts, factors = draw(5)
    factors = [factor.bfloat16() for factor in factors]
    weights = straight_through(scores.requires_grad_(), frozen.bfloat16(), counts, LAYOUT)
    assert {weight.dtype for weight in weights} == {torch.bfloat16}
    sum((w * f).sum() for w, f in zip(weights, factors, strict=True)).backward()
    assert scores.grad.dtype == torch.float32
    expected = factors[0].float() * frozen[:12].bfloat16().float().view(3, 4)
    assert torch.equal(scores.grad[:12].view(3, 4), expected)


@pytest.mark.parametrize("absolute", [False, True])
def test_step_before_backward(absolute):
    """The gradient is that of the scores of the call, whatever became of them, and however often it is asked for."""
    scores, frozen, counts, factors = draw(6)
    loss = loss_of(straight_through(scores.requires_grad_(), frozen, counts, LAYOUT, absolute=absolute), factors)
    loss.backward(retain_graph=True)
    expected, scores.grad = scores.grad, None
    with torch.no_grad():
        scores.neg_()
    loss.backward()
    assert torch.equal(scores.grad, expected)


def test_places_by_hand():
    model = nn.ModuleList([nn.Linear(3, 2), nn.Embedding(5, 4), nn.Linear(4, 1)])
    masked, dense = lay_out([entry for entry in parameter_roles(model) if entry.is_frozen])
    assert masked == {
        "0.weight": MaskedTensor((2, 3), weight=0, score=0, columns=False),
        "1.weight": MaskedTensor((5, 4), weight=6, score=6, columns=True),
        "2.weight": MaskedTensor((1, 4), weight=26, score=10, columns=False),
    }
    assert dense == {}
    chosen = parameter_roles(model, select=lambda name, p: name == "2.weight")
    masked, dense = lay_out([entry for entry in chosen if entry.is_frozen])
    assert masked == {"2.weight": MaskedTensor((1, 4), weight=26, score=0, columns=False)}
    assert [(name, place.weight) for name, place in dense.items()] == [("0.weight", 0), ("1.weight", 6)]
