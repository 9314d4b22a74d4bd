"""Accuracy and smoothness of plain networks by depth: untrained tickets beside the same networks trained.

python benchmarks/untrained_depth.py                                        # Cora, GCN, 2 to 32 layers of width 128
python benchmarks/untrained_depth.py --hidden 448 --layers 32 --sparsity 0.04  # the published setting: hours
python benchmarks/untrained_depth.py --net GCN GIN GAT --seeds 5

No network has residual connections, normalisation or biases, and none that is searched has dropout. A ticket is
searched at every sparsity of a list, and the validation set chooses one per depth; each alone is listed too. The
trained network is there twice: from the initial weights that PyG gives it, and from the very weights, of Kaiming's law,
that the ticket freezes, because PyG's let the signal of deep networks fade. Both take the dropout and the learning rate
that are best on validation: at the rate of the search deep networks are trained badly, and the comparison would be won
before it begins. MAD, the mean average distance between nodes, is that of the input of the last layer and of the
logits, at the epoch that validation chose: 0 where all nodes have become alike. Zero rows are nodes whose last hidden
representation is all zero, which are not smooth but lost: MAD counts them as 1 away from every other. Seeds are 0, 1,
2, ..., the same for all. A run that was stopped goes on where it was, and more seeds can be added to it;
`--report` makes tables of what is whole so far.
"""

import argparse
import statistics
import sys
import time
from dataclasses import dataclass
from itertools import product
from operator import itemgetter
from pathlib import Path

import torch
from cells import compute, whole
from tables import command, mean_and_std, versions, write_csv, write_text
from torch import Tensor, nn
from untrained_curves import graph
from untrained_nets import make_net

from graphsparse.metrics import accuracy, mean_average_distance
from graphsparse.nn import Supermask, accelerate
from graphsparse.nn.linear import set_dropout
from graphsparse.plotting import plot_curves
from graphsparse.tickets import Untrained, find_ticket
from graphsparse.tickets.compare import DROPOUTS
from graphsparse.training import NodeTask, Training, build_model, fit, predict

SHOWN = {"ugt": "untrained", "dense": "trained, PyG's start", "dense_kaiming": "trained, ticket's start"}
KEYS = ("data", "net", "layers", "method", "sparsity", "lr", "seed")


@dataclass(frozen=True)
class Found:
    """A model at the epoch that validation chose, in evaluation mode.

    Args:
        model: The model.
        logits: Its logits on the graph that it comes from.
        val: Accuracy on validation.
        epoch: The epoch.
        dropout: The dropout that it was trained with.
    """

    model: nn.Module
    logits: Tensor
    val: float
    epoch: int
    dropout: float


def search(make_model, data, sparsity, method, seed):
    """Search an untrained ticket without the test part."""
    task, training = NodeTask(data).without_test(), Training(seed=seed)
    ticket = find_ticket(make_model, task, weight_sparsity=sparsity, method=method, training=training)
    model = accelerate(ticket.materialize(make_model))
    return Found(model, predict(model, data), ticket.metrics["val"], ticket.metrics["best_epoch"], 0.0)


def train(make_model, data, seed, *, lr, epochs, dropouts, kaiming=False):
    """Train every weight, with the dropout that is best on validation; ``kaiming`` starts where tickets stay."""
    best, task = None, NodeTask(data).without_test()
    for dropout in dropouts:
        model = build_model(make_model, seed)
        if kaiming:
            model = Supermask(model, 0.0, seed=seed).materialize()
        set_dropout(model, dropout)
        model = accelerate(model).train()
        result = fit(model, task, Training(epochs=epochs, lr=lr, seed=seed))
        if best is None or result.val > best.val:
            best = Found(model.eval(), result.logits, result.val, result.best_epoch, dropout)
    return best


def last_hidden(model, data):
    """Return the input of the last layer."""
    seen = []
    hook = model.convs[-1].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    try:
        predict(model, data)
    finally:
        hook.remove()
    return seen[0]


def jobs(args):
    """Return the trainings of a run, seed by seed, with all among which validation chooses."""
    for data, net, seed, layers in product(args.data, args.net, range(args.seeds), args.layers):
        for method in args.method:
            ticket = method == "ugt"
            for sparsity, lr in product(args.sparsity if ticket else [0], [args.lr] if ticket else args.dense_lr):
                yield dict(zip(KEYS, (data, net, layers, method, sparsity, lr, seed), strict=True))


