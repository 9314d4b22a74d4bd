"""Seconds and memory of one full-batch training epoch: every form in which PyG takes a graph, beside ours.

python benchmarks/message_passing.py                    # GCN, GraphSAGE, GIN and GCNII on the graph of ogbn-arxiv
python benchmarks/message_passing.py --model GCN --keep-memory
python benchmarks/message_passing.py --scale 0.125 0.25 0.5 1 --keep-memory   # growth, on synthetic graphs

Three layers, hidden width 256, forward, cross-entropy on the training nodes, backward and one step of Adam. All paths
start from the same weights and must reach the same loss. Every figure comes from a process of its own. An epoch is the
median after the warm-up; the first epoch contains conversions and, where nodes are reordered, the partition. CPU
seconds are those of all threads: with one thread, less than the seconds means that others kept the machine busy. Memory
is the peak of the process above what it held with the graph loaded.

`cached` is PyG's option to normalise once, which its GCN and GCNII have: the best PyG path is given without it, as the
models come, and with it.
`dense` is the floor: the same linear layers, activations, loss and optimiser with no edge at all; `dense, ours` is the
same with `ops.linear`, which on some processors multiplies by a faster library than torch does by itself. `reuse` is
ours with what is computed from constant features kept; `reordered` is after `ReorderNodes("metis")`.

`--keep-memory` lets glibc keep freed memory, for all paths alike; by default blocks above 32 MB go back to the system,
and are paid for page by page again. `--scale` takes synthetic graphs with communities and heavy-tailed degrees, the
same number of edges per node at every size. Growth is best read with `--keep-memory`: by default only the smallest
size has no block above 32 MB, so that the step to the next one shows that threshold and not the cost of an edge.
"""

import argparse
import csv
import json
import statistics
import time
from pathlib import Path

import torch
import torch.nn.functional as F
import torch_geometric
from community_graph import community_graph
from gcnii import GCNII
from own_process import peak_gb, reset_peak, run_apart, warm_up
from torch_geometric import EdgeIndex
from torch_geometric.data import Data
from torch_geometric.nn import GCN, GIN, GraphSAGE
from torch_geometric.transforms import ToSparseTensor

from graphsparse.datasets import load
from graphsparse.transforms import ReorderNodes
from graphsparse.typing import has_module

MODELS = {"GCN": GCN, "SAGE": GraphSAGE, "GIN": GIN, "GCNII": GCNII}
#: Those with a graph to cache.
CACHING = ("GCN", "GCNII")
FORMS = ("edge_index", "SparseTensor", "torch CSR", "EdgeIndex")
PYG = tuple(f"PyG {form}{cached}" for form in FORMS for cached in ("", ", cached"))
OURS = ("ours", "ours, reuse", "ours, reordered", "ours, reordered, reuse")
FLOOR = "dense"
FLOORS = (FLOOR, "dense, ours")
PATHS = (*PYG, *OURS, *FLOORS)
BASE = PYG[0]
#: Size of ogbn-arxiv, which a synthetic graph has at scale 1.
NUM_NODES, NUM_EDGES, NUM_FEATURES, NUM_CLASSES = 169_343, 1_157_799, 128, 40
TOLERANCE = 1e-4  # of the loss
#: Sums over thousands of neighbours make the first losses of a GIN 30 times larger than those of the others. With their
#: step, rounding alone moves the loss by 1.4e-4 in one epoch (PyG in float32 against PyG in float64); with this one it
#: still halves within eight epochs, and all paths stay within 2e-6 of each other.
LEARNING_RATE = {"GCN": 1e-3, "SAGE": 1e-3, "GIN": 1e-5, "GCNII": 1e-3}


class WithoutEdges(torch.nn.Module):
    """A convolution of PyG with the identity in place of the aggregation."""

    def __init__(self, conv, product):
        super().__init__()
        self.conv, self.product = conv, product

    def forward(self, x, *rest, **_):  # noqa: D102
        conv = self.conv
        if hasattr(conv, "weight1"):  # GCNII
            x = (1 - conv.alpha) * x + conv.alpha * rest[0]
            return torch.addmm(x, x, conv.weight1, beta=1 - conv.beta, alpha=conv.beta)
        if hasattr(conv, "lin_l"):  # SAGE
            return conv.lin_l(x) + conv.lin_r(x)
        if hasattr(conv, "nn"):  # GIN
            return conv.nn(x)
        return self.product(x, conv.lin.weight, conv.bias)


def paths_of(name):
    """Return the paths of a model: not all have something to cache, and torch-sparse may be missing."""
    paths = [path for path in PATHS if name in CACHING or not path.endswith("cached")]
    return [path for path in paths if "SparseTensor" not in path or has_module("torch_sparse")]


