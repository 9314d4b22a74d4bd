"""Classes never seen and perturbed inputs: untrained tickets beside the trained network.

python benchmarks/untrained_reliability.py                                       # Cora, GCN, 2 layers of width 256
python benchmarks/untrained_reliability.py --data cora citeseer --net GCN GAT --robust-seeds 5

Out of distribution: 40 % of the classes, others for every seed, leave training, and their test nodes are to be told
from those of the kept classes, by the largest softmax probability or by the energy of the logits. AUROC, average
precision (AUPR) and false positives at 95 % recall (FPR95) count what is out of distribution as positive. Accuracy,
expected calibration error (ECE) and mean confidence are those of the test nodes of the kept classes.

Robustness: noise in the place of features (never of training nodes), or wrong targets of directed edges. Poisoning:
searched or trained, chosen and tested on the perturbed graph. Evasion: searched, trained and chosen on the clean graph,
and tested on the perturbed one, which is the same as that of poisoning.

Validation chooses the epoch, and the dropout of the trained network. Seeds are 0, 1, 2, ..., the same for all methods:
equal seeds are equal left-out classes and equal perturbations. A run that was stopped goes on where it was, and more
seeds can be added to it.
"""

import argparse
import sys
import time
from dataclasses import replace
from itertools import product
from operator import itemgetter
from pathlib import Path

import torch
from cells import compute
from tables import command, mean_and_std, versions, write_csv, write_text
from untrained_curves import graph
from untrained_depth import minus, search, train
from untrained_nets import make_net

from graphsparse.metrics import (
    accuracy,
    auroc,
    average_precision,
    energy_score,
    expected_calibration_error,
    fpr_at_recall,
    max_softmax_score,
)
from graphsparse.plotting import plot_curves
from graphsparse.tickets import Untrained
from graphsparse.tickets.compare import DROPOUTS
from graphsparse.training import predict
from graphsparse.transforms import LeaveOutClasses, PerturbEdges, PerturbFeatures

METHODS = {
    "UGT": Untrained(),
    "multicoated 3": Untrained("multicoated", coats=3, scaled="first"),  # as published
    "dense": None,
}
SCORES = {"softmax": max_softmax_score, "energy": energy_score}
RANKINGS = {"AUROC": auroc, "AUPR": average_precision, "FPR95": fpr_at_recall}
KINDS = {"features": PerturbFeatures, "edges": PerturbEdges}
FRACTION, NUM_BINS = 0.4, 15
KEYS = ("data", "net", "method", "mode", "kind", "budget", "seed")
#: What is trained on the same graph is trained once.
trained_on = itemgetter("data", "net", "method", "trained on", "seed")


def jobs(args):
    """Return the tests of a run, seed by seed. With a budget of 0 poisoning and evasion are the same: ``clean``."""
    modes = []
    if "ood" in args.part:
        modes += [("ood", "", 0, seed) for seed in range(args.seeds)]
    if "robustness" in args.part:
        for seed in range(args.robust_seeds):
            modes.append(("clean", "", 0, seed))
            modes += [
                (mode, kind, budget, seed)
                for mode, kind, budget in product(("evasion", "poisoning"), KINDS, args.budget)
                if budget > 0
            ]
    modes.sort(key=lambda mode: (mode[0] != "ood", mode[-1]))
    for data, net, (mode, kind, budget, seed), method in product(args.data, args.net, modes, args.method):
        job = dict(zip(KEYS, (data, net, method, mode, kind, budget, seed), strict=True))
        own = f"{kind} {budget}" if mode == "poisoning" else "classes" if mode == "ood" else "clean"
        yield job | {"trained on": own}


def perturbed(data, job):
    """Return the graph with the budget of a job."""
    return KINDS[job["kind"]](job["budget"], seed=job["seed"])(data) if job["kind"] else data


