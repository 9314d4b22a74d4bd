import pytest
import torch
from torch.optim import Adam
from torch_geometric.data import Data
from torch_geometric.nn import GCN, global_mean_pool

from graphsparse.metrics import accuracy, auroc
from graphsparse.testing import random_graph
from graphsparse.tickets.search_task import SearchTask
from graphsparse.training import fit


class Pooled(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.gnn = GCN(4, 8, 2, 1)

    def forward(self, x, edge_index, batch):
        return global_mean_pool(self.gnn(x, edge_index), batch)


def graphs(num=30):
    generator = torch.Generator().manual_seed(0)
    sets = []
    for i in range(num):
        x = torch.randn(6, 4, generator=generator) + (i % 2)
        edges = torch.randint(6, (2, 10), generator=generator)
        sets.append(Data(x=x, edge_index=edges, y=torch.tensor([[float(i % 2)]])))
    return sets


SPLIT = {"train": range(15), "val": range(15, 22), "test": range(22, 30)}


def test_nodes_are_trained_as_by_fit():
    data, results = random_graph(), []
    for run in (
        lambda model, optimizer: SearchTask(data, epochs=5, seed=3).run(model, optimizer),
        lambda model, optimizer: fit(model, data, optimizer=optimizer, epochs=5, seed=3),
    ):
        torch.manual_seed(0)
        model = GCN(8, 16, 2, 3, dropout=0.5)
        results.append(run(model, Adam(model.parameters(), lr=0.01)))
    assert torch.equal(results[0].logits, results[1].logits)
    assert results[0].test == results[1].test


def test_test_nodes_are_hidden_and_read_at_the_end():
    data = random_graph()
    task = SearchTask(data, epochs=5)
    assert data.get("test_mask") is not None
    model = GCN(8, 16, 2, 3)
    result = task.without_test().run(model, Adam(model.parameters(), lr=0.01))
    assert result.test is None
    assert task.test(model, result) == accuracy(result.logits, data.y, data.test_mask)
    assert data.get("test_mask") is not None


def test_test_graphs_are_hidden_and_read_at_the_end():
    data, model = graphs(), Pooled()
    task = SearchTask(data, split=SPLIT, target="binary", epochs=3, batch_size=4)
    assert task.metric == "rocauc"
    result = task.without_test().run(model, Adam(model.parameters(), lr=0.01))
    assert result.test is None
    with torch.no_grad():
        scores = torch.cat([model(g.x, g.edge_index, torch.zeros(6, dtype=torch.int64)) for g in data[22:]])[:, 0]
    labels = torch.tensor([bool(g.y) for g in data[22:]])
    assert task.test(Pooled(), result) == pytest.approx(auroc(scores, labels))


def test_which_value_is_better():
    data = graphs()
    assert SearchTask(random_graph()).is_better(0.8, 0.7)
    assert SearchTask(data, split=SPLIT, target="binary").is_better(0.8, 0.7)
    assert not SearchTask(data, split=SPLIT, target="regression").is_better(0.8, 0.7)


@pytest.mark.parametrize("name", ["evaluator", "split", "target"])
def test_arguments_for_graphs_are_refused_for_nodes(name):
    with pytest.raises(ValueError, match=f"'{name}' is for a set of graphs"):
        SearchTask(random_graph(), **{name: "binary"})


def test_arguments_for_nodes_are_refused_for_graphs():
    with pytest.raises(ValueError, match="'loader' and 'inference' are for the nodes of one graph"):
        SearchTask(graphs(), loader=[])
