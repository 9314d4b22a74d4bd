"""One number for each undirected edge and each weight, trained through any model."""

import pytest
import torch
import torch.nn.functional as F
from models import MODELS
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch_geometric.data import Data
from torch_geometric.loader import ClusterLoader, NeighborLoader
from torch_geometric.nn import GAT, GCN, GIN, GCNConv, GraphSAGE
from torch_geometric.typing import WITH_PYG_LIB, WITH_TORCH_SPARSE

from graphsparse.edges import attach_pairs
from graphsparse.edges.mask import mask_data_edges
from graphsparse.loader import ClusterData, make_loader
from graphsparse.nn import SoftMasks, accelerate, layerwise_inference
from graphsparse.testing import random_graph
from graphsparse.training import Masks, NodeTask, fit
from graphsparse.utils.call_model import call_model

KINDS = {"GCN": GCN, "SAGE": GraphSAGE, "GIN": GIN, "GAT": GAT}


def awkward_graph():
    """Edges in no order, one of them twice, some in one direction, and self-loops."""
    data = random_graph(30)
    order = torch.randperm(data.num_edges, generator=torch.Generator().manual_seed(0))[: data.num_edges - 5]
    data.edge_index = torch.cat([data.edge_index[:, order], data.edge_index[:, order[:1]], torch.tensor([[3], [3]])], 1)
    data.x = data.x.double()
    return data


def soft_masks(model, data, drop=0, **options):
    """Masks of everything but the first few edges and weights."""
    keep = Masks.everything(model, data)
    for mask in (keep.edges, *keep.weights.values()):
        mask.view(-1)[:drop] = False
    return SoftMasks(model, weights=keep.weights, edges=keep.edges, **options)


def draw(soft):
    """Give the masks values far from 1."""
    generator = torch.Generator().manual_seed(1)
    for mask in (soft.edge, *soft.masks):
        mask.data.copy_(torch.rand(mask.shape, generator=generator) + 0.2)
    return soft


def loss_of(soft, data):
    return F.cross_entropy(call_model(soft, data)[data.train_mask], data.y[data.train_mask])


def test_pairs_are_numbered_like_sorted_pairs():
    data = awkward_graph()
    pairs = [tuple(sorted(entry)) for entry in data.edge_index.t().tolist()]
    places = {pair: i for i, pair in enumerate(sorted({pair for pair in pairs if pair[0] != pair[1]}))}
    found = attach_pairs(data)
    assert found.edge_pair.tolist() == [places.get(pair, -1) for pair in pairs]
    assert found.edge_pair.dtype == torch.int32
    assert "edge_pair" not in data
    with pytest.raises(ValueError, match="must hold 'edge_index'"):
        attach_pairs(Data(x=data.x))


@pytest.mark.parametrize("name", KINDS)
def test_gradient_is_that_of_differences(name):
    torch.manual_seed(0)
    data = attach_pairs(awkward_graph())
    soft = draw(soft_masks(accelerate(KINDS[name](8, 4, 2, 3).double()), data, drop=3))
    loss_of(soft, data).backward()
    for parameter in (soft.edge, *soft.masks):
        flat = parameter.data.view(-1)
        for i in {0, flat.numel() - 1, flat.numel() // 2}:
            values, old = [], flat[i].item()
            for step in (1e-6, -1e-6):
                flat[i] = old + step
                values.append(loss_of(soft, data).item())
            flat[i] = old
            assert parameter.grad.view(-1)[i].item() == pytest.approx((values[0] - values[1]) / 2e-6, abs=1e-8)
    assert not soft.edge.grad[:3].any()


@pytest.mark.parametrize("name", KINDS)
def test_no_mask_is_no_edge_and_no_weight(name):
    torch.manual_seed(0)
    data = attach_pairs(awkward_graph())
    model = accelerate(KINDS[name](8, 4, 2, 3).double())
    keep = Masks.everything(model, data)
    keep.edges[::3] = False
    next(iter(keep.weights.values()))[:, ::2] = False
    soft = SoftMasks(model, weights=keep.weights, edges=keep.edges)
    found = call_model(soft, data)
    model.load_state_dict(keep.apply(model.state_dict()))
    expected = call_model(model, mask_data_edges(data, keep.edge_mask(data)))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(call_model(soft.materialize(), mask_data_edges(data, keep.edge_mask(data))), expected)


@pytest.mark.parametrize("name", MODELS)
def test_models_that_know_nothing_of_weights(name):
    """The layers of a user's model get them; the same as on a graph without the edges."""
    data, model = attach_pairs(random_graph()), accelerate(MODELS[name]()).eval()
    soft = soft_masks(model, data, drop=20)
    expected = call_model(soft.materialize(), mask_data_edges(data, data.edge_pair >= 20))
    torch.testing.assert_close(call_model(soft, data), expected)


def test_own_weights_of_the_graph_are_multiplied():
    data, model = attach_pairs(random_graph()), GCN(8, 4, 2, 3)
    data.edge_weight = torch.rand(data.num_edges, generator=torch.Generator().manual_seed(0))
    soft = draw(SoftMasks(model, edges=Masks.everything(None, data).edges))
    by_hand = data.edge_weight * soft.edge[data.edge_pair.long()]
    torch.testing.assert_close(call_model(soft, data), model(data.x, data.edge_index, by_hand))


def components():
    """Three graphs without an edge between them, their nodes mixed."""
    data, group = random_graph(90), torch.arange(90) // 2 % 3
    return attach_pairs(data.edge_subgraph(group[data.edge_index[0]] == group[data.edge_index[1]]))


LOADERS = {
    "PyG's clusters": (GCN, lambda data: ClusterLoader(ClusterData(data, 3), batch_size=1)),
    "our neighbours": (
        GraphSAGE,
        lambda data: make_loader("neighbor", data, seed=0, num_neighbors=[-1, -1], batch_size=7),
    ),
    "PyG's neighbours": (
        GraphSAGE,
        lambda data: NeighborLoader(data, [-1, -1], input_nodes=data.train_mask, batch_size=7),
    ),
}


@pytest.mark.parametrize("name", LOADERS)
def test_gradients_of_batches_add_up(name):
    """Batches that hold all edges that their training nodes need give the gradient of the whole graph."""
    if name == "PyG's neighbours" and not (WITH_PYG_LIB or WITH_TORCH_SPARSE):
        pytest.skip("PyG's NeighborLoader needs pyg-lib or torch-sparse")
    torch.manual_seed(0)
    (kind, make), data = LOADERS[name], components()
    batches = list(make(data))
    assert len(batches) > 2
    assert "clusters" not in name or sum(batch.num_edges for batch in batches) == data.num_edges
    soft = draw(soft_masks(accelerate(kind(8, 4, 2, 3)), data))
    gradients = []
    for parts in ([data], batches):
        soft.zero_grad()
        for batch in parts:
            rows = batch.train_mask & (torch.arange(batch.num_nodes) < batch.get("batch_size", batch.num_nodes))
            F.cross_entropy(call_model(soft, batch)[rows], batch.y[rows], reduction="sum").backward()
        gradients.append([mask.grad.clone() for mask in (soft.edge, *soft.masks)])
    assert gradients[0][0].any()
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-5)


