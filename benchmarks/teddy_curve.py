"""Test accuracy against sparsity for every edge rule, with and without distillation, and on an inductive split.

python benchmarks/teddy_curve.py --data cora citeseer --net GCN --workers 2

Edge rules are judged at equal weights: only edges are removed. Protocols: `none` (no distillation), `train`
(distillation on training nodes), `inductive` (validation and test nodes hidden in training, distillation on all nodes
that are seen), and `published` (edges and weights removed, distillation on all nodes). The `empty` rule, a student
without any edge, is the control that belongs to every protocol with distillation. Results are kept in a file of JSON
lines, one training each: a run that was stopped goes on where it was.
"""

import argparse
import statistics
import sys
from functools import cache
from itertools import product
from pathlib import Path

import torch
from cells import compute
from tables import deviation, versions, write_csv, write_text
from torch_geometric.data import Data
from torch_geometric.nn import GAT, GCN, GIN

from graphsparse.datasets import load
from graphsparse.plotting import plot_curves
from graphsparse.tickets import L0, Distillation, OneShot, find_ticket
from graphsparse.training import NodeTask, Training, build_model, fit, predict

LEVELS = (1, 4, 8, 12, 16, 20)
RULES = ("teddy", "random", "degree", "reverse_teddy")
# Nodes that students are distilled on.
PROTOCOLS = {
    "none": None,
    "train": "train",
    "inductive": "observed",
    "published": "all",
}
PUBLISHED_LEVEL = 10  # 40 % of the edges, 65 % of the weights
# Learning rate and weight decay of the command lines that were published for these data sets.
SETTINGS = {"cora": {"lr": 0.008, "weight_decay": 8e-5}}
DEFAULT = {"lr": 0.01, "weight_decay": 5e-4}
NETS = {
    "GCN": lambda i, h, o: GCN(i, h, 2, o, dropout=0.5, bias=False),
    "GIN": lambda i, h, o: GIN(i, h, 2, o, dropout=0.5),
    "GAT": lambda i, h, o: GAT(i, h, 2, o, heads=8, dropout=0.6),
}
KEYS = ("data", "net", "protocol", "rule", "level", "seed")


def edge_sparsity(level):
    """5 % of the remaining edges go at every level."""
    return 1 - 0.95**level


def weight_sparsity(level):
    """10 % of the remaining weights go at every level."""
    return 1 - 0.9**level


def jobs(args):
    """Return the trainings of a run as dictionaries, those that share a teacher next to each other."""
    return [job for job in all_jobs(args) if job["rule"] in args.rule and job["protocol"] in args.protocol]


def all_jobs(args):
    levels = range(1, 21) if args.all_levels else LEVELS
    for data, net, seed, protocol in product(args.data, args.net, range(args.seeds), PROTOCOLS):
        shared = {"data": data, "net": net, "protocol": protocol, "seed": seed}
        if protocol in ("none", "inductive"):
            yield {**shared, "rule": "dense", "level": 0}
        yield {**shared, "rule": "empty", "level": 0}
        if protocol == "published":
            yield from ({**shared, "rule": rule, "level": PUBLISHED_LEVEL} for rule in ("teddy", "random"))
        else:
            yield from ({**shared, "rule": rule, "level": level} for rule in RULES for level in levels)


@cache
def graph(name, net):
    data = load(name)
    if net == "GCN":  # linear before propagation: a bag of words can stay sparse
        data.x = data.x.to_sparse_csr()
    return data


def how(name, epochs, seed):
    return Training(epochs=epochs, seed=seed, fast=False, **SETTINGS.get(name, DEFAULT))


@cache
def teacher(name, net, hidden, epochs, seed, inductive):
    """Train the dense model; return its logits, as seen from the training graph, and the result."""
    task = NodeTask(graph(name, net), inductive=inductive)
    model = build_model(model_maker(task.whole, net, hidden), seed)
    result = fit(model, task, how(name, epochs, seed))
    logits = result.logits
    if inductive:  # hidden nodes have no prediction
        logits = torch.zeros_like(logits)
        logits[~(task.whole.val_mask | task.whole.test_mask)] = predict(model, task.data)
    return logits, result


