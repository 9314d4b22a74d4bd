"""Test accuracy of soups beside their ingredients: every recipe on every network, sampler and graph, paired by repeat.

python benchmarks/soups.py --data cora citeseer --workers 2         # GCN, SAGE, GAT, GCNII; three samplers; 5 repeats
python benchmarks/soups.py --data ogbn-arxiv-structure flickr-structure   # GCN and SAGE on clusters; 3 repeats

A repeat trains 8 ingredients from the same initial weights, with other batches and dropout, and makes every soup of
them. Ingredients, recipes and ratios are chosen on validation nodes alone. By default a recipe finds ratios on one half
of them and accepts on the other; `all validation` marks those that use all for both. The best ingredient is that with
the best score on all validation nodes. Test labels are read once, for the finished soups. The two large graphs are
real, their features are computed from the structure, so accuracies are below published ones. A run that was stopped
goes on where it was: ingredients are in a store until the soups of their repeat are made, and results in a file of JSON
lines, one repeat each. `--report` makes tables of what is whole so far.
"""

import argparse
import shutil
import statistics
import sys
import time
from functools import cache, partial
from itertools import product
from operator import itemgetter
from pathlib import Path

import torch
from cells import compute, whole
from gcnii import GCNII
from tables import command, mean_and_std, versions, write_csv, write_text
from torch_geometric.nn import GAT, GCN, GraphSAGE

from graphsparse.datasets import load
from graphsparse.plotting import plot_curves
from graphsparse.soups import (
    Evaluator,
    ensemble,
    greedy_soup,
    interpolation_soup,
    learned_soup,
    train_ingredients,
    uniform_soup,
)
from graphsparse.training import Training

NETS = ("GCN", "SAGE", "GAT", "GCNII")
SAMPLERS = ("full", "cluster", "neighbor")
KEYS = ("data", "net", "sampler", "repeat")
#: What is trained on small graphs and on large ones.
SMALL = {"hidden": 64, "layers": 2, "lr": 0.01, "weight_decay": 5e-4, "dropout": 0.5, "epochs": 150, "batched": 50}
LARGE = {"hidden": 128, "layers": 3, "lr": 0.01, "weight_decay": 0.0, "dropout": 0.3, "epochs": 100, "batched": 12}
OPTIONS = {
    "full": {},
    "cluster": {"num_parts": 16, "parts_per_batch": 4},
    "neighbor": {"num_neighbors": [10, 10], "batch_size": 64},
}
LARGE_OPTIONS = {
    "full": {},
    "cluster": {"num_parts": 200, "parts_per_batch": 20},
    "neighbor": {"num_neighbors": [10, 10, 10], "batch_size": 1024},
}
RECIPES = {
    "uniform": uniform_soup,
    "greedy": greedy_soup,
    "interpolation": interpolation_soup,
    "interpolation, all validation": partial(interpolation_soup, split_validation=False),
    "learned": learned_soup,
    "learned, all validation": partial(learned_soup, split_validation=False),
    "partition learned": partial(learned_soup, num_parts=16, parts_per_step=4),
}
#: What is computed when nothing is said: networks, samplers and repeats. A repeat on a large graph takes ten minutes.
CELLS = (NETS, SAMPLERS, 5)
LARGE_CELLS = dict.fromkeys(("ogbn-arxiv-structure", "flickr-structure"), (("GCN", "SAGE"), ("cluster",), 3))
METHODS = ("mean ingredient", "best ingredient", "ensemble", *RECIPES)


def make_net(net, data, setting):
    """Build a network with initial weights from the global generator."""
    sizes = (data.num_features, setting["hidden"], setting["layers"], data.num_classes)
    if net == "GCNII":
        return GCNII(sizes[0], sizes[1], 8, sizes[3], setting["dropout"])
    if net == "GAT":
        return GAT(*sizes, heads=8, dropout=setting["dropout"])
    return {"GCN": GCN, "SAGE": GraphSAGE}[net](*sizes, dropout=setting["dropout"])


@cache
def graph(name):
    return load(name)


def run(job, setting):
    """Train the ingredients of a repeat, make every soup, and return test and validation accuracies."""
    torch.set_num_threads(1)
    data = graph(job["data"])
    large = data.num_nodes > 50_000
    how = (LARGE if large else SMALL) | ({"epochs": setting["epochs"]} if setting["epochs"] else {})
    options = (LARGE_OPTIONS if large else OPTIONS)[job["sampler"]]
    training = Training(
        epochs=how["epochs"] if job["sampler"] == "full" or setting["epochs"] else how["batched"],
        lr=how["lr"],
        weight_decay=how["weight_decay"],
        seed=job["repeat"],
    )
    begin = time.perf_counter()
    store = train_ingredients(
        lambda: make_net(job["net"], data, how),
        data,
        setting["ingredients"],
        job["store"],
        training=training,
        sampler=job["sampler"],
        sampler_options=options,
        workers=0,
    )
    trained = time.perf_counter() - begin
    model = make_net(job["net"], data, how)
    val = Evaluator(model, data)
    soups, seconds = {}, {}
    for name, recipe in RECIPES.items():
        start = time.perf_counter()
        soups[name] = recipe(store, val)
        seconds[name] = round(time.perf_counter() - start, 2)
    test = Evaluator(model, data, "test_mask", batch_norm="keep")  # soups come with their statistics
    found = ensemble(store, test)
    best = max(range(len(store)), key=lambda i: val.score(store[i]))
    tests = {"mean ingredient": statistics.mean(found.ingredient_scores), "ensemble": found.score}
    tests["best ingredient"] = found.ingredient_scores[best]
    vals = {"best ingredient": val.score(store[best])}
    for name, soup in soups.items():
        tests[name], vals[name] = test.score(soup.state_dict), val.score(soup.state_dict)
    accepted = {
        name: sum(step["accepted"] for step in soup.trace if "accepted" in step) for name, soup in soups.items()
    }
    row = {"test": tests, "val": vals, "accepted": accepted, "mode": val.mode, "soup seconds": seconds}
    shutil.rmtree(job["store"])  # each holds the graph
    return {**{name: job[name] for name in KEYS}, **row, "train seconds": round(trained, 1)}


