"""Layers in the modes of PyG: explained, of many types, transformed, by matrices of int32, and in mixed types."""

import pytest
import torch
import torch_geometric.nn as pyg
from layers import FLOWS, close, form, result, twins, unsorted_graph
from torch import nn
from torch.autograd import gradcheck, gradgradcheck
from torch.autograd.functional import hessian, jacobian
from torch_geometric.explain import Explainer, GNNExplainer

from graphsparse.nn import accelerate
from graphsparse.ops import Adjacency

pytestmark = pytest.mark.once  # nothing here depends on the compiled extensions but one form of graphs


def network(width=5):
    return nn.Sequential(nn.Linear(width, 9), nn.Tanh(), nn.Linear(9, 8))


NO_LOOPS = {"add_self_loops": False}
LAYERS = [
    ("GCNConv", (5, 8), NO_LOOPS),
    ("GCNConv", (5, 8), {**NO_LOOPS, "aggr": "max"}),
    ("GCNConv", (5, 8), {"normalize": False, "aggr": "softmax"}),
    ("GCNConv", (5, 8), {**NO_LOOPS, "flow": FLOWS[1]}),
    ("GCNConv", (5, 8), {**NO_LOOPS, "decomposed_layers": 2}),
    ("GCN2Conv", (5, 0.1), NO_LOOPS),
    ("SAGEConv", (5, 8), {}),
    ("SAGEConv", (5, 8), {"aggr": ["mean", "std", "max"]}),
    ("SAGEConv", (5, 8), {"aggr": "max", "project": True}),
    ("SAGEConv", (5, 8), {"flow": FLOWS[1]}),
    ("GINConv", (network(),), {"train_eps": True}),
    ("GINConv", (network(),), {"aggr": "softmax"}),
    ("GATConv", (5, 8), {**NO_LOOPS, "heads": 2}),
    ("GATConv", (5, 8), {**NO_LOOPS, "heads": 2, "aggr": "max"}),
    ("GATConv", (5, 8), {**NO_LOOPS, "heads": 2, "flow": FLOWS[1], "edge_dim": 2}),
]
IDS = [f"{kind} {options}" for kind, _, options in LAYERS]
PLAIN = [
    ("GCNConv", (3, 2), {}),
    ("GCN2Conv", (3, 0.1), {}),
    ("SAGEConv", (3, 2), {}),
    ("SAGEConv", (3, 4), {"aggr": "max"}),
    ("GINConv", (network(3),), {"train_eps": True}),
    ("GATConv", (3, 2), {"heads": 2}),
]


def narrow(edges):
    """Return edges with int32 indices."""
    if isinstance(edges, torch.Tensor) and edges.layout == torch.sparse_csr:
        parts = edges.crow_indices().int(), edges.col_indices().int(), edges.values()
        return torch.sparse_csr_tensor(*parts, edges.shape)
    return edges.int()


def watched(layer):
    layer.register_propagate_forward_pre_hook(lambda *_: None)
    return layer


class Functional(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x, **more):
        weights = dict(self.layer.named_parameters())
        return torch.func.vmap(lambda x: torch.func.functional_call(self.layer, weights, (x,), more))(x[None])[0]


@pytest.mark.parametrize(("kind", "args", "options"), LAYERS, ids=IDS)
def test_int32_gives_the_gradients_of_int64(kind, args, options):
    edge_index, _, x = unsorted_graph()
    x = x.double()
    more = {"x_0": x.clone()} if kind == "GCN2Conv" else {}
    if options.get("edge_dim"):
        more["edge_attr"] = torch.randn(edge_index.size(1), 2, dtype=torch.float64)
    forms = [edge_index]
    if "flow" not in options:
        forms.append(form("CSR", unsorted_graph(simple=True)[0], (12, 12)).double())
    for edges in forms:
        theirs, ours = twins(kind, *args, dtype=torch.float64, **options)
        expected = result(theirs, x, edge_index=edges, **more)
        close(result(ours, x, edge_index=narrow(edges), **more), expected, 1e-10, 1)
        close(result(watched(ours), x, edge_index=narrow(edges), **more), expected, 1e-10, 1)
    if kind in ("SAGEConv", "GINConv", "GATConv"):
        theirs, ours = twins(kind, *args, dtype=torch.float64, **options)
        expected = result(theirs, (x, x + 1), edge_index=edge_index, **more)
        for layer in (ours, watched(accelerate(theirs))):
            close(result(layer, (x, x + 1), edge_index=edge_index.int(), **more), expected, 1e-10, 1)