def run_group(group, setting):
    """Search or train one model, and run the tests of the group on it."""
    torch.set_num_threads(1)
    job, begin = group[0], time.perf_counter()
    clean = graph(job["data"])
    if job["mode"] == "ood":
        data = LeaveOutClasses(FRACTION, seed=job["seed"])(clean)
    else:
        data = perturbed(clean, job) if job["mode"] == "poisoning" else clean

    def make_model():
        return make_net(job["net"], data.num_features, setting["hidden"], setting["layers"], data.num_classes)

    method, lr = METHODS[job["method"]], setting["lr"]
    if method is None:
        options = {"lr": lr, "epochs": setting["dense_epochs"], "dropouts": setting["dropout"]}
        found = train(make_model, data, job["seed"], **options)
    else:
        method = replace(method, epochs=setting["epochs"], lr=lr)
        found = search(make_model, data, setting["sparsity"], method, job["seed"])
    common = {"val": found.val, "epoch": found.epoch, "dropout": found.dropout}
    common["seconds"] = round(time.perf_counter() - begin, 2)
    rows = []
    for job in group:
        logits = predict(found.model, perturbed(clean, job)) if job["mode"] == "evasion" else found.logits
        figures = {"test": accuracy(logits, data.y, data.test_mask)}
        if job["mode"] == "ood":
            figures |= detection(logits, data) | {"left out": data.left_out_classes.tolist()}
        rows.append({**job, **figures, **common})
    return rows


def detection(logits, data):
    """Return how well the left-out classes are found, and how well the model knows what it knows of the others."""
    shown = data.test_mask | data.ood_mask
    figures = {}
    for name, score in SCORES.items():
        value = score(logits[shown])
        figures |= {f"{name} {key}": rank(value, data.ood_mask[shown]) for key, rank in RANKINGS.items()}
    confidence = logits[data.test_mask].double().softmax(1).amax(1).mean()
    ece = expected_calibration_error(logits, data.y, data.test_mask, num_bins=NUM_BINS)
    return figures | {"ECE": ece, "confidence": float(confidence)}


def cells(rows):
    """Return rows by everything but the seed, and by seed."""
    found = {}
    for row in rows:
        found.setdefault(tuple(row[name] for name in KEYS[:6]), {})[row["seed"]] = row
    return found


def summarise_ood(rows):
    """Return mean and deviation over seeds of every figure, and the paired difference from the trained network."""
    found, lines = cells(row for row in rows if row["mode"] == "ood"), []
    for key, seeds in found.items():
        line = dict(zip(KEYS[:3], key, strict=False)) | {"seeds": len(seeds)}
        figures = ["test", *(f"{score} {rank}" for score, rank in product(SCORES, RANKINGS)), "ECE", "confidence"]
        for name in figures:
            line |= mean_and_std([100 * row[name] for row in seeds.values()], name)
        others = found.get((*key[:2], "dense", *key[3:]), {})
        for name in figures[:-1]:
            line |= minus(seeds, others, name, f"{name} minus dense")
        line["left out"] = " ".join("+".join(map(str, row["left out"])) for row in seeds.values())
        lines.append(line)
    return lines


def summarise_robustness(rows):
    """Return mean and deviation over seeds of the accuracy for every kind, mode and budget."""
    found, lines = cells(row for row in rows if row["mode"] != "ood"), []
    for key, seeds in found.items():
        data, net, method, mode, kind, budget = key
        places = [(mode, kind)] if kind else product(("evasion", "poisoning"), KINDS)
        for shown_mode, shown_kind in places:
            line = {"data": data, "net": net, "mode": shown_mode, "kind": shown_kind, "method": method}
            line |= {"budget": budget, "seeds": len(seeds)}
            line |= mean_and_std([100 * row["test"] for row in seeds.values()], "test")
            line |= minus(seeds, found.get((data, net, "dense", mode, kind, budget), {}), "test", "minus dense")
            line |= mean_and_std([100 * row["val"] for row in seeds.values()], "val")
            lines.append(line)
    order = {method: place for place, method in enumerate(METHODS)}
    return sorted(
        lines,
        key=lambda line: (
            *itemgetter("data", "net", "mode")(line),
            list(KINDS).index(line["kind"]),
            order[line["method"]],
            line["budget"],
        ),
    )


def table(head, rows):
    """Format a table."""
    return ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)] + [""]


def shown(line, name):
    """Format mean and deviation."""
    return f"{line[f'{name} mean']:.1f} ± {line[f'{name} std']:.1f}"


def seeds_of(lines):
    """Format the numbers of seeds."""
    return " to ".join(str(count) for count in sorted({line["seeds"] for line in lines}))


def markdown_ood(lines):
    """Format the detection of unknown classes for one data set and network."""
    figures = ["test", *(f"{score} {rank}" for score, rank in product(SCORES, RANKINGS)), "ECE", "confidence"]
    rows = [[line["method"], *(shown(line, name) for name in figures)] for line in lines]
    text = [f"Out of distribution, {seeds_of(lines)} seeds, in %; ECE with {NUM_BINS} bins:", ""]
    return text + table(["method", "accuracy of kept classes", *figures[1:]], rows)


