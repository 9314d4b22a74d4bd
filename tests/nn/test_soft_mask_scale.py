"""Masks of the edges of a graph of the size of ogbn-products."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
#: Of a graph of the size of ogbn-products, but for edges that are drawn twice.
NUM_PAIRS = 61_223_701
# In a process of its own, whose peak memory is that of this alone.
CODE = """
import json

import torch
from heavy_tailed import make_edges
from torch_geometric.data import Data
from torch_geometric.nn import GCN

from graphsparse.edges import attach_pairs
from graphsparse.nn import SoftMasks
from graphsparse.training import Masks

torch.set_num_threads(1)
torch.manual_seed(0)


def status(name):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(name)) * 1024 / 1e9


edge_index, num_nodes = make_edges()
data, model = Data(edge_index=edge_index, num_nodes=num_nodes), GCN(100, 256, 3, 47)
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")  # the peak so far is that of making the graph
start = status("VmRSS")
keep = Masks.everything(model, data)
soft = SoftMasks(model, weights=keep.weights, edges=keep.edges, noise=1e-5)
data = attach_pairs(data)
print(json.dumps({"pairs": soft.edge.numel(), "above": status("VmHWM") - start, "held": status("VmRSS") - start}))
"""


@pytest.mark.slow
def test_masks_fit_into_memory():
    command = [sys.executable, "-W", "ignore", "-c", CODE]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=BENCHMARKS)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["pairs"] == NUM_PAIRS
    assert found["above"] < 2.5
