import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sparse_reference import edge_lists

from graphsparse.ops import pattern as module
from graphsparse.ops.pattern import Pattern, offsets


def build(graph):
    edge_index, (num_src, num_dst), _ = graph
    return Pattern.build(edge_index[1], edge_index[0], num_dst, num_src)


@pytest.fixture
def without_sorting(monkeypatch):
    for name in ("edge_order", "stable_order"):
        monkeypatch.setattr(module, name, None)


@given(edge_lists(bipartite=True))
def test_build_sorts_by_row_and_column_and_remembers_the_order(graph):
    edge_index, size, _ = graph
    pattern = build(graph)
    place = sorted(range(edge_index.size(1)), key=lambda e: (edge_index[1, e].item(), edge_index[0, e].item(), e))
    assert pattern.row().tolist() == edge_index[1, place].tolist()
    assert pattern.col.tolist() == edge_index[0, place].tolist()
    assert (pattern.num_rows, pattern.num_cols, pattern.num_entries) == (size[1], size[0], edge_index.size(1))
    if pattern.perm is not None:
        assert pattern.perm.tolist() == place
    values = torch.arange(len(place))
    assert pattern.from_edges(values).tolist() == place
    assert torch.equal(pattern.to_edges(pattern.from_edges(values)), values)


@given(edge_lists(bipartite=True), st.integers(1, 9))
def test_blocks_cover_the_entries_in_order(graph, size):
    pattern = build(graph)
    blocks = list(pattern.blocks(size))
    assert [part.start for part, _, _ in blocks] == list(range(0, pattern.num_entries, size))
    rows = [row for _, row, _ in blocks]
    cols = [col for _, _, col in blocks]
    assert all(len(row) == part.stop - part.start <= size for part, row, _ in blocks)
    assert torch.equal(torch.cat([torch.zeros(0, dtype=torch.int64), *rows]), pattern.row().long())
    assert torch.equal(torch.cat([pattern.col[:0], *cols]), pattern.col)


@given(edge_lists(bipartite=True))
def test_transposing_twice_gives_the_same(graph):
    pattern = build(graph)
    turned, order = pattern.transposed()
    assert torch.equal(turned.col, pattern.row()[order.long()])
    assert torch.equal(turned.row(), pattern.col[order.long()])
    back, again = turned.transposed()
    assert torch.equal(back.rowptr, pattern.rowptr)
    assert torch.equal(back.col, pattern.col)
    assert torch.equal(order.long()[again.long()], torch.arange(len(order)))


def test_a_symmetric_pattern_shares_its_rows_with_its_transpose():
    pattern = Pattern.build(torch.tensor([0, 1, 1, 2]), torch.tensor([1, 0, 2, 1]), 3, 3)
    assert pattern.symmetric is None
    turned, order = pattern.transposed()
    assert pattern.symmetric
    assert turned.col is pattern.col
    assert turned.rowptr is pattern.rowptr
    assert order.tolist() == [1, 0, 3, 2]
    assert pattern.transposed()[0] is turned


def test_degrees_tell_that_a_pattern_is_not_symmetric(without_sorting):
    assert not Pattern(torch.tensor([0, 2, 2]), torch.tensor([0, 1]), 2).is_symmetric()
    assert not Pattern(torch.tensor([0, 2]), torch.tensor([0, 1]), 2).is_symmetric()


def test_select_and_rows_need_no_sort(without_sorting):
    perm = torch.tensor([3, 0, 2, 1], dtype=torch.int32)
    pattern = Pattern(torch.tensor([0, 2, 2, 4], dtype=torch.int32), torch.tensor([1, 4, 0, 4]).int(), 5, perm)
    part = pattern.select(torch.tensor([True, False, True, True]))  # all but entry 3
    assert (part.rowptr.tolist(), part.col.tolist(), part.perm.tolist()) == ([0, 2, 2, 3], [1, 4, 0], [2, 0, 1])
    block, entries = pattern.rows(1, 3)
    assert (block.rowptr.tolist(), block.col.tolist(), block.perm) == ([0, 0, 2], [0, 4], None)
    assert entries == slice(2, 4)
    assert block.col.data_ptr() == pattern.col[2:].data_ptr()
    assert pattern.rows(1, 1)[0].rowptr.tolist() == [0]


def test_what_is_kept_is_computed_once_and_never_an_inference_tensor():
    pattern = Pattern(torch.tensor([0, 1]), torch.tensor([0]), 1)
    with torch.inference_mode():
        ones = pattern.ones(torch.float64)
    assert pattern.ones(torch.float64) is ones
    assert pattern.ones(torch.float32) is not ones
    assert not ones.is_inference()
    rowptr, col = Pattern(torch.tensor([0, 1]).int(), torch.tensor([0]).int(), 1).wide()
    assert (rowptr.dtype, col.dtype) == (torch.int64, torch.int64)


def test_pickle_leaves_out_what_can_be_derived_and_what_lies_outside_a_block():
    pattern = Pattern(torch.arange(1001), torch.arange(1000), 1000)
    pattern.ones(torch.float64)
    back = pickle.loads(pickle.dumps(pattern))
    assert back.cache == {}
    assert torch.equal(back.col, pattern.col)
    block = pattern.rows(3, 6)[0]
    assert len(pickle.dumps(block)) < 3000
    assert torch.equal(pickle.loads(pickle.dumps(block)).col, block.col)
    assert block.col.data_ptr() == pattern.col[3:].data_ptr()  # the block itself stays what it was


def test_offsets():
    assert offsets(torch.tensor([2, 0, 2]), 4, torch.int32).tolist() == [0, 1, 1, 3, 3]
    assert offsets(torch.zeros(0, dtype=torch.int64), 0, torch.int64).tolist() == [0]
