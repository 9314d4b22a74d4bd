import pytest
import torch
from models import MODELS, NormAndTie
from torch_geometric.nn import GCNConv

from graphsparse.soups.states.grouping import group_tensors


@pytest.mark.parametrize("kind", MODELS)
def test_every_floating_tensor_once(kind):
    model = MODELS[kind]()
    floats = {name for name, value in model.state_dict().items() if value.is_floating_point()}
    for groups in ("tensor", "layer", "global"):
        found = group_tensors(model, groups)
        assert set(found.trained) == {name for name, _ in model.named_parameters()}
        assert set(found.trained) | set(found.followed) == floats
        assert set(found.trained.values()) == set(range(found.count))
        assert not set(found.trained) & set(found.followed)
    assert group_tensors(model, "tensor").count == len(list(model.parameters()))
    assert group_tensors(model, "global").count == 1


def test_layers_are_convolutions_with_all_that_belongs_to_them():
    found = group_tensors(MODELS["GAT"](), "layer").trained
    assert {name.rpartition("convs.")[2][0] for name in found} == {"0", "1"}
    assert all(group == int(name.split(".")[1]) for name, group in found.items())
    assert group_tensors(MODELS["GCNII"](), "layer").count == 5  # two linear layers and three convolutions
    assert group_tensors(GCNConv(2, 2), "layer").count == 1


def test_a_tied_weight_counts_once():
    model = NormAndTie()
    found = group_tensors(model, "tensor")
    assert found.followed["third.lin.weight"] == (found.trained["second.lin.weight"],)
    assert group_tensors(model, "layer").followed["third.lin.weight"] == (
        group_tensors(model, "layer").trained["second.bias"],
    )


def test_buffers_follow_their_layer():
    model = NormAndTie()
    found = group_tensors(model, "tensor")
    own = tuple(sorted((found.trained["norm.weight"], found.trained["norm.bias"])))
    assert found.followed["norm.running_mean"] == found.followed["norm.running_var"] == own
    assert "norm.num_batches_tracked" not in found.followed
    alone = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2, affine=False))
    assert group_tensors(alone, "tensor").followed["1.running_mean"] == (0, 1)


def test_weights():
    found = group_tensors(NormAndTie(), "tensor")
    shares = torch.rand(found.count, 3).double().softmax(1)
    weights = found.weights(shares)
    assert torch.equal(weights["first.bias"], shares[found.trained["first.bias"]])
    mean = (shares[found.trained["norm.weight"]] + shares[found.trained["norm.bias"]]) / 2
    torch.testing.assert_close(weights["norm.running_mean"], mean)


def test_bad_input():
    with pytest.raises(ValueError, match="'groups' must be one of"):
        group_tensors(NormAndTie(), "row")
    with pytest.raises(ValueError, match="nothing to learn"):
        group_tensors(torch.nn.ReLU(), "tensor")
