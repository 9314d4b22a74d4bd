"""CPU time and memory of every sparsifier, beside one `coalesce` of the same edges by PyG.

python benchmarks/sparsifier_cost.py --data ogbn-arxiv-structure
python benchmarks/sparsifier_cost.py --scale 0.125 1 --method random k_neighbor local_degree teddy dspar forest

Half of the undirected edges go. With `--data` the graph is a real one, made undirected and sorted as PyG does; with
`--scale` it is synthetic, seeded and heavy-tailed (at 1: 2,449,029 nodes, 123,718,280 directed edges), in random order,
int64. Every figure comes from a process of its own, one thread; memory is the peak of the process above what it held
with the edges loaded. `coalesce` is what users of PyG call to bring an edge list in order, before anything is scored.
Figures are kept as they come: a run that was stopped goes on where it was.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from heavy_tailed import make_edges
from own_process import peak_gb, reset_peak, run_apart
from tables import versions, write_csv, write_text
from torch_geometric.utils import coalesce, to_undirected

from graphsparse.datasets import load
from graphsparse.edges import SPARSIFIERS, sample_edge, sparsify_edge

#: Those whose core may be larger than half of the edges keep the core alone.
CORE_ALONE = ("spanner", "metric_backbone")


def graph(name):
    """Return the edges and the number of nodes of a data set or of the synthetic graph of a size."""
    try:
        return make_edges(float(name))
    except ValueError:
        data = load(name)
        return to_undirected(data.edge_index, num_nodes=data.num_nodes), data.num_nodes


def measure(name, method):
    """Run one sparsifier and return its figures; called in a process of its own."""
    torch.set_num_threads(1)
    edge_index, num_nodes = graph(name)
    x = torch.ones(num_nodes, 1) if method == "message_norm" else None
    # Without lengths the metric backbone is the whole graph.
    weight = torch.rand(edge_index.size(1)) + 0.5 if method == "metric_backbone" else None
    held = reset_peak()
    start = time.process_time()
    if method == "coalesce":
        kept = coalesce(edge_index, num_nodes=num_nodes).size(1)
    else:
        choose = sample_edge if SPARSIFIERS[method].reweights else sparsify_edge
        sparsity = None if method in CORE_ALONE else 0.5
        options = {"num_nodes": num_nodes, "seed": 0, "edge_weight": weight, "x": x}
        kept = choose(edge_index, sparsity, SPARSIFIERS[method], **options)[0].size(1)
    return {
        "graph": name,
        "method": method,
        "seconds": time.process_time() - start,
        "above_input_gb": peak_gb() - held,
        "edges": edge_index.size(1),
        "kept": kept,
    }


def main(argv=None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=[])
    parser.add_argument("--scale", type=float, nargs="+", default=[])
    parser.add_argument("--method", nargs="+", choices=list(SPARSIFIERS), default=list(SPARSIFIERS), metavar="METHOD")
    parser.add_argument("--runs", type=int, default=3, help="the fastest one counts")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "sparsifier_cost.jsonl")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.one:
        print(json.dumps(measure(*args.one)))
        return {}
    rows = [json.loads(line) for line in args.out.read_text().splitlines()] if args.out.exists() else []
    lines = []
    for name in [*args.data, *map(str, args.scale)]:
        for method in ["coalesce", *args.method]:
            runs = [row for row in rows if (row["graph"], row["method"]) == (name, method)]
            while len(runs) < args.runs:
                runs.append(run_apart(__file__, ["--one", name, method]))
                args.out.parent.mkdir(parents=True, exist_ok=True)
                with args.out.open("a") as file:
                    file.write(json.dumps(runs[-1]) + "\n")
            best = min(runs, key=lambda run: run["seconds"])
            if method == "coalesce":
                beside = best
            line = {"graph": name, "directed edges": best["edges"], "method": method}
            line |= {"CPU s": round(best["seconds"], 2), "of coalesce": round(best["seconds"] / beside["seconds"], 2)}
            line |= {"GB above input": round(best["above_input_gb"], 2), "kept": best["kept"]}
            lines.append(line)
            print(line, flush=True)
    write_csv(args.out.with_suffix(".csv"), lines)
    text = ["| " + " | ".join(lines[0]) + " |", "|" + "---|" * len(lines[0])]
    text += [
        "| " + " | ".join(f"{v:,}" if isinstance(v, int) else str(v) for v in line.values()) + " |" for line in lines
    ]
    text += ["", f"1 thread, fastest of {args.runs} runs; {versions()}."]
    write_text(args.out.with_suffix(".md"), "\n".join(text))
    return {f"{line['graph']}, {line['method']}, of coalesce": line["of coalesce"] for line in lines}


if __name__ == "__main__":
    main()
