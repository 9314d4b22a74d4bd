import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import graphsparse.ops.rows as module
from graphsparse.ops.rows import Rows


def find(rows, start, source, row):
    """Return everything that is found, in order, as (item, entry walked along, entry found)."""
    found = []
    for items, item, here, there in rows.common(start, source, row):
        found += list(zip((item + items.start).tolist(), here.tolist(), there.tolist(), strict=True))
    return found


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 12), st.floats(0, 1), st.integers(0, 10**6), st.sampled_from([1, 7, 1 << 18]))
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_equals_a_look_at_every_entry(dtype, num_nodes, density, seed, block):
    generator = torch.Generator().manual_seed(seed)
    pattern = torch.rand(num_nodes, num_nodes, generator=generator) < density
    entries = pattern.nonzero().tolist()
    rows = Rows(pattern.flatten().nonzero().squeeze(1), num_nodes)
    source, row = torch.randint(num_nodes, (2, 9), generator=generator, dtype=dtype)
    first, end = rows.pointer[source.long()], rows.pointer[source.long() + 1]
    start = (first + (torch.rand(9, generator=generator) * (end - first + 1)).long()).to(dtype)
    expected = [
        (i, here, entries.index([int(row[i]), entries[here][1]]))
        for i in range(9)
        for here in range(int(start[i]), int(end[i]))
        if [int(row[i]), entries[here][1]] in entries
    ]
    old, module.BLOCK = module.BLOCK, block
    try:
        assert find(rows, start, source, row) == expected
    finally:
        module.BLOCK = old


def test_hub():
    """A row of many entries, with the rows of few that come after it: the even numbers, and 6, 7, 8."""
    num_nodes = 50_000
    hub, small = torch.arange(0, num_nodes, 2), torch.tensor([6, 7, 8]) + num_nodes
    rows = Rows(torch.cat([hub, small]), num_nodes)
    both = [(0, num_nodes // 2, 3), (0, num_nodes // 2 + 2, 4)]
    assert find(rows, torch.tensor([num_nodes // 2]), torch.tensor([1]), torch.tensor([0])) == both
    assert find(rows, torch.tensor([0]), torch.tensor([0]), torch.tensor([1])) == [(0, b, a) for _, a, b in both]