def graph(scale, seed=0):
    """Return ogbn-arxiv, or, with a scale, a synthetic graph of that share of its size."""
    if scale is None:
        return load("ogbn-arxiv-structure")
    num_nodes = int(NUM_NODES * scale)
    edge_index, community = community_graph(num_nodes, int(NUM_EDGES * scale), seed=seed)
    generator = torch.Generator().manual_seed(seed)
    return Data(
        x=torch.randn(num_nodes, NUM_FEATURES, generator=generator),
        edge_index=edge_index,
        y=community % NUM_CLASSES,
        train_mask=torch.rand(num_nodes, generator=generator) < 0.5,
    )


def graph_of_pyg(path, data):
    """Return the edges in one of the forms that PyG takes."""
    if "SparseTensor" in path:
        return ToSparseTensor()(data).adj_t
    if "torch CSR" in path:
        return ToSparseTensor(layout=torch.sparse_csr)(data).adj_t
    if "EdgeIndex" in path:
        size = (data.num_nodes, data.num_nodes)
        return EdgeIndex(data.edge_index, sparse_size=size, is_undirected=True).sort_by("col")[0].fill_cache_()
    return data.edge_index


def prepare(path, model, data):
    """Return the model, the data and the edges as a path uses them."""
    if path in FLOORS:
        product = F.linear
        if path != FLOOR:
            from graphsparse.nn import accelerate
            from graphsparse.ops import linear as product

            model = accelerate(model)
        model.convs = torch.nn.ModuleList(WithoutEdges(conv, product) for conv in model.convs)
        return model, data, data.edge_index
    if path in PYG:
        return model, data, graph_of_pyg(path, data)
    from graphsparse.nn import accelerate

    if "reordered" in path:
        data = ReorderNodes("metis")(data)
    return accelerate(model, reuse_constant="reuse" in path), data, data.edge_index


def measure(name, path, *, scale=None, threads=None, epochs=5, warmup=2, hidden=256, dropout=0.0):
    """Train with one path and return its figures; called in a process of its own."""
    if threads:
        torch.set_num_threads(threads)
    if path in OURS:
        import graphsparse.nn  # noqa: F401
    data = graph(scale)
    torch.manual_seed(0)
    options = {"cached": True} if path.endswith("cached") else {}
    model = MODELS[name](data.num_features, hidden, 3, NUM_CLASSES, dropout=dropout, **options)
    warm_up()
    held = reset_peak()
    seconds, cpu, losses = [], [], []
    start, cpu_start = time.perf_counter(), time.process_time()
    model, data, edges = prepare(path, model, data)
    train = data.train_mask.nonzero().view(-1)
    x, target = data.x, data.y[train]
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE[name])
    model.train()
    for _ in range(1 + warmup + epochs):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x, edges)[train], target)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
        seconds.append(time.perf_counter() - start)
        cpu.append(time.process_time() - cpu_start)
        start, cpu_start = time.perf_counter(), time.process_time()
    return {
        "path": path,
        "seconds": statistics.median(seconds[1 + warmup :]),
        "cpu": statistics.median(cpu[1 + warmup :]),
        "first": seconds[0],
        "gb": peak_gb() - held,
        "losses": losses,
        "edges": data.num_edges,
        "threads": torch.get_num_threads(),
    }


def measure_apart(name, paths, scale, args):
    """Return the figures of every path, each the fastest of its runs."""
    options = {"name": name, "scale": scale, "threads": args.threads, "epochs": args.epochs, "warmup": args.warmup}
    options |= {"hidden": args.hidden, "dropout": args.dropout}
    best = {}
    for _ in range(args.runs):  # in turns, so that a slow minute of the machine does not hit one path alone
        for path in paths:
            one = json.dumps(options | {"path": path})
            figures = run_apart(__file__, ["--one", one], keep_memory=args.keep_memory)
            if path not in best or figures["seconds"] < best[path]["seconds"]:
                best[path] = figures
    return best


def check_losses(rows, dropout):
    """Raise if a path did not compute what the others did."""
    rows = [row for path, row in rows.items() if path not in FLOORS]
    for row in rows:
        # Reordered nodes are dropped in another order.
        if dropout and "reordered" in row["path"]:
            continue
        for epoch, (loss, other) in enumerate(zip(row["losses"], rows[0]["losses"], strict=True)):
            if not abs(loss - other) <= TOLERANCE * max(1.0, abs(other)):
                raise RuntimeError(
                    f"{row['path']} has a loss of {loss} in epoch {epoch}, {rows[0]['path']} one of {other}"
                )


