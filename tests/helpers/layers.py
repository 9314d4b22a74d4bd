"""PyG's layers beside ours with the same weights, graphs in every form, and results with all their gradients."""

import contextlib
import copy

import pytest
import torch
import torch_geometric.nn as pyg
from torch.utils._python_dispatch import TorchDispatchMode
from torch_geometric import EdgeIndex
from torch_geometric.utils import coalesce

import graphsparse.nn
from graphsparse.ops import Adjacency
from graphsparse.typing import has_module, optional_module

#: The forms in which PyG takes edges, and ours.
LISTS = ("edge_index", "EdgeIndex", "EdgeIndex by row", "EdgeIndex by column")
MATRICES = ("CSR", "COO", "CSC", *(["SparseTensor"] if has_module("torch_sparse") else []))
FORMS = (*LISTS, *MATRICES, "Adjacency")
FLOWS = ("source_to_target", "target_to_source")
# PyG makes the code of a class for the first layer of it, and without a sparse product if that layer has none.
for package in (pyg, graphsparse.nn):
    package.SAGEConv(1, 1), package.GCNConv(1, 1), package.GINConv(torch.nn.Identity()), package.GCN2Conv(1, 0.1)
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}


def twins(name, *args, dtype=torch.float32, seed=0, **kwargs):
    """Return PyG's layer and ours with the same weights, none of which is 0, after loading both ways."""
    theirs = getattr(pyg, name)(*copy.deepcopy(args), **kwargs).to(dtype)
    ours = getattr(graphsparse.nn, name)(*copy.deepcopy(args), **kwargs).to(dtype)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in theirs.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator, dtype=dtype) * 0.5)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict(), strict=True)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    return theirs, ours


def result(layer, x, *args, seed=0, learned=(), **kwargs):
    """Run a layer and return its output and the gradients of features, of weights, and of what is learned besides."""
    torch.manual_seed(seed)
    pair = isinstance(x, tuple)
    x = tuple(None if part is None else part.clone().requires_grad_() for part in (x if pair else (x,)))
    layer.zero_grad()
    for tensor in learned:
        tensor.grad = None
    out = layer(x if pair else x[0], *args, **kwargs)
    out = out[0] if isinstance(out, tuple) else out
    (out * torch.linspace(0.5, 1.5, out.numel(), dtype=out.dtype).view(out.shape)).sum().backward()
    leaves = [part for part in (*x, *learned, *layer.parameters()) if part is not None]
    return [out.detach(), *(torch.zeros_like(leaf) if leaf.grad is None else leaf.grad.clone() for leaf in leaves)]


def close(found, expected, tolerance=1e-5, scale=0.0):
    """Assert that tensors are equal relative to the largest number of each, or to a number that all are worth."""
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape
        assert torch.isfinite(b).all()
        largest = max(b.abs().max().item() if b.numel() else 0.0, scale)
        assert ((a - b).abs() <= tolerance * max(largest, 1e-3)).all(), (a - b).abs().max() / max(largest, 1e-3)


def same(theirs, ours, x, *args, dtype=None, scale=0.0, **kwargs):
    """Assert that two layers give the same output and gradients for the same input."""
    dtype = dtype or next(part for part in (x if isinstance(x, tuple) else (x,)) if part is not None).dtype
    expected = result(theirs, x, *args, **kwargs)
    found = result(ours, x, *args, **kwargs)
    close(found, expected, TOLERANCE[dtype], scale)
    return expected


@contextlib.contextmanager
def edge_by_edge():
    """Make our layers compute as they do for a compiler, which needs seconds for each shape of the input."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (graphsparse.nn.fused, graphsparse.nn.gcn_conv, graphsparse.nn.gin_conv):
            for asked in ("is_traced", "is_transformed"):
                if hasattr(module, asked):
                    patch.setattr(module, asked, lambda: True)
        yield


class _Sizes(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        parts = out if isinstance(out, (tuple, list)) else (out,)
        own = [part for part in parts if isinstance(part, torch.Tensor) and part.layout == torch.strided]
        # A view that repeats a smaller tensor takes no memory.
        sizes = [min(part.numel(), part.untyped_storage().nbytes() // part.element_size()) for part in own]
        self.largest = max(self.largest, *sizes, 0)
        return out


def largest_tensor(function):
    """Return the number of elements of the largest tensor that a function makes, going backward included."""
    with _Sizes() as sizes:
        function()
    return sizes.largest


def form(name, edge_index, size, weight=None):
    """Return edges in one form; matrices hold the weights, and no edge twice."""
    num_src, num_dst = size
    if name == "edge_index":
        return edge_index
    if name.startswith("EdgeIndex"):
        order = {"EdgeIndex by row": 0, "EdgeIndex by column": 1}.get(name)
        if order is None:
            return EdgeIndex(edge_index, sparse_size=size)
        # Without the place in the list, a sorted list could not go with weights.
        assert weight is None
        edge_index = edge_index[:, edge_index[order].argsort(stable=True)]
        return EdgeIndex(edge_index, sparse_size=size, sort_order=("row", "col")[order])
    if name == "Adjacency":
        return Adjacency.from_edge_index(edge_index, weight, size)
    if name == "SparseTensor":
        make = optional_module("torch_sparse").SparseTensor
        return make(row=edge_index[1], col=edge_index[0], value=weight, sparse_sizes=(num_dst, num_src))
    value = torch.ones(edge_index.size(1)) if weight is None else weight
    matrix = torch.sparse_coo_tensor(edge_index.flip(0), value, (num_dst, num_src)).coalesce()
    return {"CSR": matrix.to_sparse_csr, "COO": lambda: matrix, "CSC": matrix.to_sparse_csc}[name]()


def unsorted_graph(num_nodes=12, num_edges=40, seed=0, simple=False):
    """Return ``(edge_index, weight, x)``: self-loops, repeated edges, the last two nodes isolated, and weights."""
    generator = torch.Generator().manual_seed(seed)
    edge_index = torch.randint(num_nodes - 2, (2, num_edges), generator=generator)
    edge_index[:, 3] = 4
    edge_index[:, 9] = 4
    edge_index[:, 11] = edge_index[:, 10]
    if simple:
        edge_index = coalesce(edge_index)
        edge_index = edge_index[:, torch.randperm(edge_index.size(1), generator=generator)]
    weight = torch.rand(edge_index.size(1), generator=generator) + 0.2
    return edge_index, weight, torch.randn(num_nodes, 5, generator=generator)
