import pytest
from models import MODELS
from resuming import assert_same_result

from graphsparse.loader import FullBatch
from graphsparse.testing import random_graph
from graphsparse.training import build_model, fit


def test_is_training_on_the_graph():
    data = random_graph()
    loader = FullBatch(data, seed=3)
    assert len(loader) == len(list(loader)) == len(list(loader)) == 1
    with_loader, without = (
        fit(build_model(MODELS["GCN"], 0), data, epochs=5, loader=given) for given in (loader, None)
    )
    assert_same_result(with_loader, without)


def test_wants_a_graph():
    with pytest.raises(TypeError, match="'data' must be a torch_geometric Data"):
        FullBatch([random_graph()])
