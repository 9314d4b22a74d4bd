import numpy as np
import pytest
import torch
from graph_models import random_graphs
from hypothesis import given
from hypothesis import strategies as st
from torch_geometric.loader import DataLoader

from graphsparse.training.graph_batches import JoinedBatches, graph_loader, graph_split

GRAPHS = random_graphs(11)


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
    known = {float(graph.x[0, 0]): i for i, graph in enumerate(GRAPHS)}
    return [[known[float(x)] for x in batch.x[batch.ptr[:-1], 0]] for batch in loader]


def test_order_is_that_of_an_ordinary_loader():
    index = torch.tensor([7, 1, 3, 10, 2, 5])
    for _ in range(2):
        torch.manual_seed(3)
        ours = graph_loader(GRAPHS, index, 4, shuffle=True)
        first, second = numbers(ours), numbers(ours)
        torch.manual_seed(3)
        other = DataLoader([GRAPHS[i] for i in index], batch_size=4, shuffle=True)
        assert (first, second) == (numbers(other), numbers(other))
        assert first != second
        assert sorted(i for batch in first for i in batch) == sorted(index.tolist())


def test_without_shuffling_the_order_is_that_of_the_index_and_nothing_is_drawn():
    state = torch.get_rng_state()
    loader = graph_loader(GRAPHS, torch.tensor([7, 1, 3, 10, 2]), 4, shuffle=False)
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
    found = graph_split({"valid": make([4, 5]), "test": make([6]), "train": make([0, 1, 2])}, GRAPHS)
    assert {name: index.tolist() for name, index in found.items()} == {"train": [0, 1, 2], "val": [4, 5], "test": [6]}
    assert all(index.dtype == torch.int64 for index in found.values())


def test_split_of_the_data_set_and_empty_test():
    class Graphs(list):
        def get_idx_split(self):
            return {"train": torch.tensor([1, 0]), "valid": torch.tensor([2]), "test": torch.tensor([])}

    found = graph_split(None, Graphs(GRAPHS))
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
        graph_split(split, GRAPHS)
