import math

import pytest
import torch

from graphsparse.transfer.propagation.edge_signals import MODES, check_anchors, check_mode, mix, signals

NAN = math.nan
Y = torch.tensor([1.0, 0.0, NAN, NAN])
P = torch.tensor([0.75, 0.25, 0.5, 0.125])


def test_signals():
    ((start, seed),) = signals("outcome", Y, P)
    assert start.tolist() == P.tolist()
    assert seed.tolist() == [1, 0, 0.5, 0.125]
    ((start, seed),) = signals("residual", Y, P)
    assert start.tolist() == seed.tolist() == [0.25, -0.25, 0, 0]
    (value, _), (evidence, _) = signals("mass", Y, torch.tensor([NAN, 0.25, 0.5, NAN]))
    assert value.tolist() == [1, 0, 0.5, 0]
    assert evidence.tolist() == [1, 1, 1, 0]


@pytest.mark.parametrize("mode", MODES)
def test_weight_0_and_no_residual_change_nothing(mode):
    p = torch.tensor([0.0, 1e-12, 0.3, 1 - 1e-7, 1.0], dtype=torch.float64)
    assert torch.equal(mix(mode, p, torch.full((5,), 0.8), 0.0), p)
    if mode == "residual":
        assert torch.equal(mix(mode, p, torch.zeros(5), 1.0), p)


def test_mix():
    p, found = torch.tensor([0.5, 0.9, 0.2]), torch.tensor([0.25, 1.0, -1.0])
    assert mix("outcome", p, found, 0.5).tolist() == pytest.approx([0.375, 0.95, -0.4])
    assert mix("residual", p, found, 0.5).tolist() == pytest.approx([0.625, 1 - 1e-6, 1e-6])
    assert mix("mass", torch.tensor([NAN, 0.5]), torch.tensor([0.25, 0.25]), 0.5).tolist() == [0.25, 0.375]


@pytest.mark.parametrize(
    ("error", "match", "mode", "y", "p"),
    [
        (TypeError, "'y' must be a floating point tensor .got torch.int64", "outcome", torch.tensor([1]), P[:1]),
        (TypeError, "'p' must be a floating point tensor .got list", "outcome", Y[:1], [0.5]),
        (ValueError, r"'y' must have one entry per pair, \[1\] .got \[2\]", "outcome", Y[:2], P[:1]),
        (ValueError, r"'p' must have one entry per pair, \[1\] .got \[1, 1\]", "outcome", Y[:1], P[None, :1]),
        (ValueError, "'p' must hold numbers between 0 and 1, NaN .* .got 1.5", "mass", Y[:1], torch.tensor([1.5])),
        (ValueError, "'p' must hold numbers between 0 and 1 .got nan", "residual", Y[:1], torch.tensor([NAN])),
        (ValueError, "'y' must hold numbers between 0 and 1, NaN .* .got -1.0", "mass", torch.tensor([-1.0]), P[:1]),
    ],
)
def test_bad_anchors(error, match, mode, y, p):
    with pytest.raises(error, match=match):
        check_anchors(mode, y, p, 1)


def test_bad_mode():
    assert [check_mode(mode) for mode in MODES] == list(MODES)
    with pytest.raises(ValueError, match="'mode' must be one of .* .got 'logit'"):
        check_mode("logit")
    check_anchors("mass", Y, torch.full((4,), NAN), 4)