def model_maker(data, net, hidden):
    return lambda: NETS[net](data.num_features, hidden, data.num_classes)


def run(job, hidden, epochs):
    """Train one cell and return it with its accuracies."""
    torch.set_num_threads(1)
    data = graph(job["data"], job["net"])
    nodes, inductive = PROTOCOLS[job["protocol"]], job["protocol"] == "inductive"
    logits, dense = teacher(job["data"], job["net"], hidden, epochs, job["seed"], inductive)
    if job["rule"] == "dense":
        return {**job, "edges": 0.0, "weights": 0.0, "val": dense.val, "test": dense.test}
    rule, sparsity = job["rule"], edge_sparsity(job["level"])
    if rule == "empty":
        data = Data(**{**data.to_dict(), "edge_index": data.edge_index[:, :0]})
        rule, sparsity = "teddy", 0.0
    ticket = find_ticket(
        model_maker(data, job["net"], hidden),
        NodeTask(data, inductive=inductive),
        edge_sparsity=sparsity,
        weight_sparsity=weight_sparsity(job["level"]) if job["protocol"] == "published" else 0.0,
        method=OneShot(rule, L0()),
        training=how(job["data"], epochs, job["seed"]),
        distillation=None if nodes is None else Distillation(nodes=nodes, teacher=logits),
    )
    metrics = ticket.metrics
    edges = 1.0 if job["rule"] == "empty" else metrics["edge_sparsity"]
    weights = ticket.config["weight_sparsity"]
    return {**job, "edges": edges, "weights": weights, "val": metrics["val"], "test": metrics["test"]}


def run_group(group, setting):
    """Run jobs one after another."""
    return [run(job, setting["hidden"], setting["epochs"]) for job in group]


def sharing(job):
    """Return what jobs with the same teacher have in common."""
    return job["data"], job["net"], job["seed"], job["protocol"] == "inductive"


def summarise(rows):
    """Return mean and standard deviation over seeds for every cell, and the paired difference from TEDDY."""
    cells = {}
    for row in rows:
        cells.setdefault((row["data"], row["net"], row["protocol"], row["rule"], row["level"]), {})[row["seed"]] = row
    out = []
    for (data, net, protocol, rule, level), seeds in cells.items():
        test = [100 * row["test"] for row in seeds.values()]
        teddy = cells.get((data, net, protocol, "teddy", level), {})
        gap = [100 * (teddy[s]["test"] - row["test"]) for s, row in seeds.items() if s in teddy]
        first = next(iter(seeds.values()))
        line = {"data": data, "net": net, "protocol": protocol, "rule": rule, "level": level}
        line |= {
            "edges removed %": round(100 * first["edges"], 2),
            "weights removed %": round(100 * first["weights"], 2),
        }
        line |= {"seeds": len(test), "test mean": round(statistics.mean(test), 2), "test std": deviation(test)}
        compared = rule not in ("teddy", "empty", "dense")
        line |= {"teddy minus rule": round(statistics.mean(gap), 2) if compared and gap else ""}
        line |= {"std of difference": deviation(gap) if compared and gap else ""}
        out.append(line)
    return out


