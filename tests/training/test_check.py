import numpy as np
import pytest
import torch
from torch_geometric.data import Data, HeteroData
from torch_geometric.nn import GCN, GCNConv, Linear
from torch_geometric.transforms import ToSparseTensor

from graphsparse.ops.check import check_count
from graphsparse.testing import random_graph
from graphsparse.training.check import (
    check_callable,
    check_data,
    check_labels,
    check_model,
    check_one_graph,
    check_optimizer,
    check_output,
    check_scheduler,
)

NAN, INF = float("nan"), float("inf")


def changed(**values):
    data = random_graph()
    for key, value in values.items():
        data[key] = value(data[key]) if callable(value) else value
    return data


def with_entry(value):
    def put(x):
        x = x.clone()
        x[3, 1] = value
        return x

    return put


BAD_DATA = {
    "no features": (changed(x=None), ValueError, r"'data.x' must hold features \[N, F\] .got NoneType"),
    "features of one dimension": (changed(x=torch.ones(60)), ValueError, r"'data.x' must hold features.*\[60\]"),
    "integer features": (changed(x=lambda x: x.long()), TypeError, "'data.x' must be floating point.*int64"),
    "NaN": (changed(x=with_entry(NAN)), ValueError, "'data.x' holds NaN or infinity"),
    "infinity": (changed(x=with_entry(-INF)), ValueError, "'data.x' holds NaN or infinity"),
    "NaN in CSR": (changed(x=lambda x: with_entry(NAN)(x).to_sparse_csr()), ValueError, "holds NaN"),
    "NaN in COO": (changed(x=lambda x: with_entry(NAN)(x).to_sparse_coo()), ValueError, "holds NaN"),
    "empty graph": (Data(x=torch.ones(0, 3), edge_index=torch.zeros(2, 0).long()), ValueError, "it has no nodes"),
    "no edges": (changed(edge_index=None), ValueError, "'data' must hold 'edge_index' or 'adj_t'"),
    "edge out of range": (changed(edge_index=lambda e: e + 1), ValueError, "'data.edge_index' holds the index 60"),
    "negative edge": (changed(edge_index=lambda e: e - 1), ValueError, "'data.edge_index' must not hold negative"),
    "float edges": (changed(edge_index=lambda e: e.float()), TypeError, "'data.edge_index' must be a dense int64"),
    "turned edges": (changed(edge_index=lambda e: e.t()), ValueError, r"'data.edge_index' must have shape \[2, E\]"),
    "no labels": (changed(y=None), ValueError, r"'data.y' must hold one label per node, \[60\] .got NoneType"),
    "labels of OGB": (changed(y=lambda y: y[:, None]), ValueError, r"'data.y' must hold one label.*\[60, 1\]"),
    "float labels": (changed(y=lambda y: y.float()), TypeError, "'data.y' must be int64 class labels"),
    "no mask": (changed(train_mask=None), ValueError, "'data.train_mask' is missing"),
    "no training nodes": (changed(train_mask=lambda m: m & False), ValueError, "'data.train_mask' marks no node"),
    "ten splits": (changed(train_mask=lambda m: m[:, None].expand(60, 10)), ValueError, "holds 10 splits; pick one"),
    "mask too short": (changed(train_mask=lambda m: m[:-1]), ValueError, r"must be a bool mask \[60\].*\[59\]"),
    "mask of indices": (changed(train_mask=lambda m: m.nonzero().squeeze(1)), ValueError, "bool mask.*int64"),
    "other mask wrong": (changed(test_mask=lambda m: m.long()), ValueError, "'data.test_mask' must be a bool mask"),
    "hetero": (HeteroData(), TypeError, "'data' must be a torch_geometric Data .got HeteroData"),
}


@pytest.mark.parametrize("name", BAD_DATA)
def test_bad_data(name):
    data, error, message = BAD_DATA[name]
    with pytest.raises(error, match=message):
        check_data(data)


def test_good_data():
    check_data(changed(y=lambda y: y.float()), target="regression")
    check_data(changed(y=lambda y: torch.zeros(60, 4)), target="binary")
    check_data(random_graph(), masks=("train_mask", "val_mask", "test_mask"))
    check_data(changed(x=lambda x: x.to_sparse_csr()))
    check_data(changed(x=lambda x: x.to_sparse_coo()))
    check_data(changed(test_mask=lambda m: m & False, val_mask=None))  # neither is needed
    check_data(ToSparseTensor(layout=torch.sparse_csr)(random_graph()))


def test_name_of_the_argument_is_in_the_message():
    with pytest.raises(ValueError, match="'eval_data.val_mask' is missing"):
        check_data(changed(val_mask=None), "eval_data", ("val_mask",))


@pytest.mark.parametrize("value", [0, -3])
def test_count_below_one(value):
    with pytest.raises(ValueError, match=f"'epochs' must be at least 1 .got {value}"):
        check_count(value, "epochs")


