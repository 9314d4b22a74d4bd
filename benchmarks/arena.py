"""Which edges, which weights, at equal counts? Every way to find a ticket beside the others, paired over seeds.

python benchmarks/arena.py --data cora citeseer pubmed --workers 2
python benchmarks/arena.py --quick

Tracks: edges alone, weights alone, and both, at rounds 4, 10, 14 and 20 of the path of UGS (5 % of the edges and 20 %
of the weights that are left go in a round); both also at three published cells. For each seed all start from the same
weights, see the same split and end with the same training; nothing is distilled, and no method sees a test label. A
method that goes in rounds finds its four tickets in one run. `dense` has all edges and weights, `empty` no edge, `MLP`
never had one; a `narrow` network is a dense one with as many weights as the cell leaves. A method that this version of
the package lacks is left out. Results are kept in a file of JSON lines: a run that was stopped goes on where it was,
and tables have all that is in the file.
"""

import argparse
import sys
import time
from dataclasses import replace
from functools import cache, partial
from itertools import product
from pathlib import Path

import torch
from arena_tables import RANKED, TRACKS, as_text, plot, summarise
from cells import compute, read
from tables import write_csv, write_text
from torch import nn
from torch_geometric.data import Data
from torch_geometric.nn import GCN, MLP, MessagePassing

from graphsparse.datasets import load
from graphsparse.metrics import auroc, count_macs
from graphsparse.tickets import L0, METHODS, Fixed, OneShot, find_tickets
from graphsparse.training import NodeTask, Training

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- tables: python benchmarks/arena.py --report --page docs/arena.md -->", "<!-- end of the tables -->"
PLANETOID = ("cora", "citeseer", "pubmed")
#: Each seed has a split of its own there.
SPLITS = ("minesweeper", "tolokers", "actor", "chameleon_filtered", "squirrel_filtered")
WIDE = ("cora", "citeseer", "cora-inductive")  # 256 channels, elsewhere 64
ONE_SHOT = ("tolokers", "cora-inductive", "ogbn-arxiv-structure")  # many trainings take too long, or a mask is useless
GRAPHS = (*PLANETOID, *SPLITS, "cora-inductive", "ogbn-arxiv-structure")
#: Learning rate, weight decay and the l1 terms of UGS as published.
SETTINGS = {"cora": {"lr": 0.008, "weight_decay": 8e-5}}
SETTINGS["cora-inductive"] = SETTINGS["cora"]
UGS_TERMS = {"cora": (1e-2, 1e-2), "citeseer": (1e-2, 1e-2), "pubmed": (1e-6, 1e-3)}

ROUNDS = ("4", "10", "14", "20")
# A hair below what rounds leave, so that no rounding of floats makes a further one.
CELLS = {number: (1 - 0.95 ** int(number) - 1e-9, 1 - 0.8 ** int(number) - 1e-9) for number in ROUNDS}
CELLS |= {"A": (0.1875, 0.8988), "B": (0.5759, 0.9831), "C": (0.7881, 0.9823)}
#: What one run finds: the published cells do not lie within each other.
CHAINS = {**dict.fromkeys(ROUNDS, "rounds"), "A": "A", "B": "B", "C": "C"}
KEYS = ("data", "track", "method", "cell", "seed")


def known(name, **options):
    """Return a method of the package with other options, or nothing if there is none of that name."""
    return replace(METHODS[name], **options) if name in METHODS else None


def with_edges(edges, name):
    """Return a score for edges with the rule for weights of a method of the package, or nothing if there is none."""
    return OneShot(edges, METHODS[name].weights) if name in METHODS else None


