"""UGS: masks that are trained, pruned and rewound, in rounds."""

import copy

import pytest
import torch
import torch.nn.functional as F
from models import MODELS
from resuming import same_state
from torch_geometric.loader import ClusterLoader
from torch_geometric.nn import GCN

from graphsparse.edges.undirected import undirected_edges
from graphsparse.loader import ClusterData
from graphsparse.metrics import accuracy
from graphsparse.nn import SoftMasks
from graphsparse.testing import random_graph
from graphsparse.tickets import UGS, TicketRun, find_tickets
from graphsparse.tickets.mask_terms import L1
from graphsparse.tickets.run import Target
from graphsparse.training import Masks, NodeTask, Training, build_model


def make_double():
    return GCN(8, 16, 2, 3).double()


def double_graph():
    data = random_graph()
    data.x = data.x.double()
    return data


def dense_round(data, keep, seed, method, training):
    """The masks of the best epoch, with dense matrices and gradients of the whole loss."""
    model = build_model(make_double, training.seed)
    noisy = SoftMasks(copy.deepcopy(model), weights=keep.weights, edges=keep.edges, noise=1e-5, seed=seed)
    soft = {"edge": noisy.edge, **dict(zip(noisy.names, noisy.masks, strict=True))}
    edges = undirected_edges(data.edge_index, data.num_nodes)
    u, v = edges.key // data.num_nodes, edges.key % data.num_nodes
    optimizer = torch.optim.Adam([*model.parameters(), *soft.values()], training.lr, weight_decay=training.weight_decay)

    def forward():
        mask = soft["edge"] * keep.edges
        adj = torch.zeros(data.num_nodes, data.num_nodes, dtype=torch.float64).index_put((u, v), mask)
        adj = adj + adj.t() + torch.eye(data.num_nodes, dtype=torch.float64)
        root = adj.sum(1).rsqrt()
        adj = root.view(-1, 1) * adj * root
        h = data.x
        for i, conv in enumerate(model.convs):
            name = f"convs.{i}.lin.weight"
            h = adj @ h @ (conv.lin.weight * soft[name] * keep.weights[name]).t() + conv.bias
            h = h.relu() if i == 0 else h
        return h

    best, found = -1.0, {}
    for _ in range(training.epochs):
        optimizer.zero_grad()
        l1 = method.l1_edges * soft["edge"].abs().sum()
        l1 = l1 + method.l1_weights * sum(mask.abs().sum() for name, mask in soft.items() if name != "edge")
        (F.cross_entropy(forward()[data.train_mask], data.y[data.train_mask]) + l1).backward()
        optimizer.step()
        with torch.no_grad():
            soft["edge"].clamp_(min=0)
            val = accuracy(forward(), data.y, data.val_mask)
        if val > best:
            best, found = val, {name: mask.detach().abs().clone() for name, mask in soft.items()}
    return found


def test_two_rounds_are_those_of_the_algorithm_with_dense_matrices():
    data, method = double_graph(), UGS(1e-2, 3e-3, edges_per_round=0.3, weights_per_round=0.5)
    training, targets = Training(epochs=12, lr=0.02, seed=4), [(0.3, 0.5), (0.5, 0.7)]
    tickets = find_tickets(make_double, data, targets=targets, method=method, training=training)
    keep = Masks.everything(build_model(make_double, 4), data)
    for number, ((edges, weights), ticket) in enumerate(zip(targets, tickets, strict=True), 1):
        scores = dense_round(data, keep, 4 + number, method, training)
        keep = keep.prune(edges=scores.pop("edge"), weights=scores, edge_sparsity=edges, weight_sparsity=weights)
        assert torch.equal(ticket.edge_mask, keep.edge_mask(data))
        assert same_state(ticket.weight_masks, keep.weights)


def test_only_what_shall_be_sparse_has_masks(monkeypatch):
    seen, train = [], TicketRun.train

    def spy(run, model, tag, **options):
        seen.append((tag, model.edge is None, len(model.masks), options.get("epochs")))
        return train(run, model, tag, **options)

    monkeypatch.setattr(TicketRun, "train", spy)
    method = UGS(edges_per_round=0.4, weights_per_round=0.5, mask_epochs=3)
    for target in [(0.4, 0.0), (0.0, 0.5), (0.0, 0.0)]:
        find_tickets(MODELS["GCN"], random_graph(), targets=[target], method=method, training=Training(epochs=2))
    assert seen == [("mask-01", False, 0, 3), ("mask-01", True, 2, 3)]


def test_masks_of_edges_stay_from_zero_up():
    """A large l1 term brings all to 0 at once; below it degrees would have no root."""
    method, training = UGS(l1_edges=1.0, edges_per_round=0.5), Training(epochs=30, lr=0.2)
    (ticket,) = find_tickets(MODELS["GCN"], random_graph(), targets=[(0.5, 0)], method=method, training=training)
    assert ticket.metrics["edge_sparsity"] == 74 / 149


def test_batches_of_a_loader_know_their_edges():
    """A loader is made of the graph with pairs; the l1 term acts once per epoch, a share with each batch."""
    data, method = random_graph(), UGS(0.3, 0.6, edges_per_round=0.4, weights_per_round=0.5)
    task = NodeTask(data, loader=lambda graph: ClusterLoader(ClusterData(graph, 3), batch_size=1))
    run = TicketRun(MODELS["GCN"], task, [Target(0.4, 0.5)], Training(epochs=3))
    (found,) = method.find(run)
    assert int((~found.edges).sum()) == int(0.4 * found.edges.numel())
    assert method.terms(run)["before_step"] == [L1(0.3 / 3, 0.6 / 3)]
    task = NodeTask(data, loader=lambda graph: Endless([graph]))
    run = TicketRun(MODELS["GCN"], task, [Target(0.4, 0.5)], Training(epochs=3))
    with pytest.raises(ValueError, match="'loader' must say by len"):
        list(method.find(run))


class Endless:
    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        return iter(self.batches)


def test_bad_options():
    for options, message in [
        ({"l1_edges": -1.0}, "'l1_edges'"),
        ({"edges_per_round": 0.0}, "'edges_per_round'"),
        ({"weights_per_round": 1.1}, "'weights_per_round'"),
        ({"mask_epochs": 0}, "'mask_epochs'"),
    ]:
        with pytest.raises(ValueError, match=message):
            UGS(**options)


def test_what_a_learned_mask_says_nothing_of():
    task = NodeTask(random_graph(), inductive=True)
    with pytest.raises(ValueError, match="say nothing of another graph"):
        find_tickets(MODELS["GCN"], task, targets=[(0.5, 0)], method="ugs", training=Training(epochs=2))
