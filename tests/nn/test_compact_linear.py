import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from graphsparse.nn import CompactLinear
from graphsparse.nn.compact_linear import live_rows


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 7), st.integers(0, 7), st.floats(0, 1), st.booleans(), st.integers(0, 1000))
def test_exact_for_any_zeros(rows, columns, sparsity, bias, seed):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    weight = weight * (torch.rand(rows, columns, generator=generator) >= sparsity)
    bias = torch.randn(rows, generator=generator, dtype=torch.float64) if bias else None
    x = torch.randn(11, columns, generator=generator, dtype=torch.float64)
    layer = CompactLinear(weight, bias)
    torch.testing.assert_close(layer(x), F.linear(x, weight, bias), rtol=1e-12, atol=1e-12)
    assert torch.equal(layer.weight, weight)
    alive_rows = [row for row in range(rows) if any(weight[row].tolist())]
    alive_columns = [column for column in range(columns) if any(weight[:, column].tolist())]
    assert list(layer.small.shape) == [len(alive_rows), len(alive_columns)]
    for held, alive, number in ((layer.rows, alive_rows, rows), (layer.columns, alive_columns, columns)):
        assert held is None if len(alive) == number else held.tolist() == alive


def test_what_is_dead_is_not_read():
    """A column of the input that no output uses may hold anything."""
    weight = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    layer = CompactLinear(weight, torch.tensor([0.0, 5.0]))
    x = torch.tensor([[float("nan"), 2.0, float("inf")]])
    assert layer(x).tolist() == [[2.0, 5.0]]
    assert str(layer) == "CompactLinear(in_features=3, out_features=2, bias=True, live=1 -> 1)"


def test_live_rows():
    assert live_rows(torch.tensor([[0.0, -1e-30], [0.0, -0.0], [float("nan"), 0.0]])).tolist() == [0, 2]
    assert live_rows(torch.ones(0, 3)) is None
    assert live_rows(torch.ones(2, 0)).tolist() == []
