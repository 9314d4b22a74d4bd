import numpy as np
import pytest
import torch
from hypothesis import given, settings
from pairs_reference import line_matrix, line_operator, pair_sets, propagated, some_pairs

from graphsparse.ops import pairs as module
from graphsparse.ops.pairs import PairTable
from graphsparse.transfer.propagation.line_graph import LineGraph


def line_graph(table, norm, weight=None):
    return LineGraph(table, weight, symmetric=norm == "sym")


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("norm", ["row", "sym"])
@settings(max_examples=60, deadline=None)
@given(case=pair_sets())
def test_equals_the_line_graph_of_networkx(norm, weighted, case):
    pairs, num_nodes = case
    generator = torch.Generator().manual_seed(pairs.size(1))
    values = torch.randn(pairs.size(1), generator=generator)
    weight = torch.rand(pairs.size(1), generator=generator) + 0.1 if weighted else None
    table = PairTable(pairs, num_nodes)
    line = line_graph(table, norm, None if weight is None else table.sorted(weight))
    values_in_order = table.sorted(values)
    ours = table.unsorted(line.propagate(values_in_order, values_in_order, 1, 1.0))
    np.testing.assert_allclose(ours, line_operator(pairs, norm, weight) @ values.double().numpy(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("norm", ["row", "sym"])
def test_rounds_equal_the_dense_recurrence(norm, monkeypatch):
    pairs = some_pairs()
    generator = torch.Generator().manual_seed(1)
    start, seed = torch.rand(2, 80, generator=generator)
    options = {"rounds": 6, "alpha": 0.95, "bounds": (0.48, 0.52)}
    expected = propagated(pairs, start, seed, norm=norm, **options)
    assert 0 < (expected == 0.52).sum() < 60  # the clip is at work
    for size in (1 << 16, 7):
        monkeypatch.setattr(module, "CACHED", size)
        table = PairTable(pairs, 30)
        before = table.sorted(start).clone()
        signal = table.sorted(start)
        ours = line_graph(table, norm).propagate(signal, table.sorted(seed), **options)
        np.testing.assert_allclose(table.unsorted(ours), expected, rtol=0, atol=1e-6)
        assert torch.equal(signal, before)


def test_identities_of_the_incidence_matrix():
    pairs = some_pairs()
    table = PairTable(pairs, 30)
    incidence = torch.zeros(80, 30, dtype=torch.float64)
    incidence[torch.arange(80).repeat(2), pairs.flatten()] = 1
    assert torch.equal(incidence @ incidence.t() - torch.eye(80), torch.from_numpy(line_matrix(pairs)))
    line = LineGraph(table)
    assert torch.equal(line.count, incidence.sum(0))
    values = torch.rand(80)
    torch.testing.assert_close(line.node_sum(table.sorted(values)), incidence.t() @ values.double())


@settings(max_examples=40, deadline=None)
@given(pair_sets())
def test_row_normalisation_keeps_constants(case):
    pairs, num_nodes = case
    line = LineGraph(PairTable(pairs, num_nodes))
    constant = torch.full((pairs.size(1),), 0.3)
    torch.testing.assert_close(line.propagate(constant, constant, 4, 0.9, None), constant)


@pytest.mark.parametrize("norm", ["row", "sym"])
def test_a_pair_of_weight_0_receives_and_does_not_send(norm):
    pairs, weight = some_pairs(), torch.ones(80)
    silent = torch.arange(80) % 3 == 0
    weight[silent] = 0
    table, rest = PairTable(pairs, 30), PairTable(pairs[:, ~silent], 30)
    values = torch.rand(80)
    whole = line_graph(table, norm, table.sorted(weight))
    part = line_graph(rest, norm)
    ours = table.unsorted(whole.propagate(*[table.sorted(values)] * 2, 4, 0.9, None))
    expected = rest.unsorted(part.propagate(*[rest.sorted(values[~silent])] * 2, 4, 0.9, None))
    torch.testing.assert_close(ours[~silent], expected)
    torch.testing.assert_close(whole.node_sum(table.sorted(ours)), part.node_sum(rest.sorted(expected)))
    assert torch.equal(whole.count, part.count)
    assert (ours[silent] - 0.1 * values[silent] > 1e-3).all()


def test_no_rounds_and_no_pairs():
    table = PairTable(torch.tensor([[0], [1]]), 2)
    assert LineGraph(table).propagate(torch.tensor([0.25]), torch.tensor([1.0]), 0, 0.9, (0.5, 1)).tolist() == [0.25]
    empty = LineGraph(PairTable(torch.empty(2, 0, dtype=torch.int64), 3))
    assert empty.propagate(torch.empty(0), torch.empty(0), 3, 0.9).numel() == 0


def test_sums_of_many_do_not_drift():
    """A star of two million pairs: in float32 the sum of its values would be off by a percent."""
    num = 2_000_000
    star = torch.stack([torch.zeros(num, dtype=torch.int32), torch.arange(1, num + 1, dtype=torch.int32)])
    values = torch.full((num,), 0.1)
    total = LineGraph(PairTable(star, num + 1)).node_sum(values)[0]
    assert float(total) == pytest.approx(num * float(values[0]), rel=1e-12)