def methods(data):
    """Return the methods of every track by name; those that the package lacks are `None`."""
    terms = dict(zip(("l1_edges", "l1_weights"), UGS_TERMS.get(data, (1e-4, 1e-4)), strict=True))
    many, planetoid = data not in ONE_SHOT, data in PLANETOID
    ugs = {"UGS": known("ugs", **terms)} if many else {}
    fastglt = {"FastGLT": known("fastglt")} if planetoid else {}
    edges = {name: OneShot(name) for name in ("random", "k_neighbor", "degree", "teddy", "reverse_teddy")}
    weights = {"random, ERK": OneShot(None, Fixed("erk")), "random, uniform": OneShot(None, Fixed("uniform"))}
    weights |= {"l0": OneShot(None, L0()), "GMP": known("gmp"), "RigL": known("rigl"), "SET": known("set")}
    weights |= {"SNIP": known("snip")} | ({"IMP": known("iterative_magnitude")} if many else {})
    joint = {"random + ERK": OneShot("random", Fixed("erk")), "random + l0": OneShot("random", L0())}
    joint |= {"teddy + l0": OneShot("teddy", L0()), "degree + l0": OneShot("degree", L0())}
    joint |= {"teddy + GMP": with_edges("teddy", "gmp"), "random + RigL": with_edges("random", "rigl")}
    joint |= ugs | ({"WD-GLT": known("wd-glt")} if planetoid else {}) | fastglt
    return {
        "control": dict.fromkeys(("dense", "empty", "MLP"), OneShot()),
        "edges": edges | ugs | fastglt,
        "weights": weights | ugs | {"narrow": OneShot()},
        "joint": joint | {"narrow": OneShot("random")},
    }


def cells(data, track):
    """Return the cells of a track."""
    published = ("A", "B", "C") if track == "joint" and data in PLANETOID else ()
    return ("all",) if track == "control" else (*ROUNDS, *published)


def jobs(args):
    """Return the tickets to find as dictionaries, those of one run next to each other."""
    for seed, data in product(range(args.seeds), args.data):
        for track, named in methods(data).items():
            if track not in ("control", *args.track):
                continue
            for method, found in named.items():
                if found is None or (args.method and method not in args.method and track != "control"):
                    continue
                for cell in cells(data, track):
                    yield {"data": data, "track": track, "method": method, "cell": cell, "seed": seed}


def of_one_run(job):
    """Return what tickets that one run finds have in common; chance, a mask or a score need none of each other."""
    return (*(job[name] for name in KEYS if name != "cell"), CHAINS.get(job["cell"]))


@cache
def graph(name, seed):
    return load(name.removesuffix("-inductive"), split=seed if name in SPLITS else 0)


def task(name, data):
    """Return what networks are trained on."""
    metric = {"metric": area} if name in RANKED else {}
    return NodeTask(data, inductive=name.endswith("-inductive"), **metric)


def area(logits, y):
    """Return the area under the ROC curve of two classes."""
    return auroc(logits[:, 1] - logits[:, 0], y == 1)


class Words(nn.Module):
    """A network that looks at no edge."""

    def __init__(self, *sizes):
        super().__init__()
        self.mlp = MLP(list(sizes), dropout=0.5, norm=None, bias=False)

    def forward(self, x, edge_index, edge_weight=None):
        """Return logits of the nodes."""
        return self.mlp(x)


def network(data, width, method="", sparsity=0.0):
    """Return what builds the network of a cell."""
    sizes = data.num_features, data.num_classes
    if method == "MLP":
        return lambda: Words(sizes[0], width, sizes[1])
    if method == "narrow":
        width = max(1, round((1 - sparsity) * width))
    return lambda: GCN(sizes[0], width, 2, sizes[1], dropout=0.5, bias=False)


def macs(model, data):
    """Return the multiply-accumulates of a forward pass on the edges, self-loops among them, and on the weights."""
    x = data.x.to_sparse_csr() if (data.x == 0).float().mean() > 0.5 else data.x
    row, col = data.edge_index
    entries = int((row != col).sum()) + data.num_nodes
    edges = entries * sum(layer.out_channels for layer in model.modules() if isinstance(layer, MessagePassing))
    return edges, count_macs(model, x, data.edge_index) - edges


