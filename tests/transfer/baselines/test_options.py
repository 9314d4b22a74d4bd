from dataclasses import FrozenInstanceError

import pytest
from torch_geometric.nn import GCN

from graphsparse.transfer.baselines.options import BaselineOptions


def test_small_options_and_encoders():
    options = BaselineOptions.small(epochs=7, student_epochs=9)
    assert (options.training.epochs, options.student_training.epochs) == (7, 9)
    assert options.training.lr == options.student_training.lr == 5e-3
    assert options.make_encoder()(10).hidden_channels == 64
    assert isinstance(BaselineOptions(encoder=lambda f: GCN(f, 4, 2)).make_encoder()(3), GCN)
    with pytest.raises(FrozenInstanceError):
        options.hidden = 3


@pytest.mark.parametrize(
    ("error", "message", "options"),
    [
        (TypeError, "'hidden' must be an integer", {"hidden": 2.5}),
        (ValueError, "'batch_size' must be at least 1", {"batch_size": 0}),
        (TypeError, "'student_training' must be a LinkTraining .got dict", {"student_training": {}}),
    ],
)
def test_what_is_refused(error, message, options):
    with pytest.raises(error, match=message):
        BaselineOptions(**options)
