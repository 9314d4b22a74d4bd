"""Cost of an interpolation soup: PyG's loop, the same with our layers, cached evaluation; memory of a learned soup.

python benchmarks/soup_cost.py                                  # 20 ingredients, 20 ratios, width 256: hours
python benchmarks/soup_cost.py --hidden 128                     # 70 minutes, most of them the plain loop's
python benchmarks/soup_cost.py --hidden 128 --ingredients 5     # 15 minutes

The graph is the real ogbn-arxiv graph with structural features. The plain loop is what one writes down first: for every
ratio a `load_state_dict` and a forward pass of the whole PyG model along `edge_index`. The cheap alternative is the
same loop with `accelerate(model)`. All follow the same rule (from the best ingredient on; a ratio is taken if more
validation nodes are right; ties keep the soup), so they must take the same decisions, which is checked. Each runs in a
process of its own, once as glibc is by default, which returns freed blocks above 32 MB to the system and pays for them
page by page again, and once with all freed memory kept, which spares the plain loop half of its time or more. The
memory is the peak above what the process held before. Ingredients are trained apart for a few epochs from common
weights and are kept in the folder of the results.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import torch
from own_process import peak_gb, reset_peak, run_apart, warm_up
from tables import write_csv, write_text
from torch_geometric.nn import GCN, GraphSAGE

from graphsparse.datasets import load
from graphsparse.nn import accelerate
from graphsparse.soups import Evaluator, interpolation_soup, learned_soup
from graphsparse.training import build_model, fit
from graphsparse.utils.files import atomic_write

NETS = {"SAGE": GraphSAGE, "GCN": GCN}
PATHS = ("plain PyG", "accelerated", "graphsparse")


class Files:
    """Ingredients in files, read when they are asked for."""

    def __init__(self, paths):
        self.paths = paths

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        return torch.load(self.paths[index], weights_only=True, mmap=True)


def make_net(net, data, hidden):
    return NETS[net](data.num_features, hidden, 2, data.num_classes, dropout=0.5)


def train(net, data, num, hidden, folder):
    """Train ingredients that are not there yet: 20 epochs together, then a few apart."""
    paths = [folder / f"soup_cost_{data.name}_{net}_{hidden}_{i}.pt" for i in range(num)]
    if all(path.exists() for path in paths):
        return
    model = accelerate(build_model(lambda: make_net(net, data, hidden), 0))
    start = fit(model, data, epochs=20, eval_every=20).state_dict
    for seed, path in enumerate(paths):
        model.load_state_dict(start)
        state = fit(model, data, epochs=5, seed=seed, eval_every=5).state_dict
        with atomic_write(path) as temporary:
            torch.save(state, temporary)


def plain_loop(model, data, states, granularity):
    """Build an interpolation soup the plain way, and return its ratios and the number of nodes that are right."""

    def score(state):
        model.load_state_dict(state)
        with torch.no_grad():
            logits = model(data.x, data.edge_index)
        return int((logits[data.val_mask].argmax(1) == data.y[data.val_mask]).sum())

    scores = [score(states[i]) for i in range(len(states))]
    order = sorted(range(len(states)), key=lambda i: -scores[i])
    soup, best = dict(states[order[0]]), scores[order[0]]
    taken = []
    for i in order[1:]:
        other, found = states[i], 1.0
        for k in range(granularity - 2, -1, -1):
            ratio = k / (granularity - 1)
            right = score({name: ratio * soup[name] + (1 - ratio) * other[name] for name in soup})
            if right > best:
                found, best = ratio, right
        if found < 1:
            soup = {name: found * soup[name] + (1 - found) * other[name] for name in soup}
        taken.append((i, found))
    return taken, best


def measure(args):
    """Run one path and return its figures."""
    what, net, num = args.one[0], args.one[1], int(args.one[2])
    torch.set_num_threads(args.threads)
    data = load(args.data)
    model = make_net(net, data, args.hidden).eval()
    if what == "train":
        train(net, data, num, args.hidden, args.out)
        return {}
    states = Files([args.out / f"soup_cost_{data.name}_{net}_{args.hidden}_{i}.pt" for i in range(num)])
    if what == "learned":  # states of any value do, and files of a few must stand for many
        states.paths = [states.paths[i % args.ingredients] for i in range(num)]
    warm_up()
    before, begin = reset_peak(), time.perf_counter()
    if what in PATHS[:2]:
        looped = model if what == "plain PyG" else accelerate(model)
        decisions, right = plain_loop(looped, data, states, args.granularity)
    else:
        evaluator = Evaluator(model, data, mode=args.mode)
        if what == "learned":
            soup = learned_soup(states, evaluator, epochs=2, split_validation=False)
            decisions = []
        else:
            soup = interpolation_soup(states, evaluator, granularity=args.granularity, split_validation=False)
            decisions = [(step["ingredient"], step["ratio"] if step["accepted"] else 1.0) for step in soup.trace]
        right = round(soup.val * evaluator.num_nodes)
    seconds = time.perf_counter() - begin
    return {"seconds": seconds, "memory": peak_gb() - before, "decisions": decisions, "right": right}


def main(argv=None):
    """Measure, print and write tables, and return the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="ogbn-arxiv-structure")
    parser.add_argument("--net", nargs="+", default=list(NETS), choices=list(NETS))
    parser.add_argument("--ingredients", type=int, default=20)
    parser.add_argument("--granularity", type=int, default=20)
    parser.add_argument("--learned", nargs="*", type=int, default=[5, 20, 50], help="numbers of ingredients")
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--freed", nargs="+", default=["returned", "kept"], choices=["returned", "kept"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--mode", default="auto", help="of the evaluator")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/out"))
    parser.add_argument("--one", nargs=3, metavar=("PATH", "NET", "NUMBER"), help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.one:
        print(json.dumps(measure(args)))
        return []

    args.out.mkdir(parents=True, exist_ok=True)
    common = ["--data", args.data, "--hidden", str(args.hidden), "--threads", str(args.threads), "--out", str(args.out)]
    common += ["--granularity", str(args.granularity), "--ingredients", str(args.ingredients), "--mode", args.mode]

    def run(what, net, num, freed="kept"):
        return run_apart(__file__, ["--one", what, net, str(num), *common], keep_memory=freed == "kept")

    print(f"{args.data}, 2 layers of width {args.hidden}, {args.threads} threads, torch {torch.__version__}\n")
    rows = []
    text = ["| network | freed memory | path | seconds | times faster | peak GB | decisions |", "|---" * 7 + "|"]
    print("\n".join(text), flush=True)
    for net in args.net:
        run("train", net, args.ingredients)
        for freed in args.freed:
            found = {path: run(path, net, args.ingredients, freed) for path in PATHS}
            plain = found["plain PyG"]
            for path, row in found.items():
                same = (row["decisions"], row["right"]) == (plain["decisions"], plain["right"])
                steps = sum(ratio < 1 for _, ratio in row["decisions"])
                rows.append(
                    {"net": net, "freed": freed, "path": path, "seconds": row["seconds"], "memory": row["memory"]}
                    | {"speed": plain["seconds"] / row["seconds"], "same": same, "accepted": steps}
                    | {"right": row["right"]}
                )
                told = "the same" if same else "OTHERS"
                if row is plain:
                    told = f"{steps} of {len(row['decisions'])} accepted"
                cells = (f"{row['seconds']:.1f}", f"{rows[-1]['speed']:.1f}", f"{row['memory']:.2f}", told)
                text.append(f"| {net} | {freed} | {path} | " + " | ".join(cells) + " |")
                print(text[-1], flush=True)
    if args.learned:
        lines = ["", "| network | learned soup of | peak GB |", "|---|---|---|"]
        print("\n".join(lines), flush=True)
        text += lines
        for net in args.net:
            for num in args.learned:
                row = run("learned", net, num)
                rows.append({"net": net, "freed": "kept", "path": f"learned, {num}"})
                rows[-1] |= {"seconds": row["seconds"], "memory": row["memory"]}
                text.append(f"| {net} | {num} ingredients | {row['memory']:.2f} |")
                print(text[-1], flush=True)
    write_text(args.out / "soup_cost.md", "\n".join(text))
    write_csv(args.out / "soup_cost.csv", rows)
    if not all(row.get("same", True) for row in rows):
        raise RuntimeError(f"the paths took other decisions, see {args.out / 'soup_cost.md'}")
    return rows


if __name__ == "__main__":
    sys.exit(0 if main() or "--one" in sys.argv else 1)
