"""Soups of sparse networks beside what else their trainings buy: test accuracy at equal sparsity, paired by seed.

python benchmarks/sparse_soups.py --data cora citeseer      # 5 seeds, two sparsities; a quarter of an hour on one core

A ticket is a GCN of width 64 that is trained for 200 epochs with all but its largest weights projected to zero. Each
other row trains for as long as four or five of them:

- a longer training of one, or the best of four seeds on validation nodes;
- the mean of these four, which start from the same weights, pruned again to the same number of weights;
- a lottery pool: the ticket, interpolated with tickets of three other sparsities, and pruned again; ratios are found on
  one half of the validation nodes and accepted on the other, or, `all validation`, found and accepted on all;
- a sparse soup: 100 epochs dense, then three times prune, train three copies of 100 epochs under one mask, and take
  their mean; beside it the same without copies, where one is trained for 300 epochs each time.

Only validation nodes choose; test labels are read once, for what is finished. Results are kept in a file of JSON lines:
a run that was stopped goes on where it was.
"""

import argparse
import sys
from functools import cache
from itertools import product
from operator import itemgetter
from pathlib import Path

import torch
from cells import compute
from tables import command, mean_and_std, versions, write_csv, write_text
from torch_geometric.nn import GCN

from graphsparse.datasets import load
from graphsparse.nn import accelerate
from graphsparse.soups import Evaluator, lottery_pool, uniform_soup
from graphsparse.training import L0Projection, Masks, NodeTask, Training, build_model, fit

KEYS = ("data", "seed")
#: Sparsities of the pool, and of those the ones that are reported.
POOL, REPORTED = (0.8, 0.9, 0.95, 0.98), (0.9, 0.98)
METHODS = (
    "ticket",
    "ticket, 4 times the epochs",
    "best of 4 seeds",
    "mean of 4 seeds, pruned again",
    "lottery pool",
    "lottery pool, all validation",
    "sparse soup",
    "sparse soup without copies",
)


@cache
def graph(name):
    data = load(name)
    data.x = data.x.to_sparse_csr()
    return data


def train(model, data, epochs, seed, project):
    """Train a copy of a model and return its best weights; no test label is read."""
    task = NodeTask(data).without_test()
    return fit(model, task, Training(epochs=epochs, seed=seed), project=project).state_dict


def prune(state, model, sparsity):
    """Return masks of the largest weights, and the state dict with all others at zero."""
    masks = Masks.everything(model)
    masks = masks.prune(weights={name: state[name].abs() for name in masks.weights}, weight_sparsity=sparsity)
    return masks, masks.apply(state)


def sparse_soup(start, data, evaluator, sparsity, seed, copies, epochs, unit):
    """Prune in three steps, each time to the mean of copies that were trained under one mask."""
    model = accelerate(start())
    state = train(model, data, unit, 1000 * seed, None)
    for phase in range(1, 4):
        masks, state = prune(state, model, 1 - (1 - sparsity) ** (phase / 3))
        trained = []
        for copy in range(copies):
            model.load_state_dict(state)
            hold = lambda optimizer, masks=masks: masks.hold(model, optimizer)  # noqa: E731
            trained.append(train(model, data, epochs, 1000 * seed + 10 * phase + copy, hold))
        state = uniform_soup(trained, evaluator).state_dict
    return state