def run(job, setting):
    """Search or train one model, and return the job with accuracies and smoothness."""
    torch.set_num_threads(1)
    data, begin = graph(job["data"]), time.perf_counter()

    def make_model():
        return make_net(job["net"], data.num_features, setting["hidden"], job["layers"], data.num_classes)

    if job["method"] == "ugt":
        method = Untrained(epochs=setting["epochs"], lr=job["lr"])
        found = search(make_model, data, job["sparsity"], method, job["seed"])
    else:
        options = {"epochs": setting["dense_epochs"], "dropouts": setting["dropout"]}
        options |= {"lr": job["lr"], "kaiming": job["method"] == "dense_kaiming"}
        found = train(make_model, data, job["seed"], **options)
    hidden = last_hidden(found.model, data)
    return {
        **job,
        "val": found.val,
        "test": accuracy(found.logits, data.y, data.test_mask),
        "mad hidden": mean_average_distance(hidden),
        "mad logits": mean_average_distance(found.logits),
        "zero rows": float((hidden == 0).all(1).double().mean()),
        "dropout": found.dropout,
        "epoch": found.epoch,
        "seconds": round(time.perf_counter() - begin, 2),
    }


def run_group(group, setting):
    """Run jobs one after another."""
    return [run(job, setting) for job in group]


def minus(seeds, others, key, name):
    """Return the mean and the deviation of the paired difference in per cent; empty where no seed is in both."""
    gap = [100 * (row[key] - others[seed][key]) for seed, row in seeds.items() if seed in others]
    return mean_and_std(gap, name) if gap and others is not seeds else {f"{name} mean": "", f"{name} std": ""}


def summarise(rows):
    """Return mean and deviation over seeds for every cell; ``chosen`` marks the best on validation of its kind."""
    cells, best = {}, {}
    for row in rows:
        cells.setdefault(tuple(row[name] for name in KEYS[:6]), {})[row["seed"]] = row
    for key, seeds in cells.items():
        val = statistics.mean(row["val"] for row in seeds.values())
        if key[:4] not in best or val > best[key[:4]][0]:
            best[key[:4]] = (val, key)
    lines = []
    for key, seeds in cells.items():
        line = dict(zip(KEYS, key, strict=False)) | {"chosen": best[key[:4]][1] == key, "seeds": len(seeds)}
        for name, factor, digits in (("val", 100, 2), ("test", 100, 2), ("mad hidden", 1, 4), ("mad logits", 1, 4)):
            line |= mean_and_std([factor * row[name] for row in seeds.values()], name, digits)
        line |= {"worst": round(100 * min(row["test"] for row in seeds.values()), 2)}
        for name in ("dense", "dense_kaiming"):
            _, other = best.get((*key[:3], name), (0, None))
            line |= minus(seeds, cells.get(other, {}), "test", f"minus {name}")
        line |= {"zero rows (%)": round(100 * statistics.mean(row["zero rows"] for row in seeds.values()), 2)}
        line |= {"dropouts": " ".join(f"{row['dropout']:g}" for row in seeds.values())}
        line |= {"mean best epoch": round(statistics.mean(row["epoch"] for row in seeds.values()), 1)}
        lines.append(line)
    return lines


def markdown(lines, data, net):
    """Format the tables of a data set and a network: accuracy, then smoothness, by depth."""
    lines = [line for line in lines if (line["data"], line["net"]) == (data, net)]
    depths = sorted({line["layers"] for line in lines})
    methods = dict.fromkeys(line["method"] for line in lines)
    chosen = {(line["method"], line["layers"]): line for line in lines if line["chosen"]}
    seeds = " to ".join(str(count) for count in sorted({line["seeds"] for line in lines}))

    def table(first, head, cells):
        rows = [f"| {name} | " + " | ".join(row) + " |" for name, row in cells]
        return [f"| {first} | " + " | ".join(head) + " |", "|" + "---|" * (len(head) + 1), *rows, ""]

    def accuracies(line):
        return f"{line['test mean']:.1f} ± {line['test std']:.1f}"

    heads = [f"{depth} layers" for depth in depths]
    text = [f"**{data}, {net}** ({seeds} seeds; test accuracy in %, mean ± standard deviation)", ""]
    best = [(method, [chosen[method, depth] for depth in depths]) for method in methods]
    rows = [(SHOWN[method], [f"{accuracies(line)} ({choice(line)})" for line in row]) for method, row in best]
    text += table("model", heads, rows)
    text += ["In brackets what has the best mean validation accuracy at this depth. All that it was chosen from:", ""]
    every = {}
    for line in lines:
        every.setdefault((line["method"], choice(line)), {})[line["layers"]] = line
    rows = [(f"{SHOWN[m]}, {what}", [accuracies(row[depth]) for depth in depths]) for (m, what), row in every.items()]
    text += table("model", heads, rows)
    text += ["Mean average distance (MAD) of the models of the first table, last hidden representation / logits:", ""]
    text += table("model", heads, [(SHOWN[method], [distances(line) for line in row]) for method, row in best])
    return "\n".join(text)


