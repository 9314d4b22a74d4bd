import numpy as np
import pytest
import torch

from graphsparse.ops import Adjacency
from graphsparse.transfer.propagation import sparse_rows
from graphsparse.transfer.propagation.sparse_rows import RowBlock, SparseGraph

N = 12


def make(seed=0, directed=False):
    """A graph as rows, and the same as a dense matrix; node 11 has no edges."""
    dense = (np.random.default_rng(seed).random((N, N)) < 0.25).astype(float)
    dense[:, 11] = dense[11] = 0
    np.fill_diagonal(dense, 0)
    if not directed:
        dense = np.maximum(dense, dense.T)
    edges = torch.from_numpy(np.stack(dense.nonzero()))
    rows = Adjacency.from_edge_index(edges.flip(0), num_nodes=N)
    back = Adjacency.from_edge_index(edges, num_nodes=N)
    return SparseGraph(rows.rowptr, rows.col, (back.rowptr, back.col) if directed else None), dense


def transition(dense):
    degree = dense.sum(1, keepdims=True)
    return np.divide(dense, degree, out=np.zeros_like(dense), where=degree > 0)


@pytest.mark.parametrize("directed", [False, True])
def test_steps_and_products(directed, monkeypatch):
    monkeypatch.setattr(sparse_rows, "_BLOCK", 5)
    graph, dense = make(directed=directed)
    scratch = np.zeros(4 * N, dtype=np.float32)
    sources = np.array([0, 11, 3, 7])
    block = RowBlock(graph, sources, None, not directed, scratch)
    rows = np.eye(N)[sources]
    row, column = (part.ravel() for part in np.meshgrid(np.arange(4), np.arange(N), indexing="ij"))
    for _ in range(4):
        np.testing.assert_allclose(block.rows.toarray(), rows, atol=1e-6)
        np.testing.assert_allclose(block.products(row, column).reshape(4, N), rows @ dense, atol=1e-6)
        values = torch.rand(N, N)
        sums = block.sums_of(row, column, lambda pairs, values=values: values[pairs[0], pairs[1]])
        np.testing.assert_allclose(sums.reshape(4, N), rows @ values.numpy(), atol=1e-6)
        block.step(None)
        rows = rows @ transition(dense)
    block.close()
    assert not scratch.any()


@pytest.mark.parametrize("directed", [False, True])
def test_an_edge_that_is_not_there(directed):
    graph, dense = make(1, directed)
    ends = np.stack(dense.nonzero())
    scratch = np.zeros(ends.shape[1] * N, dtype=np.float32)
    block = RowBlock(graph, ends[0], ends[1], not directed, scratch)
    for k in range(4):
        expected, products = [], []
        for u, v in ends.T:
            rest = dense.copy()
            rest[u, v] = 0
            if not directed:
                rest[v, u] = 0
            row = np.eye(N)[u] @ np.linalg.matrix_power(transition(rest), k)
            expected.append(row)
            products.append((row @ rest)[v])
        np.testing.assert_allclose(block.rows.toarray(), expected, atol=1e-6)
        np.testing.assert_allclose(block.products(np.arange(ends.shape[1]), ends[1]), products, atol=1e-6)
        block.step(None)


def test_largest_entries_are_kept():
    graph, dense = make(2)
    sources = np.arange(N)
    block = RowBlock(graph, sources, None, True, np.zeros(N * N, dtype=np.float32))
    rows = np.eye(N)
    for _ in range(3):
        block.step(3)
        rows = (rows @ transition(dense)).astype(np.float32)
        for row in rows:
            row[np.lexsort((np.arange(N), -row.round(6)))[3:]] = 0
        np.testing.assert_allclose(block.rows.toarray(), rows, atol=1e-6)
    assert np.diff(block.rows.indptr).max() == 3
