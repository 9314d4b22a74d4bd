import pytest
import torch
from scipy.special import rel_entr, softmax

from graphsparse.training import distillation_loss


def logits(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_is_the_divergence_of_the_student_from_the_teacher(temperature):
    student, teacher = logits(0, 7, 4), logits(1, 7, 4)
    p, q = (softmax(z.numpy() / temperature, axis=1) for z in (teacher, student))
    expected = temperature**2 * rel_entr(p, q).sum(axis=1).mean()
    assert float(distillation_loss(student, teacher, temperature)) == pytest.approx(expected, rel=1e-12)
    backwards = temperature**2 * rel_entr(q, p).sum(axis=1).mean()
    assert abs(expected - backwards) > 1e-3  # so the direction matters


def test_zero_only_for_equal_predictions():
    student = logits(0, 5, 3)
    assert float(distillation_loss(student, student)) == 0
    assert float(distillation_loss(student, student + 7)) == pytest.approx(0, abs=1e-12)  # softmax ignores the shift
    assert float(distillation_loss(student, logits(1, 5, 3))) > 0


def test_gradient_reaches_the_student_alone():
    student, teacher = logits(0, 5, 3).requires_grad_(), logits(1, 5, 3).requires_grad_()
    distillation_loss(student, teacher).backward()
    assert teacher.grad is None
    expected = (student.softmax(1) - teacher.softmax(1)) / 5
    torch.testing.assert_close(student.grad, expected.detach())


def test_gradient_keeps_its_size_at_high_temperature():
    student, teacher = (z - z.mean(1, keepdim=True) for z in (logits(0, 5, 4), logits(1, 5, 4)))
    student.requires_grad_()
    distillation_loss(student, teacher, 1e5).backward()
    # Hinton et al., Section 2.1: matching logits is the limit.
    torch.testing.assert_close(student.grad, (student.detach() - teacher) / (5 * 4), rtol=1e-3, atol=1e-6)


def test_certain_predictions_stay_finite():
    student = torch.tensor([[1000.0, 0.0]], requires_grad=True)
    loss = distillation_loss(student, torch.tensor([[1000.0, -1000.0]]))
    loss.backward()
    assert float(loss.detach()) == 0
    assert student.grad.isfinite().all()


@pytest.mark.parametrize(
    ("student", "teacher", "temperature", "message"),
    [
        (torch.zeros(3, 2), torch.zeros(3, 4), 1.0, r"must both be \[N, C\].*\[3, 2\] and \[3, 4\]"),
        (torch.zeros(3), torch.zeros(3), 1.0, "must both be"),
        (torch.zeros(0, 2), torch.zeros(0, 2), 1.0, "at least one node"),
        (torch.zeros(3, 2), torch.zeros(3, 2), 0.0, "'temperature' must be positive"),
        (torch.zeros(3, 2), torch.zeros(3, 2), float("nan"), "'temperature' must be positive"),
    ],
)
def test_bad_input(student, teacher, temperature, message):
    with pytest.raises(ValueError, match=message):
        distillation_loss(student, teacher, temperature)
