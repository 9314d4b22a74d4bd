"""What is left of a graph under every sparsifier: `compare_graphs` at several sparsities.

python benchmarks/sparsifier_structure.py --data cora ogbn-arxiv-structure flickr-structure --workers 2
python benchmarks/sparsifier_structure.py --report          # the tables of what is there

One draw of each, of the graph made undirected, whose edges weigh 1 each: the metric backbone is left out, which keeps
all of them. 64 sources, 32 vectors, the same for all. `x'Lx` is the mean error of
the quadratic form on smoothed vectors, `top 100` the share of the best by PageRank that is left, `lost` the share of
pairs of nodes that are not joined any more, without which `stretch`, over those that are, says nothing. A core that is
larger than what may stay leaves an empty row. Results are kept in a file of JSON lines: a run that was stopped goes on
where it was.
"""

import argparse
import sys
from functools import cache
from itertools import product
from pathlib import Path

import torch
from cells import compute, whole
from tables import versions, write_csv, write_text
from torch_geometric.transforms import ToUndirected

from graphsparse.datasets import load
from graphsparse.edges import SPARSIFIERS
from graphsparse.metrics import compare_graphs
from graphsparse.plotting import plot_curves
from graphsparse.transforms import SparsifyEdges

SPARSITIES = (0.2, 0.4, 0.6, 0.8, 0.9)
KEYS = ("data", "method", "sparsity")
#: Figures of the comparison, and what they are called in the table.
SHOWN = {
    "components after": "components",
    "share of nodes in the largest component after": "in the largest",
    "degree rank correlation": "degrees",
    "transitivity after": "transitivity",
    "edge homophily after": "homophily",
    "mean error of x'Lx, smooth x": "x'Lx",
    "share of the top 100 by PageRank in common": "top 100",
    "share of pairs lost": "lost",
    "mean stretch": "stretch",
    "mean error of 16 cuts": "cuts",
}
#: Drawn against the sparsity.
DRAWN = ("in the largest", "degrees", "transitivity", "homophily", "x'Lx", "top 100", "lost", "stretch")
CURVES = ("random", "k_neighbor", "local_degree", "g_spar", "degree", "dspar", "forest")


@cache
def graph(name):
    """Return a data set, undirected, with features if it has none."""
    data = ToUndirected()(load(name))
    if data.x is None:
        data.x = torch.ones(data.num_nodes, 1)
    return data


def run(job):
    """Compare a thinned graph with the whole one."""
    torch.set_num_threads(1)
    data = graph(job["data"])
    try:
        after = SparsifyEdges(job["sparsity"], job["method"], seed=0)(data)
    except ValueError as error:
        if "'sparsity' must be at most" not in str(error):
            raise
        return {**job, "figures": None}
    return {**job, "figures": compare_graphs(data, after).to_dict()}


def run_group(group, setting):
    """Run jobs one after another."""
    return [run(job) for job in group]


def written(number):
    """Write a number in three digits, a large one whole."""
    return f"{number:.3g}" if number < 1000 else f"{number:,.0f}"


def table(rows, data, sparsity):
    """Return the rows of one data set at one sparsity."""
    lines = []
    for row in rows:
        if (row["data"], row["sparsity"]) == (data, sparsity):
            found = row["figures"] or {}
            cells = {short: written(found[name]) if name in found else "" for name, short in SHOWN.items()}
            lines.append({"sparsifier": row["method"], **cells})
    return lines


def plot(path, rows, data):
    """Draw the figures of some sparsifiers against the sparsity."""
    panels = {}
    for name, short in SHOWN.items():
        for row in rows:
            wanted = short in DRAWN and row["data"] == data and row["method"] in CURVES
            if wanted and row["figures"] and name in row["figures"]:
                point = (100 * row["sparsity"], row["figures"][name], 0.0)
                panels.setdefault(short, {}).setdefault(row["method"], []).append(point)
    plot_curves(path, panels, x_label="edges removed (%)", y_label="", levels={})


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=["cora", "ogbn-arxiv-structure", "flickr-structure"])
    names = [name for name, row in SPARSIFIERS.items() if row.core != "metric"]
    parser.add_argument("--method", nargs="+", choices=names, default=names, metavar="METHOD")
    parser.add_argument("--sparsity", nargs="+", type=float, default=list(SPARSITIES))
    parser.add_argument("--workers", type=int, default=0, help="processes beside this one; 0 is none")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "sparsifier_structure.jsonl")
    parser.add_argument("--report", action="store_true", help="write the tables of what is there, and stop")
    args = parser.parse_args(argv)
    work = [dict(zip(KEYS, job, strict=True)) for job in product(args.data, args.method, args.sparsity)]
    if args.report:
        rows = whole(work, args.out, setting={}, keys=KEYS, cell=lambda job: tuple(job[key] for key in KEYS))
    else:
        group_by = lambda job: (job["data"], job["method"])  # noqa: E731
        rows = compute(work, run_group, args.out, setting={}, keys=KEYS, group_by=group_by, workers=args.workers)
    shown, texts = [], []
    for data, sparsity in product(args.data, args.sparsity):
        lines = table(rows, data, sparsity)
        if lines:
            shown += [{"data": data, "sparsity": sparsity, **line} for line in lines]
            head = [f"**{data}, {100 * sparsity:g} % of the edges removed**", "", "| " + " | ".join(lines[0]) + " |"]
            text = [*head, "|" + "---|" * len(lines[0]), *("| " + " | ".join(line.values()) + " |" for line in lines)]
            texts.append("\n".join(text))
    for data in dict.fromkeys(row["data"] for row in rows):
        plot(args.out.with_name(f"{args.out.stem}_{data}.png"), rows, data)
    write_csv(args.out.with_suffix(".csv"), shown)
    write_text(args.out.with_suffix(".md"), "\n\n".join([*texts, f"{versions()}."]))
    print("\n\n".join(texts))
    return shown


if __name__ == "__main__":
    main(sys.argv[1:])
