"""Time and memory of a graph attention layer, forward and backward: PyG's, and ours with and without compiled loops.

python benchmarks/attention.py                                  # ogbn-arxiv-structure, 4 heads of 64, one thread
python benchmarks/attention.py --data cora pubmed --heads 8 --width 8

Each path runs in a process of its own; the fastest of its runs counts. Memory is the peak above what is there before
the first run. `PyG edge_index` sends a message along each edge, `PyG SparseTensor` needs torch-sparse; `without numba`
is what `accelerate` does where numba is not installed.
"""

import argparse
import importlib.util
import json
import sys
import time

import torch
from own_process import held_gb, peak_gb, reset_peak, run_apart
from torch_geometric.nn import GATConv
from torch_geometric.transforms import ToSparseTensor

from graphsparse import typing
from graphsparse.datasets import load
from graphsparse.nn import accelerate

PATHS = ["PyG edge_index", "PyG SparseTensor", "without numba", "accelerate"]


def measure(setting):
    """Return milliseconds and gigabytes of one path."""
    torch.set_num_threads(setting["threads"])
    torch.manual_seed(0)
    path, heads, width = setting["path"], setting["heads"], setting["width"]
    data = load(setting["data"])
    if path == "without numba":
        find = typing._find
        typing._find = lambda name: "left out" if name == "numba" else find(name)
    layer = GATConv(heads * width, width, heads=heads)
    edges = ToSparseTensor()(data.clone()).adj_t if path == "PyG SparseTensor" else data.edge_index
    if not path.startswith("PyG"):
        layer = accelerate(layer)
    x = torch.randn(data.num_nodes, heads * width, requires_grad=True)
    before, times, total = held_gb(), [], None
    reset_peak()
    for _ in range(setting["runs"] + 1):
        x.grad = None
        start = time.perf_counter()
        out = layer(x, edges)
        out.square().sum().backward()
        times.append(time.perf_counter() - start)
        total = out.detach().square().sum().item()
    return {"ms": 1e3 * min(times[1:]), "gb": peak_gb() - before, "total": total}


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=["ogbn-arxiv-structure"])
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--width", type=int, default=64, help="of each head")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--path", nargs="+", choices=PATHS, default=PATHS, metavar="PATH")
    parser.add_argument("--one", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.one:
        print(json.dumps(measure(args.one)))
        return []
    lacks = {"accelerate": "numba", "PyG SparseTensor": "torch_sparse"}
    paths = [path for path in args.path if path not in lacks or importlib.util.find_spec(lacks[path])]
    print(f"{args.heads} heads of {args.width}, {args.threads} thread(s), torch {torch.__version__}\n")
    print("| graph | path | ms | peak GB | times `accelerate` |\n|---|---|---|---|---|")
    rows = []
    for data in args.data:
        common = {"data": data, "heads": args.heads, "width": args.width, "runs": args.runs, "threads": args.threads}
        found = {path: run_apart(__file__, ["--one", json.dumps({**common, "path": path})]) for path in paths}
        totals = [figures["total"] for figures in found.values()]
        assert max(totals) - min(totals) < 1e-3 * max(totals), f"the paths differ: {totals}"
        for path, figures in found.items():
            ratio = figures["ms"] / found[paths[-1]]["ms"]
            print(f"| {data} | {path} | {figures['ms']:.1f} | {figures['gb']:.2f} | {ratio:.1f} |", flush=True)
            rows.append({"data": data, "path": path, **figures})
    return rows


if __name__ == "__main__":
    main(sys.argv[1:])