def run(job, setting):
    """Train what a seed of a graph needs, and return test and validation accuracies."""
    torch.set_num_threads(1)
    data, seed, unit = graph(job["data"]), job["seed"], setting["epochs"]

    def start():
        return build_model(lambda: GCN(data.num_features, 64, 2, data.num_classes, dropout=0.5), seed)

    def ticket(sparsity, epochs, number):
        project = lambda optimizer: L0Projection(optimizer, sparsity)  # noqa: E731
        return train(accelerate(start()), data, epochs, number, project)

    val, test = Evaluator(start(), data), Evaluator(start(), data, "test_mask")
    pool = [ticket(sparsity, 2 * unit, seed) for sparsity in POOL]
    found = {}
    for sparsity in REPORTED:
        target = POOL.index(sparsity)
        seeds = [pool[target], *(ticket(sparsity, 2 * unit, 100 * k + seed) for k in (1, 2, 3))]
        mean = uniform_soup(seeds, val).state_dict
        states = {
            "ticket": pool[target],
            "ticket, 4 times the epochs": ticket(sparsity, 8 * unit, seed),
            "best of 4 seeds": max(seeds, key=val.score),
            "mean of 4 seeds, pruned again": prune(mean, start(), sparsity)[1],
            "lottery pool": lottery_pool(pool, val, target=target).state_dict,
            "lottery pool, all validation": lottery_pool(pool, val, target=target, split_validation=False).state_dict,
            "sparse soup": sparse_soup(start, data, val, sparsity, seed, 3, unit, unit),
            "sparse soup without copies": sparse_soup(start, data, val, sparsity, seed, 1, 3 * unit, unit),
        }
        for method, state in states.items():
            zeros = sum(int((value == 0).sum()) for value in state.values() if value.dim() == 2)
            total = sum(value.numel() for value in state.values() if value.dim() == 2)
            assert zeros >= int(sparsity * total), (method, zeros, total)
            found[f"{sparsity} {method}"] = [test.score(state), val.score(state)]
    return {**job, "found": found}


def run_group(group, setting):
    """Run seeds one after another."""
    return [run(job, setting) for job in group]


def summarise(rows):
    """Return mean and deviation for every cell, and the paired difference from the ticket."""
    lines = []
    for data, sparsity, method in product(dict.fromkeys(row["data"] for row in rows), REPORTED, METHODS):
        own = [row["found"] for row in rows if row["data"] == data]
        test = [100 * found[f"{sparsity} {method}"][0] for found in own]
        gap = [value - 100 * found[f"{sparsity} ticket"][0] for value, found in zip(test, own, strict=True)]
        line = {"data": data, "sparsity": sparsity, "method": method, "seeds": len(own)}
        lines.append(line | mean_and_std(test, "test") | mean_and_std(gap, "minus ticket"))
    return lines


def markdown(lines):
    """Format the table: methods against graphs and sparsities."""
    columns = list(dict.fromkeys((line["data"], line["sparsity"]) for line in lines))
    found = {(line["data"], line["sparsity"], line["method"]): line for line in lines}
    text = ["| | " + " | ".join(f"{data}, {sparsity:.0%}" for data, sparsity in columns) + " |"]
    text.append("|" + "---|" * (len(columns) + 1))
    for method in METHODS:
        cells = []
        for column in columns:
            line = found[(*column, method)]
            gap = f" ({line['minus ticket mean']:+.1f} ± {line['minus ticket std']:.1f})"
            cells.append(f"{line['test mean']:.1f} ± {line['test std']:.1f}" + ("" if method == "ticket" else gap))
        text.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(text)


def main(argv=None):
    """Compute what is missing, write the tables, and return the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=["cora", "citeseer"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=100, help="of a copy; a ticket takes twice as many")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/out"), help="folder of the results")
    args = parser.parse_args(argv)
    jobs = [dict(zip(KEYS, values, strict=True)) for values in product(args.data, range(args.seeds))]
    setting = {"epochs": args.epochs, "torch": torch.__version__}
    path = args.out / "sparse_soups.jsonl"
    rows = compute(jobs, run_group, path, setting=setting, keys=KEYS, group_by=itemgetter(*KEYS), workers=args.workers)
    lines = summarise(rows)
    write_csv(args.out / "sparse_soups.csv", lines)
    text = f"Test accuracy in %, {args.seeds} seeds; in brackets the paired difference from the ticket.\n\n"
    text += f"{markdown(lines)}\n\n{versions()}.\n\n    {command(parser, args, 'sparse_soups')}\n"
    write_text(args.out / "sparse_soups.md", text)
    print(text)
    return lines


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
