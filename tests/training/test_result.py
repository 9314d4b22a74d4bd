import dataclasses

import pytest
import torch

from graphsparse.training import FitResult


def test_a_result_cannot_be_changed_and_is_not_compared_by_value():
    result = FitResult({"w": torch.ones(2)}, torch.ones(2, 3), 1, 3, "accuracy", 0.5, 0.6, None, [{"epoch": 0.0}])
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.val = 1.0
    # Comparing tensors gives no truth value; two results are the same only if they are one.
    assert result != dataclasses.replace(result)
