import pytest
import scipy.sparse
import torch

from graphsparse.nn import CSRLinear
from graphsparse.nn import csr_linear as module


@pytest.mark.parametrize("rows", [511, 512, 513, 1025])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_blocks_of_rows(rows, dtype):
    """As SciPy multiplies, at the ends of the blocks too."""
    generator = torch.Generator().manual_seed(rows)
    weight = torch.randn(7, 30, generator=generator, dtype=dtype)
    weight *= torch.rand(7, 30, generator=generator) < 0.1
    x = torch.randn(rows, 30, generator=generator, dtype=dtype)
    expected = torch.from_numpy((scipy.sparse.csr_array(weight.numpy()) @ x.numpy().T).T)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    torch.testing.assert_close(CSRLinear(weight)(x), expected, rtol=tolerance, atol=tolerance)


def test_holds_what_is_not_zero():
    weight = torch.zeros(100, 50)
    weight[3, 4], weight[99, 0] = 2.0, -1.0
    layer = CSRLinear(weight, torch.zeros(100))
    assert layer.value.tolist() == [2.0, -1.0]
    assert layer.col.tolist() == [4, 0]
    assert sum(buffer.nbytes for buffer in layer.buffers()) == 2 * 8 + 101 * 4 + 100 * 4
    assert str(layer) == "CSRLinear(in_features=50, out_features=100, bias=True, nonzero=2)"


@pytest.mark.parametrize("shape", [(4, 3), (0, 3), (4, 0)])
def test_nothing_left(shape):
    bias = torch.randn(shape[0])
    out = CSRLinear(torch.zeros(shape), bias)(torch.randn(600, shape[1]))
    assert torch.equal(out, bias.expand(600, -1))


def test_products_are_those_of_the_entries(monkeypatch):
    """One product for every block of the input, with the weight as the sparse operand."""
    seen = []
    spmm = module.spmm

    def watched(matrix, x):
        seen.append((matrix.num_edges, tuple(x.shape)))
        return spmm(matrix, x)

    monkeypatch.setattr(module, "spmm", watched)
    layer = CSRLinear(torch.eye(5))
    x = torch.randn(1000, 5)
    assert torch.equal(layer(x), x)
    assert seen == [(5, (5, 512)), (5, (5, 488))]
    seen.clear()
    layer(x.requires_grad_())
    assert seen == [(5, (5, 1000))]
