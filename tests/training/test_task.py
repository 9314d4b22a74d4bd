import pytest
import torch

from graphsparse.training.task import add_extra


def test_term_is_added_and_has_a_gradient():
    logits = torch.ones(2, 3, requires_grad=True)
    loss = add_extra(torch.tensor(1.0), torch.sum, logits)
    assert float(loss.detach()) == 7
    loss.backward()
    assert logits.grad.sum() == 6
    assert add_extra(loss, None, logits) is loss


@pytest.mark.parametrize("value", [1.0, torch.ones(2), None])
def test_a_term_that_is_no_scalar(value):
    with pytest.raises(ValueError, match="'extra_loss' must return a scalar tensor"):
        add_extra(torch.tensor(1.0), lambda _: value, torch.ones(1))
