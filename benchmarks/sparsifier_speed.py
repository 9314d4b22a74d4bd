"""CPU time of each sparsifier that NetworKit has too: scores, selection of half of the edges, and what it misses.

python benchmarks/sparsifier_speed.py                                # ogbn-arxiv, one thread
python benchmarks/sparsifier_speed.py --method random jaccard --runs 5

Each side of each row runs in a process of its own, one thread, the fastest of some runs. Ours
begins with the edge list, both directions of every edge: sorting it is a part of the scores, and choosing the edges is
the selection. NetworKit begins with its own graph, with ids of the edges: what it takes to build that is not counted.
`ratio` is our total over that of NetworKit; `off` is how many edges are kept beside the half that was asked for.
Forests, triangles and resistances are compared without a selection. Without NetworKit our own columns are left.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import torch
from own_process import run_apart
from tables import versions, write_text

from graphsparse.datasets import load
from graphsparse.edges import SPARSIFIERS, Sparsifier
from graphsparse.edges.cores.forest import spanning_forest_mask
from graphsparse.edges.entries import Entries
from graphsparse.edges.score import score_edges
from graphsparse.edges.selector import EdgeSelector
from graphsparse.edges.undirected import undirected_edges

#: What is compared: our sparsifier, or a name of its own, and NetworKit's, with its arguments.
METHODS = {
    "random": ("random", "RandomEdgeSparsifier", ()),
    "local degree": ("local_degree", "LocalDegreeSparsifier", ()),
    "local similarity (L-Spar)": ("l_spar", "LocalSimilaritySparsifier", ()),
    "Jaccard (G-Spar)": ("g_spar", "JaccardSimilaritySparsifier", ()),
    "SCAN": ("scan", "SCANSparsifier", ()),
    "Simmelian, non-parametric": ("simmelian", "SimmelianSparsifierNonParametric", ()),
    "Simmelian, 10 ranks": ("simmelian_overlap", "SimmelianSparsifierParametric", (10,)),
    "triangle multiscale": ("triangle_multiscale", "SimmelianMultiscaleSparsifier", ()),
    "algebraic distance": ("algebraic_distance", "AlgebraicDistanceSparsifier", ()),
    "forest fire (0.6, 5)": ("forest_fire", "ForestFireSparsifier", (0.6, 5.0)),
    "triangles": ("triangles", None, ()),
    "spanning forest": ("any forest", None, ()),
    "maximum spanning forest": ("best forest", None, ()),
    "resistance": ("resistance", None, ()),
}
SPARSITY = 0.5


def once(steps):
    """Return the CPU seconds of each of some steps, which get what the one before returned, and the last result."""
    seconds, result = [], None
    for step in steps:
        begin = time.process_time()
        result = step(result)
        seconds.append(time.process_time() - begin)
    return seconds, result


def our_steps(name, edge_index, num_nodes):
    """Return our steps for a row, of which the last returns the mask of the edges that are kept, or scores."""
    if name in ("any forest", "best forest"):
        edges = undirected_edges(edge_index, num_nodes)
        score = random_score(edges.num_edges)
        return [lambda _: spanning_forest_mask(undirected_edges(edge_index, num_nodes), score)]
    if name in ("triangles", "resistance"):
        return [lambda _: score_edges(name, Entries(edge_index, num_nodes), seed=0)]
    method = SPARSIFIERS.get(name) or Sparsifier(name)
    return [
        lambda _: EdgeSelector(Entries(edge_index, num_nodes), method, sparsity=SPARSITY, seed=0),
        lambda selector: selector.keep(),
    ]


def random_score(num_edges):
    """Return distinct scores, the same on both sides."""
    return torch.randperm(num_edges, generator=torch.Generator().manual_seed(0)).double()


def ours(name, data):
    """Return our steps."""
    return our_steps(METHODS[name][0], data.edge_index, data.num_nodes)


def networkit(name, data):
    """Return the steps of NetworKit for a row, of which the last returns the graph that is left, or scores."""
    import networkit as nk

    nk.setNumberOfThreads(1)
    nk.setSeed(0, False)
    edges = undirected_edges(data.edge_index, data.num_nodes)
    pairs = (edges.key // edges.num_nodes).numpy(), (edges.key % edges.num_nodes).numpy()
    weighted = name == "maximum spanning forest"
    coo = (random_score(edges.num_edges).numpy(), pairs) if weighted else pairs
    graph = nk.GraphFromCoo(coo, n=edges.num_nodes, weighted=weighted)
    graph.indexEdges()

    def ran(algorithm, result, *arguments, run="run"):
        getattr(algorithm, run)()
        return getattr(algorithm, result)(*arguments)

    nk_score, nk_graph = nk.sparsification, nk.graph
    whole = {
        "triangles": lambda _: ran(nk_score.TriangleEdgeScore(graph), "scores"),
        "spanning forest": lambda _: ran(nk_graph.SpanningForest(graph), "getForest"),
        "maximum spanning forest": lambda _: ran(nk_graph.RandomMaximumSpanningForest(graph), "getMSF", True),
        "resistance": lambda _: ran(
            nk.centrality.SpanningEdgeCentrality(graph, 0.5), "scores", run="runParallelApproximation"
        ),
    }
    if name in whole:
        return [whole[name]]
    _, sparsifier, arguments = METHODS[name]
    method = getattr(nk_score, sparsifier)(*arguments)
    return [
        lambda _: method.scores(graph),
        lambda scores: method.getSparsifiedGraphOfSize(graph, 1 - SPARSITY, scores),
    ]


def measure(args):
    """Run one side of one row, and return the seconds of its steps and by how many edges it missed."""
    torch.set_num_threads(1)
    data = load(args.data)
    num_edges = undirected_edges(data.edge_index, data.num_nodes).num_edges
    steps = {"ours": ours, "networkit": networkit}[args.one](args.method[0], data)
    runs = [once(steps) for _ in range(args.runs)]
    seconds, result = min(runs, key=lambda run: sum(run[0]))
    off = None
    if len(steps) == 2:
        kept = int(result.count_nonzero()) if args.one == "ours" else result.numberOfEdges()
        off = kept - (num_edges - int(SPARSITY * num_edges))
    return {"seconds": seconds, "off": off}


def main(argv=None):
    """Measure, print a table, and return its figures by row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="ogbn-arxiv-structure")
    parser.add_argument("--method", nargs="+", choices=METHODS, default=list(METHODS), metavar="NAME")
    parser.add_argument("--runs", type=int, default=3, help="the fastest one counts")
    parser.add_argument("--out", type=Path, help="folder for a Markdown table")
    parser.add_argument("--one", choices=["ours", "networkit"], help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.one:
        print(json.dumps(measure(args)))
        return {}

    def side(one, method):
        options = [f"--data={args.data}", f"--runs={args.runs}", f"--one={one}", "--method", method]
        return run_apart(__file__, options)

    text = [
        f"{args.data}, {100 * SPARSITY:g} % of the edges kept, CPU seconds, 1 thread, fastest of {args.runs} runs",
        "",
        "| method | scores | selection | off | NetworKit scores | selection | off | ratio | ratio of scores |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    print("\n".join(text), flush=True)
    rows, missing = {}, False
    for method in args.method:
        mine, theirs = side("ours", method), None
        if not missing:
            try:
                theirs = side("networkit", method)
            except RuntimeError as error:
                if "No module named 'networkit'" not in str(error):
                    raise
                missing = True
        rows[method] = {"ours": mine, "networkit": theirs}
        cells = [method, *columns(mine), *columns(theirs), "", ""]
        if theirs is not None:
            cells[-2:] = (
                f"{sum(mine['seconds']) / sum(theirs['seconds']):.2f}",
                f"{mine['seconds'][0] / theirs['seconds'][0]:.2f}",
            )
        text.append(f"| {' | '.join(cells)} |")
        print(text[-1], flush=True)
    text += ["", "NetworKit is not installed." if missing else "", versions()]
    print("\n".join(text[-3:]), flush=True)
    if args.out:
        write_text(args.out / "sparsifier_speed.md", "\n".join(text))
    return rows


def columns(part):
    """Return scores, selection and miss of one side as text."""
    if part is None:
        return ["", "", ""]
    seconds = [f"{value:.2f}" for value in part["seconds"]]
    return [*seconds, *[""] * (2 - len(seconds)), "" if part["off"] is None else f"{part['off']:+,}"]


if __name__ == "__main__":
    sys.exit(0 if main() or "--one" in " ".join(sys.argv) else 1)
