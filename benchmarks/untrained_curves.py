"""Test accuracy of untrained tickets against sparsity, beside the trained model and a random mask.

python benchmarks/untrained_curves.py --data cora citeseer --workers 2      # 0.3, 0.5, 0.8, 0.9 and 0.95
python benchmarks/untrained_curves.py --data pubmed --net GCN --whole-grid  # 16 sparsities: many hours

Every method is searched, or trained, for 400 epochs from seeds 0, 1, 2, ..., none of them chosen; the dense model takes
the dropout that is best on the validation set. Weights under several coats are scaled for the first of them, as
published, or, `even`, so that their variance stays the same with any number of coats. `published` is what the figures
of the papers show at that sparsity. All networks have two layers of width 256 and no biases, features are normalised by
row. Results are kept in a file of JSON lines, one training each: a run that was stopped goes on where it was, and
`--report` makes tables of what is whole so far.
"""

import argparse
import csv
import statistics
import sys
import time
from dataclasses import replace
from functools import cache
from itertools import product
from operator import itemgetter
from pathlib import Path

import torch
from cells import compute, whole
from tables import deviation, versions, write_csv, write_text
from torch_geometric.transforms import NormalizeFeatures
from untrained_nets import make_net

from graphsparse.datasets import load
from graphsparse.plotting import plot_curves
from graphsparse.tickets import Untrained, compare_tickets, find_ticket
from graphsparse.training import Training

