"""Test accuracy of GCN on Cora with 98 % of the weights removed, as measured with prototypes of these rules."""

import statistics

import bands
import pytest
import torch
from torch_geometric.nn import GCN

from graphsparse.tickets import L0, SET, Fixed, Gradual, OneShot, RigL, find_ticket
from graphsparse.training import Training

pytestmark = [pytest.mark.bands, pytest.mark.slow]  # 15 trainings

#: The mean of three seeds, how far ours may be from that, in percent.
BANDS = {
    L0(): (81.4, 1.5),
    Gradual(): (80.0, 1.5),
    RigL(): (79.7, 1.5),
    SET(): (79.5, 1.5),
    Fixed(): (76.2, 3),
}


def make_model():
    return GCN(1433, 256, 2, 7, dropout=0.5, bias=False)


@pytest.mark.parametrize("rule", BANDS, ids=str)
def test_accuracy_band(rule, data_root):
    data, (expected, width), threads = bands.graph(str(data_root)), BANDS[rule], torch.get_num_threads()
    found = [
        find_ticket(
            make_model,
            data,
            weight_sparsity=0.98,
            method=OneShot(None, rule),
            training=Training(seed=seed, **bands.SETTINGS),
        ).metrics
        for seed in range(3)
    ]
    torch.set_num_threads(threads)
    assert all(metrics["weight_sparsity"] == int(0.98 * 368640) / 368640 for metrics in found)
    row = [100 * metrics["test"] for metrics in found]
    assert abs(statistics.fmean(row) - expected) <= width, f"{rule}: {row}, expected {expected} +- {width}"
