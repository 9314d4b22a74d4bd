import copy
import pickle

import pytest
import torch
import torch_geometric.transforms as T
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric import EdgeIndex
from torch_geometric.data import Data, HeteroData
from torch_geometric.nn import GCN
from torch_geometric.utils import contains_self_loops, is_undirected

from graphsparse.testing import random_graph
from graphsparse.transforms import PerturbEdges
from graphsparse.utils.counter_random import CounterRandom


def named_graph(self_loops=False):
    """Every edge knows its number and its old ends."""
    data = random_graph()
    if self_loops:
        loops = torch.tensor([[3, 9, 9], [3, 9, 9]])
        order = torch.randperm(data.num_edges + 3, generator=torch.Generator().manual_seed(0))
        data.edge_index = torch.cat([data.edge_index, loops], dim=1)[:, order]
    data.edge_attr = torch.cat([torch.arange(data.num_edges).unsqueeze(1), data.edge_index.t()], dim=1)
    return data


def slow(edge_index, num_nodes, eps, seed):
    """One edge after the other; ``None`` where it was removed."""
    num = edge_index.size(1)
    place = CounterRandom(seed, "edges").words(num).tolist()
    word = CounterRandom(seed, "targets").words(num).tolist()
    edges = edge_index.t().tolist()
    order = sorted((i for i in range(num) if edges[i][0] != edges[i][1]), key=lambda i: place[i])
    for i in order[: int(eps * len(order))]:
        target = word[i] * num_nodes // 2**32
        edges[i] = None if target == edges[i][0] else [edges[i][0], target]
    return edges


@settings(max_examples=40, deadline=None)
@given(st.floats(0, 1), st.integers(0, 2**63 - 1), st.booleans())
def test_equals_a_slow_loop(eps, seed, self_loops):
    data = named_graph(self_loops)
    out = PerturbEdges(eps, seed)(data)
    expected = slow(data.edge_index, 60, eps, seed)
    assert out.edge_index.t().tolist() == [edge for edge in expected if edge is not None]
    assert out.edge_attr[:, 0].tolist() == [i for i, edge in enumerate(expected) if edge is not None]


@settings(max_examples=40, deadline=None)
@given(st.floats(0, 1), st.integers(0, 2**63 - 1))
def test_what_the_protocol_says(eps, seed):
    data = named_graph()
    out = PerturbEdges(eps, seed)(data)
    source, old = out.edge_attr[:, 1], out.edge_attr[:, 2]
    assert torch.equal(out.edge_index[0], source)
    assert not contains_self_loops(out.edge_index)
    lost = data.num_edges - out.num_edges
    moved = int((out.edge_index[1] != old).sum())
    # A new target may be the old one, so that fewer edges look moved than were chosen.
    assert moved + lost <= int(eps * data.num_edges)
    assert (out.edge_attr[:, 0].diff() > 0).all()
    if eps == 0:
        assert torch.equal(out.edge_index, data.edge_index)


def test_new_targets_are_drawn_from_all_nodes():
    num_nodes, num_edges = 20, 40_000
    source = torch.zeros(num_edges, dtype=torch.int64)
    data = Data(edge_index=torch.stack([source, source + 1]), num_nodes=num_nodes)
    out = PerturbEdges(1.0, seed=1)(data)
    count = torch.bincount(out.edge_index[1], minlength=num_nodes)
    assert count[0] == 0  # self-loops are gone
    expected = num_edges / num_nodes
    assert ((count[1:] - expected).abs() < 5 * expected**0.5).all()


def test_directions_are_chosen_apart():
    data = named_graph()
    out = PerturbEdges(0.3)(data)
    assert is_undirected(data.edge_index)
    assert not is_undirected(out.edge_index)


def test_self_loops_that_were_there_stay_and_do_not_count():
    data = named_graph(self_loops=True)
    out = PerturbEdges(1.0)(data)
    loops = out.edge_index[:, out.edge_index[0] == out.edge_index[1]]
    assert sorted(loops[0].tolist()) == [3, 9, 9]
    one = Data(edge_index=torch.tensor([[0, 1, 2], [0, 2, 2]]), num_nodes=1000)
    # Half of one edge is none; half of three would be one.
    assert all(torch.equal(PerturbEdges(0.5, seed)(one).edge_index, one.edge_index) for seed in range(5))


def test_self_loops_put_behind():
    data = named_graph()
    del data.edge_attr
    out = T.Compose([PerturbEdges(0.5), T.AddRemainingSelfLoops()])(data)
    loops = out.edge_index[0] == out.edge_index[1]
    assert sorted(out.edge_index[0, loops].tolist()) == list(range(60))


def test_more_budget_changes_more_of_the_same():
    data = named_graph()
    previous = {}
    for eps in (0.1, 0.4, 0.8, 1.0):
        out = PerturbEdges(eps, seed=3)(data)
        now = {i: v for (i, _, _), v in zip(out.edge_attr.tolist(), out.edge_index[1].tolist(), strict=True)}
        moved = {i: now.get(i) for i, (_, _, old) in enumerate(data.edge_attr.tolist()) if now.get(i) != old}
        assert previous.items() <= moved.items()
        assert len(moved) > len(previous)
        previous = moved