@pytest.mark.parametrize(("kind", "args", "options"), PLAIN, ids=[f"{k} {o}" for k, _, o in PLAIN])
def test_int32_within_a_transform_of_functions(kind, args, options):
    edge_index = unsorted_graph()[0]
    x = torch.randn(12, 3, dtype=torch.float64)
    options = options if kind in ("SAGEConv", "GINConv") else options | NO_LOOPS
    theirs, ours = twins(kind, *args, dtype=torch.float64, **options)
    more = {"x_0": x.clone()} if kind == "GCN2Conv" else {}
    expected = result(theirs, x, edge_index=edge_index, **more)
    close(result(Functional(ours), x, edge_index=edge_index.int(), **more), expected, 1e-10, 1)


def test_int32_in_explanations():
    edge_index, _, x = unsorted_graph()
    model = pyg.GraphSAGE(5, 8, 2, 3)
    masks = []
    for one, edges in ((model, edge_index), (accelerate(model), edge_index.int())):
        torch.manual_seed(0)
        explainer = Explainer(
            model=one,
            algorithm=GNNExplainer(epochs=5),
            explanation_type="model",
            node_mask_type="attributes",
            edge_mask_type="object",
            model_config={"mode": "multiclass_classification", "task_level": "node", "return_type": "raw"},
        )
        explained = explainer(x, edges, index=3)
        masks.append([explained.edge_mask, explained.node_mask])
    close(masks[1], masks[0])


def test_int32_in_a_model_of_many_types():
    edge_index, _, x = unsorted_graph()
    metadata = (["a", "b"], [("a", "to", "b"), ("b", "to", "a")])
    torch.manual_seed(0)
    model = pyg.to_hetero(pyg.GraphSAGE(5, 8, 2, 3), metadata)
    grads = []
    for one, edges in ((model, edge_index), (accelerate(model), edge_index.int())):
        one.zero_grad()
        out = one({"a": x, "b": x + 1}, dict.fromkeys(metadata[1], edges))
        (out["a"].square().sum() + out["b"].sum()).backward()
        grads.append([weight.grad.clone() for weight in one.parameters() if weight.grad is not None])
    close(grads[1], grads[0])


@pytest.mark.parametrize("kind", ["GCNConv", "SAGEConv", "GATConv"])
def test_a_torch_matrix_of_ours_has_the_right_gradients_in_pygs_layers(kind):
    edge_index, _, x = unsorted_graph(simple=True)
    layer = twins(kind, 5, 8)[0]
    if kind == "GATConv":
        layer.add_self_loops = False
    matrix = Adjacency.from_edge_index(edge_index, None, 12).to_torch_csr()
    assert matrix.col_indices().dtype == torch.int64
    close(result(layer, x, matrix), result(layer, x, form("CSR", edge_index, (12, 12))))


@pytest.mark.parametrize(("hooked", "dtype"), [(False, torch.int64), (True, torch.int32)])
@pytest.mark.parametrize(("kind", "args", "options"), PLAIN, ids=[f"{k} {o}" for k, _, o in PLAIN])
def test_every_kind_of_derivative(kind, args, options, hooked, dtype):
    generator = torch.Generator().manual_seed(0)
    edge_index = torch.randint(4, (2, 9), generator=generator)
    x = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    theirs, ours = twins(kind, *args, dtype=torch.float64, **options)
    ours = watched(ours) if hooked else ours
    more = {"x_0": x.clone()} if kind == "GCN2Conv" else {}

    def found(x):
        return ours(x, edge_index=edge_index.to(dtype), **more)

    def cubed(layer, edges):
        return lambda x: (layer(x, edge_index=edges, **more) ** 3).sum()

    expected = jacobian(lambda x: theirs(x, edge_index=edge_index, **more), x)
    ways = [
        jacobian(found, x),
        jacobian(found, x, vectorize=True),
        jacobian(found, x, vectorize=True, strategy="forward-mode"),
        torch.func.jacrev(found)(x),
        torch.func.jacfwd(found)(x),
    ]
    close(ways, [expected] * len(ways), 1e-9)
    function = cubed(ours, edge_index.to(dtype))
    expected = hessian(cubed(theirs, edge_index), x)
    ways = [hessian(function, x), hessian(function, x, vectorize=True), torch.func.hessian(function)(x)]
    close(ways, [expected] * len(ways), 1e-9)


