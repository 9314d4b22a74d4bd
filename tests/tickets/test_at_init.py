"""Tickets of weights that are chosen before any training."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from models import MODELS
from torch import nn
from torch_geometric.nn import GCN
from torch_geometric.utils import to_dense_adj

from graphsparse.testing import random_graph
from graphsparse.tickets import AtInit, TicketRun, find_ticket, find_tickets
from graphsparse.training import NodeTask, Training, build_model

SHORT = Training(epochs=2)
PLAIN = {"GCN": lambda: GCN(8, 16, 2, 3, bias=False), "with a norm": lambda: GCN(8, 16, 2, 3, norm="BatchNorm")}


def doubles(**changes):
    data = random_graph()
    data.x = data.x.double()
    for key, value in changes.items():
        data[key] = value
    return data


def kept(method, sparsity=0.7, make_model=PLAIN["GCN"], data=None, training=SHORT):
    found = find_ticket(make_model, data or random_graph(), weight_sparsity=sparsity, method=method, training=training)
    return {name: mask.numpy() for name, mask in found.weight_masks.items()}


def weights(data):
    """The normalised adjacency matrix, and initial weights as ``x @ weight``, in double precision."""
    model = build_model(PLAIN["GCN"], 0)
    dense = to_dense_adj(data.edge_index, max_num_nodes=data.num_nodes)[0].double() + torch.eye(data.num_nodes)
    scale = dense.sum(1) ** -0.5
    matrices = [p.detach().double().t() for p in model.parameters()]
    return scale[:, None] * dense * scale, matrices


def loss_of(adjacency, first, second, data, temperature=1.0):
    logits = adjacency @ (adjacency @ data.x.double() @ first).relu() @ second / temperature
    return nn.functional.cross_entropy(logits[data.train_mask], data.y[data.train_mask])


def largest(scores, sparsity):
    """Keep the largest scores of all tensors together, by NumPy's sort."""
    flat = np.concatenate([score.t().reshape(-1).numpy() for score in scores])
    mask = np.ones(flat.size, dtype=bool)
    mask[np.argsort(flat, kind="stable")[: int(sparsity * flat.size)]] = False
    return mask


def flat(masks):
    return np.concatenate([masks[f"convs.{i}.lin.weight"].ravel() for i in range(2)])


@pytest.mark.parametrize("score", ["snip", "grasp", "magnitude"])
@pytest.mark.parametrize("fast", [False, True])
def test_scores_are_those_of_dense_matrices(score, fast):
    data = random_graph()
    adjacency, (first, second) = weights(data)
    args = (first.requires_grad_(), second.requires_grad_())
    if score == "grasp":
        gradient = torch.func.grad(lambda p: loss_of(adjacency, *p, data, 200.0))
        _, product = torch.func.jvp(gradient, (args,), (gradient(args),))
        scores = [w.detach() * h.detach() for w, h in zip(args, product, strict=True)]
    else:
        gradient = torch.autograd.grad(loss_of(adjacency, *args, data), args)
        pairs = zip(args, gradient, strict=True)
        scores = [(w.detach() * (g if score == "snip" else 1)).abs() for w, g in pairs]
    assert (flat(kept(AtInit(score), training=replace(SHORT, fast=fast))) == largest(scores, 0.7)).all()


def flow(adjacency, first, second):
    """Shares of all weights in what flows from inputs of 1 to the outputs, by hand: there is nothing below 0."""
    ones = torch.ones(adjacency.size(0), first.size(0), dtype=torch.double)
    out = torch.ones(adjacency.size(0), second.size(1), dtype=torch.double)
    hidden = adjacency @ ones @ first
    back = adjacency.t() @ out
    return first * ((adjacency @ ones).t() @ (back @ second.t())), second * ((adjacency @ hidden).t() @ out)


