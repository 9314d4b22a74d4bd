import torch
from hypothesis import given
from hypothesis import strategies as st

from graphsparse.soups.evaluation.judge import Judge, correct


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
