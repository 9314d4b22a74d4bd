"""Networks that were trained apart and made one: test accuracy of every method of merging, and of all controls.

python benchmarks/merging.py --data cora citeseer pubmed dblp --net GCN SAGE --case parts-8 --workers 2
python benchmarks/merging.py --data cora citeseer pubmed dblp --net GCN SAGE --case parts-2 parts-64 classes same
python benchmarks/merging.py --start shared --row mean ties dare model_stock fisher gnnmerge condense --out shared.jsonl
python benchmarks/merging.py --data cora citeseer dblp pubmed --net GCN SAGE --case skewed skewed-1 skewed-2
python benchmarks/merging.py --data ogbn-arxiv-structure flickr-structure --net GCN SAGE --case parts-8 --hidden 128

In `parts-K` each of K networks is trained on the nodes, edges and labels of one of K METIS parts and sees nothing else;
in `classes` each of two is trained on the whole graph with the labels of one half of the classes and has outputs for
these alone; in `skewed` each of two sees the whole graph and the labels of one half of the nodes, of which the first
has 20 % of the odd classes and 80 % of the even ones, tested on both halves (`skewed`) or one (`skewed-1`, `skewed-2`);
in `same` two networks are trained on everything. All start from their own weights, or, with `--start shared`, from the
same ones. Layers are those of `accelerate`. Half of the nodes of every class are for training and a quarter each for
validation and test, but where a set has an official split of a large graph. Within a seed every row has the same
split, parts and networks. No method is tuned, none sees a label; rows marked `labels` do. A network answers for the
nodes of its part, in `classes` and `skewed` for its training nodes, in `same` for all; with `everywhere` all networks
answer for all nodes.

Controls: `everything` is one network on the whole graph; `fewer labels` one on the whole graph with a share 1/K of the
training labels, anywhere; `best` the network with the highest score on the validation nodes that it has seen; `router`
asks for every node the network that answers for it; `ridge` is a ridge regression on two-hop features with the labels
of all, and no network at all. Seconds are CPU seconds of merging alone, for `everything` and `ridge` of training.
"""

import argparse
import statistics
import sys
import time
import warnings
from pathlib import Path

import torch
from cells import compute, whole
from tables import deviation, versions, write_csv, write_text
from torch_geometric.nn import GAT, GCN, GIN, GraphSAGE

from graphsparse.datasets import load
from graphsparse.nn import accelerate
from graphsparse.ops import Adjacency, spmm
from graphsparse.plotting import plot_curves
from graphsparse.soups import MERGES, Evaluator, align, interpolation_soup, merge
from graphsparse.training import NodeTask, Training, build_model, fit
from graphsparse.utils.partition import partition_graph

NETS = {
    "GCN": lambda i, o, d: GCN(i, d, 2, o, dropout=0.5),
    "SAGE": lambda i, o, d: GraphSAGE(i, d, 2, o, dropout=0.5),
    "GIN": lambda i, o, d: GIN(i, d, 2, o, dropout=0.5),
    "GAT": lambda i, o, d: GAT(i, d, 2, o, heads=4, dropout=0.5),
}
CONTROLS = ["everything", "fewer labels", "best", "mean of networks", "router", "ensemble", "ridge (labels)"]
METHODS = [
    "mean",
    "aligned mean",
    "aligned repair",
    "regmean",
    "distil",
    "interpolation soup (labels)",
    "gnnmerge",
    "rounds",
    "condense",
    "condense everywhere",
]
KEYS = ("data", "net", "case", "start", "seed", "row")
LARGE = 50_000


def jobs(args):
    """Return the cells of a run as dictionaries."""
    for data in args.data:
        for net in args.net:
            for case in args.case:
                for seed in range(args.seeds):
                    shared = {"data": data, "net": net, "case": case, "start": args.start, "seed": seed}
                    yield from ({**shared, "row": row} for row in [*CONTROLS, *args.row])


