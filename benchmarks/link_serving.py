"""Time and peak memory of splits, hard non-links and recommendations at 3 million nodes, and a published figure.

python benchmarks/link_serving.py                 # 3,000,000 nodes, 20,000,000 links; ogbl-ddi where it is
python benchmarks/link_serving.py --scale 0.01    # everything a hundredth

split       `split_links` of one graph with 1000 links held out, and `assert_no_leak`.
heart       The same with hard non-links, 100 for each link.
recommend   `LinkPredictor.recommend` for some nodes, the 100 best partners that are no links yet. `dense GB` is what
            the scores of all pairs of these nodes would take, `all pairs` the time of one node whose pairs with all
            others are scored by `score`, which is what one would do otherwise (PageRank and xmc would need a walk from
            each of them).
ddi         Hits@20 of common neighbours on the official split of ogbl-ddi: 17.73 % by Hu et al., 2020.

Links are synthetic, seeded and heavy-tailed. Every line comes from a process of its own with one thread; memory is the
peak of the process above what it held before.
"""

import argparse
import json
from pathlib import Path

import torch
from gitl_scale import make_pairs, table, timed
from ogb.linkproppred import Evaluator
from own_process import peak_gb, reset_peak, run_apart
from tables import command, versions, write_csv, write_text
from torch_geometric.data import Data

from graphsparse.datasets import load_ogb
from graphsparse.transfer import BASELINES, SharedNodePair, assert_no_leak, given_split, split_links

NUM_NODES, NUM_LINKS, HELD, K = 3_000_000, 20_000_000, 1000, 100
#: Predictor -> nodes that it recommends partners for.
SERVED = {"cosine": 1024, "resource_allocation": 1024, "xmc": 64, "pagerank": 16}
CHANNELS = 64


def make_graph(num_nodes, num_links, *, features=False):
    """Return one graph as what takes a pair takes it."""
    data = Data(edge_index=make_pairs(num_links, num_nodes), num_nodes=num_nodes)
    if features:
        data.x = torch.randn(num_nodes, CHANNELS, generator=torch.Generator().manual_seed(0))
    return SharedNodePair([], data)


def split_of(pair, **options):
    """Return a split with as many links held out, the same ones every time."""
    links = pair.target_links()
    pick = torch.randperm(links.size(1), generator=torch.Generator().manual_seed(0))[: min(HELD, links.size(1) // 4)]
    return split_links(pair, (0, 0.5, 0.5), hold_out=links[:, pick], between="any", **options)


def split(num_nodes, num_links, negatives, num_neg):
    pair = make_graph(num_nodes, num_links)
    held = reset_peak(give_back=True)
    found, seconds = timed(lambda: split_of(pair, negatives=negatives, num_neg=num_neg))
    row = {"nodes": num_nodes, "links": num_links, "non-links": negatives, "split s": seconds}
    row |= {"split GB": peak_gb() - held, "input GB": held}
    row["check s"] = timed(lambda: assert_no_leak(found, pair))[1]
    if negatives == "heart":
        scorer = BASELINES["resource_allocation"](pair, found)
        row["mrr of resource allocation"] = found.report(scorer)["mrr"]
    return row


def recommend(num_nodes, num_links, name, num_served):
    pair = make_graph(num_nodes, num_links, features=name == "cosine")
    scorer = BASELINES[name](pair, split_of(pair))
    nodes = torch.randperm(num_nodes, generator=torch.Generator().manual_seed(1))[:num_served]
    scorer.recommend(nodes[:1], K)  # what is built at the first call
    held = reset_peak(give_back=True)
    (partners, scores), seconds = timed(lambda: scorer.recommend(nodes, K))
    row = {"predictor": name, "nodes": num_nodes, "links": num_links, "served": num_served, "s": seconds}
    row |= {"ms per node": seconds / num_served * 1e3, "GB": peak_gb() - held, "held GB": held}
    row |= {"dense GB": 4e-9 * num_nodes * num_served, "partners found": float((partners >= 0).double().mean())}
    if name in ("cosine", "resource_allocation"):
        others = torch.arange(num_nodes)
        others = others[others != nodes[0]]
        pairs = torch.stack([nodes[0].expand_as(others), others])
        every, seconds = timed(lambda: scorer.score(pairs))
        row["all pairs ms per node"] = seconds * 1e3
        if not scores[0, 0] <= every.max():
            raise RuntimeError("a partner has a score above all of the node's")
    return row


def ddi():
    data, _ = load_ogb("ogbl-ddi", download=False)
    pair = SharedNodePair([], data)
    official = given_split(pair, data.split_edge)
    scorer = BASELINES["common_neighbors"](pair, official)
    links, rest = scorer.score(official.test), scorer.score(official.test_neg)
    theirs = Evaluator("ogbl-ddi").eval({"y_pred_pos": links, "y_pred_neg": rest})["hits@20"]
    return {"predictor": "common neighbours", "hits@20": official.report(scorer, ks=[20])["hits@20"], "OGB's": theirs}


STEPS = {"split": split, "heart": split, "recommend": recommend, "ddi": ddi}


def plan(scale):
    """Yield the step and the arguments of each process."""
    size = max(int(NUM_NODES * scale), 100), max(int(NUM_LINKS * scale), 1000)
    yield "split", (*size, "uniform", 5)
    yield "heart", (*size, "heart", min(100, size[0] // 4))
    for name, served in SERVED.items():
        yield "recommend", (*size, name, min(served, size[0]))
    yield "ddi", ()


def main(argv=None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full size of everything")
    parser.add_argument("--step", nargs="+", choices=list(STEPS), default=list(STEPS))
    parser.add_argument("--out", type=Path, help="folder of a CSV file and a Markdown file")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.one:
        torch.set_num_threads(1)
        step, numbers = json.loads(args.one)
        print(json.dumps(STEPS[step](*numbers)))
        return {}
    results = {}
    for step, numbers in plan(args.scale):
        if step in args.step:
            results.setdefault(step, []).append(run_apart(__file__, ["--one", json.dumps([step, numbers])]))
    lines = []
    for step, rows in results.items():
        lines += [f"**{step}**", "", *table(rows), ""]
    lines.append(f"`{command(parser, args, 'link_serving')}`; {versions()}, 1 thread")
    print("\n".join(lines))
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        write_csv(
            args.out / "link_serving.csv", [{"step": step} | row for step, rows in results.items() for row in rows]
        )
        write_text(args.out / "link_serving.md", "\n".join(lines))
    return {
        f"{step} {i}, {name}": value
        for step, rows in results.items()
        for i, row in enumerate(rows)
        for name, value in row.items()
    }


if __name__ == "__main__":
    main()
