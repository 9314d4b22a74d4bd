import json
import subprocess
import sys
from dataclasses import dataclass

import pytest
import torch
import torch_geometric.typing
from torch_geometric.nn import GCN
from torch_geometric.transforms import ToSparseTensor

from graphsparse.metrics import accuracy
from graphsparse.ops.digest import digest
from graphsparse.testing import random_graph
from graphsparse.training import Training
from graphsparse.training.checkpoint import describe_loader, graph_tensors, training_identity

pytestmark = pytest.mark.once

PROGRAM = """
import torch
from torch_geometric.nn import GCN
from graphsparse.metrics import accuracy
from graphsparse.testing import random_graph
from graphsparse.training import Training
from graphsparse.training.checkpoint import graph_tensors, training_identity

def identity():
    torch.manual_seed(0)
    model = GCN(8, 16, 2, 3)
    groups = [{"params": model.convs[0].parameters()}, {"params": model.convs[1].parameters(), "lr": 1}]
    optimizer = torch.optim.Adam(groups)
    return training_identity(
        model, optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, Schedule()), Training(epochs=3),
        functions={"metric": accuracy, "extra_loss": Schedule()}, hooks={"after_step": [Schedule()]},
        task=graph_tensors(random_graph(), "data") | {"loader": None, "other": Schedule()},
    )

class Schedule:
    def __call__(self, epoch):
        return 1.0
"""


def test_equal_in_another_process():
    """No address and no order of a set may be in it."""
    found = {}
    exec(PROGRAM, found)
    script = PROGRAM + "\nimport json; print(json.dumps(identity()))"
    other = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert json.loads(other) == found["identity"]()
    assert "0x" not in other


def test_what_is_in_it():
    model = GCN(8, 16, 2, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=torch.tensor(0.5))
    identity = training_identity(
        model, optimizer, None, Training(epochs=3, seed=7),
        functions={"metric": accuracy}, hooks={}, task={"batch_size": 5},
    )  # fmt: skip
    assert identity["'epochs'"] == 3
    assert identity["'seed'"] == 7
    assert identity["'metric'"] == "accuracy"
    assert identity["'batch_size'"] == 5
    assert identity["'scheduler'"] is None
    assert identity["'model' convs.0.lin.weight"] == "float32 [16, 8]"
    assert identity["the device of 'model'"] == "cpu"
    assert "lr: 0.5" in identity["'optimizer'"]


def changed(tensor, bit):
    tensor = tensor.clone()
    tensor.view(-1).view(torch.uint8)[bit] ^= 1
    return tensor


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.uint8])
def test_one_bit_changes_the_digest(dtype):
    tensor = torch.arange(12).view(3, 4).to(dtype)
    digests = {digest([changed(tensor, bit)]) for bit in range(12)} | {digest([tensor])}
    assert len(digests) == 13
    assert digest([tensor]) == digest([tensor.t().contiguous().t()])  # how it lies in memory does not matter
    assert digest([tensor]) != digest([tensor.view(4, 3)])
    assert digest([torch.tensor(1.0)]) != digest([torch.tensor(2.0)])
    digest([torch.empty(0, 3), True, "text", {"a": 1}])


def test_blocks_make_no_difference(monkeypatch):
    import graphsparse.ops.digest as module

    whole = digest([torch.arange(1000)])
    monkeypatch.setattr(module, "_BYTES", 64)
    assert digest([torch.arange(1000)]) == whole
    assert digest([torch.arange(1000) + 1]) != whole


@pytest.mark.parametrize("layout", [torch.sparse_csr, torch.sparse_csc, torch.sparse_coo])
def test_sparse_matrices(layout):
    dense = random_graph().x * (random_graph().x > 0)
    other = dense.clone()
    other[dense.nonzero()[0, 0], dense.nonzero()[0, 1]] += 1
    first, second = (d.to_sparse(layout=layout) for d in (dense, other))
    assert digest([first]) == digest([dense.to_sparse(layout=layout)])
    assert digest([first]) != digest([second])


@pytest.mark.skipif(not torch_geometric.typing.WITH_TORCH_SPARSE, reason="needs torch-sparse")
def test_sparse_tensors_of_the_extension():
    def describe(data):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1)
        tensors = graph_tensors(ToSparseTensor()(data), "data")
        return training_identity(
            torch.nn.Linear(1, 1), optimizer, None, Training(), functions={}, hooks={}, task=tensors,
        )["'data.adj_t'"]  # fmt: skip

    assert describe(random_graph()) == describe(random_graph()) != describe(random_graph(seed=1))


def test_loaders():
    assert describe_loader(None) is None
    assert describe_loader([1, 2]) == "list of 2 batches"
    assert describe_loader(torch.utils.data.DataLoader([1, 2, 3], batch_size=2)) == "DataLoader of 2 batches of size 2"
    assert describe_loader(x for x in [1]) == "generator of ? batches"


def test_objects_of_a_dataclass_are_told_apart_by_their_fields():
    @dataclass
    class Term:
        weight: float
        target: torch.Tensor

        def __call__(self, logits, batch, epoch):
            return 0

    model = GCN(8, 16, 2, 3)

    def identity(term):
        return training_identity(
            model, torch.optim.SGD(model.parameters()), None, Training(epochs=3),
            functions={"extra_loss": term}, hooks={}, task={},
        )  # fmt: skip

    same, other = Term(1.0, torch.zeros(20)), Term(1.0, torch.ones(20))
    assert identity(Term(1.0, torch.zeros(20))) == identity(same)
    assert len({identity(term)["'extra_loss'"] for term in (same, other, Term(2.0, torch.zeros(20)), Term)}) == 4
