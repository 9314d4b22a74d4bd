"""Compare a dense GCN with a TEDDY ticket and a random ticket: one table and one plot.

python examples/demo.py --data cora --seeds 5 --plot out/cora.png
"""

import os
import statistics
import tempfile
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import common
import torch
from safetensors.torch import save_file
from torch_geometric.data import Data
from torch_geometric.nn import GCN
from tqdm import tqdm

from graphsparse.edges.undirected import undirected_edges
from graphsparse.metrics import count_macs
from graphsparse.plotting import plot_curves
from graphsparse.tickets import Distillation, find_ticket
from graphsparse.training import Training, build_model, fit

EDGE_SPARSITIES = (0.2, 0.4, 0.6, 0.8)
WEIGHT_SPARSITY = 0.65
SHOWN = 0.4  # the edge sparsity of the table
METHODS = {"TEDDY ticket": "teddy", "random ticket": "random"}


def run_seed(seed, *, name, hidden, epochs, edge_sparsities, threads):
    """Train everything for one seed and return rows of figures."""
    torch.set_num_threads(threads)
    warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta state")
    data = common.graph_by_name(name)
    if data.x.count_nonzero() < 0.1 * data.x.numel():
        data.x = data.x.to_sparse_csr()  # a bag of words is nearly empty, and a GCN takes it as it is

    def make_model():
        return GCN(data.num_features, hidden, 2, data.num_classes, dropout=0.5)

    training = Training(epochs=epochs, seed=seed, fast=False)
    dense = fit(build_model(make_model, seed), data, training)
    rows = [{"method": "dense GCN", "seed": seed, "edges": 0.0, "test": dense.test}]
    model = make_model()
    model.load_state_dict(dense.state_dict)
    rows[0] |= cost(model.eval(), data, partial(save_file, dense.state_dict))
    options = {"weight_sparsity": WEIGHT_SPARSITY, "training": training}
    options["distillation"] = Distillation(teacher=dense.logits)
    # The control: with the same distillation, but without any edge.
    empty = Data(**{**data.to_dict(), "edge_index": data.edge_index[:, :0]})
    jobs = [("no edges", "teddy", empty, 0.0)]
    jobs += [(shown, method, data, s) for s in edge_sparsities for shown, method in METHODS.items()]
    for shown, method, graph, sparsity in jobs:
        ticket = find_ticket(make_model, graph, edge_sparsity=sparsity, method=method, **options)
        row = {"method": shown, "seed": seed, "edges": sparsity, "test": ticket.metrics["test"]}
        rows.append(row | cost(ticket.materialize(make_model), ticket.sparsify(graph), ticket.save))
    return rows


def cost(model, data, save):
    """Return what a model costs: edges, weights, multiply-accumulates, bytes on disk, ms per forward pass."""
    times = []
    with torch.no_grad():
        for _ in range(12):
            start = time.perf_counter()
            model(data.x, data.edge_index)
            times.append(1000 * (time.perf_counter() - start))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        save(path)
        size = path.stat().st_size
    return {
        "num_edges": undirected_edges(data.edge_index, data.num_nodes).num_edges,
        "weights": sum(int(p.count_nonzero()) for p in model.parameters()),
        "macs": count_macs(model, data.x, data.edge_index),
        "bytes": size,
        "ms": statistics.median(times[2:]),
    }


def table(rows):
    """Format one line per method."""
    head = ("", "test accuracy %", "edges", "non-zero weights", "MACs (M)", "kB on disk", "ms / forward")
    lines = []
    for method in ("dense GCN", "TEDDY ticket", "random ticket", "no edges"):
        group = [row for row in rows if row["method"] == method and row["edges"] in (0.0, SHOWN)]
        if not group:
            continue
        mean, std = mean_std([100 * row["test"] for row in group])
        figure = {key: statistics.mean(row[key] for row in group) for key in ("num_edges", "weights", "macs", "bytes")}
        lines.append(
            (
                method,
                f"{mean:.1f} +- {std:.1f}",
                f"{figure['num_edges']:,.0f}",
                f"{figure['weights']:,.0f}",
                f"{figure['macs'] / 1e6:.2f}",
                f"{figure['bytes'] / 1e3:.1f}",
                f"{statistics.median(row['ms'] for row in group):.2f}",
            )
        )
    width = [max(len(line[i]) for line in [head, *lines]) for i in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, width, strict=True))
        )
        for line in [head, *lines]
    )


def mean_std(values):
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def main(argv=None) -> dict[str, float]:
    parser = common.arguments(__doc__, plot="out/demo.png")
    parser.add_argument("--seeds", type=common.count, default=5, help="how many, from --seed on")
    parser.add_argument("--hidden", type=common.count, default=64)
    parser.add_argument("--epochs", type=common.count, default=200)
    parser.add_argument("--workers", type=int, default=min(os.cpu_count() or 1, 5), help="processes; 0: in this one")
    args = parser.parse_args(argv)
    levels = EDGE_SPARSITIES
    if args.fast:
        args.seeds, args.epochs, args.workers, levels = 2, 5, 0, (0.4,)

    common.load_by_name(parser, args.data, one_class=True)  # what is wrong is said here, and not by other processes
    seeds = range(args.seed, args.seed + args.seeds)
    run = partial(run_seed, name=args.data, hidden=args.hidden, epochs=args.epochs, edge_sparsities=levels)
    print(f"{args.data}: {args.seeds} seeds, {args.epochs} epochs, hidden width {args.hidden}", flush=True)
    bar = partial(tqdm, total=args.seeds, desc="seeds", unit="seed", disable=None)
    if args.workers > 0:
        with ProcessPoolExecutor(args.workers, mp_context=get_context("spawn")) as pool:
            results = list(bar(pool.map(partial(run, threads=1), seeds)))
    else:
        results = list(bar(map(partial(run, threads=torch.get_num_threads()), seeds)))
    rows = [row for result in results for row in result]

    print(f"\n{100 * SHOWN:.0f} % of the edges and {100 * WEIGHT_SPARSITY:.0f} % of the weights removed, distilled on")
    print("training nodes; mean and standard deviation over seeds; 'no edges' is the control. Weights stay in dense")
    print("tensors, so only the removed edges can save time.\n")
    print(table(rows))
    curves = {
        method: [
            (100 * s, *mean_std([100 * r["test"] for r in rows if r["method"] == method and r["edges"] == s]))
            for s in levels
        ]
        for method in METHODS
    }
    baselines = {
        method: mean_std([100 * row["test"] for row in rows if row["method"] == method])
        for method in ("dense GCN", "no edges")
    }
    plot_curves(
        args.plot,
        {args.data: curves},
        x_label="edges removed (%)",
        y_label="test accuracy (%)",
        levels={args.data: baselines},
    )
    print(f"\nplot: {args.plot}")
    return {f"{method} test accuracy": mean for method, (mean, _) in baselines.items()} | {
        f"{method} at {x:.0f} % of edges removed": mean for method, points in curves.items() for x, mean, _ in points
    }


if __name__ == "__main__":
    main()
