import torch

from graphsparse.soups.recipes.coefficients import SoftmaxCoefficients, through_softmax


def test_derivative_through_softmax():
    torch.manual_seed(0)
    raw = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    inner = torch.randn(4, 5, dtype=torch.float64)
    (raw.softmax(1) * inner).sum().backward()
    torch.testing.assert_close(through_softmax(raw.detach().softmax(1), inner), raw.grad)


def test_uniform_start_and_steps_of_adam():
    inner = torch.tensor([[1.0, 0.0, -1.0]], dtype=torch.float64)
    found = SoftmaxCoefficients(1, 3, lr=0.2, epochs=4)
    torch.testing.assert_close(found.shares(), torch.full((1, 3), 1 / 3, dtype=torch.float64))
    raw = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([raw], lr=0.2)
    for lr in (0.2, 0.2 * (1 + 0.5**0.5) / 2, 0.1, 0.2 * (1 - 0.5**0.5) / 2):  # along a cosine to 0
        optimizer.param_groups[0]["lr"] = lr
        optimizer.zero_grad()
        (raw.softmax(1) * inner).sum().backward()
        optimizer.step()
        found.step(inner)
        torch.testing.assert_close(found.shares(), raw.detach().softmax(1))
    last = found.shares()
    found.step(inner)
    torch.testing.assert_close(found.shares(), last)  # the rate is 0 now


def test_loss_falls():
    inner = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    found = SoftmaxCoefficients(2, 2, lr=0.1, epochs=20)
    for _ in range(20):
        found.step(inner)
    assert found.shares()[0, 1] > 0.7
    assert found.shares()[1, 0] > 0.7
