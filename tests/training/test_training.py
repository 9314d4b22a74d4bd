import dataclasses

import pytest
import torch
from resuming import Kill, kill_in, no_kill
from torch_geometric.nn import GCN

from graphsparse.testing import random_graph
from graphsparse.training import FixedMask, HeldMask, L0Projection, NodeTask, Training, build_model, fit


def gcn(dropout=0.0):
    return build_model(lambda: GCN(8, 16, 2, 3, dropout=dropout), 0)


def test_long_and_short_form_are_the_same():
    data, options = random_graph(), {"epochs": 5, "lr": 0.03, "weight_decay": 1e-3, "seed": 2, "eval_every": 2}
    long = fit(gcn(0.5), NodeTask(data), Training(**options))
    short = fit(gcn(0.5), data, **options)
    assert long.history == short.history
    assert torch.equal(long.logits, short.logits)


def test_an_optimiser_and_a_schedule_of_ones_own():
    data, by_hand, model = random_graph(), gcn(), gcn()
    optimizer = torch.optim.SGD(by_hand.parameters(), lr=0.5, momentum=0.9, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 2)
    expected = fit(by_hand, data, epochs=5, optimizer=optimizer, scheduler=schedule)

    def make(parameters, lr, weight_decay):
        made = torch.optim.SGD(parameters, lr=lr, momentum=0.9, weight_decay=weight_decay)
        return made, torch.optim.lr_scheduler.StepLR(made, 2)

    found = fit(model, data, Training(epochs=5, lr=0.5, weight_decay=1e-2, optimizer=make))
    assert found.history == expected.history
    with pytest.raises(TypeError, match="'optimizer' must make a torch.optim.Optimizer .got list"):
        fit(model, data, Training(optimizer=lambda parameters, lr, weight_decay: parameters))


def test_only_what_needs_a_gradient_is_trained():
    model = gcn()
    model.convs[0].lin.weight.requires_grad_(False)
    optimizer, schedule = Training().make_optimizer(model)
    assert len(optimizer.param_groups[0]["params"]) == 3
    assert schedule is None


