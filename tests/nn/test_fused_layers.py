"""The laws that every fused layer keeps, for all layers and in every form of the graph."""

import inspect
from contextlib import nullcontext
from dataclasses import dataclass, field

import pytest
import torch
import torch_geometric.nn as pyg
from hypothesis import given, settings
from hypothesis import strategies as st
from layers import (
    FLOWS,
    FORMS,
    MATRICES,
    TOLERANCE,
    close,
    edge_by_edge,
    form,
    largest_tensor,
    result,
    same,
    twins,
    unsorted_graph,
)
from sparse_reference import edge_lists
from torch import nn
from torch_geometric.explain import Explainer, GNNExplainer
from torch_geometric.utils import coalesce

import graphsparse.nn as ours_module
from graphsparse.nn import FUSED, FusedConv, accelerate
from graphsparse.ops import Adjacency
from graphsparse.testing import random_graph


def network(width=5):
    return nn.Sequential(nn.Linear(width, 6), nn.Tanh(), nn.Linear(6, 3))


@dataclass(frozen=True)
class Case:
    """A layer: its arguments, for a pair of widths too, and what its options may be."""

    args: tuple
    pair: tuple | None
    options: dict
    #: Options for which the output is the same function of every kind of pass, and has a gradient everywhere.
    smooth: dict = field(default_factory=dict)
    wide: tuple = ()
    takes_weights: bool = False

    def drawn(self, **changed):
        """Return a strategy for the options."""
        return st.fixed_dictionaries(
            {name: st.sampled_from(kept) for name, kept in {**self.options, **changed}.items()}
        )


BOOLS = [False, True]
REDUCED = ["mean", "sum", "add", "min", "max"]
CASES = {
    "GCNConv": Case(
        (5, 3),
        None,
        {
            "improved": BOOLS,
            "cached": BOOLS,
            "bias": BOOLS,
            "flow": FLOWS,
            "aggr": ["add", "sum", "mean", "max", "min", "softmax"],
            "normalize": [True, True, False],
            "add_self_loops": [None, False],
        },
        {"aggr": ["sum"], "cached": [False]},
        (64, 64),
        True,
    ),
    "GCN2Conv": Case(
        (5,),
        None,
        {
            "alpha": [0.0, 0.1, 1.0],
            "theta": [0.5, 3.0],
            "layer": [3],
            "shared_weights": BOOLS,
            "cached": BOOLS,
            "flow": FLOWS,
            "aggr": ["add", "sum", "mean"],  # PyG cannot go back through others: it changes them in place
            "normalize": [True, True, False],
            "add_self_loops": BOOLS,
        },
        {"aggr": ["sum"], "cached": [False]},
        (64,),
        True,
    ),
    "SAGEConv": Case(
        (5, 3),
        ((5, 4), 3),
        {
            "aggr": [*REDUCED, "var", "std", "softmax"],
            "root_weight": BOOLS,
            "bias": BOOLS,
            "project": BOOLS,
            "flow": FLOWS,
        },
        {"aggr": REDUCED},
        (64, 64),
    ),
    "GINConv": Case(
        (network(),),
        (network(),),
        {"eps": [0.0, 0.3, -1.0], "train_eps": BOOLS, "aggr": [*REDUCED, "var", "softmax"], "flow": FLOWS},
        {"aggr": REDUCED},
        (network(64),),
    ),
    "GATConv": Case(
        (5, 3),
        ((5, 4), 3),
        {
            "heads": [1, 2, 3],
            "concat": BOOLS,
            "negative_slope": [0.2, 0.0, 1.0],
            "add_self_loops": BOOLS,
            "fill_value": ["mean", "add", "sum", "min", "max", "mul", 0.0, 1.5, torch.tensor([0.5, -1.0])],
            "edge_dim": [None, 2],
            "bias": BOOLS,
            "residual": BOOLS,
            "flow": FLOWS,
        },
        {},
        (64, 64),
    ),
}
KINDS = list(CASES)
PAIRS = [kind for kind, case in CASES.items() if case.pair]
DTYPES = st.sampled_from([torch.float32, torch.float64])
#: Layers of one kind each that take an unsorted graph of five features.
SIMPLE = {kind: case.args + ((0.1,) if kind == "GCN2Conv" else ()) for kind, case in CASES.items()}


