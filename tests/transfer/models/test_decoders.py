import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphsparse.transfer.models import decoders
from graphsparse.transfer.models.decoders import DECODERS, make_decoder, pairwise_dot, score_in_chunks


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
        patch.setattr(decoders, "_NUMBERS", numbers)  # many chunks
        found = pairwise_dot(left, right, pairs)
        ours = torch.autograd.grad((found * scale).sum(), (left, right))
    assert torch.allclose(found, expected)
    for a, b in zip(ours, gradients, strict=True):
        assert torch.allclose(a, b)


def test_pairwise_dot_adds_both_gradients_where_the_matrices_are_one():
    h = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    pairs = torch.tensor([[0, 1, 2, 2], [1, 1, 0, 3]])
    assert torch.autograd.gradcheck(lambda h: pairwise_dot(h, h, pairs), (h,))


@pytest.mark.parametrize("name", DECODERS)
def test_order_of_ends_matters_only_where_asked_for(name):
    h, pairs = torch.randn(6, 4), torch.tensor([[0, 1, 2], [3, 4, 5]])
    decoder = make_decoder(name, 4).eval()
    assert torch.allclose(decoder(h, pairs), decoder(h, pairs.flip(0)), atol=1e-6)
    if name in ("bilinear", "concat"):
        decoder = make_decoder(name, 4, directed=True).eval()
        assert not torch.allclose(decoder(h, pairs), decoder(h, pairs.flip(0)), atol=1e-3)
    else:
        with pytest.raises(ValueError, match="'decoder' must be 'bilinear' or 'concat' for directed"):
            make_decoder(name, 4, directed=True)


def test_bilinear_equals_the_formula():
    decoder, h = make_decoder("bilinear", 3, directed=True), torch.randn(4, 3)
    expected = torch.stack([h[0] @ decoder.weight @ h[2], h[3] @ decoder.weight @ h[1]])
    assert torch.allclose(decoder(h, torch.tensor([[0, 3], [2, 1]])), expected, atol=1e-6)


def test_concat_equals_a_network_on_the_concatenation():
    decoder, h = make_decoder("concat", 3), torch.randn(4, 3)
    weight = torch.cat([decoder.first.weight, decoder.second.weight], 1)

    def network(a, b):
        return decoder.last((weight @ torch.cat([a, b]) + decoder.first.bias).relu())

    expected = (network(h[0], h[2]) + network(h[2], h[0])) / 2
    assert torch.allclose(decoder(h, torch.tensor([[0], [2]])), expected, atol=1e-6)


@pytest.mark.parametrize("name", DECODERS)
def test_chunks_are_scored_in_evaluation_mode_and_change_nothing(name):
    decoder, h, pairs = make_decoder(name, 4), torch.randn(9, 4, requires_grad=True), torch.randint(9, (2, 50))
    if name in ("mlp", "concat"):
        decoder.dropout = 0.5
    found = score_in_chunks(decoder, h, pairs, chunk_size=7)
    assert decoder.training
    assert not found.requires_grad
    assert torch.allclose(found, decoder.eval()(h, pairs), atol=1e-6)
    assert score_in_chunks(decoder, h, pairs[:, :0]).shape == (0,)


def test_unknown_decoder_is_named():
    with pytest.raises(ValueError, match=r"'decoder' must be one of .* \(got 'dots'\)"):
        make_decoder("dots", 3)
