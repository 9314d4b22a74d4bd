"""The table of all sparsifiers in docs/sparsifiers.md, and a picture of what each leaves of one small graph.

python benchmarks/sparsifier_table.py
"""

import argparse
import csv
from pathlib import Path

import networkx as nx
import torch
from matplotlib.figure import Figure

from graphsparse.edges import SPARSIFIERS, sparsify_edge
from graphsparse.utils.files import atomic_write

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- table: python benchmarks/sparsifier_table.py -->", "<!-- end of the table -->"
#: What a score looks at besides the edges.
NEEDS = {"message_norm": "features"}


def cost(results):
    """Return the CPU time of each method beside `coalesce`, on the largest real graph that it was measured on."""
    rows = list(csv.DictReader(results.open())) if results.exists() else []
    found = {row["method"]: float(row["of coalesce"]) for row in rows if row["graph"].startswith("ogbn")}
    return {name: f"{times:.0f}" if times >= 10 else f"{times:.1f}" for name, times in found.items()}


def table(seconds):
    """Return the lines of the table."""
    lines = ["| name | score | local rule | kept first | chosen by | needs | new weights | count | cost | source |"]
    lines.append("|" + "---|" * 10)
    for name, row in SPARSIFIERS.items():
        needs = NEEDS.get(name) or ("weights" if row.core == "metric" else "")
        count = "random" if row.design in ("poisson", "replacement") else "exact"
        cells = [f"`{name}`", f"`{row.score}`", row.local or "", row.core or "", row.design, needs]
        cells += ["yes" if row.reweights else "", count, seconds.get(name, ""), row.source]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def picture(path):
    """Draw what each sparsifier leaves of Zachary's karate club, half of its edges where that is possible."""
    graph = nx.karate_club_graph()
    pairs = list(graph.edges)
    weight = torch.tensor([float(graph.edges[pair]["weight"]) for pair in pairs])
    place = nx.spring_layout(graph, seed=4)
    columns = 5
    rows = -(-len(SPARSIFIERS) // columns)
    figure = Figure(figsize=(3 * columns, 2.6 * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns).flat)
    for axis in axes:
        axis.set_axis_off()
    for axis, (name, row) in zip(axes, SPARSIFIERS.items(), strict=False):
        method = row if not row.reweights else type(row)(row.score, design=row.design, reweight=False)
        options = {"num_nodes": 34, "seed": 0, "edge_weight": weight, "x": torch.ones(34, 1)}
        alone = row.core in ("spanner", "metric")
        mask = sparsify_edge(torch.tensor(pairs).t(), None if alone else 0.5, method, **options)[1].tolist()
        kept = [pair for pair, stays in zip(pairs, mask, strict=True) if stays]
        nx.draw_networkx_edges(graph, place, pairs, ax=axis, edge_color="0.88", width=0.8)
        nx.draw_networkx_edges(graph, place, kept, ax=axis, edge_color="#0072B2", width=1.1)
        nx.draw_networkx_nodes(graph, place, ax=axis, node_size=14, node_color="0.2")
        parts = nx.number_connected_components(nx.Graph(kept)) + 34 - len({node for pair in kept for node in pair})
        axis.set_title(f"{name}: {len(kept)} of 78, {parts} parts", fontsize=8)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "sparsifiers.md")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results" / "sparsifier_cost.csv")
    parser.add_argument("--picture", type=Path, default=ROOT / "docs" / "sparsifiers.png")
    args = parser.parse_args(argv)
    lines = table(cost(args.results))
    text = args.page.read_text()
    before, rest = text.split(BEGIN)
    with atomic_write(args.page) as temporary:
        temporary.write_text("\n".join([before + BEGIN, *lines, END]) + rest.split(END)[1])
    picture(args.picture)
    print("\n".join(lines))
    return lines


if __name__ == "__main__":
    main()
