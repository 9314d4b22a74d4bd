import pytest
import torch
from torch import nn
from torch_geometric.nn import (
    GAT,
    GCN,
    BatchNorm,
    GATv2Conv,
    GENConv,
    GraphNorm,
    PNAConv,
    SAGPooling,
    TopKPooling,
    TransformerConv,
)

from graphsparse.nn.parameter_roles import parameter_roles


def roles(model, **filters):
    return {entry.names[0]: entry.role for entry in parameter_roles(model, **filters)}


def test_attention():
    assert roles(GAT(8, 16, 1, heads=4)) == {
        "convs.0.att_src": "weights",
        "convs.0.att_dst": "weights",
        "convs.0.bias": "zero",
        "convs.0.lin.weight": "weights",
    }
    found = roles(GATv2Conv(8, 4, heads=2, edge_dim=3))
    assert {name for name, role in found.items() if role == "zero"} == {"bias", "lin_l.bias", "lin_r.bias"}
    assert found["att"] == found["lin_edge.weight"] == "weights"
    found = roles(nn.MultiheadAttention(8, 2, add_bias_kv=True))
    assert {name for name, role in found.items() if role == "zero"} == {
        "in_proj_bias",
        "out_proj.bias",
        "bias_k",
        "bias_v",
    }


@pytest.mark.parametrize(
    "norm", [BatchNorm(8), GraphNorm(8), nn.LayerNorm(8), nn.LayerNorm((2, 4)), nn.GroupNorm(2, 8)]
)
def test_normalisation_is_trained(norm):
    found = roles(nn.ModuleList([nn.Linear(8, 8), norm]))
    assert {role for name, role in found.items() if name.startswith("1.")} == {"trained"}
    assert len(found) >= 4


def test_single_numbers_are_trained():
    found = roles(GENConv(8, 8, learn_t=True, learn_p=True, aggr="powermean", norm="layer"))
    assert found["aggr_module.p"] == "trained"
    assert roles(nn.Sequential(nn.Linear(2, 2), nn.PReLU()))["1.weight"] == "trained"


def test_lists_and_dictionaries_of_parameters():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.biases = nn.ParameterList([torch.zeros(3)])
            self.tables = nn.ParameterDict({"a": torch.zeros(2, 2), "bias": torch.zeros(2)})

    assert roles(Model()) == {"biases.0": "zero", "tables.a": "weights", "tables.bias": "zero"}


def test_embeddings_by_columns():
    model = nn.ModuleDict({"atom": nn.Embedding(5, 3), "bag": nn.EmbeddingBag(5, 3), "lin": nn.Linear(3, 3, False)})
    assert roles(model) == {"atom.weight": "columns", "bag.weight": "columns", "lin.weight": "weights"}
    assert roles(model, select=lambda name, p: "atom" in name) == {
        "atom.weight": "columns",
        "bag.weight": "dense",
        "lin.weight": "dense",
    }


def test_what_needs_no_gradient_is_kept():
    model = GCN(8, 16, 2, 3)
    model.convs[0].lin.weight.requires_grad_(False)
    assert roles(model)["convs.0.lin.weight"] == "kept"
    assert roles(model, select=lambda name, p: "lin" in name)["convs.0.lin.weight"] == "weights"


def test_filters():
    model = GCN(8, 16, 2, 3, norm="batch_norm")
    found = roles(model, select=lambda name, p: name == "convs.1.lin.weight" and p.shape == (3, 16))
    assert found == {
        "convs.0.bias": "zero",
        "convs.0.lin.weight": "dense",
        "convs.1.bias": "zero",
        "convs.1.lin.weight": "weights",
        "norms.0.module.weight": "trained",
        "norms.0.module.bias": "trained",
    }
    found = roles(model, train=lambda name, p: name.endswith("convs.0.bias") or name == "convs.0.lin.weight")
    assert found["convs.0.bias"] == found["convs.0.lin.weight"] == "trained"
    assert found["convs.1.bias"] == "zero"
    assert found["convs.1.lin.weight"] == "weights"
    assert roles(model, select=lambda name, p: "bias" in name)["convs.0.bias"] == "weights"


def test_shared_parameters_have_one_role_and_all_names():
    model = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
    model[1].weight = model[0].weight
    first, *_ = parameter_roles(model)
    assert first.names == ("0.weight", "1.weight")
    assert len(parameter_roles(model)) == 3
    shared = nn.Linear(4, 4)
    assert parameter_roles(nn.ModuleDict({"a": shared, "b": shared}))[0].names == ("a.weight", "b.weight")
    # Chosen by any of its names.
    assert roles(model, select=lambda name, p: name == "1.weight")["0.weight"] == "weights"


@pytest.mark.parametrize(
    "conv", [TransformerConv(8, 4, heads=2, beta=True), PNAConv(8, 8, ["sum"], ["identity"], torch.ones(3))]
)
def test_every_parameter_has_a_role(conv):
    assert set(roles(conv)) == {name for name, _ in conv.named_parameters()}


def test_bad_arguments():
    with pytest.raises(TypeError, match="'model' must be a torch module .got function."):
        parameter_roles(lambda: None)
    for name in ("select", "train"):
        with pytest.raises(TypeError, match=f"'{name}' must be a function .*or None .got 'weight'."):
            parameter_roles(GCN(8, 16, 2, 3), **{name: "weight"})
    with pytest.raises(ValueError, match="'select' and 'train' both claim 'convs.0.bias'"):
        parameter_roles(GCN(8, 16, 2, 3), select=lambda n, p: True, train=lambda n, p: True)
    with pytest.raises(ValueError, match="nothing is masked: 'select' chose no parameter"):
        parameter_roles(GCN(8, 16, 2, 3), select=lambda n, p: False)
    with pytest.raises(ValueError, match="nothing is masked: 'model' has no matrix"):
        parameter_roles(nn.BatchNorm1d(3))
    with pytest.raises(ValueError, match="one forward pass first, .*'convs.0.lin.weight' without"):
        parameter_roles(GCN(-1, 16, 2, 3))
    with pytest.raises(ValueError, match="'weight' of type torch.complex64, which cannot be masked"):
        parameter_roles(nn.Linear(2, 2, dtype=torch.complex64))


def test_single_numbers_and_what_is_divided_by_its_length_are_trained():
    model = nn.ModuleDict(
        {
            "sag": SAGPooling(8),
            "top": TopKPooling(8),
            "one": nn.Linear(1, 1),
            "scales": nn.ParameterList([torch.ones(()), torch.ones(1), torch.ones(1, 1), torch.ones(1, 1, 1)]),
            "layer_scale": nn.ParameterList([torch.ones(8)]),
            "attention": nn.ParameterList([torch.ones(1, 8)]),
        }
    )
    masked = [entry.names[0] for entry in parameter_roles(model) if entry.role == "weights"]
    assert sorted(masked) == ["attention.0", "sag.gnn.lin_rel.weight", "sag.gnn.lin_root.weight"]
    trained = {entry.names[0] for entry in parameter_roles(model) if entry.role == "trained"}
    scales = {f"scales.{i}" for i in range(4)}
    assert trained == {"sag.select.weight", "top.select.weight", "one.weight", "layer_scale.0", *scales}
