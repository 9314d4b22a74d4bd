"""The compiled loops beyond what every backend is asked for: heads, threads, and what is no number."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sparse_reference import BACKENDS, close, graphs, run
from torch.autograd import gradcheck, gradgradcheck

from graphsparse.ops import Adjacency, kernels, spmm
from graphsparse.typing import has_module

needs_numba = pytest.mark.skipif("not __import__('graphsparse').typing.has_module('numba')", reason="needs numba")


@pytest.mark.parametrize("backend", [None, *BACKENDS])
@settings(max_examples=40, deadline=None)
@given(graphs(), st.integers(1, 3), st.integers(0, 9))
def test_values_by_head_are_one_product_for_each_head(backend, graph, heads, width):
    edge_index, x, _, num_dst, generator = graph
    adj = Adjacency.from_edge_index(edge_index, num_nodes=(x.size(0), num_dst))
    x = torch.randn(x.size(0), heads, width, generator=generator)
    value = torch.randn(edge_index.size(1), heads, generator=generator)
    grad = torch.randn(num_dst, heads, width, generator=generator)

    def each(x, value):
        parts = [spmm(adj, x[:, h], value=value[:, h], backend="gather-scatter") for h in range(heads)]
        return torch.stack(parts, 1)

    ours = run(lambda x, v: spmm(adj, x, value=v, backend=backend), x, value, grad)
    close(ours, run(each, x, value, grad), least=[1, 1, 1])


@pytest.mark.parametrize("backend", BACKENDS)
def test_derivatives_by_head(backend):
    generator = torch.Generator().manual_seed(2)
    edge_index = torch.stack([torch.randint(n, (11,), generator=generator) for n in (4, 5)])
    adj = Adjacency.from_edge_index(edge_index, num_nodes=(4, 5))
    x = torch.randn(4, 2, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    value = torch.randn(11, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda x, v: spmm(adj, x, value=v, backend=backend), (x, value), check_batched_grad=True)
    assert gradgradcheck(lambda x, v: spmm(adj, x, value=v, backend=backend), (x, value))


def test_values_by_head_need_features_by_head_and_a_sum():
    adj = Adjacency.from_edge_index(torch.tensor([[0, 1], [1, 0]]))
    with pytest.raises(ValueError, match=r"needs 'x' as \[num_src, 3, \*\] and reduce='sum' \(got \[2, 2, 4\]"):
        spmm(adj, torch.ones(2, 2, 4), value=torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"reduce='sum' \(got \[2, 3, 4\] and 'mean'\)"):
        spmm(adj, torch.ones(2, 3, 4), "mean", value=torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"'value' must have one entry per edge, shape \[2\] \(got \[5\]\)"):
        spmm(adj, torch.ones(2, 3, 4), value=torch.ones(5, 3))


@needs_numba
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_number_of_threads_changes_no_bit(monkeypatch, dtype):
    from graphsparse.ops import compiled

    monkeypatch.setattr(compiled, "_GRAIN", 1)
    generator = torch.Generator().manual_seed(0)
    source = torch.randint(50, (900,), generator=generator)
    target = torch.cat([torch.full((500,), 7), torch.randint(60, (400,), generator=generator)])  # one long row
    pattern = Adjacency.from_edge_index(torch.stack([source, target]), num_nodes=(50, 60)).pattern
    x = torch.randn(50, 12, generator=generator, dtype=dtype)
    value = torch.rand(900, generator=generator, dtype=dtype)

    def results():
        parts = [compiled.total(pattern, value, x), *compiled.extremum(pattern, value, x, "max")]
        left = torch.linspace(-1, 1, 720, dtype=dtype).view(60, 12)
        alpha = compiled.attention(pattern, x, left, None, value, 0.2)
        return [*parts, compiled.dots(pattern, left, x, 3), alpha]

    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            found.append(results())
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_no_number_stays_none(backend):
    adj = Adjacency.from_edge_index(torch.tensor([[0, 1, 2, 2], [0, 0, 0, 1]]), num_nodes=3)
    x = torch.ones(3, 40)
    x[1] = torch.nan
    out = spmm(adj, x, backend=backend)
    assert out[0].isnan().all()
    assert (out[1] == 1).all()
    if backend in ("numba", "gather-scatter"):
        out, _ = kernels.extremum(adj.pattern, None, x, "max", backend, True)
        assert out[0].isnan().all()
        assert (out[1] == 1).all()


def test_numba_is_taken_where_it_is_and_rows_are_wide():
    chosen = [kernels.choose_backend(None, reduce, torch.device("cpu"), 64) for reduce in ("sum", "mean", "max")]
    assert chosen == ["torch", "torch", "numba" if has_module("numba") else "torch"]
