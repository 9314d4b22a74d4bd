import pytest
import torch

from graphsparse.metrics import auroc, average_precision
from graphsparse.transfer.models.decoders import DotDecoder
from graphsparse.transfer.models.validation import Validation, link_auroc, link_average_precision


def test_metrics_are_those_of_the_package():
    positive, negative = torch.randn(5), torch.randn(20)
    score = torch.cat([positive, negative])
    marked = torch.tensor([True] * 5 + [False] * 20)
    assert link_average_precision(positive, negative) == average_precision(score, marked)
    assert link_auroc(positive, negative) == auroc(score, marked)


def test_pairs_are_scored_links_first():
    h = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    validation = Validation(torch.tensor([[0], [1]]), torch.tensor([[0, 1], [2, 2]]))
    found = validation.judge(DotDecoder(), h, 0)
    assert found.logits.tolist() == [1.0, 0.0, 0.0]
    assert found.val == 1.0


def test_empty_parts_and_scores_that_are_no_numbers():
    pairs = torch.tensor([[0], [1]])
    with pytest.raises(ValueError, match="'split.val' is empty"):
        Validation(pairs[:, :0], pairs)
    with pytest.raises(ValueError, match="'split.val_neg' is empty"):
        Validation(pairs, pairs[:, :0])
    with pytest.raises(FloatingPointError, match="after epoch 7"):
        Validation(pairs, pairs).judge(DotDecoder(), torch.full((2, 2), torch.nan), 7)