@pytest.mark.parametrize(("sparsity", "rounds"), [(0.7, 100), (0.95, 7)])
def test_synflow_is_that_of_dense_matrices(sparsity, rounds):
    adjacency, matrices = weights(random_graph())
    first, second = (w.abs() for w in matrices)
    total, mask = first.numel() + second.numel(), None
    for step in range(1, rounds + 1):
        target = sparsity if step == rounds else 1 - (1 - sparsity) ** (step / rounds)
        scores = [score.t() for score in flow(adjacency, first, second)]
        values = torch.cat([score.reshape(-1) for score in scores]).numpy()
        if mask is not None:
            values[~mask] = -1
        mask = np.ones(total, dtype=bool)
        mask[np.argsort(values, kind="stable")[: int(target * total)]] = False
        ours = torch.from_numpy(mask).split([first.numel(), second.numel()])
        first, second = (w * m.view(w.t().shape).t() for w, m in zip((first, second), ours, strict=True))
    assert (flat(kept(AtInit("synflow", rounds=rounds), sparsity)) == mask).all()


@pytest.mark.parametrize("model", ["with a norm", "GIN", "GCNII"])
def test_synflow_needs_neither_features_nor_labels_and_cuts_no_layer_off(model):
    make_model, data = (PLAIN | MODELS)[model], random_graph()
    first = kept(AtInit("synflow", rounds=9), 0.9, make_model)
    changed = random_graph()
    changed.x, changed.y = changed.x.flip(0) * 7, (changed.y + 1) % 3
    second = kept(AtInit("synflow", rounds=9), 0.9, make_model, changed)
    sparse = random_graph()
    sparse.x = data.x.to_sparse_csr()
    third = kept(AtInit("synflow", rounds=9), 0.9, make_model, sparse) if model == "with a norm" else first
    for name, mask in first.items():
        assert mask.any(), name
        assert (mask == second[name]).all()
        assert (mask == third[name]).all()


@pytest.mark.parametrize("model", MODELS)
def test_second_derivatives_are_those_of_differences(model):
    """The product of the Hessian with a vector, for every model, with and without fused layers."""
    data, make_model = doubles(), lambda: MODELS[model]().double()
    for fast in (False, True):
        run = TicketRun(make_model, NodeTask(data), [], Training(epochs=1, fast=fast))
        generator = torch.Generator().manual_seed(0)
        start, vector = run.model(), {}
        for name in run.names:
            shape = start.get_parameter(name).shape
            vector[name] = torch.randn(shape, generator=generator, dtype=torch.double)

        def moved(step, run=run, vector=vector):
            changed = run.model()
            for name, direction in vector.items():
                changed.get_parameter(name).data.add_(direction, alpha=step)
            return run.gradient(changed)

        ours, plus, minus = run.gradient(start, times=vector), moved(1e-6), moved(-1e-6)
        for name, product in ours.items():
            assert not product.requires_grad
            torch.testing.assert_close(product, (plus[name] - minus[name]) / 2e-6, rtol=1e-5, atol=1e-6)


def test_each_target_of_synflow_is_found_by_itself():
    targets = [(0.0, 0.9), (0.0, 0.3)]
    tickets = find_tickets(
        PLAIN["GCN"], random_graph(), targets=targets, method=AtInit("synflow", rounds=9), training=SHORT
    )
    for (_, sparsity), ticket in zip(targets, tickets, strict=True):
        alone = kept(AtInit("synflow", rounds=9), sparsity)
        assert all((mask.numpy() == alone[name]).all() for name, mask in ticket.weight_masks.items())


def test_synflow_of_a_model_that_is_called_by_names():
    task = NodeTask(random_graph(), call=lambda model, data: model(x=data.x, edge_index=data.edge_index))
    first, second = kept(AtInit("synflow", rounds=5)), kept(AtInit("synflow", rounds=5), data=task)
    assert all((first[name] == second[name]).all() for name in first)


def test_bad_options():
    with pytest.raises(ValueError, match=r"'score' must be one of \['snip', 'grasp', .*got 'snap'"):
        AtInit("snap")
    with pytest.raises(ValueError, match="'score' must be .*got 'tedy'"):
        AtInit("snip", "tedy")
    with pytest.raises(ValueError, match="'edges' must be what the file of a ticket can hold"):
        AtInit("snip", "resistance_published")
