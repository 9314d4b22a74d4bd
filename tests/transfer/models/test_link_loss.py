import torch
import torch.nn.functional as F

from graphsparse.transfer.models.link_loss import link_loss


def test_equals_two_cross_entropies():
    positive, negative = torch.randn(5), torch.randn(20)
    expected = F.binary_cross_entropy_with_logits(positive, torch.ones(5)) + F.binary_cross_entropy_with_logits(
        negative, torch.zeros(20)
    )
    assert torch.allclose(link_loss(positive, negative), expected)


def test_number_of_negatives_does_not_matter():
    positive, negative = torch.randn(5), torch.randn(4)
    assert torch.allclose(link_loss(positive, negative), link_loss(positive, negative.repeat(7)))


def test_weight_zero_equals_no_link_and_is_finite_for_huge_logits():
    positive, negative = torch.tensor([0.3, -2.0, 1.0]), torch.randn(4)
    weight = torch.tensor([1.0, 0.0, 1.0])
    assert torch.allclose(link_loss(positive, negative, weight), link_loss(positive[[0, 2]], negative))
    assert link_loss(torch.tensor([-1e4]), torch.tensor([1e4])) == 2e4