def markdown(lines, data, net):
    """Format one table for a data set and a network: rules against levels."""
    lines = [line for line in lines if line["data"] == data and line["net"] == net]
    levels = sorted({line["level"] for line in lines if line["protocol"] != "published" and line["level"]})
    found = {(line["protocol"], line["rule"], line["level"]): line for line in lines}
    cell = lambda line: f"{line['test mean']:.1f} ± {line['test std']:.1f}"  # noqa: E731
    text = [f"**{data}, {net}** ({lines[0]['seeds']} seeds, test accuracy in %; columns: edges removed)", ""]
    head = [f"{100 * edge_sparsity(x):.1f} %" for x in levels] or ["accuracy"]
    text += ["| protocol | rule | " + " | ".join(head) + " |", "|" + "---|" * (len(head) + 2)]
    for protocol in ("none", "train", "inductive"):
        for rule in ("dense", *RULES, "empty"):
            if (protocol, rule, 0) in found:
                one = cell(found[protocol, rule, 0])
                note = "all edges" if rule == "dense" else "no edges"
                text.append(f"| {protocol} | {rule} | {one} ({note}) |" + " |" * (len(head) - 1))
            elif any((protocol, rule, x) in found for x in levels):
                cells = [cell(found[protocol, rule, x]) if (protocol, rule, x) in found else "" for x in levels]
                text.append(f"| {protocol} | {rule} | " + " | ".join(cells) + " |")
    published = [
        found.get(("published", rule, x))
        for rule, x in (("teddy", PUBLISHED_LEVEL), ("random", PUBLISHED_LEVEL), ("empty", 0))
    ]
    if all(published):
        text += [
            "",
            "Published protocol (distillation on all nodes, "
            f"{100 * edge_sparsity(PUBLISHED_LEVEL):.0f} % of edges and "
            f"{100 * weight_sparsity(PUBLISHED_LEVEL):.0f} % of weights removed): "
            f"TEDDY {cell(published[0])}, random edges {cell(published[1])}, **no edges at all** {cell(published[2])}.",
        ]
    return "\n".join(text)


TITLES = {"none": "no distillation", "train": "distilled on training nodes", "inductive": "inductive split"}


def plot(lines, data, net, path):
    """Draw one panel per protocol for a data set and a network."""
    panels, levels = {}, {}
    for line in lines:
        if line["protocol"] not in TITLES or (line["data"], line["net"]) != (data, net):
            continue
        title = f"{data}, {net}, {TITLES[line['protocol']]}"
        point = (line["test mean"], line["test std"])
        if line["rule"] == "dense":
            levels.setdefault(title, {})["dense model"] = point
            if line["protocol"] == "none":  # the teacher of distillation on training nodes is the same model
                levels[title.replace(TITLES["none"], TITLES["train"])] = {"dense model": point}
        elif line["rule"] == "empty":
            levels.setdefault(title, {})["no edges"] = point
        else:
            panels.setdefault(title, {}).setdefault(line["rule"], []).append((line["edges removed %"], *point))
    if panels:
        plot_curves(path, panels, x_label="edges removed (%)", y_label="test accuracy (%)", levels=levels)


def main(argv=None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=["cora", "citeseer"])
    parser.add_argument("--net", nargs="+", default=["GCN"], choices=list(NETS))
    parser.add_argument("--protocol", nargs="+", default=list(PROTOCOLS), choices=list(PROTOCOLS))
    parser.add_argument("--rule", nargs="+", default=["dense", *RULES, "empty"], choices=["dense", *RULES, "empty"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--all-levels", action="store_true", help="levels 1 to 20 instead of 1, 4, 8, 12, 16, 20")
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2, help="processes; 0: in this one")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/out"), help="folder of the results")
    args = parser.parse_args(argv)

    rows = compute(
        jobs(args),
        run_group,
        args.out / "teddy_curve.jsonl",
        setting={"hidden": args.hidden, "epochs": args.epochs, "torch": torch.__version__},
        keys=KEYS,
        group_by=sharing,
        workers=args.workers,
    )
    lines = summarise(rows)
    write_csv(args.out / "teddy_curve.csv", lines)
    text = "\n\n".join(markdown(lines, data, net) for data, net in product(args.data, args.net))
    text += f"\n\nHidden width {args.hidden}, {args.epochs} epochs, {versions()}.\n"
    write_text(args.out / "teddy_curve.md", text)
    for data, net in product(args.data, args.net):
        plot(lines, data, net, args.out / f"teddy_curve_{data}_{net}.png".lower())
    print(text)
    return {"/".join(str(line[k]) for k in KEYS[:5]): line["test mean"] for line in lines}


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