def test_only_edges_change_and_the_input_does_not():
    data = named_graph()
    before = copy.deepcopy(data)
    out = PerturbEdges(0.8)(data)
    for key, value in before.to_dict().items():
        assert torch.equal(data[key], value)
        assert key.startswith("edge") or torch.equal(out[key], value)
    out.validate()


def test_nodes_that_lose_all_edges_stay():
    with pytest.warns(UserWarning, match="Unable to accurately infer 'num_nodes'"):  # PyG's
        out = PerturbEdges(1.0)(Data(edge_index=torch.tensor([[0, 0, 0], [1, 2, 3]])))
    assert out.num_nodes == 4


def test_link_labels_are_no_edges():
    data = named_graph()
    data.edge_label_index, data.edge_label = data.edge_index, torch.ones(data.num_edges)
    out = PerturbEdges(1.0)(data)
    assert out.num_edges < data.num_edges
    assert torch.equal(out.edge_label_index, data.edge_index)
    assert out.edge_label.numel() == data.num_edges


def test_seeds():
    data = named_graph()
    state = torch.get_rng_state()
    assert torch.equal(PerturbEdges(0.5, 7)(data).edge_index, PerturbEdges(0.5, 7)(data).edge_index)
    assert len({tuple(PerturbEdges(0.5, seed)(data).edge_index[1].tolist()) for seed in range(10)}) == 10
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("order", ["row", "col", None])
def test_edge_index_class(order):
    data = named_graph()
    expected = PerturbEdges(0.5)(data)
    edges = data.edge_index if order != "col" else data.edge_index.flip(0)
    data.edge_index = EdgeIndex(edges, sparse_size=(60, 60), sort_order=order, is_undirected=True)
    out = PerturbEdges(0.5)(data).edge_index
    assert isinstance(out, EdgeIndex)
    assert out.sparse_size() == (60, 60)
    assert out.sort_order == ("row" if order == "row" else None)
    assert not out.is_undirected
    out.validate()
    if order != "col":
        assert torch.equal(out.as_tensor(), expected.edge_index)
    unchanged = PerturbEdges(0.0)(data).edge_index
    assert unchanged.is_undirected
    assert unchanged.sort_order == order


def test_int32():
    data = named_graph()
    expected = PerturbEdges(0.5)(data).edge_index
    data.edge_index = data.edge_index.int()
    out = PerturbEdges(0.5)(data).edge_index
    assert out.dtype == torch.int32
    assert torch.equal(out.long(), expected)


@pytest.mark.parametrize("num_nodes", [0, 3])
def test_no_edges(num_nodes):
    data = Data(x=torch.ones(num_nodes, 1), edge_index=torch.empty(2, 0, dtype=torch.int64))
    assert PerturbEdges(1.0)(data).num_edges == 0


def test_models_run_on_the_result():
    data = named_graph()
    model = GCN(8, 4, 2, 3).eval()
    with torch.no_grad():
        clean, wrong = (model(d.x, d.edge_index) for d in (data, PerturbEdges(0.5)(data)))
    assert wrong.isfinite().all()
    assert not torch.allclose(clean, wrong)


def test_compose_pickle_and_repr():
    data = named_graph()
    transform = pickle.loads(pickle.dumps(T.Compose([PerturbEdges(0.5, seed=4)])))
    assert torch.equal(transform(data).edge_index, PerturbEdges(0.5, 4)(data).edge_index)
    assert str(PerturbEdges(0.5)) == "PerturbEdges(eps=0.5, seed=0)"
    assert str(PerturbEdges(1, seed=3)) == "PerturbEdges(eps=1.0, seed=3)"


@pytest.mark.parametrize(
    ("error", "match", "args"),
    [
        (TypeError, "'eps' must be a number in .0, 1. .got None", (None,)),
        (ValueError, "'eps' must be in .0, 1. .got 1.1", (1.1,)),
        (ValueError, "'eps' must be in .0, 1. .got nan", (float("nan"),)),
        (TypeError, "'seed' must be an integer", (0.5, None)),
        (ValueError, "'seed' must be between", (0.5, -1)),
    ],
)
def test_bad_arguments(error, match, args):
    with pytest.raises(error, match=match):
        PerturbEdges(*args)


def test_bad_graphs():
    with pytest.raises(TypeError, match="'data' must be a homogeneous Data .got HeteroData"):
        PerturbEdges(0.5)(HeteroData())
    with pytest.raises(ValueError, match="'data' must hold its edges in 'edge_index' alone"):
        PerturbEdges(0.5)(Data(x=torch.ones(3, 1)))
    with pytest.raises(ValueError, match="'edge_index' alone .*ToSparseTensor"):
        PerturbEdges(0.5)(T.ToSparseTensor(layout=torch.sparse_csr, remove_edge_index=False)(random_graph()))
    with pytest.raises(ValueError, match="'edge_index' holds the index 5"):
        PerturbEdges(0.5)(Data(edge_index=torch.tensor([[0], [5]]), num_nodes=3))