def given_to(kind, options, num_dst, num_edges, generator, dtype=torch.float32):
    """Return what a layer takes besides features and edges, per node and per edge."""
    per_node, per_edge = {}, {}
    if kind == "GCN2Conv":
        per_node["x_0"] = torch.randn(num_dst, 5, generator=generator, dtype=dtype)
    if options.get("edge_dim"):
        per_edge["edge_attr"] = torch.randn(num_edges, 2, generator=generator, dtype=dtype)
    return per_node, per_edge


def widths(kind):
    return (5, 5) if kind == "GINConv" else (5, 4)


def has_place(options, size):
    """Say whether PyG has a place for the features of the self-loops that it makes of those of the edges."""
    filled = isinstance(options.get("fill_value"), str) and options["add_self_loops"] and options["edge_dim"]
    return not (filled and size[1] > size[0])


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=50, deadline=None)
@given(st.data(), edge_lists(), DTYPES, st.booleans())
def test_equals_pyg_on_any_graph(kind, data, graph, dtype, weighted):
    edge_index, (num_nodes, _), generator = graph
    options = data.draw(CASES[kind].drawn())
    theirs, ours = twins(kind, *CASES[kind].args, dtype=dtype, **options)
    x = torch.randn(num_nodes, 5, generator=generator, dtype=dtype)
    per_node, per_edge = given_to(kind, options, num_nodes, edge_index.size(1), generator, dtype)
    more = per_node | per_edge
    if weighted and CASES[kind].takes_weights:
        more["edge_weight"] = torch.rand(edge_index.size(1), generator=generator, dtype=dtype) + 0.1
    for _ in range(2):
        same(theirs, ours, x, edge_index=edge_index, scale=1, **more)
    if CASES[kind].pair:
        same(theirs, ours, (x, x.clone()), edge_index=edge_index, scale=1, **more)


@pytest.mark.parametrize("kind", PAIRS)
@settings(max_examples=50, deadline=None)
@given(st.data(), edge_lists(bipartite=True), st.integers(0, 2), DTYPES)
def test_equals_pyg_on_any_bipartite_graph(kind, data, graph, given_by, dtype):
    edge_index, size, generator = graph
    options = data.draw(CASES[kind].drawn(flow=FLOWS[:1], **CASES[kind].smooth))
    if not has_place(options, size):
        options["edge_dim"] = None
    theirs, ours = twins(kind, *CASES[kind].pair, dtype=dtype, **options)
    x = tuple(
        torch.randn(n, width, generator=generator, dtype=dtype) for n, width in zip(size, widths(kind), strict=True)
    )
    more = given_to(kind, options, size[1], edge_index.size(1), generator, dtype)[1]
    if given_by:
        more["size"] = size
    same(theirs, ours, (x[0], None) if given_by == 2 else x, edge_index=edge_index, scale=1, **more)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None)