def choice(line):
    """Format what was chosen on validation: the sparsity of a ticket, the learning rate of what is trained."""
    return f"{100 * line['sparsity']:g} %" if line["method"] == "ugt" else f"lr {line['lr']:g}"


def distances(line):
    """Format the MAD of a cell, with the share of nodes that are lost, if there are any."""
    lost = f" ({line['zero rows (%)']:.1f} % zero rows)" if line["zero rows (%)"] else ""
    return f"{line['mad hidden mean']:.3f} / {line['mad logits mean']:.3f}{lost}"


def plot(lines, data, folder):
    """Draw accuracy and smoothness against depth, one panel per network, for a data set."""
    lines = [line for line in lines if line["data"] == data and line["chosen"]]
    accuracies, smooth = {}, {}
    for line in lines:
        net, name = line["net"], SHOWN[line["method"]]
        point = (line["layers"], line["test mean"], line["test std"])
        accuracies.setdefault(f"{data}, {net}", {}).setdefault(name, []).append(point)
        for where in ("hidden", "logits"):
            point = (line["layers"], line[f"mad {where} mean"], line[f"mad {where} std"])
            title = f"{data}, {net}, {'last hidden' if where == 'hidden' else where}"
            smooth.setdefault(title, {}).setdefault(name, []).append(point)
    path = folder / f"untrained_depth_{data}.png"
    plot_curves(path, accuracies, x_label="layers", y_label="test accuracy (%)")
    path = folder / f"untrained_depth_{data}_mad.png"
    plot_curves(path, smooth, x_label="layers", y_label="mean average distance")


def main(argv=None):
    """Compute what is missing, write tables and plots, and return the means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=["cora"])
    parser.add_argument("--net", nargs="+", default=["GCN"], choices=["GCN", "GIN", "GAT"])
    parser.add_argument("--layers", nargs="+", type=int, default=[2, 4, 8, 16, 32])
    parser.add_argument("--method", nargs="+", default=list(SHOWN), choices=list(SHOWN))
    parser.add_argument("--sparsity", nargs="+", type=float, default=[0.04, 0.5], help="validation chooses among them")
    parser.add_argument("--dropout", nargs="+", type=float, default=list(DROPOUTS), help="the same for what is trained")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=400)
    parser.add_argument("--dense-epochs", type=int, default=400, help="epochs of what is trained, per dropout")
    parser.add_argument("--lr", type=float, default=0.005, help="of the search")
    parser.add_argument("--dense-lr", nargs="+", type=float, default=[0.005, 0.001], help="validation chooses")
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--report", action="store_true", help="tables of what is whole, nothing is computed")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/out"), help="folder of the results")
    args = parser.parse_args(argv)
    if min(args.layers) < 2:
        parser.error("--layers must be at least 2: the input of a single layer is the features")

    names = ("epochs", "dense_epochs", "hidden", "dropout")
    setting = {name: getattr(args, name) for name in names} | {"torch": torch.__version__}
    path, common = args.out / "untrained_depth.jsonl", {"setting": setting, "keys": KEYS}
    if args.report:
        rows = whole(jobs(args), path, cell=itemgetter("data", "net", "method"), **common)
    else:
        # A training is long enough to be kept on its own.
        rows = compute(list(jobs(args)), run_group, path, group_by=itemgetter(*KEYS), workers=args.workers, **common)
    lines = summarise(rows)
    write_csv(args.out / "untrained_depth.csv", lines)
    tables = dict.fromkeys((line["data"], line["net"]) for line in lines)
    text = "\n".join(markdown(lines, *table) for table in tables)
    text += (
        f"\nWidth {args.hidden}; {args.epochs} epochs of search, lr {args.lr:g}; {args.dense_epochs} of training for "
        f"each dropout of {', '.join(f'{p:g}' for p in args.dropout)}; {versions()}.\n\n"
        f"    {command(parser, args, 'untrained_depth')}\n"
    )
    write_text(args.out / "untrained_depth.md", text)
    for data in dict.fromkeys(data for data, _ in tables):
        plot(lines, data, args.out)
    print(text)
    return {"/".join(str(line[name]) for name in KEYS[:6]): line["test mean"] for line in lines}


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
