import math

import numpy as np
import pytest
import torch
from torch_geometric import EdgeIndex

from graphsparse.ops.check import (
    check_count,
    check_edge_index,
    check_integer,
    check_list,
    check_number,
    check_real,
    check_share,
    check_sparsity,
)


@pytest.mark.parametrize("value", [0, 0.0, 0.3, 0.999999])
def test_good_sparsity(value):
    assert check_sparsity(value) == value


@pytest.mark.parametrize("value", [-0.1, 1, 1.0, 2, math.nan, math.inf, -math.inf])
def test_sparsity_outside_the_range(value):
    with pytest.raises(ValueError, match=r"'edge_sparsity'.*\[0, 1\).*got"):
        check_sparsity(value, "edge_sparsity")


@pytest.mark.parametrize("value", ["0.5", None, True, [0.5], 1j])
def test_sparsity_of_the_wrong_type(value):
    with pytest.raises(TypeError, match="'sparsity' must be a number"):
        check_sparsity(value)


def test_good_shares_and_counts():
    assert [check_share(value, "a") for value in (0, 1, 0.5, np.float32(0.25))] == [0, 1, 0.5, 0.25]
    assert type(check_share(1, "a")) is float
    assert type(check_real(np.float32(0.25), "a")) is float
    assert math.isnan(check_real(float("nan"), "a"))
    assert check_number(2, "a", least=0, most=2) == 2.0
    assert check_count(np.int64(3), "n", 3) == 3
    assert check_integer(np.int64(-3), "n") == -3
    assert type(check_integer(np.int64(-3), "n")) is int


@pytest.mark.parametrize("values", [[1, 2], (1, 2), range(1, 3), np.array([1, 2])])
def test_good_lists(values):
    listed = check_list(values, "a")
    assert listed == [1, 2]
    assert {type(value) for value in listed} == {int}


@pytest.mark.parametrize("values", ["12", b"12", {1, 2}, {1: 2}, 12, None, iter([1]), np.ones((1, 1)), torch.ones(2)])
def test_no_list(values):
    with pytest.raises(TypeError, match="'a' must be a list of numbers .* of type"):
        check_list(values, "a")


@pytest.mark.parametrize("value", [-0.1, 1.01, float("nan"), float("inf")])
def test_no_share(value):
    with pytest.raises(ValueError, match=r"'a' must be in \[0, 1\]"):
        check_share(value, "a")


@pytest.mark.parametrize("value", [True, "1", None, 1j])
def test_no_number(value):
    with pytest.raises(TypeError, match="'a' must be a number .* of type"):
        check_share(value, "a")
    with pytest.raises(TypeError, match="'n' must be an integer .* of type"):
        check_count(value, "n")
    with pytest.raises(TypeError, match="'n' must be an integer .* of type"):
        check_integer(value, "n")
    with pytest.raises(TypeError, match="'n' must be a rate .* of type"):
        check_real(value, "n", "a rate")
    with pytest.raises(TypeError, match="'n' must be a number .* of type"):
        check_number(value, "n")


def test_too_small():
    for least, message in ((1, "at least 1 .got 0"), (2, "at least 2 .got 0")):
        with pytest.raises(ValueError, match=f"'n' must be {message}"):
            check_count(0, "n", least)
    with pytest.raises(TypeError, match="'n' must be an integer .got 2.0"):
        check_count(2.0, "n")


@pytest.mark.parametrize(
    ("value", "bounds", "message"),
    [
        (1.5, {"least": 0, "most": 1}, r"of at least 0 and at most 1 \(got 1.5\)"),
        (0, {"least": 0, "strictly": True}, r"above 0 \(got 0\)"),
        (math.nan, {}, r"\(got nan\)"),
        (math.inf, {"least": 0}, r"of at least 0 \(got inf\)"),
    ],
)
def test_numbers_out_of_range(value, bounds, message):
    with pytest.raises(ValueError, match=f"'a' must be a finite number .*{message}"):
        check_number(value, "a", **bounds)


def test_sizes():
    edge_index = torch.tensor([[0, 4], [1, 2]])
    assert check_edge_index(edge_index) == (5, 5)
    assert check_edge_index(edge_index, 9) == (9, 9)
    assert check_edge_index(edge_index, (5, 3)) == (5, 3)
    assert check_edge_index(edge_index.int()) == (5, 5)
    assert check_edge_index(EdgeIndex(edge_index, sparse_size=(5, 5))) == (5, 5)
    assert check_edge_index(edge_index[:, :0]) == (0, 0)
    assert check_edge_index(edge_index[:, :0], 3) == (3, 3)


BAD = {
    "a list": ([[0], [1]], None, TypeError, "must be a tensor"),
    "floats": (torch.zeros(2, 3), None, TypeError, "torch.float32"),
    "bools": (torch.zeros(2, 3, dtype=torch.bool), None, TypeError, "torch.bool"),
    "one dimension": (torch.zeros(6, dtype=torch.long), None, ValueError, r"got \[6\]"),
    "three rows": (torch.zeros(3, 2, dtype=torch.long), None, ValueError, r"got \[3, 2\]"),
    "transposed": (torch.zeros(5, 2, dtype=torch.long), None, ValueError, r"\[2, E\]"),
    "sparse": (torch.eye(2).to_sparse(), None, TypeError, "layout"),
    "negative": (torch.tensor([[0, -3], [1, 1]]), None, ValueError, "got -3"),
    "too large": (torch.tensor([[0, 7], [1, 1]]), 7, ValueError, "index 7.*'num_nodes' .7"),
    "too large for the destination": (torch.tensor([[0, 7], [1, 4]]), (8, 4), ValueError, "'num_nodes'"),
    "negative size": (torch.tensor([[0], [1]]), -1, ValueError, "negative"),
    "size is a float": (torch.tensor([[0], [1]]), 2.0, TypeError, "'num_nodes' must be an integer"),
    "three sizes": (torch.tensor([[0], [1]]), (1, 2, 3), ValueError, "num_src, num_dst"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_edge_index(case):
    edge_index, num_nodes, error, message = BAD[case]
    with pytest.raises(error, match=message):
        check_edge_index(edge_index, num_nodes)