def halves(y, generator):
    """Return masks of a half and two quarters of the nodes of every class."""
    masks = torch.zeros(3, len(y), dtype=torch.bool)
    for label in y.unique():
        index = (y == label).nonzero().squeeze(1)
        index = index[torch.randperm(len(index), generator=generator)]
        for mask, part in zip(masks, index.tensor_split([len(index) // 2, 3 * len(index) // 4]), strict=True):
            mask[part] = True
    return masks


def skewed_halves(y, generator):
    """Return masks of two halves of the nodes: the first has 20 % of each odd class, and 80 % of each even one."""
    first = torch.zeros(len(y), dtype=torch.bool)
    for label in y.unique():
        index = (y == label).nonzero().squeeze(1)
        share = 0.2 if label % 2 else 0.8
        first[index[torch.randperm(len(index), generator=generator)[: round(share * len(index))]]] = True
    return first, ~first


class Setting:
    """The networks of a seed, what each was trained on and answers for, and how one of all their size does."""

    def __init__(self, job, setting):
        self.job, seed = job, job["seed"]
        self.data = load(job["data"])
        generator = torch.Generator().manual_seed(seed)
        if self.data.num_nodes < LARGE:
            data = self.data
            data.train_mask, data.val_mask, data.test_mask = halves(data.y, generator)
        self.num_classes = int(self.data.y.max()) + 1
        self.make = NETS[job["net"]]
        self.hidden, self.training = (
            setting["hidden"],
            Training(epochs=setting["epochs"], lr=0.01, weight_decay=5e-4, seed=seed),
        )
        kind, _, num = job["case"].partition("-")
        self.num = int(num) if kind == "parts" else 2
        self.classes, self.graphs, self.owned = None, [self.data] * self.num, None
        if kind == "parts":
            part = partition_graph(self.data.edge_index, self.num, self.data.num_nodes, seed=seed)
            self.owned = [(part == i).nonzero().squeeze(1) for i in range(self.num)]
            self.graphs = [self.data.subgraph(nodes) for nodes in self.owned]
        elif kind == "classes":
            order = torch.randperm(self.num_classes, generator=generator)
            self.classes = [part.sort().values for part in order.tensor_split(self.num)]
            self.graphs = [self._of_classes(part) for part in self.classes]
            self.owned = [graph.train_mask.nonzero().squeeze(1) for graph in self.graphs]
        elif kind == "skewed":
            self.graphs = [self._of_half(half) for half in skewed_halves(self.data.y, generator)]
            self.owned = [graph.train_mask.nonzero().squeeze(1) for graph in self.graphs]
            if num:
                self.data.test_mask = self.graphs[int(num) - 1].test_mask
        self.networks = [self._fit(graph, i) for i, graph in enumerate(self.graphs)]
        self.states = [network.state_dict for network in self.networks]

    def _of_classes(self, classes):
        """Return the graph with the labels of some classes, counted from 0."""
        data = self.data.clone()
        number = torch.full((self.num_classes,), -1)
        number[classes] = torch.arange(len(classes))
        known = number[data.y] >= 0
        data.y = number[data.y].clamp(min=0)
        for name in ("train_mask", "val_mask"):
            data[name] = data[name] & known
        data.num_outputs = len(classes)
        return data

    def _of_half(self, half):
        """Return the graph with the labels of one half of the nodes."""
        data = self.data.clone()
        for name in ("train_mask", "val_mask", "test_mask"):
            data[name] = data[name] & half
        return data

    def model(self, seed=0, outputs=None):
        """Return a model, of the initial weights of a seed."""
        outputs = self.num_classes if outputs is None else outputs
        return build_model(lambda: self.make(self.data.num_features, outputs, self.hidden), seed)

    def _fit(self, data, number):
        """Train one network on what it sees."""
        start = self.job["seed"] * 1000 + (0 if self.job["start"] == "shared" else number + 1)
        model = self.model(start, data.get("num_outputs"))
        training = Training(**{**vars(self.training), "seed": self.job["seed"] * 1000 + number})
        return fit(accelerate(model), NodeTask(data), training)

    def accuracy(self, state):
        """Return the test accuracy of a network of all classes."""
        model = self.model().eval()
        model.load_state_dict(state)
        with torch.no_grad():
            return self.score(model(self.data.x, self.data.edge_index))

    def score(self, logits):
        """Return the test accuracy of logits for all nodes."""
        mask = self.data.test_mask
        return float((logits[mask].argmax(1) == self.data.y[mask]).float().mean())

    def probabilities(self, number):
        """Return what a network says of all nodes of the graph, over all classes."""
        classes = None if self.classes is None else self.classes[number]
        model = self.model(outputs=None if classes is None else len(classes)).eval()
        model.load_state_dict(self.states[number])
        with torch.no_grad():
            own = model(self.data.x, self.data.edge_index).softmax(1)
        if classes is None:
            return own
        return torch.zeros(len(own), self.num_classes).index_copy(1, classes, own)

    def router(self):
        """Return what the network that answers for a node says of it; where that is not known, the most certain one."""
        total = torch.stack([self.probabilities(i) for i in range(self.num)])
        if self.job["case"].startswith("parts"):
            owner = torch.zeros(self.data.num_nodes, dtype=torch.long)
            for i, nodes in enumerate(self.owned):
                owner[nodes] = i
        else:
            owner = total.max(2).values.argmax(0)
        return total[owner, torch.arange(len(owner))]

    def ridge(self):
        """Return logits of a ridge regression on features of two hops, with all training labels."""
        data = self.data
        adj = Adjacency.from_edge_index(data.edge_index, None, data.num_nodes).gcn_norm(True)
        z = data.x
        for _ in range(2):
            z = spmm(adj, z)
        z = torch.cat([z, torch.ones(len(z), 1)], 1).double()
        own, y = z[data.train_mask], torch.nn.functional.one_hot(data.y[data.train_mask], self.num_classes).double()
        gram = own.t() @ own
        return z @ torch.linalg.solve(gram + 1e-3 * gram.diagonal().mean() * torch.eye(len(gram)), own.t() @ y)

    def fewer(self):
        """Return the network of a graph with a share of the training labels."""
        data = self.data.clone()
        index = data.train_mask.nonzero().squeeze(1)
        generator = torch.Generator().manual_seed(self.job["seed"])
        data.train_mask = torch.zeros_like(data.train_mask)
        data.train_mask[index[torch.randperm(len(index), generator=generator)[: max(len(index) // self.num, 1)]]] = True
        return self._fit(data, 501).state_dict

    def merged(self, row):
        """Return the state dict of a method of merging; ``None`` where it does not apply."""
        aligned, method, everywhere = row.startswith("aligned "), *row.removeprefix("aligned ").partition(" ")[::2]
        if self.classes is not None and (not MERGES[method].heads or self.job["net"] == "GAT"):
            return None  # a GAT with fewer outputs differs in its attention, too
        options = {} if self.classes is None else {"classes": [part.tolist() for part in self.classes]}
        data, owned = self.data, self.owned
        if self.job["case"].startswith("parts") and not everywhere:
            data, owned = self.graphs, None
        if everywhere:
            owned = None
        base = self.model(self.job["seed"] * 1000).state_dict() if self.job["start"] == "shared" else None
        if "base" in MERGES[method].needs and base is None:
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            states = align(self.states, self.model(), self.data) if aligned else self.states
            found = merge(
                states,
                self.model(),
                data,
                method,
                responsibility=owned,
                base=base,
                seed=self.job["seed"],
                **options,
            )
        return found.state_dict

    def row(self, row):
        """Return the test accuracy of a row, and the seconds that it took."""
        start = time.process_time()
        best = max(range(self.num), key=lambda i: self.networks[i].val)
        if row == "everything":
            state = self._fit(self.data, 500).state_dict
        elif row == "fewer labels":
            state = self.fewer()
        elif row in ("best", "mean of networks"):
            each = [self.score(self.probabilities(i)) for i in ([best] if row == "best" else range(self.num))]
            return statistics.mean(each), None
        elif row == "router":
            return self.score(self.router()), None
        elif row == "ensemble":
            return self.score(sum(self.probabilities(i) for i in range(self.num))), None
        elif row == "ridge (labels)":
            logits = self.ridge()
            return self.score(logits), time.process_time() - start
        elif row == "interpolation soup (labels)":
            if self.classes is not None:
                return None, None
            state = interpolation_soup(
                self.states, Evaluator(self.model(), self.data), seed=self.job["seed"]
            ).state_dict
        else:
            state = self.merged(row)
        seconds = time.process_time() - start
        return (None if state is None else self.accuracy(state)), seconds


def run_group(group, setting):
    """Train the networks of a seed once, and merge them in all ways."""
    torch.set_num_threads(1)
    shared = Setting(group[0], setting)
    rows = []
    for job in group:
        try:
            test, seconds = shared.row(job["row"])
        except ValueError as error:
            if "is not linear in its weights" not in str(error):
                raise
            test, seconds = None, None
        rows.append({**job, "test": test, "seconds": None if seconds is None else round(seconds, 2)})
    return rows


def summarise(rows):
    """Return mean and deviation over seeds for every cell, and the paired difference to the best network."""
    cells = {}
    for row in rows:
        if row["test"] is not None:
            cells.setdefault(tuple(row[key] for key in KEYS if key != "seed"), {})[row["seed"]] = row
    out = []
    for key, seeds in cells.items():
        data, net, case, start, row = key
        test = [100 * found["test"] for found in seeds.values()]
        gaps = {}
        for other in ("best", "everything"):
            found = cells.get((data, net, case, start, other), {})
            gaps[other] = [100 * (seeds[seed]["test"] - found[seed]["test"]) for seed in seeds if seed in found]
        seconds = [found["seconds"] for found in seeds.values() if found["seconds"] is not None]
        line = {"data": data, "net": net, "case": case, "start": start, "row": row, "seeds": len(test)}
        line |= {"test mean": round(statistics.mean(test), 2), "test std": deviation(test)}
        for other, gap in gaps.items():
            shown = row != other and gap
            line |= {f"minus {other}": round(statistics.mean(gap), 2) if shown else ""}
            line |= {f"std of minus {other}": deviation(gap) if shown else ""}
        line["CPU seconds"] = round(statistics.mean(seconds), 2) if seconds else ""
        out.append(line)
    return out


def markdown(lines, net, case, start):
    """Format a table of one network and case: a row for each method, a column for each data set."""
    lines = [line for line in lines if (line["net"], line["case"], line["start"]) == (net, case, start)]
    names = list(dict.fromkeys(line["data"] for line in lines))
    found = {(line["row"], line["data"]): line for line in lines}
    seeds = sorted({line["seeds"] for line in lines})
    text = [
        f"**{net}, {case}, {start} start** ({' to '.join(map(str, seeds))} seeds; test accuracy in %, in brackets "
        "the paired difference to one network on everything; CPU seconds)",
        "",
        "| | " + " | ".join(names) + " |",
        "|" + "---|" * (len(names) + 1),
    ]
    for row in dict.fromkeys(line["row"] for line in lines):
        cells = []
        for name in names:
            line = found.get((row, name))
            if line is None:
                cells.append("")
                continue
            gap = line["minus everything"]
            shown = "" if gap == "" else f" ({gap:+.1f} ± {line['std of minus everything']:.1f})"
            seconds = "" if line["CPU seconds"] == "" else f", {line['CPU seconds']:.1f} s"
            cells.append(f"{line['test mean']:.1f} ± {line['test std']:.1f}{shown}{seconds}")
        text.append(f"| {row} | " + " | ".join(cells) + " |")
    return "\n".join(text)


def plot(path, lines):
    """Draw accuracy against the number of parts, a panel for each network and data set that has several numbers."""
    shown = ["best", "mean", "gnnmerge", "condense", "router", "ridge (labels)"]
    panels, levels = {}, {}
    for line in lines:
        kind, _, num = line["case"].partition("-")
        if kind != "parts":
            continue
        panel = f"{line['data']}, {line['net']}"
        if line["row"] in shown:
            point = (int(num), line["test mean"], line["test std"])
            panels.setdefault(panel, {}).setdefault(line["row"], []).append(point)
        elif line["row"] == "everything":
            levels.setdefault(panel, {})["one network on everything"] = (line["test mean"], line["test std"])
    panels = {name: lines for name, lines in panels.items() if any(len(points) > 1 for points in lines.values())}
    if panels:
        plot_curves(path, panels, x_label="parts", y_label="test accuracy (%)", levels=levels)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=["cora"])
    parser.add_argument("--net", nargs="+", choices=list(NETS), default=["GCN"])
    parser.add_argument("--case", nargs="+", default=["parts-8"], help="parts-K, classes, skewed or same")
    parser.add_argument("--start", choices=["own", "shared"], default="own")
    parser.add_argument("--row", nargs="+", default=METHODS, help="names of MERGES, or one followed by 'everywhere'")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--workers", type=int, default=0, help="processes beside this one; 0 is none")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "merging.jsonl")
    parser.add_argument("--report", action="store_true", help="write the tables of all cells that are there, and stop")
    args = parser.parse_args(argv)
    setting = {"epochs": args.epochs, "hidden": args.hidden}
    work = list(jobs(args))
    if args.report:
        rows = whole(
            work, args.out, setting=setting, keys=KEYS, cell=lambda job: tuple(job[k] for k in (*KEYS[:4], "row"))
        )
    else:
        rows = compute(
            work,
            run_group,
            args.out,
            setting=setting,
            keys=KEYS,
            group_by=lambda job: tuple(job[key] for key in KEYS[:5]),
            workers=args.workers,
            group_size=100,
        )
    lines = summarise(rows)
    write_csv(args.out.with_suffix(".csv"), lines)
    kinds = dict.fromkeys((line["net"], line["case"], line["start"]) for line in lines)
    tables = "\n\n".join(markdown(lines, *kind) for kind in kinds)
    write_text(args.out.with_suffix(".md"), f"{tables}\n\n{args.epochs} epochs, width {args.hidden}; {versions()}.")
    plot(args.out.with_suffix(".png"), lines)
    print(tables)
    return lines


if __name__ == "__main__":
    main(sys.argv[1:])