@pytest.mark.parametrize("hooked", [False, True])
@pytest.mark.parametrize(("kind", "args"), [("GCNConv", (3, 2)), ("GCN2Conv", (3, 0.1))])
def test_weights_of_edges_and_layers_have_right_derivatives(kind, args, hooked):
    generator = torch.Generator().manual_seed(0)
    edge_index = torch.randint(4, (2, 9), generator=generator)
    edge_index[:, 2:4] = 1  # of two self-loops the last one counts, and has the gradient alone
    x = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    ours = twins(kind, *args, dtype=torch.float64)[1]
    ours = watched(ours) if hooked else ours
    more = {"x_0": x.clone()} if kind == "GCN2Conv" else {}
    weight = (torch.rand(9, generator=generator, dtype=torch.float64) + 0.2).requires_grad_()
    names = [name for name, _ in ours.named_parameters()]
    given = tuple(part.detach().clone().requires_grad_() for part in ours.parameters())

    def of_all(weight, *given):
        more_of = {"edge_index": edge_index.int(), "edge_weight": weight, **more}
        return torch.func.functional_call(ours, dict(zip(names, given, strict=True)), (x,), more_of)

    assert gradcheck(of_all, (weight, *given), check_batched_grad=True, check_forward_ad=True)
    assert gradgradcheck(of_all, (weight, *given), fast_mode=True)


TYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
CAST = [
    *(("GCNConv", (5, width), options) for width in (3, 16) for options in ({}, {"bias": False}, {"normalize": False})),
    *(("SAGEConv", (5, width), options) for width in (3, 16) for options in ({}, {"aggr": "max"}, {"normalize": True})),
    ("SAGEConv", (5, 3), {"bias": False, "root_weight": False}),
    ("GINConv", (network(),), {}),
    ("GINConv", (network(),), {"train_eps": True, "aggr": "max"}),
    ("GATConv", (5, 3), {"heads": 2, "bias": False, "concat": False}),
    ("GCN2Conv", (5, 0.1), {}),
]


@pytest.mark.parametrize(
    ("kind", "args", "options"), CAST, ids=lambda value: str(value) if isinstance(value, dict) else ""
)
def test_types_are_those_of_pyg(kind, args, options):
    """Weights and features of any types, under autocast or not, sparse ones too: PyG's result, or PyG's error."""
    edge_index, _, dense = unsorted_graph()
    sparse = dense * (torch.rand(dense.shape) < 0.08)
    mixed = [(a, b, None) for a in TYPES for b in TYPES]
    for weights, features, cast in [*mixed, *((a, a, c) for a in TYPES for c in TYPES[1:3])]:
        theirs, ours = twins(kind, *args, **options)
        theirs, ours = theirs.to(weights), ours.to(weights)
        for x in (dense.to(features), sparse.to(features)):
            more = {"x_0": x.clone()} if kind == "GCN2Conv" else {}
            found = []
            for layer in (theirs, ours, ours):  # a constant is kept from its second use on
                try:
                    with torch.autocast("cpu", cast, enabled=cast is not None):
                        found.append(layer(x, edge_index=edge_index, **more))
                except RuntimeError:
                    found.append(None)
            for one in found[1:]:
                assert (one is None) == (found[0] is None), (weights, features, cast)
                if one is not None:
                    assert one.dtype == found[0].dtype, (weights, features, cast)
                    close([one.float()], [found[0].float()], 4e-2)
