import numpy as np
import pytest
import torch

from graphsparse.metrics import accuracy


def test_equals_numpy():
    generator = torch.Generator().manual_seed(0)
    logits, y = torch.randn(50, 4, generator=generator), torch.randint(4, (50,), generator=generator)
    mask = torch.rand(50, generator=generator) < 0.4
    hits = logits.numpy().argmax(1) == y.numpy()
    assert accuracy(logits, y) == np.mean(hits)
    assert accuracy(logits, y, mask) == np.mean(hits[mask.numpy()])


def test_labels_outside_the_mask_do_not_matter():
    logits, y = torch.eye(3), torch.tensor([0, -100, 2])
    assert accuracy(logits, y, torch.tensor([True, False, True])) == 1.0


def test_first_of_equal_logits_counts():
    assert accuracy(torch.zeros(2, 3), torch.tensor([0, 1])) == 0.5


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.float32])
def test_mask_of_numbers_is_refused(dtype):
    """Zeros and ones would pick the first two nodes, again and again."""
    with pytest.raises(TypeError, match="'mask' must be a bool tensor .got torch"):
        accuracy(torch.eye(3), torch.tensor([0, 1, 2]), torch.tensor([1, 0, 1], dtype=dtype))


@pytest.mark.parametrize(
    ("logits", "y", "mask", "message"),
    [
        (torch.zeros(3), torch.zeros(3), None, r"must be \[N, C\] with C > 0, \[N\] and \[N\]"),
        (torch.zeros(3, 2), torch.zeros(3, 1), None, "must be"),
        (torch.zeros(3, 2), torch.zeros(3), torch.ones(2, dtype=torch.bool), "must be"),
        (torch.zeros(3, 2), torch.zeros(3), torch.zeros(3, dtype=torch.bool), "'mask' marks no node"),
        (torch.zeros(0, 2), torch.zeros(0), None, "marks no node"),
    ],
)
def test_bad_input(logits, y, mask, message):
    with pytest.raises(ValueError, match=message):
        accuracy(logits, y, mask)
