"""Networks that lost channels beside the dense ones and beside narrow ones from scratch: accuracy and milliseconds.

python benchmarks/channels.py                               # hours on one core; goes on after a stop
python benchmarks/channels.py --data cora --seeds 1 --epochs 30 --width 256 --time cora

Accuracy: GCNs of two layers are trained, lose channels by magnitude or by lasso until the hidden layer has a half, a
quarter, an eighth of them, and are trained for as long again; `rewound` starts this second training from the initial
weights. `narrow` is a network of that width, trained from scratch for as long as both trainings together, `dense` one
of the whole width. The same seed gives the same first weights and dropout.

Time: the ticket as the smaller model that `materialize(make_model, shrink=data)` returns, PyG's layers as they are, and
after `accelerate`; all of a graph and width in one run, in turns, medians. Of an inference in evaluation mode, and of
an epoch: forward, backward and a step of Adam. One thread, and its own time on the processor, so that other work on the
machine counts less.
"""

import argparse
import statistics
import sys
import time
from functools import cache
from itertools import product
from pathlib import Path

import torch
import torch.nn.functional as F
from cells import compute
from tables import command, mean_and_std, versions, write_csv, write_text
from torch_geometric.nn import GCN

from graphsparse.datasets import load
from graphsparse.metrics import count_macs
from graphsparse.nn import accelerate, channel_units
from graphsparse.tickets import Channels, find_tickets
from graphsparse.training import Training, build_model, fit

KEYS = ("what", "data", "width", "seed")
FACTORS = (2, 4, 8)
METHODS = {
    "magnitude": Channels(),
    "magnitude, rewound": Channels(start="initial"),
    "lasso": Channels("lasso"),
    "lasso, rewound": Channels("lasso", start="initial"),
}


@cache
def graph(name):
    return load(name)


def network(data, width):
    """Return what builds a network of some width."""
    return lambda: GCN(data.num_features, width, 2, int(data.y.max()) + 1, dropout=0.5)


