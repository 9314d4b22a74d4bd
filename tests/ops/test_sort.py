from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from graphsparse.ops import sort
from graphsparse.ops.blocks import blocks


@pytest.mark.parametrize(
    ("largest", "dtype"),
    [((), torch.int32), ((2**31 - 1,), torch.int32), ((2**31,), torch.int64), ((0, 2**40, 3), torch.int64)],
)
def test_index_dtype(largest, dtype):
    assert sort.index_dtype(*largest) == dtype


@given(st.integers(0, 60), st.integers(1, 8), st.integers(0, 2**31), st.sampled_from([torch.int32, torch.int64]))
def test_stable_order_equals_the_stable_sort_of_torch(size, num_keys, seed, dtype):
    key = torch.randint(num_keys, (size,), generator=torch.Generator().manual_seed(seed)).to(dtype)
    assert torch.equal(sort.stable_order(key, num_keys).long(), key.sort(stable=True).indices)


def test_keys_too_large_to_pack_are_sorted_by_torch():
    key = torch.tensor([2**61, 5, 2**61, 0])
    assert sort.stable_order(key, 2**62).tolist() == [3, 1, 0, 2]


def edges(size, num_rows, num_cols, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(num_rows, (size,), generator=generator), torch.randint(num_cols, (size,), generator=generator)


def check(row, col, num_rows, num_cols):
    """By row, then by column, then by position, as Python sorts."""
    expected = sorted(range(len(row)), key=lambda edge: (row[edge].item(), col[edge].item(), edge))
    order = sort.edge_order(row, col, num_rows, num_cols)
    if order is None:
        assert expected == list(range(len(row)))
    else:
        assert expected != list(range(len(row)))
        assert order.tolist() == expected


@given(st.integers(0, 40), st.integers(1, 6), st.integers(1, 6), st.integers(0, 2**31))
def test_edge_order_in_one_sort(size, num_rows, num_cols, seed):
    check(*edges(size, num_rows, num_cols, seed), num_rows, num_cols)


@given(st.integers(0, 40), st.integers(0, 2**31), st.booleans())
def test_edge_order_where_row_and_column_do_not_fit_into_one_key(size, seed, by_column):
    row, col = edges(size, 5, 5, seed)
    if by_column:
        order = col.argsort(stable=True)
        row, col = row[order], col[order]
    check(row * 2**29, col * 2**29, 2**32, 2**32)


def test_edge_order_of_sorted_edges_is_none():
    row, col = torch.tensor([0, 0, 0, 2]), torch.tensor([1, 1, 3, 0])
    assert sort.edge_order(row, col, 3, 4) is None
    assert sort.edge_order(row, col.flip(0), 3, 4).tolist() == [0, 2, 1, 3]  # columns 0, 3, 1, 1


@pytest.mark.parametrize("block", [1, 3, 7])
def test_blocks_do_not_change_the_order(block, monkeypatch):
    row, col = edges(50, 6, 6, 0)
    expected = sort.edge_order(row, col, 6, 6), sort.stable_order(row, 6)
    monkeypatch.setattr(sort, "blocks", partial(blocks, step=block))
    assert torch.equal(sort.edge_order(row, col, 6, 6), expected[0])
    assert torch.equal(sort.stable_order(row, 6), expected[1])
    key = row * 6 + col
    order = key.argsort(stable=True)
    assert sort.edge_order(row[order], col[order], 6, 6) is None
    check(row[order].roll(1), col[order].roll(1), 6, 6)  # wrong at one place alone, whichever block holds it


@pytest.mark.cuda
def test_cuda_equals_cpu(device):
    row, col = edges(1000, 60, 60, 0)
    assert torch.equal(sort.stable_order(row.to(device), 60).cpu(), sort.stable_order(row, 60))
    assert torch.equal(sort.edge_order(row.to(device), col.to(device), 60, 60).cpu(), sort.edge_order(row, col, 60, 60))
    row, col = row * 2**29, col * 2**29
    assert torch.equal(
        sort.edge_order(row.to(device), col.to(device), 2**36, 2**36).cpu(), sort.edge_order(row, col, 2**36, 2**36)
    )
