"""A projection goes with its optimiser, or a step says that it cannot: no weight is left unprojected without a word."""

import copy
import pickle
from functools import partial

import pytest
import torch
from torch import nn

from graphsparse.testing import random_graph
from graphsparse.training import (
    DropAndGrow,
    FixedMask,
    HeldMask,
    L0Projection,
    Masks,
    NMProjection,
    StepProjection,
    clipped_adam,
    fit,
)


def make_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))


def train(model, optimizer, steps=4, dtype=torch.float32):
    torch.manual_seed(1)
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(20, 8, dtype=dtype)).square().sum().backward()
        optimizer.step()


def zeros(model):
    return sum(int((weight == 0).sum()) for weight in model.parameters() if weight.dim() > 1)


class Halve(StepProjection):
    """Keeps the second half of every row."""

    def project(self):
        for weight in self.parameters:
            weight.data[:, : weight.size(1) // 2] = 0


def held(optimizer, model):
    half = {name: torch.arange(p.numel()).view(p.shape) % 2 == 0 for name, p in model.named_parameters() if p.dim() > 1}
    return Masks(half).hold(model, optimizer)


PROJECTIONS = {
    "l0": lambda optimizer, model: L0Projection(optimizer, 0.5),
    "a ramp": lambda optimizer, model: L0Projection(optimizer, 0.5, schedule="cubic", total_steps=6),
    "frozen": lambda optimizer, model: L0Projection(optimizer, 0.5, freeze_after=2),
    "random": lambda optimizer, model: FixedMask(optimizer, 0.5),
    "moving": lambda optimizer, model: DropAndGrow(optimizer, 0.5, end=9, every=3, accumulate=2),
    "2:4": lambda optimizer, model: NMProjection(optimizer),
    "held": lambda optimizer, model: HeldMask(optimizer, [torch.rand(16, 8) < 0.5, torch.rand(4, 16) < 0.5]),
    "masks of a model": held,
    "one of a user": lambda optimizer, model: Halve(optimizer),
    "two": lambda optimizer, model: (FixedMask(optimizer, 0.2), L0Projection(optimizer, 0.5)),
}
OPTIMIZERS = {
    "Adam": partial(torch.optim.Adam, lr=0.05),
    "SGD": partial(torch.optim.SGD, lr=0.01, momentum=0.9),
    "clipped": lambda parameters: clipped_adam(list(parameters), 0.05, 0.0, clip=0.1),
}
COPIES = {"deepcopy": copy.deepcopy, "pickle": lambda given: pickle.loads(pickle.dumps(given))}


def start(name="l0", optimizer="Adam"):
    model = make_model()
    made = OPTIMIZERS[optimizer](model.parameters())
    PROJECTIONS[name](made, model)
    return model, made


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", PROJECTIONS)
def test_a_copy_goes_on_as_the_original_does(name, optimizer, how):
    pair = start(name, optimizer)
    train(*pair, steps=3)
    other = COPIES[how](pair)
    again = COPIES[how](other)  # and a copy of the copy
    for model, made in (pair, other, again):
        train(model, made)
        for ours, theirs in zip(model.parameters(), pair[0].parameters(), strict=True):
            assert torch.equal(ours, theirs)
    assert zeros(pair[0]) > 80
    other[1].load_state_dict(copy.deepcopy(pair[1].state_dict()))
    train(*other, steps=1)
    train(*pair, steps=1)
    assert torch.equal(other[0][0].weight, pair[0][0].weight)


def test_what_is_not_copied_stays_as_it_is():
    model, optimizer = start("two")
    other = copy.deepcopy((model, optimizer))[1]
    for projection in optimizer.defaults["step_projection"]:
        projection.remove()
    assert not optimizer.state_dict().keys() & {"step_projection", "step_projection.1"}
    assert {"step_projection", "step_projection.1"} <= other.state_dict().keys()
    assert "step_projection" not in optimizer.defaults


@pytest.mark.parametrize("name", PROJECTIONS)
def test_a_parameter_that_comes_later(name):
    model, optimizer = start(name)
    extra = nn.Linear(16, 16)
    optimizer.add_param_group({"params": [extra.bias]})  # is not projected
    train(model, optimizer)
    assert "step_projection" not in optimizer.state_dict()["param_groups"][1]
    optimizer.add_param_group({"params": [extra.weight]})
    if name == "masks of a model":  # says of which weights it holds some
        train(model, optimizer)
        return
    with pytest.raises(ValueError, match=r"does not project, of the shapes \[\[16, 16\]\]: remove"):
        train(model, optimizer)


def test_a_frozen_parameter_that_is_trained_later():
    model = make_model()
    model[0].weight.requires_grad_(False)
    optimizer = torch.optim.Adam(model.parameters())
    L0Projection(optimizer, 0.5)
    train(model, optimizer)
    model[0].weight.requires_grad_(True)
    with pytest.raises(ValueError, match=r"L0Projection does not project, of the shapes \[\[16, 8\]\]"):
        train(model, optimizer)


@pytest.mark.parametrize("steps", [0, 3])
@pytest.mark.parametrize("name", PROJECTIONS)
def test_parameters_that_are_exchanged(name, steps):
    model, optimizer = start(name)
    train(model, optimizer, steps)
    model.load_state_dict(make_model().state_dict(), assign=True)
    with pytest.raises(ValueError, match="projects has a gradient: parameters of the model that were exchanged"):
        train(model, optimizer)


@pytest.mark.parametrize("name", PROJECTIONS)
def test_other_values_types_and_schedules_are_projected(name):
    model, optimizer = start(name)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 2)  # wraps optimizer.step
    train(model, optimizer)
    schedule.step()
    before = zeros(model)
    for parameter in model.parameters():
        parameter.data = torch.randn_like(parameter)
    train(model, optimizer)
    assert zeros(model) >= before > 0
    model.load_state_dict(make_model().state_dict())
    model.double()
    optimizer.state.clear()  # Adam's moments are of the old type
    train(model, optimizer, dtype=torch.float64)
    assert zeros(model) >= before


def test_another_shape_than_that_of_the_mask():
    model, optimizer = start("random")
    model[2].weight.data = torch.randn(3, 16)
    model[2].bias.data = torch.randn(3)
    with pytest.raises(ValueError, match=r"has the shape \[3, 16\] now, but its mask \[4, 16\]"):
        train(model, optimizer)


def weight_norm(model, epoch):
    nn.utils.parametrizations.weight_norm(model.lin)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.lin = nn.Linear(8, 16), nn.Linear(16, 3)

    def forward(self, x, edge_index):
        return self.lin(self.first(x).relu())


class Symmetric(nn.Module):
    def forward(self, weight):
        return weight.triu() + weight.triu(1).mT


def test_fit_knows_the_model():
    def project(optimizer):
        return L0Projection(optimizer, 0.5)

    with pytest.raises(ValueError, match="'lin.weight' of 'model' is another parameter now"):
        fit(Net(), random_graph(), epochs=3, project=project, after_step=[weight_norm])
    model = Net()
    model.first = nn.Linear(8, 8)
    model.lin = nn.Linear(8, 3)
    nn.utils.parametrize.register_parametrization(model.first, "weight", Symmetric())
    with pytest.raises(ValueError, match=r"'first.parametrizations.weight.original' \(torch.nn.utils.parametrize\)"):
        fit(model, random_graph(), epochs=3, project=project)