@given(st.data(), DTYPES, st.sampled_from(["weight", "Adjacency", "edge by edge"]))
def test_weight_0_equals_deleting_the_edge(kind, data, dtype, way):
    case = CASES[kind]
    edge_index, size, generator = data.draw(edge_lists(bipartite=bool(case.pair)))
    # The other passes of GCN and GCNII take any aggregation, too.
    smooth = {} if case.takes_weights and way == "weight" else case.smooth
    options = data.draw(case.drawn(**({"flow": FLOWS[:1]} if case.pair or way == "Adjacency" else {}) | smooth))
    if not has_place(options, size):
        options["edge_dim"] = None
    theirs, ours = twins(kind, *(case.pair or case.args), dtype=dtype, **options)
    x = tuple(
        torch.randn(n, width, generator=generator, dtype=dtype) for n, width in zip(size, widths(kind), strict=True)
    )
    x = x if case.pair else x[0]
    per_node, per_edge = given_to(kind, options, size[1], edge_index.size(1), generator, dtype)
    mask = torch.rand(edge_index.size(1), generator=generator) < 0.6
    left = {name: value[mask] for name, value in per_edge.items()}
    weight = torch.ones(edge_index.size(1), dtype=dtype)
    if case.takes_weights:
        weight = torch.rand(edge_index.size(1), generator=generator, dtype=dtype) + 0.1
        left["edge_weight"] = weight[mask]
    expected = result(theirs, x, edge_index=edge_index[:, mask], **per_node, **left)
    if per_edge:
        per_edge["edge_attr"][~mask] *= 1e4  # a score that would leave the others without a share
    if way == "Adjacency":
        adj = form("Adjacency", edge_index, size, weight * mask)
        found = result(ours, x, edge_index=adj, **per_node, **per_edge)
    else:
        with edge_by_edge() if way == "edge by edge" else nullcontext():
            found = result(ours, x, edge_index=edge_index, edge_weight=weight * mask, **per_node, **per_edge)
    close(found, expected, TOLERANCE[dtype], scale=1)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40, deadline=None)
@given(st.data(), DTYPES)
def test_all_passes_agree_on_learned_weights(kind, data, dtype):
    case = CASES[kind]
    edge_index, size, generator = data.draw(edge_lists(bipartite=bool(case.pair)))
    options = data.draw(case.drawn(**case.smooth))
    if kind == "GATConv":
        options["flow"] = FLOWS[0]
    if options["flow"] == FLOWS[1]:
        edge_index = edge_index.flip(0)
    ours = twins(kind, *(case.pair or case.args), dtype=dtype, **options)[1]
    x = tuple(
        torch.randn(n, width, generator=generator, dtype=dtype) for n, width in zip(size, widths(kind), strict=True)
    )
    x = x if case.pair else x[0]
    per_node, per_edge = given_to(kind, options, size[1], edge_index.size(1), generator, dtype)
    weight = torch.rand(edge_index.size(1), generator=generator, dtype=dtype) + 0.1
    removed = torch.rand(edge_index.size(1), generator=generator) < 0.3
    weight[removed] = 0
    weight.requires_grad_()
    more = {"edge_index": edge_index, "edge_weight": weight, "learned": [weight], **per_node, **per_edge}
    fused = result(ours, x, **more)
    with edge_by_edge():
        close(result(ours, x, **more), fused, TOLERANCE[dtype], scale=1)
    # With the edges deleted, too, all but the gradients of their own weights is the same.
    kept = weight.detach()[~removed].requires_grad_()
    left = {name: value[~removed] for name, value in per_edge.items()}
    more |= {"edge_index": edge_index[:, ~removed], "edge_weight": kept, "learned": [kept], **left}
    place = 3 if case.pair else 2
    fused[place] = fused[place][~removed]
    close(fused, result(ours, x, **more), TOLERANCE[dtype], scale=1)


