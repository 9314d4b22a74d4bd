"""Effective resistances of all edges: error, sum and CPU time, beside what degrees alone say and beside NetworKit.

python benchmarks/resistance.py                            # ogbn-arxiv, one thread; a quarter of an hour
python benchmarks/resistance.py --data cora --edges 40     # seconds

The error is over a sample of edges, for each of which scipy solves a linear system to a residual of 1e-7. The sum of
the resistances of a graph without weights is the number of its nodes less that of its components. CPU seconds are those
of the call alone, in a process of its own, the fastest of some runs: ours begins with an edge list, NetworKit's
with its own graph, by a multigrid solver (`SpanningEdgeCentrality`) and by random spanning trees
(`ApproxSpanningEdge`). Without NetworKit its rows are left out.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from own_process import run_apart
from scipy import sparse, stats
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import cg
from tables import versions, write_text

from graphsparse.datasets import load
from graphsparse.edges import effective_resistance

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def graph(name):
    """Return both ends of the undirected edges, in order, and the number of nodes."""
    data = load(name)
    low, high = data.edge_index.amin(0), data.edge_index.amax(0)
    key = torch.unique((low * data.num_nodes + high)[low != high])
    return torch.stack([key // data.num_nodes, key % data.num_nodes]), data.num_nodes


def sample(num_edges, size):
    """Return the places of the edges that are solved one by one."""
    return torch.randperm(num_edges, generator=torch.Generator().manual_seed(0))[:size].sort().values


def ours(args):
    """Time the estimate, and return it for the sample, with its sum and what stands beside it."""
    pairs, num_nodes = graph(args.data)
    edge_index = torch.cat([pairs, pairs.flip(0)], 1)
    begin = time.process_time()
    found = effective_resistance(edge_index, num_nodes=num_nodes, probes=args.probes[0])
    seconds = time.process_time() - begin
    found = found[: pairs.size(1)].double()
    degree = torch.bincount(pairs.flatten(), minlength=num_nodes).double()
    u, v = degree[pairs]
    least = 1 / (1 + ((u - 1) * (v - 1) / (u + v - 2)).nan_to_num())
    ratio = (1 / u + 1 / v) / found
    chosen = sample(pairs.size(1), args.edges)
    return {
        "seconds": seconds,
        "sum": float(found.sum()),
        "values": found[chosen].tolist(),
        "degrees": (1 / u + 1 / v)[chosen].tolist(),
        "sum of degrees": float((1 / u + 1 / v).sum()),
        "least": least[chosen].tolist(),
        "sum of least": float(least.sum()),
        "rank correlation": float(stats.spearmanr(ratio * found, found).statistic),
        "quantiles": np.quantile(ratio.numpy(), QUANTILES).tolist(),
    }


def networkit(args):
    """Time the estimate of NetworKit, and return it for the sample, with its sum."""
    import networkit as nk

    nk.setNumberOfThreads(1)
    pairs, num_nodes = graph(args.data)
    network = nk.GraphFromCoo(tuple(pairs.numpy()), n=num_nodes)
    network.indexEdges()
    begin = time.process_time()
    if args.trees:
        centrality = nk.centrality.ApproxSpanningEdge(network, args.tolerance)
        centrality.run()
    else:
        centrality = nk.centrality.SpanningEdgeCentrality(network, args.tolerance)
        centrality.runParallelApproximation()
    seconds = time.process_time() - begin
    scores = centrality.scores()
    chosen = pairs[:, sample(pairs.size(1), args.edges)].t().tolist()
    values = [scores[network.edgeId(u, v)] for u, v in chosen]
    return {"seconds": seconds, "sum": sum(scores), "values": values}


def reference(args):
    """Solve for the sample, an edge at a time, and count the components."""
    pairs, num_nodes = graph(args.data)
    row, col = pairs.numpy()
    upper = sparse.csr_array((np.ones(row.size), (row, col)), shape=(num_nodes, num_nodes))
    adjacency = (upper + upper.T).tocsr()
    degree = adjacency.sum(1)
    laplacian = (sparse.diags_array(degree) - adjacency).tocsr()
    jacobi = sparse.diags_array(1 / np.maximum(degree, 1))
    values, steps = [], []
    for edge in sample(pairs.size(1), args.edges).tolist():
        right = np.zeros(num_nodes)
        right[row[edge]], right[col[edge]] = 1, -1
        count = []
        solution, failed = cg(laplacian, right, rtol=1e-7, M=jacobi, callback=count.append)
        assert not failed
        values.append(float(right @ solution))
        steps.append(len(count))
    return {
        "values": values,
        "steps": [min(steps), max(steps)],
        "sum": num_nodes - int(connected_components(adjacency, directed=False)[0]),
        "size": [num_nodes, row.size],
    }


PARTS = {"ours": ours, "networkit": networkit, "reference": reference}


def main(argv=None):
    """Measure, print a table, and return its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="ogbn-arxiv-structure")
    parser.add_argument("--probes", type=int, nargs="+", default=[16, 48, 200])
    parser.add_argument("--edges", type=int, default=160, help="size of the sample that is solved")
    parser.add_argument("--tolerance", type=float, default=0.5, help="of NetworKit's solver")
    parser.add_argument("--tree-tolerance", type=float, default=0.3, help="of NetworKit's spanning trees")
    parser.add_argument("--runs", type=int, default=3, help="the fastest one counts")
    parser.add_argument("--out", type=Path, help="folder for a Markdown table")
    parser.add_argument("--one", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--trees", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.one:
        torch.set_num_threads(1)
        print(json.dumps(PARTS[args.one](args)))
        return {}

    def part(name, *more, runs=args.runs):
        options = [f"--data={args.data}", f"--edges={args.edges}", f"--one={name}"]
        found = [run_apart(__file__, [*options, *more]) for _ in range(runs)]
        return min(found, key=lambda row: row.get("seconds", 0))

    solved = part("reference", runs=1)
    exact = np.array(solved["values"])
    text = [
        f"{args.data}, undirected: {solved['size'][0]:,} nodes, {solved['size'][1]:,} edges; error over {args.edges} "
        f"edges solved by scipy ({solved['steps'][0]} to {solved['steps'][1]} iterations each)",
        "",
        f"| resistances from | CPU s | rms error | sum, wanted {solved['sum']:,} | off by |",
        "|---|---|---|---|---|",
    ]
    print("\n".join(text), flush=True)
    figures = {}

    def row(name, seconds, values, total):
        error = float(np.sqrt(np.mean((np.array(values) / exact - 1) ** 2)))
        off = total / solved["sum"] - 1
        figures[name] = {"seconds": seconds, "error": error, "off": off}
        cpu = "" if seconds is None else f"{seconds:.2f}"
        text.append(f"| {name} | {cpu} | {100 * error:.1f} % | {total:,.0f} | {100 * off:+.2f} % |")
        print(text[-1], flush=True)

    for probes in args.probes:
        mine = part("ours", f"--probes={probes}")
        if probes == args.probes[0]:
            row("1/d_u + 1/d_v", None, mine["degrees"], mine["sum of degrees"])
            row("lower bound by degrees", None, mine["least"], mine["sum of least"])
        row(f"effective_resistance, {probes} probes", mine["seconds"], mine["values"], mine["sum"])
    try:
        theirs = part("networkit", f"--tolerance={args.tolerance}")
        trees = part("networkit", f"--tolerance={args.tree_tolerance}", "--trees")
    except RuntimeError as error:
        if "No module named 'networkit'" not in str(error):
            raise
        last = "NetworKit is not installed."
    else:
        row(f"NetworKit, solver, tolerance {args.tolerance:g}", theirs["seconds"], theirs["values"], theirs["sum"])
        row(f"NetworKit, trees, tolerance {args.tree_tolerance:g}", trees["seconds"], trees["values"], trees["sum"])
        ratios = ", ".join(
            f"{figures[f'effective_resistance, {probes} probes']['seconds'] / theirs['seconds']:.3f} with {probes}"
            for probes in args.probes
        )
        last = f"CPU time over that of NetworKit's solver, by probes: {ratios}."
    shares = ", ".join(f"{q:.2f}" for q in mine["quantiles"])
    text += [
        "",
        last,
        f"1/d_u + 1/d_v over the resistances of {args.probes[-1]} probes, all edges: rank correlation "
        f"{mine['rank correlation']:.3f}; quantiles at {', '.join(f'{100 * q:g}' for q in QUANTILES)} %: {shares}.",
        "",
        f"1 thread, fastest of {args.runs} runs, {versions()}",
    ]
    print("\n".join(text[-5:]), flush=True)
    if args.out:
        write_text(args.out / "resistance.md", "\n".join(text))
    return figures | {"rank correlation": mine["rank correlation"]}


if __name__ == "__main__":
    sys.exit(0 if main() or "--one" in " ".join(sys.argv) else 1)
