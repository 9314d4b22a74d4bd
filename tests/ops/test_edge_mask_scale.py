"""The gradient of an edge mask through a normalised product, at the size of ogbn-products."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
#: Directed edges of ogbn-products, whose size is scale 1.
NUM_EDGES = 123_718_280
# In a process of its own, whose peak memory is that of this alone, the interpreter and torch included.
CODE = """
import json
import sys

import torch
from heavy_tailed import make_edges

from graphsparse.ops import Adjacency, spmm

scale, width = float(sys.argv[1]), int(sys.argv[2])
torch.set_num_threads(1)
torch.manual_seed(0)


def status(name):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(name)) * 1024 / 1e9


start = status("VmRSS")
edge_index, num_nodes = make_edges(scale)
mask = torch.rand(edge_index.size(1)).requires_grad_()
x = torch.randn(num_nodes, width).requires_grad_()
adj = Adjacency.from_edge_index(edge_index, num_nodes=num_nodes, symmetric=True)


def loss(mask, x):
    return spmm(adj.with_value(mask).gcn_norm(), x).square().mean()


loss(mask, x).backward()
with torch.no_grad():
    step = 1e-2 * mask.grad.sign()
    slope = (loss(mask + step, x) - loss(mask - step, x)).item() / 2e-2
result = {"edges": mask.numel(), "start": start, "peak": status("VmHWM"), "slope": slope}
result |= {"expected": mask.grad.abs().sum(dtype=torch.float64).item(), "x": x.grad.isfinite().all().item()}
print(json.dumps(result))
"""


def measure(scale, width=128):
    command = [sys.executable, "-W", "ignore", "-c", CODE, str(scale), str(width)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=BENCHMARKS)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("scale", "limit_gb"),
    [
        (1 / 64, 0.5),  # a tensor of edges by features would take 1 GB
        pytest.param(1.0, 24.0, marks=pytest.mark.slow),  # and 63 GB here
    ],
)
def test_gradient_of_an_edge_mask_fits_into_memory(scale, limit_gb):
    found = measure(scale)
    assert found["edges"] == pytest.approx(NUM_EDGES * scale, rel=1e-5)
    assert found["x"]
    assert found["slope"] == pytest.approx(found["expected"], rel=0.02)
    assert found["peak"] - (found["start"] if scale < 1 else 0) < limit_gb