VARIANTS = [
    ("GCNConv", {}),
    ("GCNConv", {"improved": True}),
    ("GCNConv", {"normalize": False}),
    ("GCNConv", {"add_self_loops": False, "improved": True}),
    ("GCN2Conv", {"alpha": 0.1, "theta": 0.5, "layer": 2}),
    ("GCN2Conv", {"alpha": 0.1, "normalize": False}),
    ("GCN2Conv", {"alpha": 0.1, "add_self_loops": False}),
    *(("SAGEConv", {"aggr": aggr}) for aggr in ("mean", "sum", "min", "max", "median")),
    *(("GINConv", {"aggr": aggr, "train_eps": True}) for aggr in ("mean", "add", "min", "max", "median")),
    ("GATConv", {"heads": 2}),
    ("GATConv", {"heads": 2, "add_self_loops": False}),
    ("GATConv", {"heads": 2, "shown": True}),
]


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize(("kind", "options"), VARIANTS, ids=lambda value: str(value))
def test_every_form(kind, options, name):
    case, shown = CASES[kind], options.get("shown")
    options = {key: value for key, value in options.items() if key != "shown"}
    more = {"x_0": torch.randn(12, 5)} if kind == "GCN2Conv" else {}
    if shown and name != "CSC":
        more["return_attention_weights"] = True
    # Of a pair without destinations, PyG's attention makes as many destinations as sources.
    pairs = (False, True) if kind == "GATConv" else (False, True, None)
    for pair in pairs if case.pair else (False,):
        edge_index, weight, x = unsorted_graph(simple=True)
        if pair is not False:
            kept = edge_index[1] < 8
            edge_index, weight, x = edge_index[:, kept], weight[kept], (x, x[:8] if pair else None)
        size = (12, 12 if pair is False else 8)
        sized = {"size": size} if pair is None and name == "edge_index" else {}
        for weighted in (False, True) if case.takes_weights and not name.startswith("EdgeIndex by") else (False,):
            theirs, ours = twins(kind, *case.args, **options)
            value = weight if weighted else None
            edges = form(name, edge_index, size, value)
            # PyG takes no adjacency, and knows neither messages nor a normalisation of CSC.
            reference, apart = edges, {"edge_weight": value} if weighted else {}
            if name == "Adjacency":
                reference = edge_index if pair is not None else form("CSR", edge_index, size)
            elif name == "CSC":
                reference = form("CSR", edge_index, size, value)
            theirs_apart = {} if name in MATRICES else apart
            ours_apart = {} if name in (*MATRICES, "Adjacency") else apart
            expected = result(theirs, x, edge_index=reference, **theirs_apart, **sized, **more)
            for hooked in (False, True):
                if hooked:
                    ours.register_propagate_forward_pre_hook(lambda *_: None)
                for _ in range(3):
                    found = result(ours, x, edge_index=edges, **ours_apart, **sized, **more)
                    close(found, expected)


@pytest.mark.parametrize("kind", ["GCNConv", "GCN2Conv"])
@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("order", [(True, False), (False, True)])
def test_cached_graph_is_that_of_the_first_call_on_either_path(kind, flow, order):
    edge_index, weight, x = unsorted_graph()
    weight[3] = 0  # a self-loop
    kept = weight != 0
    theirs, ours = twins(kind, *SIMPLE[kind], cached=True, flow=flow)
    more = {"x_0": x.clone()} if kind == "GCN2Conv" else {}
    expected = result(theirs, x, edge_index=edge_index[:, kept], edge_weight=weight[kept], **more)
    for traced in (*order, *order):
        with edge_by_edge() if traced else nullcontext():
            close(result(ours, x, edge_index=edge_index, edge_weight=weight, **more), expected)
        edge_index, weight = torch.randint(12, (2, 5)), None
    ours.register_message_forward_hook(lambda *_: None)
    close(result(ours, x, edge_index=edge_index, **more), expected)
    ours.reset_parameters()
    theirs.load_state_dict(ours.state_dict())
    theirs._cached_edge_index = None
    close(result(ours, x, edge_index=edge_index, **more), result(theirs, x, edge_index=edge_index, **more))


@pytest.mark.parametrize(
    ("kind", "args", "lazy"),
    [
        ("GCNConv", (5, 3), (-1, 3)),
        ("SAGEConv", (5, 3), ((-1, -1), 3)),
        ("GATConv", (5, 3, 2), (-1, 3, 2)),
        ("GATConv", ((5, 5), 3, 2), ((-1, -1), 3, 2)),
    ],
)
def test_lazy_width(kind, args, lazy):
    edge_index, _, x = unsorted_graph()
    theirs = twins(kind, *args)[0]
    waiting = getattr(ours_module, kind)(*lazy)
    waiting((x, x) if isinstance(lazy[0], tuple) else x, edge_index)
    waiting.load_state_dict(theirs.state_dict(), strict=True)
    close([waiting(x, edge_index)], [theirs(x, edge_index)])


