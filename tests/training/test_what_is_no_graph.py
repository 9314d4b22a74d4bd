"""What is not one graph, or not finite, is named at the door of everything that takes a graph."""

import math

import pytest
import torch
from torch_geometric.data import Data, HeteroData, InMemoryDataset, TemporalData
from torch_geometric.data.hypergraph_data import HyperGraphData
from torch_geometric.nn import GAT, GCN
from torch_geometric.transforms import ToSparseTensor

from graphsparse.soups import Evaluator, train_ingredients
from graphsparse.testing import random_graph
from graphsparse.tickets import compare_tickets, find_ticket, find_tickets
from graphsparse.training import GraphTask, LinkTask, NodeTask, Training, fit, predict


class OneGraph(InMemoryDataset):
    def __init__(self):
        super().__init__(None)
        self.data, self.slices = self.collate([random_graph()])


def hetero():
    data = HeteroData()
    data["paper"].x = torch.ones(3, 8)
    return data


WRONG = {
    "a list": (lambda: [random_graph()], r"list; its only graph is (eval_)?data\[0\]"),
    "a list of two": (lambda: [random_graph(), random_graph()], r"list; one of its graphs is (eval_)?data\[0\]"),
    "a data set": (OneGraph, r"OneGraph; its only graph is (eval_)?data\[0\]"),
    "temporal": (lambda: TemporalData(src=torch.arange(3), dst=torch.arange(3), t=torch.arange(3)), "TemporalData"),
    "hypergraph": (lambda: HyperGraphData(**random_graph().to_dict()), "HyperGraphData"),
    "nothing": (lambda: None, "NoneType"),
    "a tensor": (lambda: torch.ones(3, 3), "Tensor"),
    "a text": (lambda: "cora", "str"),
    "a dictionary": (lambda: random_graph().to_dict(), "dict"),
}


def gcn():
    return GCN(8, 16, 2, 3)


TAKES = {
    "fit": lambda data, _: fit(gcn(), data, epochs=1),
    "predict": lambda data, _: predict(gcn(), data),
    "NodeTask": lambda data, _: NodeTask(data, inductive=True),
    "eval_data": lambda data, _: NodeTask(random_graph(), eval_data=data) if data is not None else NodeTask(None),
    "find_ticket": lambda data, _: find_ticket(gcn, data, weight_sparsity=0.5),
    "find_tickets": lambda data, _: find_tickets(gcn, data, targets=[(0.0, 0.5)], method="untrained"),
    "compare_tickets": lambda data, _: compare_tickets(gcn, data, ["random"], weight_sparsity=0.5),
    "Evaluator": lambda data, _: Evaluator(gcn(), data),
    "train_ingredients": lambda data, path: train_ingredients(
        gcn, data, 1, path, training=Training(epochs=1), workers=0
    ),
    "LinkTask": lambda data, _: LinkTask(data, {"val": (torch.ones(2, 1).long(),) * 2}),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_graph(name, tmp_path):
    make, message = WRONG[name]
    for take in TAKES.values():
        with pytest.raises(
            TypeError, match=f"must be a (torch_geometric Data|data set or a list of graphs) .got {message}"
        ):
            take(make(), tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_hetero_graphs(tmp_path):
    """Nodes of one type can be learned; the rest is for graphs of one type."""
    named = {
        name: take for name, take in TAKES.items() if name not in ("predict", "Evaluator", "LinkTask", "eval_data")
    }
    for name, take in named.items():
        error = TypeError if name == "train_ingredients" else ValueError
        with pytest.raises(error, match="'node_type' must be the node type with labels|HeteroData.*to_homogeneous"):
            take(hetero(), tmp_path / "store")
    for name in set(TAKES) - set(named):
        with pytest.raises(TypeError, match="HeteroData.*to_homogeneous"):
            TAKES[name](hetero(), None)


def test_lists_of_what_is_no_graph():
    for graphs, message in (
        ([hetero()], r"'dataset\[0\]' must be .*HeteroData"),
        ([None], r"'dataset\[0\]'.*NoneType"),
    ):
        with pytest.raises(TypeError, match=message):
            fit(gcn(), graphs, target="binary", split={"train": [0], "val": [0]})
    with pytest.raises(ValueError, match="'dataset' must hold at least one graph"):
        GraphTask([], target="binary")


def spoiled(key, value, index=3):
    data = random_graph()
    if key in ("edge_weight", "edge_attr"):
        data[key] = torch.ones(data.num_edges, *([] if key == "edge_weight" else [2]))
    data[key].view(-1)[index] = value
    return data


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("key", ["x", "edge_weight", "edge_attr"])
def test_what_is_not_finite(key, value, tmp_path):
    data, make = spoiled(key, value), (lambda: GAT(8, 16, 2, 3, edge_dim=2)) if key == "edge_attr" else gcn
    val = (torch.tensor([[0], [1]]), torch.tensor([[0], [2]]))
    for name, take in {
        "data": lambda: fit(make(), data, epochs=1),
        "eval_data": lambda: fit(make(), NodeTask(random_graph(), eval_data=data), epochs=1),
        r"dataset\[0\]": lambda: GraphTask([data], split={"train": [0], "val": [0]}, target="binary").check(make()),
        "'data": lambda: fit(make(), LinkTask(data, {"val": val}), epochs=1),
        "data.": lambda: find_ticket(make, data, weight_sparsity=0.5),
        "data." + key: lambda: Evaluator(make(), data),
        "'data." + key: lambda: train_ingredients(make, data, 1, tmp_path / "store", workers=0),
    }.items():
        with pytest.raises(ValueError, match=f"{name}.*{key if key not in name else ''}' holds NaN or infinity"):
            take()


def test_labels_and_matrices_that_are_not_finite():
    data = random_graph()
    data.y = data.y.float()
    data.y[0] = math.inf
    with pytest.raises(ValueError, match="holds an infinite label"):
        fit(GCN(8, 16, 2, 1), NodeTask(data, target="regression"), epochs=1)
    data.y[0] = 0.5
    with pytest.raises(ValueError, match="binary labels must be 0, 1 or NaN"):
        fit(GCN(8, 16, 2, 1), NodeTask(data, target="binary"), epochs=1)
    data = ToSparseTensor(attr="edge_weight", layout=torch.sparse_csr)(spoiled("edge_weight", math.nan))
    with pytest.raises(ValueError, match="'data.adj_t' holds NaN or infinity"):
        fit(gcn(), data, epochs=1)
    data = random_graph()
    with pytest.raises(ValueError, match="'link_weight' must be finite"):
        LinkTask(data, {"val": (torch.ones(2, 1).long(),) * 2}, link_weight=torch.full((data.num_edges,), math.nan))


def test_nothing_is_refused_that_is_one_graph():
    assert predict(gcn(), Data(x=torch.ones(3, 8), edge_index=torch.zeros(2, 0).long())).shape == (3, 3)
