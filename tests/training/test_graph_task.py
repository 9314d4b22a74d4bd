"""The parts that are called one by one; what they do together is tested with ``fit``."""

import copy
import math

import numpy as np
import pytest
import torch
from graph_models import PoolNet, random_graphs
from hypothesis import given
from hypothesis import strategies as st
from torch_geometric.data import Batch
from torch_geometric.loader import DataLoader

from graphsparse.training import GraphTask
from graphsparse.training.graph_task import JoinedBatches, graph_loader, graph_split
from graphsparse.training.target import mean_auroc

GRAPHS = random_graphs()
SPLIT = {"train": torch.arange(24), "val": torch.arange(24, 32), "test": torch.arange(39, 31, -1)}


def task(graphs=GRAPHS, **options):
    return GraphTask(graphs, **{"split": SPLIT, "target": "binary", "batch_size": 5, **options})


def test_evaluation_and_end_are_those_of_one_large_batch():
    model, graphs = PoolNet().eval(), task()
    graphs.check(model)
    found = graphs.evaluate(model.train(), 0)
    assert model.training
    model.eval()
    whole = Batch.from_data_list(GRAPHS)
    expected = model(whole.x, whole.edge_index, whole.batch).detach()
    torch.testing.assert_close(found.logits, expected[24:32])
    logits, train, test = graphs.finish(model, found)
    torch.testing.assert_close(logits, expected)
    y = torch.cat([graph.y for graph in GRAPHS])
    assert (train, test) == (mean_auroc(logits[:24], y[:24]), mean_auroc(logits[32:], y[32:]))
    assert found.val == mean_auroc(logits[24:32], y[24:32])


@pytest.mark.parametrize("index", [0, 24, 39])
def test_labels_of_every_part_are_checked(index):
    graphs = copy.deepcopy(GRAPHS)
    graphs[index].y = "secret"
    with pytest.raises(ValueError, match=rf"'dataset\[{index}\].y' must hold labels"):
        task(graphs).check(PoolNet())


def test_a_batch_without_labels():
    batch = Batch.from_data_list(copy.deepcopy(GRAPHS[:4]))
    batch.y.fill_(math.nan)
    graphs = task()
    graphs.check(PoolNet())
    assert graphs.loss(PoolNet(), batch, None) is None
    assert graphs.loss(PoolNet(), batch, lambda logits: logits.square().sum()) > 0


def test_another_signature():
    model, graphs = PoolNet().eval(), task(call=lambda model, batch: -model(batch.x, batch.edge_index, batch.batch))
    graphs.check(model)
    other = task()
    other.check(model)
    assert torch.equal(graphs.evaluate(model, 0).logits, -other.evaluate(model, 0).logits)


def test_logits_that_are_not_numbers():
    graphs = task(call=lambda model, batch: torch.full((batch.num_graphs, 3), math.nan))
    graphs.check(PoolNet())
    with pytest.raises(FloatingPointError, match="a logit is not a number after epoch 2"):
        graphs.evaluate(PoolNet(), 2)


def test_what_the_task_is_known_by():
    def identity(graphs=GRAPHS, **options):
        made = task(graphs, **options)
        made.check(PoolNet())
        return {name: str(value) for name, value in made.identity().items()}

    assert identity() == identity(copy.deepcopy(GRAPHS))
    for other in (
        identity(batch_size=6),
        identity(split={**SPLIT, "val": torch.arange(24, 31)}),
        identity([*GRAPHS[:3], GRAPHS[4], *GRAPHS[4:]]),
    ):
        assert other != identity()
    graphs = copy.deepcopy(GRAPHS)
    graphs[0].x[0, 0] += 1
    assert identity(graphs) != identity()


def test_without_test_graphs_the_rest_is_the_same():
    graphs, model = task(), PoolNet().eval()
    fewer = graphs.without_test()
    for each in (graphs, fewer):
        each.check(model)
    assert list(fewer.split) == ["train", "val"]
    found = fewer.evaluate(model, 0)
    assert torch.equal(found.logits, graphs.evaluate(model, 0).logits)
    assert fewer.finish(model, found)[2] is None
    assert "test" in graphs.split