@pytest.mark.parametrize("kind", ["GCNConv", "SAGEConv", "GINConv"])
def test_features_of_many_graphs_at_once(kind):
    edge_index, weight, x = unsorted_graph()
    theirs, ours = twins(kind, *SIMPLE[kind])
    many = torch.stack([x, x + 1])
    same(theirs, ours, many, edge_index)
    close([ours(many, edge_index)[1]], [ours(x + 1, edge_index)])
    close(result(ours, many, form("Adjacency", edge_index, (12, 12))), result(theirs, many, edge_index))
    if kind == "GCNConv":
        same(theirs, ours, many, edge_index, weight)
        return
    with pytest.raises(ValueError, match="takes no 'edge_weight' for features of 3 dimensions"):
        ours(many, edge_index, edge_weight=weight)


HALF = [
    *((kind, {}) for kind in KINDS),
    ("SAGEConv", {"aggr": "max"}),
    ("SAGEConv", {"aggr": "sum", "bias": False}),
    ("GINConv", {"aggr": "max"}),
    ("GINConv", {"train_eps": True}),
]


@pytest.mark.parametrize(("kind", "options"), HALF)
def test_half_precision(kind, options):
    edge_index, _, x = unsorted_graph()
    theirs, ours = twins(kind, *SIMPLE[kind], **options)
    more = {"x_0": x} if kind == "GCN2Conv" else {}
    for _ in range(3):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found, expected = (layer(x, edge_index=edge_index, **more) for layer in (ours, theirs))
        assert found.dtype == expected.dtype
        close([found.float()], [expected.float()], 2e-2)
    if kind in ("GCNConv", "GCN2Conv"):
        half = x.bfloat16()
        wide = ours.bfloat16()(half, edge_index=edge_index, **({"x_0": half} if more else {}))
        assert wide.dtype == torch.bfloat16
        close([wide.float()], [expected.float()], 4e-2)


@pytest.mark.parametrize("kind", KINDS)
def test_no_tensor_of_messages(kind):
    edge_index, weight, _ = unsorted_graph(200, 3000)
    x = torch.randn(200, 64)
    theirs, ours = twins(kind, *CASES[kind].wide, **({"alpha": 0.1} if kind == "GCN2Conv" else {}))
    more = {"edge_index": edge_index} | ({"x_0": x} if kind == "GCN2Conv" else {})
    assert largest_tensor(lambda: result(theirs, x, **more)) >= 2900 * 64
    weight.requires_grad_()
    assert largest_tensor(lambda: result(ours, x, edge_weight=weight, **more)) <= 30_000


@pytest.mark.parametrize("kind", KINDS)
def test_same_arguments_as_pyg(kind):
    theirs, ours = getattr(pyg, kind), getattr(ours_module, kind)
    for calls in ((theirs, ours), (theirs.forward, ours.forward)):
        expected, found = (
            [(n, p.default) for n, p in inspect.signature(call).parameters.items() if n != "kwargs"] for call in calls
        )
        assert found[: len(expected)] == expected
        assert [n for n, _ in found[len(expected) :]] in (["reuse_constant"], ["edge_weight"], [])
    with pytest.raises(TypeError, match="unexpected"):
        ours(*SIMPLE[kind], reuse=True)
    assert issubclass(ours, theirs)


def test_explanations():
    edge_index, _, x = unsorted_graph()
    model = pyg.GCN(5, 8, 2, 3)
    masks = []
    for one in (model, accelerate(model)):
        torch.manual_seed(0)
        one(x, edge_index)
        explainer = Explainer(
            model=one,
            algorithm=GNNExplainer(epochs=5),
            explanation_type="model",
            node_mask_type="object",
            edge_mask_type="object",
            model_config={"mode": "multiclass_classification", "task_level": "node", "return_type": "raw"},
        )
        masks.append(explainer(x, edge_index, index=3).edge_mask)
    close(masks[1:], masks[:1])
    assert masks[0].count_nonzero() > 0
    fast = accelerate(model)
    fast.convs[0].explain = True
    assert not fast.convs[0].is_fused(x)
    fast.convs[0].explain = None
    assert fast.convs[0].is_fused(x)


