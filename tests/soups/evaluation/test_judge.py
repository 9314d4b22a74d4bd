import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch_geometric.data import Data

from graphsparse.soups.evaluation.judge import Judge, correct, halves, judged_nodes
from graphsparse.testing import random_graph


def graph(y, mask):
    edges = torch.zeros(2, 0, dtype=torch.long)
    return Data(x=torch.zeros(len(y), 1), edge_index=edges, y=torch.tensor(y), val_mask=torch.tensor(mask))


def test_no_label_is_left_but_those_that_judge():
    data = random_graph()
    before = data.y.clone()
    judged = judged_nodes(data, "val_mask")
    assert torch.equal(judged.data.y[data.val_mask], before[data.val_mask])
    assert bool((judged.data.y[~data.val_mask] == -1).all())
    assert not [name for name in judged.data.keys() if name.endswith("_mask")]  # noqa: SIM118
    assert torch.equal(judged.data.mask, data.val_mask)
    assert torch.equal(judged.nodes, data.val_mask.nonzero().view(-1))
    assert torch.equal(judged.y, before[data.val_mask])
    assert torch.equal(data.y, before)
    assert "val_mask" in data
    assert "mask" not in data


def test_hidden_labels_of_several_tasks_are_no_numbers():
    data = random_graph()
    data.y = torch.ones(60, 2)
    judged = judged_nodes(data, data.val_mask)
    assert bool(judged.data.y[~data.val_mask].isnan().all())
    assert judged.y.shape == (20, 2)


@given(st.lists(st.integers(0, 3), min_size=2, max_size=40), st.integers(0, 99))
def test_halves_are_disjoint_and_balanced_in_every_class(y, seed):
    judged = judged_nodes(graph(y, [True] * len(y)), "val_mask")
    first, second = halves(judged, seed)
    both = torch.cat([first.nodes, second.nodes])
    assert torch.equal(both.sort().values, judged.nodes)
    assert abs(first.nodes.numel() - second.nodes.numel()) <= 1
    for label in set(y):
        counts = [int((part.y == label).sum()) for part in (first, second)]
        assert abs(counts[0] - counts[1]) <= 1
    again, _ = halves(judged, seed)
    assert torch.equal(again.nodes, first.nodes)


def test_the_halves_do_not_know_the_labels_of_each_other():
    first, second = halves(judged_nodes(random_graph(), "val_mask"), 0)
    assert bool((first.data.y[second.nodes] == -1).all())
    assert bool((second.data.y[first.nodes] == -1).all())


@pytest.mark.parametrize(
    ("mask", "error", "message"),
    [
        ("other", ValueError, "no 'other'"),
        (torch.ones(60), TypeError, "bool tensor"),
        (torch.ones(59, dtype=torch.bool), ValueError, r"\[59\]"),
        (torch.zeros(60, dtype=torch.bool), ValueError, "marks no node"),
    ],
)
def test_masks_that_judge_nothing(mask, error, message):
    with pytest.raises(error, match=message):
        judged_nodes(random_graph(), mask)


def test_one_node_cannot_be_halved():
    with pytest.raises(ValueError, match="at least two nodes"):
        halves(judged_nodes(graph([0, 1], [True, False]), "val_mask"), 0)


def test_other_objects():
    with pytest.raises(TypeError, match="'data' must be"):
        judged_nodes({"x": 1}, "val_mask")


def test_what_is_no_number_is_never_correct():
    logits = torch.tensor([[0.0, 1.0], [torch.nan, 1.0], [1.0, torch.nan], [1.0, 1.0]])
    assert correct(logits, torch.tensor([1, 1, 0, 0])).tolist() == [True, False, False, True]


@given(st.data())
def test_nobody_who_would_exceed_the_floor_is_given_up(data):
    size, num = data.draw(st.integers(1, 30)), data.draw(st.integers(1, 4))
    floor = data.draw(st.sampled_from([-1.0, 0.0, 0.3, 0.5, 0.9, 1.0]))
    right = [[data.draw(st.booleans()) for _ in range(size)] for _ in range(num)]
    block = data.draw(st.integers(1, size))
    y = torch.zeros(size, dtype=torch.long)
    judge = Judge(y, num, floor)
    for start in range(0, size, block):
        rows = slice(start, min(start + block, size))
        for i in judge.hopeful():
            wrong = torch.tensor([0.0 if hit else 1.0 for hit in right[i][rows]])
            judge.add(i, rows, torch.stack([0.5 * torch.ones_like(wrong), wrong], 1))
    for i, score in enumerate(judge.scores()):
        expected = sum(right[i]) / size
        assert score == expected or (score is None and expected <= floor)


def test_other_metrics_see_all_logits_and_give_up_nobody():
    seen = []

    def metric(logits, y):
        seen.append((logits, y))
        return float(logits.sum())

    judge = Judge(torch.arange(3), 2, floor=1e9, metric=metric)
    for i in (0, 1):
        judge.add(i, slice(0, 2), torch.full((2, 1), float(i + 1)))
        assert judge.hopeful() == [0, 1]
        judge.add(i, slice(2, 3), torch.full((1, 1), 10.0))
    assert judge.scores() == [12.0, 14.0]
    assert seen[0][0].shape == (3, 1)