def table(name, rows):
    """Return the lines of a Markdown table, and add the ratios to the rows."""
    pyg = [path for path in rows if path in PYG]
    best = min(pyg, key=lambda path: rows[path]["seconds"], default=None)
    as_is = min((path for path in pyg if "cached" not in path), key=lambda path: rows[path]["seconds"], default=None)
    lines = [
        f"| {name} | epoch s | CPU s | first epoch s | GB above data | PyG edge_index / this | best PyG / this "
        "| best PyG, cached / this | this / floor | loss after |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for path, row in rows.items():
        for key, other in (("edge_index", BASE), ("as_is", as_is), ("best", best)):
            row[key] = rows[other]["seconds"] / row["seconds"] if other in rows else None
        row["floor"] = row["seconds"] / rows[FLOOR]["seconds"] if FLOOR in rows else None
        ratios = ["" if row[key] is None else f"{row[key]:.2f}" for key in ("edge_index", "as_is", "best", "floor")]
        mark = " (best PyG)" if path in (best, as_is) else ""
        lines.append(
            f"| {path}{mark} | {row['seconds']:.3f} | {row['cpu']:.3f} | {row['first']:.2f} | {row['gb']:.2f} "
            f"| {' | '.join(ratios)} | {row['losses'][-1]:.5f} |"
        )
    return lines


def growth_table(name, by_scale):
    """Return the lines of a table with the cost per directed edge at every size."""
    scales = list(by_scale)
    edges = [next(iter(by_scale[scale].values()))["edges"] for scale in scales]
    heads = " | ".join(f"{scale:g}: {number:,} edges" for scale, number in zip(scales, edges, strict=True))
    lines = [
        f"| {name}, ns per directed edge | {heads} | largest / smallest size |",
        "|---|" + "---|" * (len(scales) + 1),
    ]
    for path in by_scale[scales[0]]:
        cost = [by_scale[scale][path]["seconds"] / by_scale[scale][path]["edges"] * 1e9 for scale in scales]
        lines.append(f"| {path} | " + " | ".join(f"{value:.0f}" for value in cost) + f" | {cost[-1] / cost[0]:.2f} |")
    return lines


def parse(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--path", nargs="+", choices=PATHS, default=PATHS, metavar="PATH", help=", ".join(PATHS))
    parser.add_argument("--threads", type=int, help="torch's default, all cores, if not given")
    parser.add_argument("--epochs", type=int, default=5, help="epochs that are measured")
    parser.add_argument("--warmup", type=int, default=2, help="epochs between the first one and those that count")
    parser.add_argument("--runs", type=int, default=1, help="processes per path; the fastest one counts")
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--scale", type=float, nargs="+", help="synthetic graphs of these shares of the size")
    parser.add_argument("--keep-memory", action="store_true", help="glibc keeps freed memory, for all paths alike")
    parser.add_argument("--csv", type=Path, help="also write the figures to this file")
    parser.add_argument("--markdown", type=Path, help="also write the tables to this file")
    parser.add_argument("--one", type=json.loads, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def main(argv=None) -> dict[str, float]:
    args = parse(argv)
    if args.one:
        print(json.dumps(measure(**args.one)))
        return {}
    figures, lines, records = {}, [], []

    def show(new):
        print("\n".join([*new, ""]), flush=True)
        lines.extend([*new, ""])

    for name in args.model:
        paths = [path for path in paths_of(name) if path in args.path]
        by_scale = {}
        for scale in args.scale or [None]:
            by_scale[scale] = rows = measure_apart(name, paths, scale, args)
            title = name if scale is None else f"{name} at {scale:g}"
            show(table(title, rows))
            figures |= {f"{title}, {path}, s": row["seconds"] for path, row in rows.items()}
            records += [{"model": name, "scale": scale, **row, "losses": row["losses"][-1]} for row in rows.values()]
            check_losses(rows, args.dropout)
        if len(by_scale) > 1:
            show(growth_table(name, by_scale))
    memory = "kept by glibc" if args.keep_memory else "as glibc does by default"
    what = "ogbn-arxiv-structure" if args.scale is None else "synthetic graphs"
    show(
        [
            f"{what}, 3 layers, hidden {args.hidden}, torch {torch.__version__}, PyG {torch_geometric.__version__}, "
            f"{records[0]['threads']} threads, median of {args.epochs} epochs, fastest of {args.runs} runs, "
            f"freed memory {memory}"
        ]
    )
    if args.markdown:
        args.markdown.write_text("\n".join(lines))
    if args.csv:
        with args.csv.open("w", newline="") as file:
            writer = csv.DictWriter(file, records[0], lineterminator="\n")
            writer.writeheader()
            writer.writerows(records)
    return figures


if __name__ == "__main__":
    main()