@pytest.mark.parametrize("kind", KINDS)
def test_hooks_on_messages_fire(kind):
    edge_index, _, x = unsorted_graph()
    names = ["message", "aggregate", "propagate", *(["edge_update"] if kind == "GATConv" else [])]
    more = {"edge_index": edge_index} | ({"x_0": x} if kind == "GCN2Conv" else {})
    for name in names:
        for point in ("pre_hook", "hook"):
            theirs, ours = twins(kind, *SIMPLE[kind])
            seen = []
            for layer in (theirs, ours):
                handle = getattr(layer, f"register_{name}_forward_{point}")(
                    lambda conv, *_, seen=seen: seen.append(conv)
                )
            close([ours(x, **more)], [theirs(x, **more)])
            assert seen.count(ours) == seen.count(theirs) == 1
            handle.remove()
            assert ours.is_fused(x)


@pytest.mark.parametrize("kind", KINDS)
def test_hooks_see_weighted_messages(kind):
    edge_index, weight, x = unsorted_graph()
    weight[::3] = 0
    options = {"aggr": "sum"} if kind == "SAGEConv" else {}
    ours = twins(kind, *SIMPLE[kind], **options)[1]
    more = {"edge_index": edge_index, "edge_weight": weight} | ({"x_0": x} if kind == "GCN2Conv" else {})
    expected, seen = ours(x, **more), []
    handle = ours.register_message_forward_hook(lambda conv, args, out: seen.append(out))
    close([ours(x, **more)], [expected])
    assert len(seen) == 1
    handle.remove()
    ours.register_message_forward_hook(lambda conv, args, out: 0 * out)
    nothing = {"edge_index": edge_index, "edge_weight": 0 * weight}
    if kind in ("SAGEConv", "GINConv"):
        close([ours(x, **more)], [ours(x, **nothing)])


@pytest.mark.parametrize("kind", KINDS)
def test_subclass_with_its_own_messages(kind):
    base = getattr(ours_module, kind)
    edge_index, weight, x = unsorted_graph()

    class Same(base):
        pass

    class Later(Same):
        pass

    class Silent(base):
        def message(self, x_j):
            return x_j * 0

    class Counting(base):
        def update(self, inputs):
            return inputs + 1

    for cls in (Same, Later, Silent, Counting):  # PyG keeps the code that it makes for a class by its name
        cls.__name__ += kind
    args = SIMPLE[kind]
    more = {"edge_index": edge_index} | ({"x_0": x} if kind == "GCN2Conv" else {})
    for cls in (Same, Later):
        assert cls(*args).is_fused(x)
    for cls in (Silent, Counting):
        layer = cls(*args)
        assert not layer.is_fused(x)
        assert layer(x, **more).shape[0] == 12
        if kind in ("SAGEConv", "GINConv"):
            with pytest.raises(ValueError, match="with a method '(message|update)' of its own"):
                layer(x, edge_index, edge_weight=weight)
    silent = Silent(*args, **({"aggr": "sum"} if kind == "SAGEConv" else {}))
    plain = base(*args)
    plain.load_state_dict(silent.state_dict())
    if kind == "GCN2Conv":
        expected = 0.1 * x @ silent.weight1
    elif kind in ("GATConv", "GCNConv"):
        expected = torch.zeros(12, silent.bias.numel()) + silent.bias
    else:
        expected = plain(x, torch.zeros_like(edge_index[:, :0]))
    close([silent(x, **more)], [expected])


