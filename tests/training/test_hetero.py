"""Nodes of one type of a HeteroData, against training by hand."""

import copy

import pytest
import torch
import torch.nn.functional as F
from hetero_models import HETERO, Convs, Encoded, Weighted
from torch_geometric.loader import NeighborLoader
from torch_geometric.nn import GraphSAGE

from graphsparse.metrics import accuracy
from graphsparse.nn import accelerate
from graphsparse.testing import random_graph, random_hetero_graph
from graphsparse.training import NodeTask, Training, build_model, fit, predict
from graphsparse.typing import has_module
from graphsparse.utils.call_model import call_model

SEEDS = ("paper", random_hetero_graph()["paper"].train_mask)
needs_sampler = pytest.mark.skipif(
    not has_module("torch_sparse") and not has_module("pyg_lib"), reason="NeighborLoader needs one"
)


def logits_of(out):
    return out["paper"] if isinstance(out, dict) else out


def subgraph(data):
    """Two batches: the papers in halves, with all authors."""
    half = torch.arange(data["paper"].num_nodes) % 2 == 0
    return [data.subgraph({"paper": half}), data.subgraph({"paper": ~half})]


@pytest.mark.parametrize("name", HETERO)
def test_a_step_is_that_of_a_loop_by_hand(name):
    data, papers = random_hetero_graph(), random_hetero_graph()["paper"]
    model, hand = build_model(HETERO[name], 0), build_model(HETERO[name], 0)
    result = fit(model, data, Training(epochs=1, lr=0.01, weight_decay=0.0))
    optimizer = torch.optim.Adam(hand.parameters(), lr=0.01)
    out = logits_of(hand(data.x_dict, data.edge_index_dict))
    F.cross_entropy(out[papers.train_mask], papers.y[papers.train_mask]).backward()
    optimizer.step()
    for ours, theirs in zip(result.state_dict.values(), hand.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, theirs)
    out = logits_of(hand.eval()(data.x_dict, data.edge_index_dict))
    torch.testing.assert_close(result.logits, out.detach())
    assert result.test == accuracy(out, papers.y, papers.test_mask)
    torch.testing.assert_close(predict(model, data, node_type="paper"), out.detach())


def test_it_learns_and_goes_on_after_a_kill(tmp_path):
    data, rows = random_hetero_graph(), []

    def kill(row):
        rows.append(row)
        if len(rows) == 4:
            raise KeyboardInterrupt

    training = Training(epochs=8, lr=0.05)
    whole = fit(build_model(lambda: Convs(0.3), 0), data, training)
    assert whole.val > 0.5
    options = {"checkpoint": tmp_path / "a.pt", "checkpoint_every": 1}
    with pytest.raises(KeyboardInterrupt):
        fit(build_model(lambda: Convs(0.3), 0), data, epochs=8, lr=0.05, log=kill, **options)
    again = fit(build_model(lambda: Convs(0.3), 0), data, epochs=8, lr=0.05, **options)
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict.values(), again.state_dict.values(), strict=True))
    other = random_hetero_graph()
    other["author", "writes", "paper"].edge_index = other["author", "writes", "paper"].edge_index.flip(1)
    with pytest.raises(ValueError, match="belongs to another training"):
        fit(build_model(lambda: Convs(0.3), 0), other, epochs=8, lr=0.05, **options)


def test_batches():
    data = random_hetero_graph()
    result = fit(build_model(Convs, 0), NodeTask(data, loader=subgraph(data)), epochs=2)
    made = fit(build_model(Convs, 0), NodeTask(data, loader=subgraph), epochs=2)
    assert all(torch.equal(a, b) for a, b in zip(result.state_dict.values(), made.state_dict.values(), strict=True))
    with pytest.raises(ValueError, match="'loader' must give HeteroData with a 'train_mask'"):
        fit(Convs(), NodeTask(data, loader=[random_graph()]), epochs=1)


