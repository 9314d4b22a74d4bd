import pytest
import torch
import torch.nn.functional as F

from graphsparse.transfer.models.distil_loss import embedding_loss, logit_loss


def test_embedding_loss_does_not_depend_on_the_scale():
    f, h = torch.randn(6, 4), torch.randn(6, 4)
    assert torch.allclose(embedding_loss(f, h), embedding_loss(100 * f, 100 * h))
    assert torch.allclose(embedding_loss(f, h), ((f - h) ** 2).sum() / (h**2).sum())


def test_batches_with_one_scale_add_up():
    f, h = torch.randn(6, 4), torch.randn(6, 4)
    scale = h.square().mean()
    parts = [embedding_loss(f[part], h[part], scale) for part in (slice(0, 3), slice(3, 6))]
    assert torch.allclose(sum(parts) / 2, embedding_loss(f, h))


def test_no_gradient_reaches_the_teacher():
    f, h = torch.randn(6, 4, requires_grad=True), torch.randn(6, 4, requires_grad=True)
    (embedding_loss(f, h) + logit_loss(f[:, 0], h[:, 0], 2.0)).backward()
    assert f.grad is not None
    assert h.grad is None


def test_logit_loss_is_least_for_equal_scores():
    s, t = torch.randn(50), torch.randn(50)
    expected = F.binary_cross_entropy(torch.sigmoid(s / 2), torch.sigmoid(t / 2))
    assert torch.allclose(logit_loss(s, t, 2.0), expected, atol=1e-6)
    assert logit_loss(t, t) < logit_loss(s, t)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="'student' must have the shape of 'teacher'"):
        embedding_loss(torch.zeros(3, 1), torch.zeros(3, 2))