def run_group(group, setting):
    """Run repeats one after another."""
    return [run(job, setting) for job in group]


def summarise(rows):
    """Return mean and deviation for every cell and method, and the paired difference from the best ingredient."""
    cells = {}
    for row in rows:
        cells.setdefault(tuple(row[name] for name in KEYS[:3]), []).append(row)
    lines = []
    for key, repeats in cells.items():
        for method in METHODS:
            test = [100 * row["test"][method] for row in repeats]
            gap = [100 * (row["test"][method] - row["test"]["best ingredient"]) for row in repeats]
            line = dict(zip(KEYS, key, strict=False)) | {"method": method, "repeats": len(repeats)}
            line |= mean_and_std(test, "test") | mean_and_std(gap, "minus best")
            line["wins"] = sum(value > 0 for value in gap)
            if method in repeats[0]["val"]:
                line |= mean_and_std([100 * row["val"][method] for row in repeats], "val")
                line["seconds"] = round(statistics.mean(row["soup seconds"].get(method, 0.0) for row in repeats), 2)
            lines.append(line)
    return lines


def markdown(lines, data):
    """Format the table of a graph: methods against networks and samplers."""
    lines = [line for line in lines if line["data"] == data]
    columns = list(dict.fromkeys((line["net"], line["sampler"]) for line in lines))
    found = {(line["net"], line["sampler"], line["method"]): line for line in lines}
    repeats = " to ".join(str(count) for count in sorted({line["repeats"] for line in lines}))
    heads = [f"{net}, {sampler}" for net, sampler in columns]
    text = [
        f"**{data}** ({repeats} repeats; test accuracy in %, paired difference from the best ingredient in brackets)"
    ]
    text += ["", "| | " + " | ".join(heads) + " |", "|" + "---|" * (len(heads) + 1)]
    for method in METHODS:
        cells = []
        for column in columns:
            line = found[(*column, method)]
            gap = f" ({line['minus best mean']:+.1f} ± {line['minus best std']:.1f})"
            shown = f"{line['test mean']:.1f} ± {line['test std']:.1f}"
            cells.append(shown + ("" if method == "best ingredient" else gap))
        text.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join([*text, ""])


def plot(lines, data, path):
    """Draw the difference from the best ingredient of every method, one panel for each network."""
    panels, names = {}, [name for name in METHODS if name != "best ingredient"]
    for line in lines:
        if line["data"] == data and line["method"] != "best ingredient":
            point = (names.index(line["method"]), line["minus best mean"], line["minus best std"])
            panels.setdefault(line["net"], {}).setdefault(line["sampler"], []).append(point)
    label = "minus best ingredient (points)"
    plot_curves(path, panels, x_label="", y_label=label, x_names=names, joined=False)


def main(argv=None):
    """Compute what is missing, write tables and plots, and return the rows of the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=["cora"])
    parser.add_argument("--net", nargs="+", choices=NETS, help="all when left out, GCN and SAGE on the large graphs")
    parser.add_argument("--sampler", nargs="+", choices=SAMPLERS, help="all when left out, cluster on the large graphs")
    parser.add_argument("--repeats", type=int, help="5 when left out, 3 on the large graphs")
    parser.add_argument("--ingredients", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=0, help="instead of those of the graph and the sampler")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--report", action="store_true", help="tables of what is whole, nothing is computed")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/out"), help="folder of the results")
    args = parser.parse_args(argv)

    jobs = []
    for data in args.data:
        nets, samplers, repeats = LARGE_CELLS.get(data, CELLS)
        cells = product([data], args.net or nets, args.sampler or samplers, range(args.repeats or repeats))
        for values in cells:
            store = args.out / "ingredients" / "_".join(map(str, values))
            jobs.append({**dict(zip(KEYS, values, strict=True)), "store": str(store)})
    path, setting = args.out / "soups.jsonl", {"ingredients": args.ingredients, "epochs": args.epochs}
    common = {"setting": setting | {"torch": torch.__version__}, "keys": KEYS}
    if args.report:
        rows = whole(jobs, path, cell=itemgetter(*KEYS[:3]), **common)
    else:
        rows = compute(jobs, run_group, path, group_by=itemgetter(*KEYS), workers=args.workers, **common)
    lines = summarise(rows)
    write_csv(args.out / "soups.csv", lines)
    text = "\n".join(markdown(lines, data) for data in dict.fromkeys(row["data"] for row in rows))
    text += f"\n{args.ingredients} ingredients; {versions()}.\n\n    {command(parser, args, 'soups')}\n"
    write_text(args.out / "soups.md", text)
    for data in dict.fromkeys(row["data"] for row in rows):
        plot(lines, data, args.out / f"soups_{data}.png")
    print(text)
    return lines


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
