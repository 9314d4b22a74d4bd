"""Time and memory of `compare_graphs`, measure by measure, beside scipy and networkx where they have the same.

python benchmarks/compare_graphs.py --root DATA               # ogbn-arxiv's graph, half of its edges removed at random
python benchmarks/compare_graphs.py --scale 0.125 1           # synthetic; 1 is 2,449,029 nodes, 61,859,140 edges
python benchmarks/compare_graphs.py --root DATA --plot a.png  # also a picture of four scores

Times are CPU seconds of the process, one thread, for both graphs together. In the first table reading the graphs is a
row of its own, and "otherwise" is scipy's `connected_components` on scipy matrices, networkx's `pagerank` on networkx
graphs, and scipy's `dijkstra(unweighted=True)` from as many sources; making those matrices and graphs is not counted.
The synthetic graphs run in a process of their own with 64 sources and 8 vectors, all measures one after another;
memory is the peak of each above what the process held with both edge lists loaded.
"""

import argparse
import json
import time
from functools import partial

import networkx as nx
import numpy as np
import torch
from heavy_tailed import make_edges
from own_process import peak_gb, reset_peak, run_apart
from scipy.sparse.csgraph import connected_components, dijkstra
from torch_geometric.data import Data
from torch_geometric.utils import to_networkx, to_scipy_sparse_matrix

from graphsparse.datasets import load
from graphsparse.edges import sparsify_edge
from graphsparse.metrics import GraphComparison, compare_graphs
from graphsparse.metrics.compare_graphs import read_graph
from graphsparse.metrics.graph_measures import MEASURES, Sampling
from graphsparse.plotting import plot_comparison
from graphsparse.transforms import SparsifyEdges

SCORES = ("random", "degree", "teddy", "jaccard")


def seconds_of(call):
    """Return the CPU seconds of a call, and what it returned."""
    start = time.process_time()
    result = call()
    return time.process_time() - start, result


def otherwise(before, after):
    """Return what scipy and networkx take for both graphs, by measure."""
    matrices = [to_scipy_sparse_matrix(data.edge_index, num_nodes=data.num_nodes).tocsr() for data in (before, after)]
    sources = np.random.default_rng(0).choice(before.num_nodes, 64, replace=False)
    found = {
        "size": seconds_of(lambda: [connected_components(m, directed=False) for m in matrices])[0],
        "distances": seconds_of(lambda: [dijkstra(m, unweighted=True, indices=sources) for m in matrices])[0],
    }
    graphs = [to_networkx(data, to_undirected=True) for data in (before, after)]
    return found | {"pagerank": seconds_of(lambda: [nx.pagerank(graph) for graph in graphs])[0]}


def by_measure(data, runs):
    """Print the table of a data set, and return its figures."""
    torch.set_num_threads(1)
    before, after = data, SparsifyEdges(0.5, "random", seed=0)(data)
    others = otherwise(before, after)
    found = {}
    for _ in range(runs):
        reading, graphs = seconds_of(lambda: [read_graph(graph, data.num_nodes, "data") for graph in (before, after)])
        times = {"reading": reading}
        sampling = Sampling(64, 32, 0, data.y)
        for name, measure in MEASURES.items():
            times[name] = seconds_of(partial(measure, *graphs, sampling))[0]
        found = {name: min(seconds, found.get(name, seconds)) for name, seconds in times.items()}
    print("| measure | compare_graphs s | otherwise s |\n|---|---|---|")
    for name, seconds in found.items():
        print(f"| {name} | {seconds:.2f} | {f'{others[name]:.2f}' if name in others else ''} |")
    return {f"{name} s": seconds for name, seconds in found.items()}


def measure_scale(scale):
    """Return the figures of a synthetic graph; called in a process of its own."""
    torch.set_num_threads(1)
    edge_index, num_nodes = make_edges(scale)
    kept, _ = sparsify_edge(edge_index, 0.5, "random", num_nodes=num_nodes, seed=0)
    before, after = (Data(edge_index=edges, num_nodes=num_nodes) for edges in (edge_index, kept))
    y = torch.randint(40, (num_nodes,), generator=torch.Generator().manual_seed(0))
    held = reset_peak(give_back=True)
    seconds, graphs = {}, []
    for name, data in (("reading", before), ("reading", after)):
        spent, graph = seconds_of(partial(read_graph, data, num_nodes, name))
        seconds[name] = seconds.get(name, 0.0) + spent
        graphs.append(graph)
    peaks = {"reading": peak_gb() - held}
    for name, measure in MEASURES.items():
        reset_peak(give_back=True)
        seconds[name], _ = seconds_of(partial(measure, *graphs, Sampling(64, 8, 0, y)))
        peaks[name] = peak_gb() - held
    return {"edges": graphs[0].edges.num_edges, "seconds": seconds, "peaks": peaks}


def by_scale(scales):
    """Print the tables of the synthetic graphs, and return their figures."""
    found = {}
    for scale in scales:
        row = run_apart(__file__, ["--apart", str(scale)])
        print(f"size {scale:g}, {row['edges']:,} undirected edges\n\n| step | s | GB above input |\n|---|---|---|")
        total, peak = sum(row["seconds"].values()), max(row["peaks"].values())
        for name, seconds in (row["seconds"] | {"together": total}).items():
            print(f"| {name} | {seconds:.1f} | {row['peaks'].get(name, peak):.2f} |")
        print(flush=True)
        found |= {f"s at {scale:g}": total, f"GB above input at {scale:g}": peak}
    return found


def main(argv=None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="ogbn-arxiv-structure", help="data set of the first table")
    parser.add_argument("--root", help="folder of the data sets")
    parser.add_argument("--runs", type=int, default=3, help="the fastest one counts")
    parser.add_argument("--plot", help="file for a picture of the data set with half of its edges, by score")
    parser.add_argument("--scale", type=float, nargs="+", help="sizes of the synthetic graph, in place of a data set")
    parser.add_argument("--apart", type=float, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.apart:
        print(json.dumps(measure_scale(args.apart)))
        return {}
    if args.scale:
        return by_scale(args.scale)
    data = load(args.data, root=args.root)
    figures = by_measure(data, args.runs)
    print(
        f"\n{args.data}, half of the edges removed at random, 64 sources, 32 vectors, 1 thread, best of {args.runs}, "
        f"torch {torch.__version__}"
    )
    if args.plot:
        found: dict[str, GraphComparison] = {
            score: compare_graphs(data, SparsifyEdges(0.5, score, seed=0)(data)) for score in SCORES
        }
        plot_comparison(args.plot, found)
    return figures


if __name__ == "__main__":
    main()
