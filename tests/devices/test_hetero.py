"""Tickets by edge type, found on a device that is not the CPU, and their files on the other one."""

import pytest
import torch
from both_devices import assert_equal
from hetero_models import Convs

from graphsparse.testing import random_hetero_graph
from graphsparse.tickets import UGS, OneShot, Ticket, find_ticket
from graphsparse.training import Training, predict

pytestmark = pytest.mark.cuda


@pytest.mark.parametrize("method", [OneShot("teddy"), UGS()], ids=["score", "learned masks"])
def test_tickets_by_edge_type(method, device, tmp_path):
    data, away = random_hetero_graph(), random_hetero_graph().to(device)
    options = {"edge_sparsity": 0.3, "method": method, "training": Training(epochs=2)}
    ticket = find_ticket(lambda: Convs().to(device), away, **options)
    ticket.save(tmp_path / "t")
    loaded = Ticket.load(tmp_path / "t")
    expected = predict(loaded.materialize(Convs), loaded.sparsify(data), node_type="paper")
    found = predict(ticket.materialize(Convs).to(device), ticket.sparsify(away), node_type="paper")
    assert_equal(found, expected, 1e-3, device)
    if method == OneShot("teddy"):
        here = find_ticket(Convs, data, **options)
        for kind, mask in here.edge_mask.items():
            assert torch.equal(ticket.edge_mask[kind], mask)