def test_inference_layer_by_layer_sees_the_masks():
    data = attach_pairs(random_graph())
    soft = draw(soft_masks(accelerate(GCN(8, 4, 2, 3)), data)).eval()
    task = NodeTask(data, inference=lambda model, data: layerwise_inference(model, data, batch_size=7))
    torch.testing.assert_close(task.evaluate(soft, 0).logits, call_model(soft, data).detach())


def test_l1_is_the_gradient_of_its_term():
    data = attach_pairs(random_graph())
    soft = draw(soft_masks(GCN(8, 4, 2, 3), data))
    soft.masks[0].data[:2] *= -1
    loss_of(soft, data).backward()
    soft.add_l1(edges=0.3, weights=0.2)
    found = [mask.grad for mask in (soft.edge, *soft.masks)]
    soft.zero_grad()
    (loss_of(soft, data) + 0.3 * soft.edge.abs().sum() + 0.2 * sum(mask.abs().sum() for mask in soft.masks)).backward()
    torch.testing.assert_close(found, [mask.grad for mask in (soft.edge, *soft.masks)])


class Spy(TorchDispatchMode):
    """Notes the size of the largest tensor that an operation returns."""

    largest = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, torch.Tensor) and tensor.layout == torch.strided:
                self.largest = max(self.largest, tensor.numel())
        return out


@pytest.mark.parametrize("kind", [GCN, GraphSAGE])
def test_a_step_holds_nothing_of_edges_times_features(kind):
    num_nodes, width = 3000, 64
    generator = torch.Generator().manual_seed(0)
    edge_index = torch.randint(num_nodes, (2, 100_000), generator=generator)
    x = torch.randn(num_nodes, width, generator=generator)
    data = Data(x=x, edge_index=torch.cat([edge_index, edge_index.flip(0)], 1), y=torch.arange(num_nodes) % 3)
    data.train_mask = data.val_mask = torch.arange(num_nodes) < 100
    data = attach_pairs(data)
    soft = soft_masks(accelerate(kind(width, width, 2, 3)), data)
    with Spy() as spy:
        fit(soft, data, epochs=1)
    assert data.num_edges <= spy.largest < 6 * data.num_edges < num_nodes**2


class NoLayers(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 3)

    def forward(self, x, edge_index):
        return self.linear(x)


class OtherEdges(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = GCNConv(8, 3)

    def forward(self, x, edge_index):
        return self.conv(x, edge_index.flip(0))


def test_bad_input():
    data, model = random_graph(), GCN(8, 4, 2, 3)
    keep = Masks.everything(model, data)
    paired = attach_pairs(data)
    for make, message in [
        (lambda: SoftMasks(model), "nothing to mask"),
        (lambda: SoftMasks(model, edges=keep.edges.float()), r"'edges' must be bool \[\d+\] \(got torch.float32"),
        (lambda: SoftMasks(model, weights={"no": keep.edges}), "no parameter for"),
        (lambda: SoftMasks(model, weights={"convs.0.lin.weight": keep.edges}), r"must be bool \[4, 8\]"),
        (lambda: SoftMasks(model, edges=keep.edges, noise=-1.0), "'noise'"),
        (lambda: call_model(soft_masks(model, data), data), r"'edge_pair'.*attach_pairs"),
        (lambda: call_model(soft_masks(GraphSAGE(8, 4, 2, 3), data), paired), "SAGEConv does not take edge weights"),
        (lambda: call_model(soft_masks(NoLayers(), data), paired), "NoLayers does not take edge weights"),
        (lambda: call_model(soft_masks(OtherEdges(), data), paired), "gives GCNConv other edges"),
    ]:
        with pytest.raises(ValueError, match=message):
            make()
    with pytest.raises(TypeError, match="'model' must be a torch module"):
        SoftMasks("model", edges=keep.edges)


def test_a_call_that_leaves_the_weights_out_is_found():
    data = attach_pairs(random_graph())
    soft = SoftMasks(GCN(8, 4, 2, 3), edges=Masks.everything(None, data).edges)
    call_model(soft, data, lambda model, data: model(data.x, data.edge_index)).sum().backward()
    with pytest.raises(ValueError, match="does not compute with 'edge_weight'"):
        soft.add_l1(edges=0.1)
