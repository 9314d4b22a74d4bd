import sys

import pytest
import torch
from hypothesis import given
from sparse_reference import BACKENDS, close, graphs, run

from graphsparse.ops import Adjacency, kernels, spmm
from graphsparse.ops.spmm import REDUCTIONS
from graphsparse.testing import random_graph


@pytest.mark.parametrize("reduce", REDUCTIONS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_blocks_do_not_change_the_result(backend, reduce, monkeypatch):
    data = random_graph(seed=1)
    generator = torch.Generator().manual_seed(0)
    adj = Adjacency.from_edge_index(data.edge_index, num_nodes=60)
    value = torch.rand(data.num_edges, generator=generator)
    grad = torch.randn(60, 8, generator=generator)
    results = []
    for size in (10**6, 7, 1):
        monkeypatch.setattr(kernels, "block_size", lambda *_, size=size: size)
        monkeypatch.setattr(sys.modules["graphsparse.ops.spmm"], "block_size", lambda *_, size=size: size)
        results.append(run(lambda x, v: spmm(adj, x, reduce, value=v, backend=backend), data.x, value, grad))
    for other in results[1:]:
        close(other, results[0])


def test_sampled_product_by_blocks_equals_the_kernel(monkeypatch):
    data = random_graph(seed=2)
    places = Adjacency.from_edge_index(data.edge_index, num_nodes=60).pattern
    left, right = torch.randn(2, 60, 5, generator=torch.Generator().manual_seed(0))
    expected = (left[places.row().long()] * right[places.col.long()]).sum(1)
    close([kernels.sampled_product(places, left, right)], [expected])
    monkeypatch.setattr(kernels, "block_size", lambda *_: 7)
    close([kernels.sampled_product(places, left.half(), right.half())], [expected], 1e-2)


def test_value_gradient_never_holds_edges_by_features():
    """60,000 edges of 512 features would take 120 MB; the largest tensor made here must stay far below."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        numel = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            for part in out if isinstance(out, (tuple, list)) else [out]:
                if isinstance(part, torch.Tensor) and part.layout == torch.strided:
                    self.numel = max(self.numel, part.untyped_storage().nbytes() // part.element_size())
            return out

    generator = torch.Generator().manual_seed(0)
    adj = Adjacency.from_edge_index(torch.randint(100, (2, 60_000), generator=generator), num_nodes=100)
    for reduce in REDUCTIONS:
        for dtype in (torch.float32, torch.bfloat16):
            x = torch.randn(100, 512, generator=generator).to(dtype).requires_grad_()
            value = torch.rand(60_000, generator=generator).requires_grad_()
            with Largest() as largest:
                spmm(adj, x, reduce, value=value, backend="gather-scatter").sum().backward()
            assert 60_000 <= largest.numel < 60_000 * 512 / 10


@pytest.mark.parametrize("reduce", ["sum", "mean"])
def test_half_precision_adds_up_in_more(reduce):
    """In bfloat16 itself, 256 + 1 is 256."""
    x = torch.ones(2000, 1, dtype=torch.bfloat16)
    adj = Adjacency.from_edge_index(torch.stack([torch.arange(2000), torch.zeros(2000).long()]), num_nodes=2000)
    for backend in BACKENDS if reduce == "sum" else ["torch", "gather-scatter"]:
        if backend != "torch-sparse":  # adds up in the type of x
            out = spmm(adj, x, reduce, backend=backend)[0].item()
            assert out == pytest.approx(2000 if reduce == "sum" else 1, rel=5e-3)


def test_the_backend_is_chosen_by_device_and_reduction(request):
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    first = "numba" if "numba" in BACKENDS else "torch"
    assert {kernels.choose_backend(None, reduce, cpu) for reduce in REDUCTIONS} == {first}
    assert kernels.choose_backend(None, "mean", cuda) == "torch"
    assert kernels.choose_backend(None, "max", cuda) == next(
        name for name in BACKENDS if name not in ("numba", "torch")
    )
    if "numba" in BACKENDS:
        with pytest.raises(ValueError, match="'numba' has no reduction 'sum' on 'cuda'"):
            kernels.choose_backend("numba", "sum", cuda)
    with pytest.raises(ValueError, match="has no reduction 'max'"):
        kernels.choose_backend("torch", "max", cuda)
    request.getfixturevalue("without_extensions")
    assert kernels.choose_backend(None, "max", cuda) == "gather-scatter"
    assert kernels.choose_backend(None, "max", cpu) == "torch"


@pytest.mark.parametrize("least", [0, 10**9])
@given(graphs())
def test_both_kernels_of_torch_equal_gather_and_scatter(least, graph):
    edge_index, x, value, num_dst, _ = graph
    adj = Adjacency.from_edge_index(edge_index, value, (x.size(0), num_dst))
    expected = kernels.product(adj.pattern, adj.value, x, "gather-scatter")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "NARROW", least)
        close([kernels.product(adj.pattern, adj.value, x, "torch")], [expected])


def test_narrow_rows_are_left_to_mkl_where_it_is(monkeypatch):
    narrow, wide = torch.zeros(2, 63), torch.zeros(2, 64)
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    assert kernels._without_reduction(narrow)
    assert not kernels._without_reduction(wide)
    assert kernels._without_reduction(narrow[:, :31].double())
    assert not kernels._without_reduction(narrow.double())
    assert not kernels._without_reduction(narrow.bfloat16())
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: False)
    assert not kernels._without_reduction(narrow)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("num_edges", "width"), [(0, 3), (4, 0), (0, 0)])
def test_nothing_to_multiply(backend, num_edges, width):
    adj = Adjacency.from_edge_index(torch.zeros(2, num_edges, dtype=torch.int64), num_nodes=3)
    x = torch.ones(3, width)
    assert torch.equal(kernels.product(adj.pattern, None, x, backend), torch.zeros(3, width))
    out, entry = kernels.extremum(adj.pattern, None, x, "max", backend, True)
    assert torch.equal(out, torch.zeros(3, width))
    assert torch.equal(entry, torch.full((3, width), num_edges))
    assert torch.equal(kernels.sampled_product(adj.pattern, x, x), torch.zeros(num_edges))


def test_more_entries_than_places():
    adj = Adjacency.from_edge_index(torch.zeros(2, 5, dtype=torch.int64), num_nodes=2)
    left, right = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[5.0, 6.0], [7.0, 8.0]])
    assert kernels.sampled_product(adj.pattern, left, right).tolist() == [17.0] * 5


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("reduce", ["min", "max"])
def test_extremum_names_the_first_entry(backend, reduce):
    adj = Adjacency.from_edge_index(torch.tensor([[0, 1, 2, 1], [0, 0, 0, 2]]), num_nodes=3)
    x = torch.tensor([[1.0, 5.0], [1.0, 2.0], [1.0, 2.0]])
    out, entry = kernels.extremum(adj.pattern, None, x, reduce, backend, True)
    assert out.tolist() == [[1, 5 if reduce == "max" else 2], [0, 0], [1, 2]]
    assert entry.tolist() == [[0, 0 if reduce == "max" else 1], [4, 4], [3, 3]]
