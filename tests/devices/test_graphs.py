"""Graphs and layers on a device that is not the CPU give what they give on the CPU."""

import pytest
import torch
from both_devices import assert_equal, there
from models import MODELS
from torch_geometric.nn import GAT, GCN, GIN, GraphSAGE
from torch_geometric.utils import to_torch_csr_tensor

from graphsparse.edges import edge_score, sparsify_edge
from graphsparse.metrics import (
    accuracy,
    auroc,
    average_precision,
    compare_graphs,
    edge_sparsity,
    energy_score,
    expected_calibration_error,
    fpr_at_recall,
    max_softmax_score,
    mean_average_distance,
    weight_sparsity,
)
from graphsparse.nn import Supermask, accelerate, layerwise_inference, to_csr
from graphsparse.ops import Adjacency, spmm
from graphsparse.testing import random_graph
from graphsparse.transforms import PerturbEdges, PerturbFeatures, ReorderNodes, SparsifyEdges

pytestmark = pytest.mark.cuda

LAYERS = {
    **MODELS,
    "GCN": lambda: GCN(8, 16, 2, 3),
    "SAGE max": lambda: GraphSAGE(8, 16, 2, 3, aggr="max"),
    "GIN eps": lambda: GIN(8, 16, 2, 3, train_eps=True, norm="batch_norm"),
    "GAT v1 residual": lambda: GAT(8, 16, 2, 3, heads=2, residual=True),
}


def backward(model, *args):
    """Return the output and all gradients of the parameters."""
    torch.manual_seed(0)
    model.eval()
    out = model(*args)
    out.square().sum().backward()
    return {"out": out, **{name: parameter.grad for name, parameter in model.named_parameters()}}


@pytest.mark.parametrize("form", ["edge_index", "CSR", "Adjacency"])
@pytest.mark.parametrize("name", LAYERS)
def test_layers(name, form, device):
    data = random_graph()
    model = accelerate(LAYERS[name]())
    results = []
    for where in ("cpu", device):
        edges = there(data.edge_index, where)
        if form == "CSR":
            edges = to_torch_csr_tensor(edges.flip(0), size=(60, 60))
        elif form == "Adjacency":
            edges = Adjacency.from_edge_index(edges, None, 60)
        results.append(backward(there(model, where), there(data.x, where), edges))
    assert_equal(results[1], results[0], 1e-3, device)


@pytest.mark.parametrize("reduce", ["sum", "mean", "max", "min"])
def test_adjacency_and_products(reduce, device):
    data, weight = random_graph(), torch.rand(random_graph().num_edges)
    results = []
    for where in ("cpu", device):
        adj = Adjacency.from_edge_index(there(data.edge_index, where), there(weight, where), 60)
        x = there(data.x, where).requires_grad_()
        out = spmm(adj, x, reduce)
        out.square().sum().backward()
        products = spmm(adj.gcn_norm().t(), x.detach())
        results.append({"out": out, "grad": x.grad, "products": products, "value": adj.value, "col": adj.col})
    assert_equal(results[1], results[0], device=device)


@pytest.mark.parametrize("name", ["random", "degree", "teddy", "jaccard"])
def test_scores_of_edges(name, device):
    edges = random_graph().edge_index
    assert_equal(edge_score(edges.to(device), name, seed=3), edge_score(edges, name, seed=3), device=device)
    assert_equal(
        sparsify_edge(edges.to(device), 0.4, name, seed=3)[0], sparsify_edge(edges, 0.4, name, seed=3)[0], device=device
    )


TRANSFORMS = {
    "sparsify": SparsifyEdges(0.4),
    "reorder": ReorderNodes("rcm"),
    "perturb edges": PerturbEdges(0.3),
    "perturb features": PerturbFeatures(0.3),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms(name, device):
    here, away = (TRANSFORMS[name](there(random_graph(), where)) for where in ("cpu", device))
    for key in ("x", "edge_index", "y", "train_mask"):
        assert_equal(away[key], here[key], device=device)


def test_metrics(device):
    data = random_graph()
    logits = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    score, mask = logits[:, 0], data.val_mask
    positive = data.y == 0
    sparse = data.edge_index[:, :100]
    calls = {
        "accuracy": lambda to: accuracy(to(logits), to(data.y), to(mask)),
        "calibration": lambda to: expected_calibration_error(to(logits), to(data.y)),
        "auroc": lambda to: auroc(to(score), to(positive)),
        "precision": lambda to: average_precision(to(score), to(positive)),
        "fpr": lambda to: fpr_at_recall(to(score), to(positive)),
        "softmax": lambda to: float(max_softmax_score(to(logits)).sum()),
        "energy": lambda to: float(energy_score(to(logits)).sum()),
        "distance": lambda to: float(mean_average_distance(to(logits))),
        "edges": lambda to: edge_sparsity(to(data.edge_index), to(sparse)),
        "weights": lambda to: weight_sparsity({"w": to(logits.relu())}),
    }
    for name, call in calls.items():
        assert call(lambda t: t.to(device)) == pytest.approx(call(lambda t: t), rel=1e-5), name


@pytest.mark.parametrize("weights", [False, True])
def test_compared_graphs(weights, device):
    before = random_graph()
    after = SparsifyEdges(0.6)(before)
    if weights:
        after.edge_weight = torch.rand(after.num_edges, generator=torch.Generator().manual_seed(0))
    expected = compare_graphs(before, after).to_dict()
    assert compare_graphs(there(before, device), there(after, device)).to_dict() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("options", [{}, {"scope": "layer", "transform": "abs", "coats": 2}, {"scope": "2:4"}])
def test_supermask(options, device):
    data = random_graph()
    sparsity = 0.5 if options.get("scope") == "2:4" else 0.7
    here, away = (Supermask(accelerate(GCN(8, 16, 2, 3).to(where)), sparsity, **options) for where in ("cpu", device))
    found, expected = (backward(mask, there(data.x, mask.scores.device), there(data.edge_index, mask.scores.device))
                       for mask in (away, here))  # fmt: skip
    assert_equal(found, expected, 1e-3, device)
    assert_equal(away.masks(), here.masks(), device=device)
    assert_equal(dict(away.materialize().state_dict()), dict(here.materialize().state_dict()), device=device)
    here.load_state_dict(away.state_dict())  # the file of one is that of the other


def test_sparse_weights(device):
    data, model = random_graph(), GCN(8, 16, 2, 3).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight[weight.abs() < 0.2] = 0
        expected = model(data.x, data.edge_index)
    found = to_csr(there(model, device))(data.x.to(device), data.edge_index.to(device))
    assert_equal(found, expected, device=device)


@pytest.mark.parametrize("name", ["GCN", "GAT", "GraphSAGE", "GIN"])
def test_layer_by_layer(name, device):
    """The graph may stay on the CPU; the result is where its features are."""
    data, model = random_graph(), MODELS[name]().eval()
    expected = model(data.x, data.edge_index)
    for where in ("cpu", device):
        assert_equal(layerwise_inference(there(model, device), there(data, where), 20), expected, 1e-3)


APART = "is on (cpu|simulated:0|cuda:0), but .* is on (cpu|simulated:0|cuda:0)"


def test_a_supermask_and_its_input_on_two_devices(device):
    data = random_graph()
    with pytest.raises(ValueError, match=APART):
        Supermask(GCN(8, 16, 2, 3).to(device), 0.5)(data.x, data.edge_index)
    with pytest.raises(ValueError, match=APART):
        Supermask(GCN(8, 16, 2, 3), 0.5)(data.x, there(data.edge_index, device))
