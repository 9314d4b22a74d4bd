import pytest
import torch

from graphsparse.soups.recipes.es2025 import INITS, Es2025, Es2025Coefficients, as_es2025


@pytest.mark.parametrize("init", INITS)
def test_start_is_next_to_uniform_whatever_init_says(init):
    shares = Es2025Coefficients(6, 50, 10.0, Es2025(init=init)).shares()
    assert float((50 * shares - 1).abs().max()) <= 0.1
    torch.testing.assert_close(shares.sum(1), torch.ones(6).double())


def test_learning_rates_of_the_warm_restarts():
    """From the published schedule: 1, 0.854, 0.5, 0.146 for a period of 4, again and again."""
    found = Es2025Coefficients(1, 2, 1.0, Es2025(restart_every=4))
    inner = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    for factor in [1, 0.8536, 0.5, 0.1464] * 2:
        found.scale.grad = torch.tensor(1.0, dtype=torch.float64)
        before = found.scale.item()
        found.step(inner)
        assert before - found.scale.item() == pytest.approx(factor, abs=1e-4)


def test_step_is_that_of_autograd_and_sgd():
    torch.manual_seed(0)
    inner = torch.randn(3, 4, dtype=torch.float64)
    found = Es2025Coefficients(3, 4, 7.0, Es2025(weight_decay=0.01, init="xavier_normal"), seed=5)
    start = torch.nn.init.xavier_normal_(torch.empty(3, 4).double(), generator=torch.Generator().manual_seed(5))
    raw = start.softmax(1).requires_grad_()
    optimizer = torch.optim.SGD([raw], lr=7.0, weight_decay=0.01)
    (raw.softmax(1) * inner).sum().backward()
    optimizer.step()
    found.step(inner)
    torch.testing.assert_close(found.shares(), raw.detach().softmax(1))


@pytest.mark.parametrize(("value", "error"), [("a", TypeError), (-1.0, ValueError), (float("nan"), ValueError)])
def test_weight_decay_must_be_a_number(value, error):
    with pytest.raises(error, match="'weight_decay' must be"):
        Es2025(weight_decay=value)


def test_options():
    assert as_es2025(None) is None
    assert as_es2025("es2025") == Es2025()
    assert as_es2025(Es2025(restart_every=3)).restart_every == 3
    with pytest.raises(ValueError, match="'compat' must be None, 'es2025'"):
        as_es2025("es2024")
    with pytest.raises(ValueError, match="'init' must be one of"):
        Es2025(init="zeros")
    with pytest.raises(ValueError, match="'restart_every' must be at least 1"):
        Es2025(restart_every=0)
