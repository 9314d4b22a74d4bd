"""Test accuracy of networks on thinned graphs, every sparsifier beside random removal, paired over seeds.

python benchmarks/sparsifiers.py --data cora citeseer pubmed --net GCN GAT SAGE --workers 2
python benchmarks/sparsifiers.py --data actor --net GCN SAGE --workers 2

For each seed all rules start from the same weights and see the same split; a rule that draws edges draws them anew for
each seed. There is no distillation. A network is trained and tested on the thinned graph; rows `... resampled` get
another draw in each epoch and are tested on the whole graph, as `random tested whole` is, which has one draw. Layers
and dropout are those of `accelerate`, of which GAT and SAGE take weights of edges as well; `dspar unweighted` draws
what `dspar pivotal` draws and leaves the weights at 1. `dense` has all edges, `empty` has none. Results are kept in a
file of JSON lines, one training each: a run that was stopped goes on where it was.
"""

import argparse
import statistics
import sys
from functools import cache, partial
from itertools import product
from pathlib import Path

import torch
from cells import compute, whole
from tables import deviation, versions, write_csv, write_text
from torch_geometric.data import Data
from torch_geometric.nn import GAT, GCN, GraphSAGE

from graphsparse.datasets import load
from graphsparse.edges import Sparsifier, sparsifier
from graphsparse.nn import accelerate
from graphsparse.plotting import plot_curves
from graphsparse.training import NodeTask, Training, build_model, fit
from graphsparse.transforms import EdgeResampler, SparsifyEdges

SPARSITIES = (0.2, 0.4, 0.6, 0.8)
NAMES = ["random", "k_neighbor", "local_degree", "l_spar", "g_spar", "scan", "simmelian", "algebraic_distance"]
NAMES += ["degree", "teddy", "reverse_teddy", "dspar_published", "resistance"]
RULES = {
    **{name: sparsifier(name) for name in NAMES},
    "dspar top": Sparsifier("inverse_degree_sum"),
    "dspar pivotal": sparsifier("dspar"),
    "dspar unweighted": sparsifier("dspar", reweight=False),
    "resistance pivotal": sparsifier("resistance_pivotal"),
    "forest + random": sparsifier("forest"),
    "random tested whole": sparsifier("random"),
    "random resampled": sparsifier("random"),
    "dspar pivotal resampled": sparsifier("dspar"),
}
NETS = {
    "GCN": lambda i, o: GCN(i, 64, 2, o, dropout=0.5),
    "GAT": lambda i, o: GAT(i, 64, 2, o, heads=8, dropout=0.6),
    "SAGE": lambda i, o: GraphSAGE(i, 64, 2, o, dropout=0.5),
}
#: What is drawn besides the controls; all rules would be too many curves.
DRAWN = ["random", "k_neighbor", "g_spar", "reverse_teddy", "dspar pivotal", "random tested whole", "random resampled"]
KEYS = ("data", "net", "rule", "sparsity", "seed")


def jobs(args):
    """Return the trainings of a run as dictionaries."""
    for data, net, seed in product(args.data, args.net, range(args.seeds)):
        shared = {"data": data, "net": net, "seed": seed}
        yield from ({**shared, "rule": rule, "sparsity": value} for rule, value in (("dense", 0.0), ("empty", 1.0)))
        yield from ({**shared, "rule": rule, "sparsity": value} for rule in args.rule for value in args.sparsity)


@cache
def graph(name):
    """Return a graph with its features as a sparse matrix: bags of words are cheaper so, and give the same outputs."""
    data = load(name)
    data.x = data.x.to_sparse_csr()
    return data


def task(data, job):
    """Return what a network is trained on, and the share of the edges that it sees."""
    rule, sparsity, seed = job["rule"], job["sparsity"], job["seed"]
    if rule == "dense":
        return NodeTask(data)
    if rule == "empty":
        return NodeTask(Data(**{**data.to_dict(), "edge_index": data.edge_index[:, :0]}))
    method = RULES[rule]
    if rule.endswith(("resampled", "tested whole")):
        every = 1 if rule.endswith("resampled") else 10**9
        return NodeTask(data, loader=EdgeResampler(data, sparsity, method, seed=seed, every=every))
    return NodeTask(SparsifyEdges(sparsity, method, seed)(data))


def run(job, epochs):
    """Train one cell and return it with its accuracies; without any where a core is larger than what may stay."""
    torch.set_num_threads(1)
    data = graph(job["data"])
    try:
        thinned = task(data, job)
    except ValueError as error:
        if "'sparsity' must be at most" not in str(error):
            raise
        return {**job, "edges": None, "val": None, "test": None}
    make = partial(NETS[job["net"]], data.x.size(1), data.num_classes)
    model = accelerate(build_model(make, job["seed"]), fast_dropout=True)
    training = Training(epochs=epochs, lr=0.01, weight_decay=5e-4, seed=job["seed"])
    result = fit(model, thinned, training)
    return {**job, "edges": thinned.data.num_edges / data.num_edges, "val": result.val, "test": result.test}


def run_group(group, setting):
    """Run jobs one after another."""
    return [run(job, setting["epochs"]) for job in group]


