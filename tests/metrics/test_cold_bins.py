import pytest
import torch

from graphsparse.metrics import COLD_BINS, cold_bins


def test_every_pair_of_degrees(monkeypatch):
    import importlib

    degree = torch.arange(6)
    pairs = torch.cartesian_prod(degree, degree).t()
    expected = [0 if u * v == 0 else 1 if u + v <= 3 else 2 for u, v in pairs.t().tolist()]
    assert cold_bins(pairs, degree).tolist() == expected
    monkeypatch.setattr(importlib.import_module("graphsparse.metrics.cold_bins"), "_BLOCK", 5)
    assert cold_bins(pairs.int(), degree.int()).tolist() == expected
    assert len(COLD_BINS) == max(expected) + 1


def test_directed_degrees_and_another_limit():
    pairs, out, into = torch.tensor([[0, 1], [1, 0]]), torch.tensor([2, 0]), torch.tensor([3, 1])
    assert cold_bins(pairs, (out, into)).tolist() == [1, 0]
    assert cold_bins(pairs, (out, into), few=2).tolist() == [2, 0]


@pytest.mark.parametrize(
    ("error", "match", "pairs", "degree"),
    [
        (TypeError, "'degree' must be an integer tensor .got torch.float32", torch.tensor([[0], [1]]), torch.ones(2)),
        (ValueError, r"'degree' must be \[N\]", torch.tensor([[0], [1]]), torch.ones(2, 1).long()),
        (ValueError, "'pairs' holds the index 2", torch.tensor([[0], [2]]), torch.ones(2).long()),
    ],
)
def test_bad_input(error, match, pairs, degree):
    with pytest.raises(error, match=match):
        cold_bins(pairs, degree)