@pytest.mark.parametrize("value", [1.0, True, "3", None])
def test_count_that_is_no_integer(value):
    with pytest.raises(TypeError, match=f"'patience' must be an integer .got {value!r} of type {type(value).__name__}"):
        check_count(value, "patience")


def test_good_count_and_function():
    check_count(1, "epochs")
    check_count(np.int64(7), "epochs")
    check_callable(torch.nn.ReLU(), "metric")
    with pytest.raises(TypeError, match="'metric' must be a function .got 'accuracy'"):
        check_callable("accuracy", "metric")


def test_labels_and_width():
    data = random_graph()
    check_labels(3, data, "data", ("train_mask", "val_mask"))
    with pytest.raises(ValueError, match="labels of 'eval_data.val_mask' run from 0 to 2.*returns 2 classes"):
        check_labels(2, data, "eval_data", ("val_mask",))
    data.y = torch.zeros(60, 4)
    check_labels(4, data, "data", ("train_mask",), "binary")
    with pytest.raises(ValueError, match="'data.y' holds 4 labels per node, but the model returns 3 numbers"):
        check_labels(3, data, "data", ("train_mask",), "binary")


def test_bad_model():
    with pytest.raises(TypeError, match="'model' must be a torch.nn.Module .got type"):
        check_model(GCN)
    with pytest.raises(ValueError, match="'model' is lazy: 'convs.0.lin.weight' has no shape.*one forward pass"):
        check_model(GCN(-1, 16, 2, 3))
    with pytest.raises(ValueError, match="'model' is lazy: 'weight'"):
        check_model(torch.nn.LazyLinear(3))
    with pytest.raises(ValueError, match="'model' has no parameter to train"):
        check_model(torch.nn.ReLU())
    with pytest.raises(ValueError, match="'model' has no parameter to train"):
        check_model(Linear(3, 3).requires_grad_(False))


def test_lazy_model_is_good_after_one_forward_pass():
    data, model = random_graph(), GCN(-1, 16, 2, 3)
    model(data.x, data.edge_index)
    check_model(model)


def test_cached_layer_on_several_graphs():
    check_one_graph(GCN(8, 16, 2, 3))
    with pytest.raises(ValueError, match="cached=True, 'convs.0', which keeps the first graph"):
        check_one_graph(GCN(8, 16, 2, 3, cached=True))


def test_optimizer_of_another_model():
    model, other = GCNConv(8, 3), GCNConv(8, 3)
    check_optimizer(torch.optim.SGD([model.bias]), model)
    with pytest.raises(ValueError, match="'optimizer' holds no parameter of 'model'"):
        check_optimizer(torch.optim.SGD(other.parameters()), model)
    with pytest.raises(TypeError, match="'optimizer' must be a torch.optim.Optimizer .got str"):
        check_optimizer("adam", model)


def test_schedule():
    optimizer, other = (torch.optim.SGD(GCNConv(8, 3).parameters(), lr=1) for _ in range(2))
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 3)
    check_scheduler(None, None)
    check_scheduler(scheduler, optimizer)
    for of in (other, None):
        with pytest.raises(ValueError, match="'scheduler' belongs to another optimizer; give the one it was made for"):
            check_scheduler(scheduler, of)
    for wrong in ("cosine", torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)):
        with pytest.raises(TypeError, match=f"'scheduler' must be .* .got {type(wrong).__name__}"):
            check_scheduler(wrong, optimizer)


BAD_OUTPUT = {
    "no tensor": ((torch.zeros(60, 3),), TypeError, "'model' must return a tensor of logits .got tuple"),
    "one dimension": (torch.zeros(60), ValueError, r"one row of logits per node, \[60, C\] .got \[60\]"),
    "too few rows": (torch.zeros(1, 3), ValueError, r"one row of logits per node.*\[1, 3\]"),
    "too narrow": (torch.zeros(60, 2), ValueError, "labels of 'data.train_mask' run from 0 to 2.*2 classes"),
}


@pytest.mark.parametrize("name", BAD_OUTPUT)
def test_bad_output(name):
    logits, error, message = BAD_OUTPUT[name]
    with pytest.raises(error, match=message):
        check_output(logits, random_graph(), "data", ("train_mask",))


def test_only_labels_that_are_used_must_be_in_range():
    data = random_graph()
    data.y[data.test_mask] = -1  # unknown
    check_output(torch.zeros(60, 3), data, "data", ("train_mask", "val_mask"))
    data.y[data.val_mask] = -1
    check_output(torch.zeros(60, 3), data, "data", ("train_mask",))
    with pytest.raises(ValueError, match="'data.val_mask' marks no labelled node: all have the label -1 or -100"):
        check_output(torch.zeros(60, 3), data, "data", ("val_mask",))