@needs_sampler
def test_all_neighbors_of_all_seeds_are_the_whole_graph():
    data = random_hetero_graph()
    task = NodeTask(data, loader=lambda d: NeighborLoader(d, [-1, -1], input_nodes=SEEDS, batch_size=40))
    result, whole = (fit(build_model(Convs, 0), t, epochs=2) for t in (task, NodeTask(data)))
    for ours, theirs in zip(result.state_dict.values(), whole.state_dict.values(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    small = NodeTask(data, loader=lambda d: NeighborLoader(d, [2, 2], input_nodes=SEEDS, batch_size=5, shuffle=True))
    first, again = (fit(build_model(Convs, 0), small, epochs=2) for _ in range(2))
    assert torch.equal(first.logits, again.logits)


def test_inductive_training_cannot_see_hidden_nodes():
    data, other = random_hetero_graph(), random_hetero_graph()
    hidden = ~other["paper"].train_mask
    other["paper"].x[hidden] *= 7
    options = {"inductive": True, "loader": lambda graph: [graph]}
    first, second = (fit(build_model(Convs, 0), NodeTask(d, **options), epochs=1) for d in (data, other))
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict.values(), second.state_dict.values(), strict=True))
    assert not torch.equal(first.logits, second.logits)


def test_no_search_sees_a_test_label():
    task = NodeTask(random_hetero_graph()).without_test()
    papers = task.nodes(task.eval_data)
    assert papers.get("test_mask") is None
    assert (papers.y[~(papers.train_mask | papers.val_mask)] == -1).all()


def weighted(data, weight=None):
    data = copy.copy(data)
    for kind in data.edge_types:
        num = data[kind].edge_index.size(1)
        data[kind].edge_weight = torch.rand(num) if weight is None else torch.full((num,), weight)
    return data


def test_edge_weights_are_used_or_refused():
    data, model = random_hetero_graph(), Encoded(Weighted)
    plain = call_model(model, data, node_type="paper")
    assert torch.equal(call_model(model, weighted(data, 1.0), node_type="paper"), plain)
    assert not torch.allclose(call_model(model, weighted(data), node_type="paper"), plain)
    gnn = Encoded(lambda: GraphSAGE((8, 8), 8, 2, 3)).gnn
    for made in (Convs(), gnn):
        with pytest.raises(ValueError, match="'data' holds 'edge_weight', but .* has no argument 'edge_weight'"):
            fit(made, weighted(data), epochs=1)
    x = {kind: torch.ones(data[kind].num_nodes, 8) for kind in data.node_types}
    same = accelerate(gnn)(x, data.edge_index_dict)["paper"]
    torch.testing.assert_close(same, gnn(x, data.edge_index_dict)["paper"])


def changed(**changes):
    data = random_hetero_graph()
    for key, value in changes.items():
        data["paper"][key] = value
    return data


def misplaced():
    data = random_hetero_graph()
    data["author", "writes", "paper"].edge_index[0, 0] = 20
    return data


def two_types():
    data = random_hetero_graph()
    data["author"].train_mask = torch.ones(20, dtype=torch.bool)
    return data


BAD = {
    "no type": (lambda: NodeTask(two_types()), ValueError, "'node_type' must be .*got None.*'paper', 'author'"),
    "unknown type": (lambda: NodeTask(random_hetero_graph(), node_type="venue"), ValueError, "got 'venue'"),
    "type of a Data": (lambda: NodeTask(random_graph(), node_type="paper"), ValueError, "is for a HeteroData"),
    "eval_data": (lambda: NodeTask(random_hetero_graph(), eval_data=random_graph()), TypeError, "'eval_data' must be"),
    "NaN": (lambda: NodeTask(changed(x=torch.full((40, 8), torch.nan))), ValueError, r"'data\['paper'\].x' holds NaN"),
    "labels": (lambda: NodeTask(changed(y=torch.zeros(39).long())), ValueError, r"data\['paper'\].y'.*\[40\]"),
    "mask": (lambda: NodeTask(changed(val_mask=None)), ValueError, r"'data\['paper'\].val_mask' is missing"),
    "edges": (lambda: NodeTask(misplaced()), ValueError, r"\('author', 'writes', 'paper'\)\].edge_index' holds"),
    "classes": (lambda: NodeTask(changed(y=torch.full((40,), 3))), ValueError, "wrong width"),
    "used up": (lambda: NodeTask(random_graph(), loader=lambda graph: iter([graph])), TypeError, "used up"),
    "no loader": (lambda: NodeTask(random_graph(), loader=lambda graph: None), TypeError, "must return a loader"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    make, error, message = BAD[name]
    with pytest.raises(error, match=message):
        fit(Convs(), make(), epochs=1)


def test_logits_of_another_type():
    with pytest.raises(ValueError, match="'model' must return logits for 'paper'"):
        fit(Other(), random_hetero_graph(), epochs=1)


class Other(Convs):
    def forward(self, x_dict, edge_index_dict):
        return {"venue": super().forward(x_dict, edge_index_dict)}