BAD = {
    "epochs": (0, ValueError, "'epochs' must be at least 1"),
    "eval_every": (1.5, TypeError, "'eval_every' must be an integer"),
    "patience": (0, ValueError, "'patience' must be at least 1"),
    "seed": ("a", TypeError, "'seed' must be an integer"),
    "lr": (-1.0, ValueError, "'lr' must"),
    "weight_decay": ("much", TypeError, "'weight_decay' must"),
    "optimizer": ("adam", TypeError, "'optimizer' must be a function"),
    "log": (3, TypeError, "'log' must be a function"),
    "checkpoint": (3, TypeError, "'checkpoint' must be a path .got 3"),
    "checkpoint_every": (3, ValueError, "'checkpoint_every' is 3, but there is no 'checkpoint'"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_fields(name):
    value, error, message = BAD[name]
    with pytest.raises(error, match=message):
        Training(**{name: value})


def test_fields_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Training().lr = 1.0


@pytest.mark.parametrize("steps", [4, 9, 10])
def test_no_epoch_within_a_ramp_is_the_best(steps):
    """The validation metric falls from epoch to epoch, so that without the law the first epoch would be the best."""
    values = iter(range(100, 0, -1))
    projections = []

    def project(optimizer):
        projections.append(L0Projection(optimizer, 0.9, schedule="cubic", total_steps=steps))
        return projections[0]

    result = fit(gcn(), random_graph(), epochs=10, project=project, metric=lambda *_: next(values))
    assert result.best_epoch == steps - 1
    kept = result.weight_masks
    assert list(kept) == ["convs.0.lin.weight", "convs.1.lin.weight"]
    total = sum(mask.numel() for mask in kept.values())
    assert sum(int((~mask).sum()) for mask in kept.values()) == int(0.9 * total)
    for name, mask in kept.items():
        assert not result.state_dict[name][~mask].any()


def test_a_ramp_that_never_ends_is_an_error():
    """Before the first step where the number of steps is known, else at the end."""

    class Late(FixedMask):
        holds = False

    project = lambda optimizer: L0Projection(optimizer, 0.9, schedule="cubic", total_steps=11)  # noqa: E731
    two = lambda optimizer: (FixedMask(optimizer, 0.5), project(optimizer))[1]  # noqa: E731
    steps = []
    for given, options in ((project, {}), (two, {}), (project, {"eval_every": 4, "patience": 2})):
        with pytest.raises(ValueError, match="the ramp of a projection takes 11 steps, but 10 epochs have at most 10"):
            fit(gcn(), random_graph(), epochs=10, project=given, after_step=[lambda *_: steps.append(1)], **options)
    assert not steps
    batches = [random_graph(seed=seed) for seed in range(2)]
    fit(gcn(), random_graph(), epochs=6, loader=batches, project=project)  # 12 steps
    batches[0].train_mask[:] = False  # is passed over, so that there are 6 of 12 steps
    for given, options in ((project, {"loader": batches}), (lambda optimizer: Late(optimizer, 0.5), {})):
        with pytest.raises(ValueError, match="no evaluated epoch of 6 counts: a projection had not reached its spars"):
            fit(gcn(), random_graph(), epochs=6, project=given, **options)


@pytest.mark.parametrize("options", [{}, {"eval_every": 3}, {"patience": 2}])
def test_no_epoch_counts_before_every_projection_holds(options, tmp_path):
    """The best figures come first, and the one that is chosen is the best of those at the full sparsity."""

    def both(optimizer):
        L0Projection(optimizer, 0.5, schedule="cubic", total_steps=4)
        return L0Projection(optimizer, 0.9, schedule="cubic", total_steps=7)

    def run(hook=no_kill, **more):
        values = iter(range(100, 0, -1))
        return fit(
            gcn(),
            random_graph(),
            epochs=12,
            project=both,
            metric=lambda *_: next(values),
            after_step=[hook],
            **options,
            **more,
        )

    whole = run()
    assert whole.best_epoch == (8 if "eval_every" in options else 6)
    total = sum(mask.numel() for mask in whole.weight_masks.values())
    assert sum(int((~mask).sum()) for mask in whole.weight_masks.values()) == int(0.9 * total)
    with pytest.raises(Kill):
        run(kill_in(5), checkpoint=tmp_path / "a", checkpoint_every=1)
    assert run(checkpoint=tmp_path / "a").best_epoch == whole.best_epoch


def test_a_kept_weight_that_is_0_is_no_removed_one():
    """The mask of every projection is a state of its own, which is not read off the zeros."""

    def stop(model, epoch):
        model.convs[0].lin.weight.data[0] = 0  # after the projection

    masks = {
        "random": lambda o: FixedMask(o, 0.5),
        "held": lambda o: HeldMask(o, [torch.rand(p.shape) < 0.5 for p in o.param_groups[0]["params"] if p.dim() > 1]),
    }
    for name, project in masks.items():
        made = []

        def attach(optimizer, project=project, made=made):
            made.append(project(optimizer))
            return made[0]

        result = fit(gcn(), random_graph(), epochs=6, project=attach, after_step=[stop])
        kept = result.weight_masks["convs.0.lin.weight"]
        assert not result.state_dict["convs.0.lin.weight"][0].any(), name
        assert kept[0].any()
        assert torch.equal(kept, made[0].support()[0])


def test_patience_begins_when_the_ramp_is_over():
    project = lambda optimizer: L0Projection(optimizer, 0.9, schedule="cubic", total_steps=6)  # noqa: E731
    values = iter(range(100, 0, -1))
    result = fit(gcn(), random_graph(), epochs=20, project=project, metric=lambda *_: next(values), patience=3)
    assert (result.best_epoch, result.epochs_run) == (5, 9)


def test_a_projection_of_the_short_form_leaves_the_optimiser_of_the_user():
    model = gcn()
    optimizer = torch.optim.Adam(model.parameters())
    fit(model, random_graph(), epochs=2, optimizer=optimizer, project=lambda o: L0Projection(o, 0.5))
    assert "step_projection" not in optimizer.state_dict()


def test_hooks_before_a_step_see_its_gradient():
    seen = []
    hook = lambda model, epoch: seen.append((epoch, float(model.convs[0].lin.weight.grad.abs().sum())))  # noqa: E731
    fit(gcn(), random_graph(), epochs=3, before_step=[hook])
    assert [epoch for epoch, _ in seen] == [0, 1, 2]
    assert all(size > 0 for _, size in seen)