# Batches and the parts of a data set.

FEW = random_graphs(11)


@given(st.integers(1, 40), st.integers(1, 12))
def test_joined_batches_hold_everything_once_and_none_is_alone(num, size):
    batches = list(JoinedBatches(range(num), size))
    assert [i for batch in batches for i in batch] == list(range(num))
    assert len(JoinedBatches(range(num), size)) == len(batches)
    lengths = [len(batch) for batch in batches]
    assert all(length == size for length in lengths[:-1])
    if num > 1 and size > 1:
        assert min(lengths) > 1
        assert lengths[-1] <= size + 1


def numbers(loader):
    """The graphs of every batch, known by their first feature."""
    known = {float(graph.x[0, 0]): i for i, graph in enumerate(FEW)}
    return [[known[float(x)] for x in batch.x[batch.ptr[:-1], 0]] for batch in loader]


def test_order_is_that_of_an_ordinary_loader():
    index = torch.tensor([7, 1, 3, 10, 2, 5])
    for _ in range(2):
        torch.manual_seed(3)
        ours = graph_loader(FEW, index, 4, shuffle=True)
        first, second = numbers(ours), numbers(ours)
        torch.manual_seed(3)
        other = DataLoader([FEW[i] for i in index], batch_size=4, shuffle=True)
        assert (first, second) == (numbers(other), numbers(other))
        assert first != second
        assert sorted(i for batch in first for i in batch) == sorted(index.tolist())


def test_without_shuffling_the_order_is_that_of_the_index_and_nothing_is_drawn():
    state = torch.get_rng_state()
    loader = graph_loader(FEW, torch.tensor([7, 1, 3, 10, 2]), 4, shuffle=False)
    assert numbers(loader) == [[7, 1, 3, 10], [2]]
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("kind", ["tensor", "list", "array", "mask", "range"])
def test_split(kind):
    make = {
        "tensor": torch.tensor,
        "list": list,
        "array": np.array,
        "mask": lambda index: torch.tensor([i in index for i in range(11)]),
        "range": lambda index: range(index[0], index[-1] + 1),
    }[kind]
    found = graph_split({"valid": make([4, 5]), "test": make([6]), "train": make([0, 1, 2])}, FEW)
    assert {name: index.tolist() for name, index in found.items()} == {"train": [0, 1, 2], "val": [4, 5], "test": [6]}
    assert all(index.dtype == torch.int64 for index in found.values())


def test_split_of_the_data_set_and_empty_test():
    class Graphs(list):
        def get_idx_split(self):
            return {"train": torch.tensor([1, 0]), "valid": torch.tensor([2]), "test": torch.tensor([])}

    found = graph_split(None, Graphs(FEW))
    assert {name: index.tolist() for name, index in found.items()} == {"train": [1, 0], "val": [2]}


BAD = {
    "none": (None, ValueError, "'split' is needed"),
    "list": ([0, 1], TypeError, "'split' must be a mapping .* .got list"),
    "no validation": ({"train": [0]}, ValueError, r"'split' must hold graphs under 'val' .got \['train'\]"),
    "empty": ({"train": [], "val": [0]}, ValueError, "must hold graphs under 'train'"),
    "unknown part": ({"train": [0], "val": [1], "dev": [2]}, ValueError, "must have the parts 'train', 'val' and"),
    "twice": ({"train": [0], "val": [1], "valid": [2]}, ValueError, "must have the parts"),
    "range": ({"train": [0, 11], "val": [1]}, ValueError, r"'split\['train'\]' holds 0 to 11, but there are 11 graphs"),
    "negative": ({"train": [-1], "val": [1]}, ValueError, "holds -1 to -1"),
    "floats": ({"train": [0.5], "val": [1]}, TypeError, "must hold integers"),
    "short mask": ({"train": torch.ones(3).bool(), "val": [1]}, TypeError, r"or a bool mask .got torch.bool \[3\]"),
    "rows": ({"train": torch.tensor([[0, 1]]), "val": [1]}, TypeError, r"must hold integers .*\[1, 2\]"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_split(name):
    split, error, message = BAD[name]
    with pytest.raises(error, match=message):
        graph_split(split, FEW)
