import torch
from torch_geometric.nn import GCN

from graphsparse.soups.store.naming import hashed, is_library, kind_of, name_of


def test_full_names():
    assert name_of(torch.nn.functional.relu) == "torch.nn.functional.relu"
    assert name_of(GCN) == kind_of(GCN(2, 2, 1)) == "torch_geometric.nn.models.basic_gnn.GCN"
    assert name_of(len) == "builtins.len"
    assert name_of([].append) == "builtins.list.append"  # that has no module


def test_which_modules_are_libraries():
    known = ("torch", "torch.nn", "torch_geometric.nn", "graphsparse", "builtins")
    assert all(is_library(module) for module in known)
    assert not any(is_library(module) for module in ("__main__", "torchvision", "my.torch"))


def test_digests_are_those_of_the_text():
    assert hashed("a") == hashed("a") != hashed("b")
    assert (len(hashed("a")), len(hashed("a", 10))) == (16, 20)