@pytest.mark.parametrize("kind", KINDS)
def test_transforms_of_functions(kind):
    edge_index, weight, x = unsorted_graph()
    theirs, ours = twins(kind, *SIMPLE[kind])
    more = {"edge_index": edge_index} | ({"x_0": x} if kind == "GCN2Conv" else {})
    found, expected = (
        torch.func.grad(
            lambda p, layer=layer: torch.func.functional_call(layer, p, (x,), more).square().sum(),
        )(dict(layer.named_parameters()))
        for layer in (ours, theirs)
    )
    close(list(found.values()), list(expected.values()))
    mapped = torch.func.vmap(lambda x: ours(x, **more))(torch.stack([x, 2 * x]))
    close([mapped[1]], [theirs(2 * x, **more)])
    weighted = torch.func.jvp(lambda w: ours(x, edge_weight=w, **more), (weight,), (torch.ones_like(weight),))
    close([weighted[0]], [ours(x, edge_weight=weight, **more)])


@pytest.mark.parametrize("kind", KINDS)
def test_reference_of_the_tests_is_the_other_path(kind):
    x = unsorted_graph()[2]
    layer = getattr(ours_module, kind)(*SIMPLE[kind])
    assert layer.is_fused(x)
    with edge_by_edge():
        assert not layer.is_fused(x)


def blocks_network():
    return nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 4))


def with_bias():
    layer = ours_module.GCNConv(8, 4)
    layer.lin = nn.Linear(8, 4)  # whose bias each node sends
    return layer


BLOCKS = {
    "GCN, biased": with_bias,
    "GCN": lambda: ours_module.GCNConv(8, 4),
    "GCN, wide": lambda: ours_module.GCNConv(8, 16),
    "GCN, improved": lambda: ours_module.GCNConv(8, 4, improved=True, bias=False),
    "GCN, not normalised": lambda: ours_module.GCNConv(8, 4, normalize=False),
    "SAGE": lambda: ours_module.SAGEConv(8, 4),
    "SAGE, wide": lambda: ours_module.SAGEConv(8, 16, normalize=True),
    "SAGE, max": lambda: ours_module.SAGEConv(8, 4, aggr="max", project=True),
    "SAGE, sum": lambda: ours_module.SAGEConv(8, 4, aggr="sum", root_weight=False),
    "GIN": lambda: ours_module.GINConv(blocks_network(), eps=0.25),
    "GIN, min": lambda: ours_module.GINConv(blocks_network(), aggr="min", train_eps=True),
    "GAT": lambda: ours_module.GATConv(8, 4, heads=2),
    "GAT, mean": lambda: ours_module.GATConv(8, 4, heads=3, concat=False, residual=True),
    "GAT, no self-loops": lambda: ours_module.GATConv(8, 4, add_self_loops=False),
    "GAT, pair": lambda: ours_module.GATConv((8, 8), 4, heads=2),
    "GAT, features of edges": lambda: ours_module.GATConv(8, 4, heads=2, edge_dim=3),
    "GCNII": lambda: ours_module.GCN2Conv(8, 0.3, 0.5, 2),
}


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("weighted", [False, True])
@torch.no_grad()
def test_blocks_of_rows_are_the_rows(name, weighted):
    data = random_graph()
    torch.manual_seed(0)
    layer = BLOCKS[name]().eval()
    weight = torch.rand(data.num_edges) if weighted else None
    if weighted:
        weight[::5] = 0
    x = torch.randn(data.num_nodes, 8)
    pair = "pair" in name or "GCN" not in name
    adj = Adjacency.from_edge_index(data.edge_index, weight, data.num_nodes)
    operator = layer.operator(adj, x.dtype)
    given, per_row, per_entry = {}, {}, {}
    if "GCNII" in name:
        given["x_0"] = per_row["x_0"] = torch.randn(data.num_nodes, 8)
    if "features" in name:
        given["edge_attr"] = torch.randn(data.num_edges, 3)
        per_entry["edge_attr"] = layer.edge_rows(adj, given["edge_attr"])
    expected = layer((x, x) if pair else x, edge_index=data.edge_index, edge_weight=weight, **given)
    hidden = torch.cat([layer.transform(part) for part in x.split(25)])
    for columns in ("all", "needed"):
        found = []
        for start in range(0, data.num_nodes, 25):
            rows = slice(start, min(start + 25, data.num_nodes))
            block = operator.rows(rows.start, rows.stop)
            extra = {key: value[rows] for key, value in per_row.items()}
            entries = slice(int(operator.rowptr[rows.start]), int(operator.rowptr[rows.stop]))
            extra |= {key: value[entries] for key, value in per_entry.items()}
            sources = hidden
            if columns == "needed":
                (source, target), value = block.to_edge_index()
                nodes, source = source.unique(return_inverse=True)
                size = (nodes.numel(), block.num_dst)
                block, sources = Adjacency.from_edge_index(torch.stack([source, target]), value, size), hidden[nodes]
            found.append(layer.rows(block, sources, hidden[rows], x[rows], **extra))
        torch.testing.assert_close(torch.cat(found), expected, atol=1e-5, rtol=1e-5)


