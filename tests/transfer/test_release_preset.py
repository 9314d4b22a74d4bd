"""The recurrence of the released code on a graph of six nodes, worked out by hand."""

import pytest
import torch

from graphsparse.transfer.release_preset import release_preset

# Pairs 01, 12, 23 are labelled; 34 and 35 are asked for. In the line graph each neighbours itself and
#   01: 12      12: 01 23      23: 12 34 35      34: 23 35      35: 23 34
# so that the degrees with self-loops are 2, 3, 4, 3, 3.
ANCHORS = torch.tensor([[0, 1, 2], [1, 2, 3]])
QUERIES = torch.tensor([[3, 5], [4, 3]])
Y = torch.tensor([1.0, 1.0, 0.0])
P, P_Q = torch.tensor([0.6, 0.7, 0.4]), torch.tensor([0.5, 0.2])


def by_hand():
    """Five rounds, written out term by term."""
    a, b, c, d, e = 0.6, 0.7, 0.4, 0.5, 0.2
    r6, r12, r9 = 6**0.5, 12**0.5, 3.0
    for _ in range(5):
        a, b, c, d, e = (
            0.995 * (a / 2 + b / r6) + 0.005 * 1.0,
            0.995 * (a / r6 + b / 3 + c / r12) + 0.005 * 1.0,
            0.995 * (b / r12 + c / 4 + d / r12 + e / r12) + 0.005 * 0.0,
            0.995 * (c / r12 + d / 3 + e / r9) + 0.005 * 0.5,
            0.995 * (c / r12 + d / r9 + e / 3) + 0.005 * 0.2,
        )
        a, b, c, d, e = (min(max(value, 1e-9), 1 - 1e-9) for value in (a, b, c, d, e))
    return d, e


def test_six_nodes():
    d, e = by_hand()
    assert 0.2 < e < d < 0.5  # neighbours, and nearer to one another than their scores
    preset = release_preset().fit(ANCHORS, Y, P, 6)
    expected = [0.998 * 0.5 + 0.002 * d, 0.998 * 0.2 + 0.002 * e]
    assert preset.correct(QUERIES, P_Q).tolist() == pytest.approx(expected, abs=1e-7)
    found, evidence = preset.read(QUERIES, P_Q)
    assert found.tolist() == pytest.approx([d, e], abs=1e-6)
    assert evidence.all()


def test_one_round_by_hand():
    preset = release_preset()
    preset.K = 1
    found, _ = preset.fit(ANCHORS, Y, P, 6).read(QUERIES, P_Q)
    # 0.995 * (0.4 / sqrt(12) + 0.5 / 3 + 0.2 / 3) + 0.005 * 0.5
    assert found.tolist() == pytest.approx([0.3495600, 0.3480600], abs=1e-6)


def test_no_pair_moves_by_more_than_the_weight():
    corrected = release_preset().fit(ANCHORS, Y, P, 6).correct(QUERIES, P_Q)
    assert ((corrected - P_Q).abs() <= 0.002).all()
