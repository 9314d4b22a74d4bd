"""Trainings of the accuracy bands, in a file of its own because worker processes import it."""

from functools import cache

import torch
from torch_geometric.nn import GCN

from graphsparse.datasets import load
from graphsparse.nn import accelerate
from graphsparse.tickets import Distillation, OneShot, find_ticket
from graphsparse.training import Training, build_model, fit

SETTINGS = {"lr": 0.008, "weight_decay": 8e-5, "epochs": 200}


def make_model():
    return accelerate(GCN(1433, 512, 2, 7, dropout=0.5, bias=False), fast_dropout=True)


@cache
def graph(root):
    torch.set_num_threads(1)
    data = load("cora", root)
    data.x = data.x.to_sparse_csr()
    return data


def dense(root, seed):
    """Train the teacher; return its logits and its test accuracy in percent."""
    result = fit(build_model(make_model, seed), graph(root), Training(seed=seed, **SETTINGS))
    return result.logits.numpy(), 100 * result.test


def student(root, seed, teacher, no_edges, edge_sparsity, score="teddy", nodes=None):
    """Train a student on part of the graph, distilled on some nodes or none; return its test accuracy in percent."""
    data = graph(root)
    if no_edges:
        data = data.clone()
        data.edge_index = data.edge_index[:, :0]
    ticket = find_ticket(
        make_model,
        data,
        edge_sparsity=edge_sparsity,
        method=OneShot(score),
        training=Training(seed=seed, **SETTINGS),
        distillation=None if nodes is None else Distillation(nodes=nodes, teacher=torch.from_numpy(teacher)),
    )
    return 100 * ticket.metrics["test"]
