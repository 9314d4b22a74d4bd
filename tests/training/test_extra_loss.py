import pytest
import torch

from graphsparse.training.extra_loss import add_extra_loss


def test_term_is_added_and_has_a_gradient():
    logits = torch.ones(2, 3, requires_grad=True)
    seen = []
    loss = add_extra_loss(torch.tensor(1.0), lambda *args: seen.append(args) or logits.sum(), logits, "batch", 4)
    assert float(loss.detach()) == 7
    loss.backward()
    assert logits.grad.sum() == 6
    assert seen[0][1:] == ("batch", 4)


def test_no_term():
    loss = torch.tensor(1.0)
    assert add_extra_loss(loss, None, torch.ones(1), None, 0) is loss


@pytest.mark.parametrize("value", [1.0, torch.ones(2), None])
def test_a_term_that_is_no_scalar(value):
    with pytest.raises(ValueError, match="'extra_loss' must return a scalar tensor"):
        add_extra_loss(torch.tensor(1.0), lambda *_: value, torch.ones(1), None, 0)