def run_group(group, setting):
    """Find the tickets of one run and return them as rows; what the run costs stands in each."""
    torch.set_num_threads(1)
    name, track, method, _, seed = (group[0][key] for key in KEYS)
    data, found = graph(name, seed), methods(name)[track][method]
    if method == "empty":
        data = Data(**{**data.to_dict(), "edge_index": data.edge_index[:, :0]})
    width, epochs = (256 if name in WIDE else 64), setting["epochs"] // (2 if name == "ogbn-arxiv-structure" else 1)
    seen, start = [], time.process_time()
    training = Training(epochs=epochs, seed=seed, log=seen.append, **SETTINGS.get(name, {}))
    targets = [CELLS.get(job["cell"], (0.0, 0.0)) for job in group]
    # A network that is narrow instead of sparse has no weight removed.
    wanted = [(e * (track != "weights"), w * (track != "edges") * (method != "narrow")) for e, w in targets]
    makers = [network(data, width, method, weights) for _, weights in targets]
    search = partial(find_tickets, data=task(name, data), method=found, training=training)
    if method == "narrow":  # another network in each cell
        tickets = [search(maker, targets=[target])[0] for maker, target in zip(makers, wanted, strict=True)]
    else:
        tickets = search(makers[0], targets=wanted)
    seconds = time.process_time() - start
    cost = {"trainings": sum(row["epoch"] == 0 for row in seen), "epochs": len(seen), "seconds": round(seconds, 2)}
    rows = []
    for job, maker, ticket in zip(group, makers, tickets, strict=True):
        numbers = {key: ticket.metrics[key] for key in ("val", "test", "edge_sparsity", "weight_sparsity")}
        model = ticket.materialize(maker)
        removed = sum(int((~mask).sum()) for mask in ticket.weight_masks.values())
        numbers["weights"] = sum(parameter.numel() for parameter in model.parameters()) - removed
        numbers["macs_edges"], numbers["macs_weights"] = macs(model, ticket.sparsify(data))
        rows.append({**job, **numbers, **cost})
    return rows


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=["cora"], help=f"of {', '.join(GRAPHS)}, or any that `load` knows")
    parser.add_argument("--track", nargs="+", choices=list(TRACKS), default=list(TRACKS))
    parser.add_argument("--method", nargs="+", help="names of a table alone; all when not given")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--quick", action="store_true", help="cora, three seeds, both pruned")
    parser.add_argument("--workers", type=int, default=0, help="processes beside this one; 0 is none")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "arena.jsonl")
    parser.add_argument("--page", type=Path, help="document whose tables are written anew")
    parser.add_argument("--report", action="store_true", help="write the tables of what is in the file, and stop")
    args = parser.parse_args(argv)
    if args.quick:
        args.data, args.seeds, args.track = ["cora"], 3, ["joint"]
    setting = {"epochs": args.epochs}
    if not args.report:
        named = [pair for data in args.data for track in methods(data).values() for pair in track.items()]
        if lacking := sorted({name for name, found in named if found is None}):
            print(f"left out, because this version lacks what they need: {', '.join(lacking)}")
        compute(
            list(jobs(args)), run_group, args.out, setting=setting, keys=KEYS, group_by=of_one_run, workers=args.workers
        )
    rows = read(args.out, setting)
    graphs = dict.fromkeys([*GRAPHS, *(row["data"] for row in rows)])
    order = [(d, t, m, c) for d in graphs for t, named in methods(d).items() for m in named for c in cells(d, t)]
    lines = summarise(rows, order)
    text = as_text(lines)
    write_csv(args.out.with_suffix(".csv"), lines)
    write_text(args.out.with_suffix(".md"), text)
    for data in dict.fromkeys(line["data"] for line in lines):
        plot(args.out.with_name(f"{args.out.stem}_{data}.png"), lines, data)
    if args.page is not None:
        before, rest = args.page.read_text().split(BEGIN)
        write_text(args.page, f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.split(END)[1]}")
    print(text)
    return {"/".join(line[key] for key in KEYS[:4]): line["test mean"] for line in lines}


if __name__ == "__main__":
    main(sys.argv[1:])
