"""Trainings of the accuracy bands, in a file of its own because worker processes import it."""

from functools import cache

import torch
from torch_geometric.nn import GCN

from graphsparse.datasets import load
from graphsparse.tickets import find_teddy_ticket, train_teacher

SETTINGS = {"lr": 0.008, "weight_decay": 8e-5, "epochs": 200}


def make_model():
    return GCN(1433, 512, 2, 7, dropout=0.5, bias=False)


@cache
def graph(root):
    torch.set_num_threads(1)
    data = load("cora", root)
    data.x = data.x.to_sparse_csr()
    return data


def dense(root, seed):
    """Train the teacher; return its logits and its test accuracy in percent."""
    logits, result = train_teacher(make_model, graph(root), seed=seed, **SETTINGS)
    return logits.numpy(), 100 * result.test


def student(root, seed, teacher, no_edges, **options):
    """Train a student on part of the graph; return its test accuracy in percent."""
    data = graph(root)
    if no_edges:
        data = data.clone()
        data.edge_index = data.edge_index[:, :0]
    ticket = find_teddy_ticket(
        make_model, data, weight_sparsity=0.0, teacher=torch.from_numpy(teacher), seed=seed, **options, **SETTINGS
    )
    return 100 * ticket.metrics["test_accuracy"]
