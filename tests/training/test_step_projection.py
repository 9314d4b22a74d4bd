import pytest
import torch
from models import MODELS

from graphsparse.training.step_projection import StepProjection, check_scope, projections_of, smallest_masks


class Count(StepProjection):
    calls = 0

    def project(self):
        self.calls += 1


def names(model, projection):
    covered = {id(parameter) for parameter in projection.parameters}
    return {name for name, parameter in model.named_parameters() if id(parameter) in covered}


@pytest.mark.parametrize("kind", MODELS)
def test_weights_are_covered_and_biases_and_normalisation_are_not(kind):
    model = MODELS[kind]()
    covered = names(model, Count(torch.optim.SGD(model.parameters())))
    assert covered == {name for name, _ in model.named_parameters() if "bias" not in name and "norm" not in name}


def test_attention_vectors_are_covered():
    model = MODELS["GAT"]()
    assert "convs.0.att_src" in names(model, Count(torch.optim.SGD(model.parameters())))


def test_scalars_are_not_covered_unless_nothing_is_excluded():
    model = torch.nn.Linear(2, 2)
    model.eps = torch.nn.Parameter(torch.tensor(0.5))
    optimizer = torch.optim.SGD(model.parameters())
    assert names(model, Count(optimizer)) == {"weight"}
    assert names(model, Count(optimizer, lambda p: False)) == {"weight", "bias", "eps"}
    assert names(model, Count(optimizer, lambda p: p is model.weight)) == {"bias", "eps"}


def test_tied_and_frozen_parameters():
    model = MODELS["BatchNorm and a tied weight"]()
    assert model.second.lin.weight is model.third.lin.weight
    model.last.weight.requires_grad_(False)
    with pytest.warns(UserWarning, match="duplicate"):
        optimizer = torch.optim.SGD([*model.parameters(), model.second.lin.weight])
    projection = Count(optimizer)
    assert [list(parameter.shape) for parameter in projection.parameters] == [[16, 8], [16, 16]]


def test_runs_after_every_step_until_removed():
    parameter = torch.nn.Parameter(torch.ones(2, 2))
    parameter.grad = torch.ones(2, 2)
    optimizer = torch.optim.SGD([parameter])
    projection = Count(optimizer)
    for expected in (1, 2):
        optimizer.step()
        assert (projection.calls, projection.num_steps) == (expected, expected)
    projection.remove()
    optimizer.step()
    assert projection.calls == 2


def test_masks_of_both_scopes():
    values = [torch.tensor([[5.0, 1.0]]), torch.tensor([[2.0, 1.0, 3.0, 9.0]])]
    half = lambda num: num // 2  # noqa: E731
    found = [mask.tolist() for mask in smallest_masks(values, half, "global")]
    assert found == [[[False, True]], [[True, True, False, False]]]
    found = [mask.tolist() for mask in smallest_masks(values, half, "tensor")]
    assert found == [[[False, True]], [[True, True, False, False]]]
    found = [mask.tolist() for mask in smallest_masks([values[0] + 9, values[1]], half, "global")]
    assert found == [[[False, False]], [[True, True, True, False]]]


def test_bad_input():
    parameter = torch.nn.Parameter(torch.ones(2))
    with pytest.raises(TypeError, match="'optimizer' must be a torch.optim.Optimizer.*list"):
        Count([parameter])
    with pytest.raises(ValueError, match="'optimizer' holds no parameter that 'exclude' leaves"):
        Count(torch.optim.SGD([parameter]))
    with pytest.raises(TypeError, match="'exclude' must be a function.*'bias'"):
        Count(torch.optim.SGD([parameter]), "bias")
    with pytest.raises(ValueError, match="'scope' must be 'global' or 'tensor'.*'layer'"):
        check_scope("layer")


def test_steps_are_part_of_the_state_of_the_optimiser():
    weight = torch.nn.Parameter(torch.ones(2, 2))
    weight.grad = torch.ones(2, 2)
    optimizer = torch.optim.Adam([weight])
    first, second = Count(optimizer), Count(optimizer)
    for _ in range(3):
        optimizer.step()
    state = optimizer.state_dict()
    other = torch.optim.Adam([weight])
    other.load_state_dict(state)  # without a projection what is said of one does not matter
    third, fourth = Count(other), Count(other)
    third.num_steps = fourth.num_steps = 7
    other.load_state_dict(torch.optim.Adam([weight]).state_dict())
    assert (third.num_steps, fourth.num_steps) == (7, 7)
    other.load_state_dict(state)
    assert (third.num_steps, fourth.num_steps) == (first.num_steps, second.num_steps) == (3, 3)
    first.remove()
    assert [key for key in optimizer.state_dict() if "projection" in key] == ["step_projection.1"]


def test_the_projections_of_an_optimiser_and_what_they_keep():
    weight = torch.nn.Parameter(torch.tensor([[1.0, 0.0]]))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    assert projections_of(optimizer) == []
    first, second = Count(optimizer), Count(optimizer)
    assert projections_of(optimizer) == [first, second]
    assert first.optimizer is optimizer
    assert first.holds
    assert first.support()[0].tolist() == [[True, False]]
    first.remove()
    assert projections_of(optimizer) == [second]