def summarise(rows):
    """Return mean and deviation over seeds for every cell, and the paired difference to random removal."""
    cells = {}
    for row in rows:
        if row["test"] is not None:
            cells.setdefault((row["data"], row["net"], row["rule"], row["sparsity"]), {})[row["seed"]] = row
    out = []
    for (data, net, rule, sparsity), seeds in cells.items():
        test = [100 * row["test"] for row in seeds.values()]
        other = cells.get((data, net, "random", sparsity), {})
        gap = [100 * (row["test"] - other[seed]["test"]) for seed, row in seeds.items() if seed in other]
        compared = rule != "random" and gap
        line = {"data": data, "net": net, "rule": rule, "edges removed %": round(100 * sparsity, 1), "seeds": len(test)}
        line |= {"test mean": round(statistics.mean(test), 2), "test std": deviation(test)}
        line |= {"minus random": round(statistics.mean(gap), 2) if compared else ""}
        line |= {"std of difference": deviation(gap) if compared else ""}
        line |= {"better in": sum(value > 0 for value in gap) if compared else ""}
        out.append(line)
    return out


def count(lines):
    """Say how many fixed rules, trained and tested on what is left, differ from random removal by two deviations."""
    fixed = [line for line in lines if line["minus random"] != "" and line["std of difference"] != ""]
    fixed = [line for line in fixed if not line["rule"].endswith(("resampled", "tested whole"))]
    ahead, behind = (
        sum(sign * line["minus random"] > 2 * line["std of difference"] for line in fixed) for sign in (1, -1)
    )
    return (
        f"Of {len(fixed)} comparisons of fixed rules with random removal {ahead} are ahead by more than two "
        f"deviations, {behind} behind."
    )


def markdown(lines, data, net):
    """Format one table for a data set and a network: accuracy, and the difference to random, against the sparsity."""
    lines = [line for line in lines if (line["data"], line["net"]) == (data, net)]
    found = {(line["rule"], line["edges removed %"]): line for line in lines}
    levels = sorted({line["edges removed %"] for line in lines} - {0.0, 100.0})
    text = [f"**{data}, {net}** ({lines[0]['seeds']} seeds, test accuracy in %; in brackets the paired difference)", ""]
    text += [
        "| rule | " + " | ".join(f"{level:g} % removed" for level in levels) + " |",
        "|" + "---|" * (len(levels) + 1),
    ]
    for rule in dict.fromkeys(line["rule"] for line in lines):
        if (rule, 0.0) in found or (rule, 100.0) in found:
            one = found.get((rule, 0.0)) or found[rule, 100.0]
            text.append(f"| {rule} | {one['test mean']:.1f} ± {one['test std']:.1f} |" + " |" * (len(levels) - 1))
            continue
        cells = []
        for level in levels:
            line = found.get((rule, level))
            if line is None:
                cells.append("not feasible")
            elif line["minus random"] == "":
                cells.append(f"{line['test mean']:.1f} ± {line['test std']:.1f}")
            else:
                difference = f"{line['minus random']:+.1f} ± {line['std of difference']:.1f}"
                cells.append(f"{line['test mean']:.1f} ({difference})")
        text.append(f"| {rule} | " + " | ".join(cells) + " |")
    return "\n".join(text)


def plot(path, lines, data):
    """Draw accuracy against the sparsity, a panel for each network."""
    panels, levels = {}, {}
    for line in (line for line in lines if line["data"] == data):
        point = (line["edges removed %"], line["test mean"], line["test std"])
        if line["rule"] in ("dense", "empty"):
            levels.setdefault(line["net"], {})[line["rule"]] = point[1:]
        elif line["rule"] in DRAWN:
            panels.setdefault(line["net"], {}).setdefault(line["rule"], []).append(point)
    plot_curves(path, panels, x_label="edges removed (%)", y_label="test accuracy (%)", levels=levels)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=["cora"])
    parser.add_argument("--net", nargs="+", choices=list(NETS), default=["GCN"])
    parser.add_argument("--rule", nargs="+", choices=list(RULES), default=list(RULES), metavar="RULE")
    parser.add_argument("--sparsity", nargs="+", type=float, default=list(SPARSITIES))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--workers", type=int, default=0, help="processes beside this one; 0 is none")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "sparsifiers.jsonl")
    parser.add_argument("--report", action="store_true", help="write the tables of all cells that are there, and stop")
    args = parser.parse_args(argv)
    setting = {"epochs": args.epochs}
    work = list(jobs(args))
    if args.report:
        rows = whole(work, args.out, setting=setting, keys=KEYS, cell=lambda job: tuple(job[key] for key in KEYS[:4]))
    else:
        group_by = lambda job: (job["data"], job["net"], job["seed"])  # noqa: E731
        rows = compute(work, run_group, args.out, setting=setting, keys=KEYS, group_by=group_by, workers=args.workers)
    lines = summarise(rows)
    write_csv(args.out.with_suffix(".csv"), lines)
    pairs = list(dict.fromkeys((line["data"], line["net"]) for line in lines))
    tables = "\n\n".join(markdown(lines, data, net) for data, net in pairs)
    write_text(args.out.with_suffix(".md"), f"{tables}\n\n{count(lines)}\n\n{args.epochs} epochs; {versions()}.")
    for data in dict.fromkeys(data for data, _ in pairs):
        plot(args.out.with_name(f"{args.out.stem}_{data}.png"), lines, data)
    print(tables)
    return lines


if __name__ == "__main__":
    main(sys.argv[1:])