def sparsity(data, width, factor):
    """Return the share of the weights that goes with all channels but one of so many."""
    dense, narrow = (
        sum(p.numel() for p in network(data, w)().parameters() if p.dim() > 1) for w in (width, width // factor)
    )
    return (dense - narrow + 0.5) / dense


def training(seed, epochs):
    return Training(epochs=epochs, lr=0.008, weight_decay=8e-5, seed=seed)


def tickets(data, width, method, seed, epochs):
    """Return the small models of tickets by the factor that they are narrower by, and the tickets."""
    make_model, targets = network(data, width), [(0.0, sparsity(data, width, factor)) for factor in FACTORS]
    found = find_tickets(make_model, data, targets=targets, method=method, training=training(seed, epochs))
    small = {f: t.materialize(make_model, shrink=data) for f, t in zip(FACTORS, found, strict=True)}
    for factor, model in small.items():
        assert model.convs[1].lin.weight.size(1) == width // factor
    return small, dict(zip(FACTORS, found, strict=True))


def accuracies(job, setting):
    """Train everything for a seed of a graph, and return test accuracies."""
    data, width, seed, epochs = graph(job["data"]), job["width"], job["seed"], setting["epochs"]
    found = {}
    for name, method in METHODS.items():
        for factor, ticket in tickets(data, width, method, seed, epochs)[1].items():
            found[f"{name} {factor}"] = ticket.metrics["test"]
    for factor in (1, *FACTORS):
        model = accelerate(build_model(network(data, width // factor), seed))
        found[f"narrow {factor}"] = fit(model, data, training(seed, 2 * epochs)).test
    return {**job, "found": found}


def epoch_of(model, data, rows):
    """Return a function that trains a model for an epoch."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, fused=True)

    def run():
        model.train()
        optimizer.zero_grad()
        F.cross_entropy(model(data.x, data.edge_index)[rows], data.y[rows]).backward()
        optimizer.step()

    return run


def inference_of(model, data):
    """Return a function that runs a model in evaluation mode."""

    def run():
        model.eval()
        with torch.no_grad():
            model(data.x, data.edge_index)

    return run


def times(job, setting):
    """Return median milliseconds by what is run, form and factor, and multiply-accumulates."""
    data, width = graph(job["data"]), job["width"]
    models = {1: build_model(network(data, width), 0), **tickets(data, width, Channels(), 0, 1)[0]}
    rows, runs, found = data.train_mask.nonzero().squeeze(1), {}, {}
    for factor, model in models.items():
        found[f"MACs {factor}"] = count_macs(model, data.x, data.edge_index)
        for form, made in {"PyG": model, "accelerate": accelerate(model)}.items():
            runs[f"inference {form} {factor}"] = inference_of(made, data)
            runs[f"epoch {form} {factor}"] = epoch_of(made, data, rows)
    start = time.process_time()
    channel_units(models[1], data)
    found["units"] = 1e3 * (time.process_time() - start)
    spent, start = {name: [] for name in runs}, time.perf_counter()
    while len(spent["epoch PyG 1"]) < 3 or time.perf_counter() - start < setting["budget"]:
        for name, run in runs.items():
            run()  # what is kept of constant features and edges
            begin = time.process_time()
            run()
            spent[name].append(time.process_time() - begin)
    return {**job, "found": found | {name: 1e3 * statistics.median(taken) for name, taken in spent.items()}}


def run_group(group, setting):
    """Run jobs one after another."""
    torch.set_num_threads(1)
    return [(times if job["what"] == "time" else accuracies)(job, setting) for job in group]


def summarise(rows):
    """Return the lines of both tables."""
    accuracy, speed = [], []
    cells = dict.fromkeys((row["data"], row["width"]) for row in rows if row["what"] == "accuracy")
    for (data, width), method, factor in product(cells, ("dense", *METHODS, "narrow"), (1, *FACTORS)):
        if (method == "dense") != (factor == 1):
            continue
        own = [r["found"] for r in rows if (r["what"], r["data"], r["width"]) == ("accuracy", data, width)]
        test = [100 * found[f"{'narrow' if method == 'dense' else method} {factor}"] for found in own]
        gap = [value - 100 * found[f"narrow {factor}"] for value, found in zip(test, own, strict=True)]
        line = {"data": data, "width": width, "method": method, "fewer channels": factor, "seeds": len(own)}
        accuracy.append(line | mean_and_std(test, "test") | mean_and_std(gap, "minus narrow"))
    for row in rows:
        for what, form, factor in product(("inference", "epoch"), ("PyG", "accelerate"), (1, *FACTORS)):
            if row["what"] == "time":
                ms, dense = (row["found"][f"{what} {form} {f}"] for f in (factor, 1))
                line = {"data": row["data"], "width": row["width"], "what": what, "layers": form}
                line |= {"fewer channels": factor, "ms": round(ms, 2), "times faster": round(dense / ms, 2)}
                speed.append(line | {"M MACs": round(row["found"][f"MACs {factor}"] / 1e6, 1)})
    return accuracy, speed


def markdown(accuracy, speed):
    """Format both tables."""
    text = []
    for data, width in dict.fromkeys((line["data"], line["width"]) for line in accuracy):
        own = [line for line in accuracy if (line["data"], line["width"]) == (data, width)]
        text += [f"| {data}, width {width} | " + " | ".join(f"{f} times fewer" for f in FACTORS) + " |"]
        text += ["|---|" + "---:|" * len(FACTORS)]
        for method in dict.fromkeys(line["method"] for line in own):
            cells = []
            for line in (line for line in own if line["method"] == method):
                gap = f" ({line['minus narrow mean']:+.1f} ± {line['minus narrow std']:.1f})"
                plain = f"{line['test mean']:.1f} ± {line['test std']:.1f}"
                cells.append(plain + ("" if method in ("dense", "narrow") else gap))
            text.append(f"| {method} | " + " | ".join(cells * (len(FACTORS) if len(cells) == 1 else 1)) + " |")
        text.append("")
    if speed:
        shown = "data", "width", "what", "layers"
        text += ["| " + " | ".join(shown) + " | dense | " + " | ".join(f"{f} times fewer" for f in FACTORS) + " |"]
        text += ["|---|---:|---|---|" + "---:|" * (1 + len(FACTORS))]
        for key in dict.fromkeys(tuple(line[name] for name in shown) for line in speed):
            own = [line for line in speed if tuple(line[name] for name in shown) == key]
            cells = [f"{line['ms']:.1f} ({line['times faster']:.1f}x)" for line in own]
            text.append("| " + " | ".join(map(str, key)) + " | " + " | ".join(cells) + " |")
    return "\n".join(text)


def main(argv=None):
    """Compute what is missing, write the tables, and return their lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="*", default=["cora", "pubmed"], help="for accuracy")
    parser.add_argument(
        "--time", nargs="*", default=["cora", "pubmed", "ogbn-arxiv-structure"], help="for milliseconds"
    )
    parser.add_argument("--width", type=int, nargs="+", default=[256, 512])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=200, help="of each of the two trainings")
    parser.add_argument("--budget", type=float, default=15.0, help="seconds for the times of a graph and width")
    parser.add_argument("--workers", type=int, default=0, help="processes for accuracy; times are taken in one")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/out"), help="folder of the results")
    args = parser.parse_args(argv)
    values = [("time", *key, 0) for key in product(args.time, args.width)]
    values += [("accuracy", *key) for key in product(args.data, args.width, range(args.seeds))]
    jobs = [dict(zip(KEYS, entry, strict=True)) for entry in values]
    setting = {"epochs": args.epochs, "budget": args.budget, "torch": torch.__version__}
    path, rows = args.out / "channels.jsonl", []
    for what, workers in (("time", 0), ("accuracy", args.workers)):
        own = [job for job in jobs if job["what"] == what]
        key = lambda job: tuple(job[name] for name in KEYS)  # noqa: E731
        rows += compute(own, run_group, path, setting=setting, keys=KEYS, group_by=key, workers=workers)
    accuracy, speed = summarise(rows)
    write_csv(args.out / "channels.csv", accuracy)
    write_csv(args.out / "channels_time.csv", speed)
    text = f"Test accuracy in %, {args.seeds} seed(s); in brackets the paired difference from `narrow`. Milliseconds "
    text += "of the processor, 1 thread; in brackets how many times faster than the dense network, in the same run.\n\n"
    text += f"{markdown(accuracy, speed)}\n\n{versions()}.\n\n    {command(parser, args, 'channels')}\n"
    write_text(args.out / "channels.md", text)
    print(text)
    return accuracy + speed


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