def test_what_layers_declare():
    assert {cls.replaces: cls for cls in FUSED.values()} == FUSED
    assert all(issubclass(cls, FusedConv) and issubclass(cls, theirs) for theirs, cls in FUSED.items())
    sums = {"GCN", "GCN, biased", "GCN, wide", "GCN, improved", "GCN, not normalised", "SAGE, sum", "GIN", "GCNII"}
    layers = {name: make() for name, make in BLOCKS.items()}
    assert {name for name, layer in layers.items() if layer.weighted_sum} == sums
    normalising = {"GCN", "GCN, biased", "GCN, wide", "GCN, improved", "GCNII"}
    assert {name for name, layer in layers.items() if layer.normalises} == normalising
    rooted = {"SAGE", "SAGE, wide", "SAGE, max", "GIN", "GIN, min"}
    assert {name for name, layer in layers.items() if layer.has_root} == rooted


@pytest.mark.parametrize("kind", ["GCNConv", "GCN2Conv"])
@pytest.mark.parametrize("order", [(False, False), (True, False), (False, True)])
def test_a_cached_graph_is_dropped_where_pyg_drops_it(kind, order):
    edge_index, _, x = unsorted_graph(simple=True)
    other = coalesce((edge_index + 3) % 12)
    more = {"x_0": x.clone()} if kind == "GCN2Conv" else {}
    attributes = {"edge_index": "_cached_edge_index", "CSR": "_cached_edge_index", "SparseTensor": "_cached_adj_t"}
    for name in ("edge_index", *(known for known in ("CSR", "SparseTensor") if known in MATRICES)):
        theirs, ours = twins(kind, *SIMPLE[kind], cached=True)
        for edges in (edge_index, other, edge_index[:, :9], other):
            graph = form(name, edges, (12, 12))
            first = edges is edge_index
            for traced in order:
                with edge_by_edge() if traced else nullcontext():
                    close([ours(x, edge_index=graph, **more)], [theirs(x, edge_index=graph, **more)])
            for layer in (theirs, ours) if not first else ():
                setattr(layer, attributes[name], None)
    if "SparseTensor" in MATRICES:  # which has a cache of its own
        theirs, ours = twins(kind, *SIMPLE[kind], cached=True)
        for name, edges in (("edge_index", edge_index), ("SparseTensor", other), ("edge_index", other)):
            graph = form(name, edges, (12, 12))
            close([ours(x, edge_index=graph, **more)], [theirs(x, edge_index=graph, **more)])
    theirs, ours = twins(kind, *SIMPLE[kind], cached=True)
    for edges in (edge_index, other):
        for layer in (theirs, ours):
            layer(x, edge_index=edges, **more)
            layer.reset_parameters()
        ours.load_state_dict(theirs.state_dict())
    close([ours(x, edge_index=other, **more)], [theirs(x, edge_index=other, **more)])
    ours._cached_edge_index = theirs._cached_edge_index = None
    close([ours(x, edge_index=edge_index, **more)], [theirs(x, edge_index=edge_index, **more)])
    fast = accelerate(theirs)
    close([fast(x, edge_index=other, **more)], [theirs(x, edge_index=other, **more)])  # both know the first graph
    fast._cached_edge_index = theirs._cached_edge_index = None
    close([fast(x, edge_index=other, **more)], [theirs(x, edge_index=other, **more)])
