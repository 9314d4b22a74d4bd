"""Cost of what sparsifiers stand on beside the canonical sort of the same edges, and of a new draw for every epoch.

python benchmarks/sampling.py                          # 1/8 of the size of ogbn-products, then full size
python benchmarks/sampling.py --scale 0.125 --data ogbn-arxiv-structure

First the synthetic heavy-tailed graph: ranks of random scores at each node, their maximum spanning forest, and draws of
half of the undirected edges with probabilities proportional to 1/d_u + 1/d_v; memory is the peak of the process above
what it held with the edge list loaded. Then draws of `EdgeResampler` on a real graph: of edges alone, of entries, and
of a whole `Data`. CPU seconds of one thread; every size has a process of its own.
"""

import argparse
import json
import time

import torch
from heavy_tailed import make_edges
from own_process import held_gb, peak_gb, reset_peak, run_apart
from torch_geometric.data import Data
from torch_geometric.utils import dropout_edge, to_undirected

from graphsparse.datasets import load
from graphsparse.edges import Sparsifier
from graphsparse.edges.cores.forest import spanning_forest_mask
from graphsparse.edges.inclusion import draws_for, inclusion_probability, pivotal, poisson, replacement, systematic
from graphsparse.edges.local_rank import local_score
from graphsparse.edges.undirected import undirected_edges
from graphsparse.transforms import EdgeResampler


class Clock:
    """Times steps, and notes the peak of memory above what was held at the beginning."""

    def __init__(self):
        self.held, self.rows = held_gb(), {}

    def __call__(self, name, step, times=1):
        """Run a step, keep its shortest time, and return what it returned."""
        seconds = []
        reset_peak()
        for _ in range(times):
            start = time.process_time()
            found = step()
            seconds.append(time.process_time() - start)
        self.rows[name] = {"seconds": min(seconds), "gb": peak_gb() - self.held}
        return found


def measure(scale):
    """Return the figures of all designs at one size."""
    torch.set_num_threads(1)
    edge_index, num_nodes = make_edges(scale)
    clock = Clock()
    edges = clock("canonical sort", lambda: undirected_edges(edge_index, num_nodes))
    score = torch.rand(edges.num_edges, generator=torch.Generator().manual_seed(0))
    clock("local ranks", lambda: local_score(edges, score, "rank", "either"))
    clock("spanning forest", lambda: spanning_forest_mask(edges, score))
    inverse = edges.degree().double().reciprocal_()
    p = edges.fill(lambda u, v: inverse[u] + inverse[v])
    k = edges.num_edges // 2
    pi = clock("probabilities", lambda: inclusion_probability(p, k))
    for name, draw in (("pivotal", pivotal), ("systematic", systematic), ("poisson", poisson)):
        clock(name, lambda draw=draw: draw(pi, 0, 0))
    draws = clock("number of draws", lambda: draws_for(p, k))
    clock("replacement", lambda: replacement(p, draws, 0))
    return {"edges": edges.num_edges, "rows": clock.rows}


def measure_resampler(name, root):
    """Return the figures of new draws on a real graph."""
    torch.set_num_threads(1)
    given = load(name, root=root)
    edge_index = to_undirected(given.edge_index, num_nodes=given.num_nodes)
    data, clock = Data(edge_index=edge_index, num_nodes=given.num_nodes), Clock()
    random = Sparsifier("random")
    for title, score in (("random", random), ("pivotal", "dspar"), ("replacement", "dspar_published")):
        resampler = EdgeResampler(data, 0.5, score)
        selector, epoch = resampler._drawer.selector, iter(range(1, 100))
        clock(f"{title}: edges", lambda: selector.draw(next(epoch)).keep, 5)  # noqa: B023
        clock(f"{title}: entries and weights", lambda: resampler._drawer.draw(next(epoch)), 5)  # noqa: B023
        clock(f"{title}: Data", lambda: resampler.epoch(next(epoch)), 5)  # noqa: B023
        clock(f"{title}: prepare", lambda score=score: EdgeResampler(data, 0.5, score), 3)
    clock("dropout_edge of PyG, random count", lambda: dropout_edge(edge_index, 0.5, force_undirected=True), 5)
    return {"edges": edge_index.size(1) // 2, "rows": clock.rows}


def show(title, figures, unit):
    """Print a table, seconds beside those of the first row or per million edges."""
    rows, num = figures["rows"], figures["edges"]
    print(f"\n{title}: {num:,} undirected edges\n\n| step | CPU s | {unit} | GB above input |\n|---|---|---|---|")
    first = next(iter(rows.values()))["seconds"]
    for name, row in rows.items():
        other = row["seconds"] / (first if unit == "times the sort" else num / 1e6)
        print(f"| {name} | {row['seconds']:.3f} | {other:.4f} | {row['gb']:.2f} |", flush=True)


def main(argv=None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, nargs="*", default=[0.125, 1.0])
    parser.add_argument("--data", default="ogbn-arxiv-structure", help="graph of the resampler")
    parser.add_argument("--root", default="data", help="folder of data sets")
    parser.add_argument("--apart", choices=["designs", "resampler"], help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.apart:
        print(
            json.dumps(measure(args.scale[0]) if args.apart == "designs" else measure_resampler(args.data, args.root))
        )
        return {}
    found = {}
    for scale in args.scale:
        figures = run_apart(__file__, ["--apart", "designs", "--scale", str(scale)])
        show(f"size {scale:g}", figures, "times the sort")
        sort = figures["rows"]["canonical sort"]["seconds"]
        for name in ("local ranks", "spanning forest", "pivotal"):
            found[f"{name} by sort at {scale:g}"] = figures["rows"][name]["seconds"] / sort
    figures = run_apart(__file__, ["--apart", "resampler", "--data", args.data, "--root", args.root])
    show(args.data, figures, "CPU s per million edges")
    print(f"\ntorch {torch.__version__}, 1 thread")
    return found | {name: row["seconds"] / figures["edges"] * 1e6 for name, row in figures["rows"].items()}


if __name__ == "__main__":
    main()
