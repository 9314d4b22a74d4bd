"""Cost of one search epoch of an untrained ticket: plain PyG code beside the search of this package.

python benchmarks/untrained_cost.py                          # 400 epochs on Cora and CiteSeer, 10 of the deep network
python benchmarks/untrained_cost.py --case cora --seeds 5    # accuracy of both over 5 seeds

An epoch is a training step and the validation at the final sparsity. What it is compared with, `plain_search.py`, is
the paper's search as one writes it down first: dense features, messages along `edge_index`, the k-th value of a fresh
concatenation of all scores, weights that get gradients. Every search runs in a process of its own, the two in turns;
the memory is the peak above what the process held before, the time the mean over the epochs. Both draw other weights
from a seed, so accuracies agree in the mean over seeds, not one by one.
"""

import argparse
import json
import statistics
import sys
import time
from itertools import pairwise
from pathlib import Path

import torch
from own_process import peak_gb, reset_peak, run_apart, warm_up
from plain_search import search as plain_search
from tables import deviation, write_csv, write_text
from torch_geometric.transforms import NormalizeFeatures
from untrained_nets import make_net

import graphsparse
from graphsparse.datasets import load
from graphsparse.tickets import Untrained, find_ticket
from graphsparse.training import Training

#: Data set, layers, width, sparsity, learning rate, epochs.
CASES = {
    "cora": ("cora", 2, 256, 0.9, 0.01, 400),
    "citeseer": ("citeseer", 2, 256, 0.9, 0.01, 400),
    "deep": ("cora", 32, 448, 0.04, 0.005, 10),
}
PATHS = ("plain PyG", "graphsparse")


def measure(case, path, seed, epochs, threads):
    """Search once, and return seconds per epoch, peak memory and test accuracy."""
    torch.set_num_threads(threads)
    name, layers, width, sparsity, lr, usual = CASES[case]
    epochs = epochs or usual
    data = NormalizeFeatures()(load(name))
    warm_up()
    before = reset_peak()
    times = [time.perf_counter()]
    if path == "plain PyG":
        test = plain_search(
            data,
            width,
            layers,
            sparsity=sparsity,
            epochs=epochs,
            lr=lr,
            seed=seed,
            after_epoch=lambda epoch: times.append(time.perf_counter()),
        )
    else:
        training = Training(seed=seed, log=lambda row: times.append(time.perf_counter()))

        def make_model():
            return make_net("GCN", data.num_features, width, layers, data.num_classes)

        method = Untrained(epochs=epochs, lr=lr)
        ticket = find_ticket(make_model, data, weight_sparsity=sparsity, method=method, training=training)
        test = ticket.metrics["test"]
    peak = peak_gb() - before
    taken = [after - start for start, after in pairwise(times[1:])]
    return {"seconds": statistics.fmean(taken), "memory": peak, "test": test}


def main(argv=None):
    """Measure, print a table, and return the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=0, help="instead of those of the case, at least 2")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="folder for a CSV and a Markdown table")
    parser.add_argument("--one", nargs=3, metavar=("CASE", "PATH", "SEED"), help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.epochs < 0 or args.epochs == 1:
        parser.error("--epochs must be at least 2: times are taken between epochs")
    if args.one:
        case, path, seed = args.one
        print(json.dumps(measure(case, path, int(seed), args.epochs, args.threads)))
        return []

    print(
        f"{args.threads} threads, oneDNN: {graphsparse.backends()['onednn']}, torch {torch.__version__}\n", flush=True
    )
    head = ("case", "path", "ms per epoch", "times faster", "peak GB", "of plain PyG's", "test accuracy %")
    text = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    print("\n".join(text))
    rows = []
    for case in args.case:
        common = ["--epochs", str(args.epochs), "--threads", str(args.threads)]
        found = {path: [] for path in PATHS}
        for seed in range(args.seeds):
            for path in PATHS:
                found[path].append(run_apart(__file__, ["--one", case, path, str(seed), *common]))
        name, layers, width, sparsity, _, usual = CASES[case]
        title = f"{name}, {layers} x {width}, sparsity {sparsity:g}, {args.epochs or usual} epochs"
        plain = {key: statistics.median(run[key] for run in found["plain PyG"]) for key in ("seconds", "memory")}
        for path, runs in found.items():
            row = {"case": title, "path": path, "seeds": len(runs)}
            row |= {key: statistics.median(run[key] for run in runs) for key in ("seconds", "memory")}
            row |= {"speed": plain["seconds"] / row["seconds"], "share": row["memory"] / plain["memory"]}
            tests = [100 * run["test"] for run in runs]
            row |= {"test": statistics.mean(tests), "std": deviation(tests, 6)}
            rows.append(row)
            cells = (title, path, f"{1e3 * row['seconds']:.1f}", f"{row['speed']:.1f}", f"{row['memory']:.2f}")
            cells += (f"{100 * row['share']:.0f} %", f"{row['test']:.1f} ± {row['std']:.1f} ({len(tests)})")
            text.append("| " + " | ".join(cells) + " |")
            print(text[-1], flush=True)
    if args.out:
        write_csv(args.out / "untrained_cost.csv", rows)
        write_text(args.out / "untrained_cost.md", "\n".join(text))
    return rows


if __name__ == "__main__":
    main()
    sys.exit(0)