SPARSITIES = (0.3, 0.5, 0.8, 0.9, 0.95)
GRID = (0, 0.01, 0.03, 0.05, 0.08, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
METHODS = {
    "UGT": Untrained("ugt"),
    "edge-popup": Untrained("edge_popup"),
    "multicoated 3": Untrained("multicoated", coats=3, scaled="first"),
    "multicoated 5": Untrained("multicoated", coats=5, scaled="first"),
    "multicoated 3, even": Untrained("multicoated", coats=3),
    "multicoated 5, even": Untrained("multicoated", coats=5),
}
CONTROLS = ("dense", "random mask")
#: Largest number of epochs of the dense model: the best one comes early.
DENSE_EPOCHS = 200
KEYS = ("data", "net", "method", "sparsity", "seed")
#: Means of the figures of Huang et al., arXiv 2211.15335; the dense model stands at sparsity 0.
PUBLISHED = Path(__file__).parent / "published_untrained.csv"


@cache
def published():
    """Return what has been published by data set, network, method and sparsity."""
    with PUBLISHED.open() as file:
        rows = list(csv.DictReader(file))
    return {(row["data"], row["net"], row["method"], s): row[str(s)] for row in rows for s in GRID if row[str(s)]}


@cache
def graph(name):
    """Load a graph with features normalised by row."""
    return NormalizeFeatures()(load(name))


def jobs(args):
    """Return the trainings of a run; the dense model belongs to no sparsity."""
    for data, net, method in product(args.data, args.net, args.method):
        main = net == "GCN" and not method.endswith("even")
        seeds = range(max(args.seeds, args.main_seeds if main else 0))
        for sparsity, seed in product((0,) if method == "dense" else args.sparsity, seeds):
            yield {"data": data, "net": net, "method": method, "sparsity": sparsity, "seed": seed}


def run(job, setting):
    """Search or train one cell, and return it with its accuracies."""
    torch.set_num_threads(1)
    data, begin = graph(job["data"]), time.perf_counter()
    training = Training(epochs=min(setting["epochs"], DENSE_EPOCHS), seed=job["seed"])

    def make_model():
        return make_net(job["net"], data.num_features, setting["hidden"], setting["layers"], data.num_classes)

    if job["method"] == "dense":
        (found,) = compare_tickets(make_model, data, [], training=training)
    else:
        method = "random_untrained"
        if job["method"] in METHODS:
            method = replace(METHODS[job["method"]], epochs=setting["epochs"], lr=setting["lr"])
        options = {"weight_sparsity": job["sparsity"], "method": method, "training": training}
        found = find_ticket(make_model, data, **options).metrics
    epoch = 0 if job["method"] in CONTROLS else found["best_epoch"]
    row = {"val": found["val"], "test": found["test"], "epoch": epoch}
    return {**job, **row, "seconds": round(time.perf_counter() - begin, 2)}


def run_group(group, setting):
    """Run jobs one after another."""
    return [run(job, setting) for job in group]


def summarise(rows):
    """Return mean, deviation and worst over seeds for every cell, and the paired difference from the dense model."""
    cells = {}
    for row in rows:
        cells.setdefault(tuple(row[name] for name in KEYS[:4]), {})[row["seed"]] = row
    lines = []
    for (data, net, method, sparsity), seeds in cells.items():
        test = [100 * row["test"] for row in seeds.values()]
        dense = cells.get((data, net, "dense", 0), {})
        gap = [100 * (row["test"] - dense[seed]["test"]) for seed, row in seeds.items() if seed in dense]
        shown = published().get((data, net, method, sparsity), "")
        line = {"data": data, "net": net, "method": method, "sparsity": sparsity, "seeds": len(test)}
        line |= {
            "test mean": round(statistics.mean(test), 2),
            "test std": deviation(test),
            "worst": round(min(test), 2),
        }
        line |= {"published": shown}
        line |= {"minus dense": round(statistics.mean(gap), 2) if gap and method != "dense" else ""}
        line |= {"std of difference": deviation(gap) if gap and method != "dense" else ""}
        line |= {"mean best epoch": round(statistics.mean(row["epoch"] for row in seeds.values()), 1)}
        line |= {"seconds": round(statistics.mean(row["seconds"] for row in seeds.values()), 1)}
        lines.append(line)
    return lines


def markdown(lines, data, net):
    """Format one table for a data set and a network: methods against sparsities."""
    lines = [line for line in lines if (line["data"], line["net"]) == (data, net)]
    sparsities = sorted({line["sparsity"] for line in lines if line["method"] != "dense"})
    found = {(line["method"], line["sparsity"]): line for line in lines}
    seeds = sorted({line["seeds"] for line in lines})
    text = [
        f"**{data}, {net}** ({' to '.join(map(str, seeds))} seeds; test accuracy in %, published mean in brackets)",
        "",
    ]
    text += [
        "| method | " + " | ".join(f"{100 * s:g} %" for s in sparsities) + " |",
        "|" + "---|" * (len(sparsities) + 1),
    ]

    def cell(line):
        shown = f" [{line['published']}]" if line["published"] != "" else ""
        return f"{line['test mean']:.1f} ± {line['test std']:.1f}{shown}"

    for method in dict.fromkeys(line["method"] for line in lines):
        if method == "dense":
            text.append(f"| dense, trained | {cell(found[method, 0])} |" + " |" * (len(sparsities) - 1))
        else:
            text.append(f"| {method} | " + " | ".join(cell(found[method, s]) for s in sparsities) + " |")
    return "\n".join(text)


def plot(lines, data, path):
    """Draw one panel per network for a data set."""
    panels, levels = {}, {}
    for line in lines:
        if line["data"] != data:
            continue
        title, point = f"{data}, {line['net']}", (line["test mean"], line["test std"])
        if line["method"] == "dense":
            levels[title] = {"dense, trained": point}
        else:
            panels.setdefault(title, {}).setdefault(line["method"], []).append((100 * line["sparsity"], *point))
    if panels:
        plot_curves(path, panels, x_label="sparsity (%)", y_label="test accuracy (%)", levels=levels)


def main(argv=None):
    """Compute what is missing, write table and plots, and return the means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [*METHODS, *CONTROLS]
    parser.add_argument("--data", nargs="+", default=["cora", "citeseer"])
    parser.add_argument("--net", nargs="+", default=["GCN", "GIN", "GAT"], choices=["GCN", "GIN", "GAT"])
    parser.add_argument("--method", nargs="+", default=names, choices=names)
    parser.add_argument("--sparsity", nargs="+", type=float, default=list(SPARSITIES))
    parser.add_argument("--whole-grid", action="store_true", help="all 16 sparsities of the published figure")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--main-seeds", type=int, default=10, help="seeds of the GCN, if more, but for the rows `even`")
    parser.add_argument("--report", action="store_true", help="tables of what is there, nothing is computed")
    parser.add_argument("--epochs", type=int, default=400)
    parser.add_argument("--lr", type=float, default=0.01)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2, help="processes; 0: in this one")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/out"), help="folder of the results")
    args = parser.parse_args(argv)
    if args.whole_grid:
        args.sparsity = list(GRID)

    setting = {name: getattr(args, name) for name in ("epochs", "lr", "hidden", "layers")} | {
        "torch": torch.__version__
    }
    path = args.out / "untrained_curves.jsonl"
    if args.report:
        rows = whole(jobs(args), path, setting=setting, keys=KEYS, cell=itemgetter("data", "net", "method"))
    else:
        options = {"group_by": itemgetter("data", "net"), "workers": args.workers, "group_size": 4}
        rows = compute(list(jobs(args)), run_group, path, setting=setting, keys=KEYS, **options)
    lines = summarise(rows)
    write_csv(args.out / "untrained_curves.csv", lines)
    tables = dict.fromkeys((line["data"], line["net"]) for line in lines)
    text = "\n\n".join(markdown(lines, *table) for table in tables)
    text += f"\n\n{args.layers} layers of width {args.hidden}, {args.epochs} epochs, lr {args.lr:g}, {versions()}.\n"
    write_text(args.out / "untrained_curves.md", text)
    for data in args.data:
        plot(lines, data, args.out / f"untrained_curves_{data}.png")
    print(text)
    return {"/".join(str(line[name]) for name in KEYS[:4]): line["test mean"] for line in lines}


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
