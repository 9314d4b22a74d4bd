import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, chisquare

from graphsparse.ops.dropout import _WORTH_IT, _draw, dropout


@pytest.mark.parametrize("bits", [8, 16])
def test_every_value_is_drawn_alike(bits):
    torch.manual_seed(0)
    drawn = _draw(1_000_003, bits)
    assert drawn.shape == (1_000_003,)
    values = drawn.long() + 2 ** (bits - 1)
    # The first and the last bit by themselves: torch's integers of 64 bits have none for the sign by default.
    counts = torch.bincount(values >> (bits - 8), minlength=256)
    assert chisquare(counts).pvalue > 1e-4
    assert chisquare(torch.bincount(values & 255, minlength=256)).pvalue > 1e-4


@settings(max_examples=60, deadline=None)
@given(st.floats(0.001, 0.999), st.integers(0, 10_000), st.sampled_from([torch.float32, torch.float64]))
def test_entries_are_dropped_by_their_chance_and_the_others_scaled(p, seed, dtype):
    torch.manual_seed(seed)
    x = torch.rand(100, 200, dtype=dtype) + 1
    out = dropout(x, p)
    dropped = out == 0
    assert binomtest(int(dropped.sum()), x.numel(), p).pvalue > 1e-7
    torch.testing.assert_close(out[~dropped], x[~dropped] / (1 - p), rtol=2e-5 / (1 - p), atol=0)


@pytest.mark.parametrize("p", [0.5, 0.75, 0.3])
def test_neighbours_are_dropped_independently(p):
    torch.manual_seed(0)
    kept = dropout(torch.ones(1_000_000), p) != 0
    for apart in (1, 2, 4, 8):
        both = int((kept[:-apart:2] & kept[apart::2][: len(kept[:-apart:2])]).sum())
        assert binomtest(both, len(kept[:-apart:2]), (1 - p) ** 2).pvalue > 1e-5


def test_gradient_goes_where_the_entry_is_kept():
    torch.manual_seed(0)
    x = torch.randn(100, 100).requires_grad_()
    out = dropout(x, 0.25)
    out.sum().backward()
    torch.testing.assert_close(x.grad, torch.where(out == 0, 0.0, 4 / 3))


def test_seed_says_what_is_dropped():
    x = torch.ones(200, 100)
    draws = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        draws.append((dropout(x, 0.5), dropout(x, 0.5)))
    assert torch.equal(draws[0][0], draws[1][0])
    assert torch.equal(draws[0][1], draws[1][1])
    assert not torch.equal(draws[0][0], draws[0][1])
    assert not torch.equal(draws[0][0], draws[2][0])


@pytest.mark.parametrize(
    ("shape", "p", "dtype"),
    [((8, 8), 0.5, torch.float32), ((100, 100), 1e-7, torch.float32), ((100, 100), 1.0, torch.float32)],
)
def test_the_rest_is_torchs(shape, p, dtype):
    x = torch.ones(shape, dtype=dtype)
    torch.manual_seed(0)
    found = dropout(x, p)
    torch.manual_seed(0)
    assert torch.equal(found, F.dropout(x, p))


def test_nothing_is_dropped_when_nothing_is_asked_for():
    x = torch.randn(_WORTH_IT, 2)
    assert torch.equal(dropout(x, 0.5, training=False), x)
    assert torch.equal(dropout(x, 0.0), x)
    assert dropout(x.bfloat16(), 0.5).dtype == torch.bfloat16


def test_compilers_and_transforms_see_torchs():
    x = torch.ones(100, 100)
    compiled = torch.compile(lambda x: dropout(x, 0.5), fullgraph=True, backend="eager")
    torch.manual_seed(0)
    found = compiled(x)
    torch.manual_seed(0)
    assert torch.equal(found, F.dropout(x, 0.5))
    mapped = torch.func.vmap(lambda x: dropout(x, 0.5), randomness="different")(torch.stack([x, x]))
    assert set(mapped.unique().tolist()) == {0.0, 2.0}
    torch.compiler.reset()


@pytest.mark.parametrize("p", [-0.1, 1.1])
def test_refuses(p):
    with pytest.raises(ValueError, match="between 0 and 1"):
        dropout(torch.ones(100, 100), p)
