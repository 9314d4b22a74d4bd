import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphsparse.nn import link_decoders
from graphsparse.nn.link_decoders import make_decoder, pairwise_dot, score_in_chunks


@settings(max_examples=20, deadline=None)
@given(
    n=st.integers(1, 9), d=st.integers(1, 5), p=st.integers(0, 12), seed=st.integers(0, 99), numbers=st.integers(1, 9)
)
def test_pairwise_dot_and_its_gradients_equal_those_of_gathered_rows(n, d, p, seed, numbers):
    generator = torch.Generator().manual_seed(seed)
    left = torch.randn(n, d, generator=generator, dtype=torch.float64, requires_grad=True)
    right = torch.randn(n, d, generator=generator, dtype=torch.float64, requires_grad=True)
    pairs = torch.randint(n, (2, p), generator=generator)
    scale = torch.randn(p, generator=generator, dtype=torch.float64)
    expected = (left[pairs[0]] * right[pairs[1]]).sum(1)
    gradients = torch.autograd.grad((expected * scale).sum(), (left, right))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(link_decoders, "_NUMBERS", numbers)  # many chunks
        found = pairwise_dot(left, right, pairs)
        ours = torch.autograd.grad((found * scale).sum(), (left, right))
    assert torch.allclose(found, expected)
    for a, b in zip(ours, gradients, strict=True):
        assert torch.allclose(a, b)


def test_pairwise_dot_adds_both_gradients_where_the_matrices_are_one():
    h = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    pairs = torch.tensor([[0, 1, 2, 2], [1, 1, 0, 3]])
    every = {"check_batched_grad": True, "check_forward_ad": True}
    for of_type in (pairs.long(), pairs.int()):
        assert torch.autograd.gradcheck(lambda h, p=of_type: pairwise_dot(h, h, p), (h,), **every)
        assert torch.autograd.gradgradcheck(lambda h, p=of_type: pairwise_dot(h, h, p), (h,))


def test_order_of_ends_matters_only_where_links_have_a_direction():
    h, pairs = torch.randn(6, 4), torch.tensor([[0, 1, 2], [3, 4, 5]])
    dot, bilinear = (make_decoder(4, directed=directed) for directed in (False, True))
    assert torch.allclose(dot(h, pairs), dot(h, pairs.flip(0)), atol=1e-6)
    assert torch.allclose(dot(h, pairs), (h[pairs[0]] * h[pairs[1]]).sum(1), atol=1e-6)
    assert not torch.allclose(bilinear(h, pairs), bilinear(h, pairs.flip(0)), atol=1e-3)
    expected = torch.stack([h[u] @ bilinear.weight @ h[v] for u, v in pairs.t()])
    assert torch.allclose(bilinear(h, pairs), expected, atol=1e-6)


def test_chunks_are_scored_in_evaluation_mode_and_change_nothing(monkeypatch):
    decoder, h, pairs = make_decoder(4, directed=True), torch.randn(9, 4, requires_grad=True), torch.randint(9, (2, 50))
    whole = score_in_chunks(decoder, h, pairs)
    monkeypatch.setattr(link_decoders, "CHUNK", 7)
    found = score_in_chunks(decoder, h, pairs)
    assert decoder.training
    assert not found.requires_grad
    assert torch.allclose(found, whole, atol=1e-6)
    assert torch.allclose(found, decoder(h, pairs), atol=1e-6)
    assert score_in_chunks(decoder, h, pairs[:, :0]).shape == (0,)
