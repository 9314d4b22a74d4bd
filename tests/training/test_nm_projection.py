import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from models import MODELS
from resuming import Kill, assert_same_result, kill_in, no_kill

from graphsparse.testing import random_graph
from graphsparse.training import NMProjection, build_model, fit


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_is_the_nearest_with_so_few_in_every_group(data):
    m = data.draw(st.integers(1, 4))
    n, width = data.draw(st.integers(1, m)), data.draw(st.integers(1, 9))
    values = data.draw(st.lists(st.integers(-3, 3), min_size=2 * width, max_size=2 * width))
    before = torch.tensor(values, dtype=torch.float64).view(2, width)
    weight = torch.nn.Parameter(before.clone())
    projection = NMProjection(torch.optim.SGD([weight], lr=0.1), n, m, exclude=lambda p: False)
    projection.project()
    for row, old in zip(weight.tolist(), before.tolist(), strict=True):
        for start in range(0, width, m):
            group, was = row[start : start + m], old[start : start + m]
            gone = max(len(was) - n, 0)
            best = min(sum(was[i] ** 2 for i in some) for some in itertools.combinations(range(len(was)), gone))
            assert sum((a - b) ** 2 for a, b in zip(group, was, strict=True)) == best
    kept = projection.support()[0]
    assert not weight[~kept].any()
    assert int(kept.sum()) == 2 * (width // m * n + min(width % m, n))


def test_first_of_equal_magnitudes_go():
    weight = torch.nn.Parameter(torch.tensor([[1.0, -1.0, 1.0, -1.0, 2.0, 0.0, 0.0, 0.0]]))
    projection = NMProjection(torch.optim.SGD([weight], lr=0.1), 2, 4)
    projection.project()
    assert weight.tolist() == [[0, 0, 1, -1, 2, 0, 0, 0]]
    assert projection.support()[0].tolist() == [[False, False, True, True, True, False, False, True]]


def test_weights_come_back_and_a_killed_training_goes_on(tmp_path):
    seen = []

    def train(hook, **options):
        def note(optimizer):
            seen.append(NMProjection(optimizer, 1, 4))
            return seen[-1]

        model = build_model(MODELS["GCN"], 0)
        return fit(model, random_graph(), epochs=20, lr=0.05, project=note, after_step=[hook], **options)

    def look(model, epoch):
        kept.append(seen[-1].support()[0])
        assert (kept[-1].view(-1, 4).sum(1) == 1).all()

    kept = []
    train(look)
    assert any((late & ~early).any() for early, late in itertools.pairwise(kept))
    whole, path = train(no_kill), tmp_path / "a.pt"
    with pytest.raises(Kill):
        train(kill_in(9), checkpoint=path, checkpoint_every=2)
    assert_same_result(train(no_kill, checkpoint=path), whole)


def test_bad_input():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(2, 4))])
    for n, m, error, message in [
        (5, 4, ValueError, "'n' must be at most 'm', which is 4 .*5"),
        (0, 4, ValueError, "'n' must be at least 1"),
        (2, 4.0, TypeError, "'m' must be an integer"),
    ]:
        with pytest.raises(error, match=message):
            NMProjection(optimizer, n, m)
    assert not optimizer._optimizer_step_post_hooks
