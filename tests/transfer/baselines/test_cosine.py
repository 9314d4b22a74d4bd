import pytest
import torch
import torch.nn.functional as F

from graphsparse.transfer.baselines.cosine import FeatureCosine


def test_equals_the_cosine_of_torch():
    x = torch.randn(20, 7)
    x[3] = 0
    pairs = torch.combinations(torch.arange(20)).t()
    expected = F.cosine_similarity(x[pairs[0]], x[pairs[1]])
    assert torch.allclose(FeatureCosine(x).score(pairs), expected, atol=1e-6)


def test_self_loops_are_refused():
    with pytest.raises(ValueError, match="no self-loops"):
        FeatureCosine(torch.randn(3, 2)).score(torch.tensor([[1], [1]]))
