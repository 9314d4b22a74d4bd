"""An untrained ticket on the real ogbn-arxiv graph, beside the trained model: accuracy, time per epoch and peak memory.

python benchmarks/untrained_arxiv.py                       # 4 layers of width 386, sparsity 0.5, 100 epochs each
python benchmarks/untrained_arxiv.py --norm batch_norm --threads 2

The graph and its labels are real, the features are computed from the structure alone (`ogbn-arxiv-structure`), so
accuracies are below those with the text features of OGB. Each search or training runs in a process of its own, writes
checkpoints, and goes on from them after a kill.
"""

import argparse
import json
import statistics
import sys
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import torch
from own_process import peak_gb, run_apart, warm_up
from tables import write_text
from torch_geometric.nn import GCN

from graphsparse.datasets import load
from graphsparse.nn import accelerate
from graphsparse.tickets import Untrained, find_ticket
from graphsparse.training import Training, build_model, fit

METHODS = {"UGT": Untrained(), "multicoated 3": Untrained("multicoated", coats=3), "dense, trained": None}


def measure(args):
    """Run one method and return its figures."""
    torch.set_num_threads(args.threads)
    warm_up()
    data = load("ogbn-arxiv-structure")
    times = [time.perf_counter()]

    def log(row):
        times.append(time.perf_counter())
        if args.verbose:
            print(f"{row['epoch']:4.0f} loss {row['loss']:.3f} val {row['val']:.4f}", file=sys.stderr, flush=True)

    def make_model():
        options = {"norm": args.norm, "bias": False, "dropout": 0.0}
        return GCN(data.num_features, args.hidden, args.layers, data.num_classes, **options)

    name = f"{args.method}_{args.norm}_{args.sparsity:g}_{args.seed}".replace(" ", "_").replace(",", "")
    folder, method = args.out / f"untrained_arxiv_{name}", METHODS[args.method]
    training = Training(epochs=args.epochs, lr=args.lr, weight_decay=0.0, seed=args.seed, log=log)
    if method is None:
        model = accelerate(build_model(make_model, args.seed))
        result = fit(model, data, replace(training, checkpoint=folder / "dense.pt"))
        figures = {"val": result.val, "test": result.test, "epoch": result.best_epoch}
    else:
        method = replace(method, epochs=args.epochs, lr=args.lr)
        options = {"method": method, "training": replace(training, checkpoint=folder)}
        found = find_ticket(make_model, data, weight_sparsity=args.sparsity, **options).metrics
        figures = {"val": found["val"], "test": found["test"], "epoch": found["best_epoch"]}
    taken = [after - start for start, after in pairwise(times[1:])]
    seconds = statistics.median(taken) if taken else float("nan")
    return figures | {"seconds": seconds, "memory": peak_gb()}


def main(argv=None):
    """Measure, print a table, and return the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--sparsity", type=float, default=0.5)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--lr", type=float, default=0.01)
    parser.add_argument("--hidden", type=int, default=386)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--norm", choices=["batch_norm"], help="with trained scale and shift")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/out"), help="folder of checkpoints and results")
    parser.add_argument("--verbose", action="store_true", help="print every epoch")
    parser.add_argument("--apart", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.apart:
        args.method = args.method[0]
        print(json.dumps(measure(args)))
        return []

    head = ("method", "sparsity", "val %", "test %", "best epoch", "s per epoch", "peak GB of the process")
    norm = f", {args.norm}" if args.norm else ""
    text = [
        f"ogbn-arxiv, structural features, {args.layers} x {args.hidden}{norm}, {args.epochs} epochs, seed {args.seed}"
    ]
    text += ["", "| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    print("\n".join(text), flush=True)
    rows = []
    names = ("sparsity", "epochs", "lr", "hidden", "layers", "seed", "threads", "out")
    shared = [part for name in names for part in (f"--{name}", str(getattr(args, name)))]
    shared += ["--norm", args.norm] if args.norm else []
    for method in args.method:
        row = run_apart(__file__, ["--apart", "--method", method, *shared], keep_memory=True)
        rows.append({"method": method, "sparsity": 0.0 if METHODS[method] is None else args.sparsity, **row})
        cells = (method, f"{rows[-1]['sparsity']:g}", f"{100 * row['val']:.1f}", f"{100 * row['test']:.1f}")
        cells += (str(row["epoch"]), f"{row['seconds']:.2f}", f"{row['memory']:.1f}")
        text.append("| " + " | ".join(cells) + " |")
        print(text[-1], flush=True)
    write_text(args.out / "untrained_arxiv.md", "\n".join(text))
    return rows


if __name__ == "__main__":
    main()
    sys.exit(0)