def markdown_robustness(lines):
    """Format the accuracies under perturbation for one data set and network."""
    budgets = sorted({line["budget"] for line in lines})
    found = {(line["mode"], line["kind"], line["method"], line["budget"]): line for line in lines}
    text = [f"Test accuracy in % against the perturbed fraction, {seeds_of(lines)} seeds:", ""]
    rows = []
    for mode, kind, method in dict.fromkeys(key[:3] for key in found):
        values = [shown(found[mode, kind, method, budget], "test") for budget in budgets]
        rows.append([mode, kind, method, *values])
    return text + table(["mode", "perturbed", "method", *(f"{budget:g}" for budget in budgets)], rows)


def plot(lines, data, net, folder):
    """Draw accuracy against budget, one panel per kind and mode."""
    panels = {}
    for line in lines:
        title = f"{data}, {net}: {line['kind']}, {line['mode']}"
        point = (line["budget"], line["test mean"], line["test std"])
        panels.setdefault(title, {}).setdefault(line["method"], []).append(point)
    path = folder / f"untrained_reliability_{data}_{net.lower()}.png"
    plot_curves(path, panels, x_label="perturbed fraction", y_label="test accuracy (%)")


def main(argv=None):
    """Compute what is missing, write tables and plots, and return the means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=["cora"])
    parser.add_argument("--net", nargs="+", default=["GCN"], choices=["GCN", "GIN", "GAT"])
    parser.add_argument("--method", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--part", nargs="+", default=["ood", "robustness"], choices=["ood", "robustness"])
    parser.add_argument("--sparsity", type=float, default=0.9, help="of the tickets; of several coats, the first one's")
    parser.add_argument("--budget", nargs="+", type=float, default=[0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
    parser.add_argument(
        "--dropout", nargs="+", type=float, default=list(DROPOUTS), help="validation chooses among them"
    )
    parser.add_argument("--seeds", type=int, default=5, help="seeds out of distribution")
    parser.add_argument("--robust-seeds", type=int, default=3, help="seeds of the perturbations")
    parser.add_argument("--epochs", type=int, default=400)
    parser.add_argument("--dense-epochs", type=int, default=200, help="epochs of what is trained, per dropout")
    parser.add_argument("--lr", type=float, default=0.01, help="of what is searched and of what is trained")
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/out"), help="folder of the results")
    args = parser.parse_args(argv)

    names = ("sparsity", "epochs", "dense_epochs", "lr", "hidden", "layers", "dropout")
    setting = {name: getattr(args, name) for name in names} | {"torch": torch.__version__}
    rows = compute(
        list(jobs(args)),
        run_group,
        args.out / "untrained_reliability.jsonl",
        setting=setting,
        keys=KEYS,
        group_by=trained_on,
        workers=args.workers,
        group_size=1000,  # the tests of one model stay together
    )
    text, means = [], {}
    ood, robustness = summarise_ood(rows), summarise_robustness(rows)
    for name, lines in (("ood", ood), ("robustness", robustness)):
        if lines:
            write_csv(args.out / f"untrained_reliability_{name}.csv", lines)
    for data, net in product(args.data, args.net):
        text += [f"**{data}, {net}**", ""]
        for lines, format_lines in ((ood, markdown_ood), (robustness, markdown_robustness)):
            own = [line for line in lines if (line["data"], line["net"]) == (data, net)]
            text += format_lines(own) if own else []
        if robustness:
            plot(own, data, net, args.out)
    text.append(
        f"Tickets of sparsity {args.sparsity:g}; {args.layers} layers of width {args.hidden}, lr {args.lr:g}; "
        f"{args.epochs} epochs of search, {args.dense_epochs} of training for each dropout of "
        f"{', '.join(f'{p:g}' for p in args.dropout)}; {versions()}.\n\n"
        f"    {command(parser, args, 'untrained_reliability')}\n"
    )
    write_text(args.out / "untrained_reliability.md", "\n".join(text))
    print("\n".join(text))
    for line in ood:
        means |= {
            f"{line['data']}/{line['net']}/ood/{line['method']}/{s} AUROC": line[f"{s} AUROC mean"] for s in SCORES
        }
    for line in robustness:
        key = "/".join(str(line[name]) for name in ("data", "net", "mode", "kind", "method", "budget"))
        means[key] = line["test mean"]
    return means


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
