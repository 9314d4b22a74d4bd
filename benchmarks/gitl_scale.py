"""Time and peak memory of propagation over pairs, scoring, metrics and key matching at the size of the OGB link graphs.

python benchmarks/gitl_scale.py                  # 3,000,000 nodes, 12,500,000 to 100,000,000 anchors, 10^8 queries
python benchmarks/gitl_scale.py --scale 0.015625 # everything a 64th

propagation   `EdgeLabelPropagation.fit`: sorting and checking of the anchors, 5 rounds; then `correct` for the queries.
              The line graph that is never built has the given number of entries. Anchors that are asked for themselves
              need one more propagation per group of anchors, once: that is `groups s`.
explicit      The same on few anchors, beside the line graph as a SciPy matrix, which is what one would do otherwise;
              both must find the same.
metrics       `link_report` of as many scores as there are queries, one fifth of them links, with bins.
keys          The keys of two graphs joined, a third of them shared: as integers, as strings, and by a dictionary filled
              in a loop.

Pairs are synthetic, seeded, heavy-tailed and in random order. Every line comes from a process of its own with one
thread, unless told otherwise; memory is the peak of the whole process, input included.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from own_process import peak_gb, reset_peak, run_apart
from tables import command, versions, write_csv, write_text

from graphsparse.metrics import link_report
from graphsparse.transfer.data.keys import join_keys
from graphsparse.transfer.propagation.edge_propagation import EdgeLabelPropagation

NUM_NODES, NUM_PAIRS, NUM_KEYS, NUM_EXPLICIT = 3_000_000, 100_000_000, 3_000_000, 200_000
SHARES = (0.125, 0.25, 0.5, 1.0)
ROUNDS = 5


def make_pairs(num, num_nodes, seed=0):
    """Return distinct pairs in random order, ``[2, num]``; node 0 is in the most of them."""
    rng = np.random.default_rng(seed)
    keys = np.empty(0, dtype=np.int64)
    while len(keys) < num:
        drawn = np.empty(int(1.1 * (num - len(keys))) + 100, dtype=np.int64)
        for start in range(0, len(drawn), 1 << 22):
            block = drawn[start : start + (1 << 22)]
            u, v = (rng.random((2, len(block))) ** 2 * num_nodes).astype(np.int64)
            np.multiply(np.minimum(u, v), num_nodes, out=block)
            block += np.maximum(u, v)
        low = drawn // num_nodes
        keys = np.unique(np.concatenate([keys, drawn[low != drawn - low * num_nodes]]))
    rng.shuffle(keys)
    pairs = torch.empty(2, num, dtype=torch.int64)
    np.floor_divide(keys[:num], num_nodes, out=pairs[0].numpy())
    np.remainder(keys[:num], num_nodes, out=pairs[1].numpy())
    return pairs


def make_queries(num, num_nodes, seed=1):
    """Return pairs of which most are no anchors, ``[2, num]``."""
    generator = torch.Generator().manual_seed(seed)
    queries = torch.randint(num_nodes, (2, num), generator=generator)
    queries[1] += (queries[0] == queries[1]).long() * (1 - num_nodes * (queries[1] == num_nodes - 1))
    return queries


def make_signals(num, seed=2):
    """Return labels and scores."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(num, generator=generator) < 0.5).float(), torch.rand(num, generator=generator)


def timed(function):
    """Return a result and the seconds it took."""
    start = time.perf_counter()
    result = function()
    return result, time.perf_counter() - start


def propagation(num, num_nodes, num_queries, mode):
    anchors, (y, p) = make_pairs(num, num_nodes), make_signals(num)
    degree = torch.bincount(anchors.flatten(), minlength=num_nodes)
    entries = int((degree**2).sum()) - num
    del degree
    few = slice(0, min(1000, num))
    EdgeLabelPropagation(1, mode=mode).fit(anchors[:, few], y[few], p[few], num_nodes)  # what torch starts on the way
    held = reset_peak(give_back=True)
    elp, fit = timed(lambda: EdgeLabelPropagation(ROUNDS, mode=mode, lam=0.3).fit(anchors, y, p, num_nodes))
    row = {"anchors": num, "nodes": num_nodes, "fit s": fit, "ns per anchor": fit / num * 1e9}
    row |= {"input GB": held, "fit GB": peak_gb(), "line graph entries": entries}
    if num_queries:
        queries, (_, scores) = make_queries(num_queries, num_nodes), make_signals(num_queries, 3)
        reset_peak(give_back=True)
        _, row["groups s"] = timed(lambda: elp.correct(anchors[:, few], p[few]))
        changed, seconds = timed(lambda: elp.correct(queries, scores))
        row |= {"queries": num_queries, "scoring s": seconds, "ns per query": seconds / num_queries * 1e9}
        row |= {"scoring GB": peak_gb(), "moved": float((changed != scores).double().mean())}
    return row


def explicit(num, num_nodes):
    """Compare with the line graph as a matrix, on few anchors."""
    from scipy.sparse import csr_array, eye_array

    anchors, (y, p) = make_pairs(num, num_nodes), make_signals(num)
    queries, (_, scores) = make_queries(num, num_nodes), make_signals(num, 3)
    reset_peak(give_back=True)

    def ours():
        return EdgeLabelPropagation(ROUNDS, lam=0.3, anchor_folds=0).fit(anchors, y, p, num_nodes)

    elp, seconds = timed(ours)
    gb = peak_gb()
    corrected = elp.correct(queries, scores)
    reset_peak(give_back=True)

    def theirs():
        ends = np.concatenate([anchors[0].numpy(), anchors[1].numpy()])
        shape = (num, num_nodes)
        incidence = csr_array((np.ones(2 * num), (np.tile(np.arange(num), 2), ends)), shape=shape)
        line = csr_array(incidence @ incidence.T - eye_array(num, format="csr"))
        degree = line.sum(1)
        residual = values = (y - p).double().numpy()
        for _ in range(ROUNDS):
            values = 0.9 * (line @ values) / degree + 0.1 * residual
        return incidence.T @ values, incidence.sum(0), line.nnz

    (sums, count, entries), other = timed(theirs)
    other_gb = peak_gb()
    u, v = queries.numpy()
    number = count[u] + count[v]
    found = np.divide(sums[u] + sums[v], number, out=np.zeros(num), where=number > 0)
    free = elp._table.find(queries).numpy() < 0  # anchors among the queries leave themselves out
    expected = np.clip(scores.numpy() + 0.3 * found, 1e-6, 1 - 1e-6)
    error = float(np.abs(corrected.numpy() - expected)[free].max())
    if not error < 1e-6:
        raise RuntimeError(f"propagation differs by {error} from the line graph as a matrix")
    row = {"anchors": num, "nodes": num_nodes, "fit s": seconds, "fit GB": gb, "SciPy s": other, "SciPy GB": other_gb}
    return row | {"line graph entries": entries, "error": error}


def metrics(num, num_nodes):
    num_pos = max(num // 5, 1)
    generator = torch.Generator().manual_seed(0)
    pos, neg = torch.randn(num_pos, generator=generator) + 1, torch.randn(num - num_pos, generator=generator)
    pairs = make_queries(num, num_nodes)
    degree = torch.randint(4, (num_nodes,), generator=generator)
    ends = pairs[:, :num_pos], pairs[:, num_pos:]
    held = reset_peak(give_back=True)
    report, seconds = timed(lambda: link_report(pos, neg, *ends, degree))
    row = {"scores": num, "s": seconds, "ns per score": seconds / num * 1e9, "input GB": held, "GB": peak_gb()}
    return row | {"auroc": report["auroc"]}


def keys(num, num_nodes):
    rng = np.random.default_rng(0)
    every = rng.permutation(5 * num // 3).astype(np.int64) * 7919
    shared = num // 3
    target = torch.from_numpy(rng.permutation(every[:num]))
    source = torch.from_numpy(rng.permutation(every[num - shared : 2 * num - shared]))
    reset_peak(give_back=True)
    ((ids,), total), seconds = timed(lambda: join_keys(target, [source]))
    row = {"target keys": num, "source keys": num, "shared": 2 * num - total, "integers s": seconds, "GB": peak_gb()}
    names = [[f"item {key}" for key in keys.tolist()] for keys in (target, source)]
    ((same,), _), row["strings s"] = timed(lambda: join_keys(names[0], [names[1]]))

    def loop():
        number = {}
        for key in target.tolist():
            number[key] = len(number)
        found = []
        for key in source.tolist():
            if key not in number:
                number[key] = len(number)
            found.append(number[key])
        return torch.tensor(found)

    found, row["loop s"] = timed(loop)
    if not (torch.equal(ids, found) and torch.equal(same, found)):
        raise RuntimeError("the ways to match keys disagree")
    return row


STEPS = {"propagation": propagation, "explicit": explicit, "metrics": metrics, "keys": keys}


def table(rows):
    """Return the lines of a Markdown table."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = ["| " + " | ".join(names) + " |", "|---" * len(names) + "|"]
    for row in rows:
        cells = [row.get(name, "") for name in names]
        lines.append("| " + " | ".join(f"{c:,}" if isinstance(c, int) else _short(c) for c in cells) + " |")
    return lines


def _short(cell):
    return f"{cell:.3g}" if isinstance(cell, float) else str(cell)


def plan(args):
    """Yield the step, the title and the arguments of each process."""
    num_nodes = max(int(NUM_NODES * args.scale), 10)
    size = int(NUM_PAIRS * args.scale)
    for share in args.share:
        queries = size if share == max(args.share) else 0
        yield "propagation", (int(size * share), num_nodes, queries, args.mode)
    yield "explicit", (int(min(NUM_EXPLICIT, size)), max(min(NUM_EXPLICIT, size) // 4, 10))
    yield "metrics", (size, num_nodes)
    yield "keys", (int(NUM_KEYS * args.scale), num_nodes)


def main(argv=None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full size of everything")
    parser.add_argument("--share", type=float, nargs="+", default=list(SHARES), help="shares of the anchors")
    parser.add_argument("--step", nargs="+", choices=list(STEPS), default=list(STEPS))
    parser.add_argument("--mode", choices=["residual", "outcome"], default="residual")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="folder of a CSV file and a Markdown file")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.one:
        torch.set_num_threads(args.threads)
        step, numbers = json.loads(args.one)
        print(json.dumps(STEPS[step](*numbers)))
        return {}
    results = {}
    for step, numbers in plan(args):
        if step in args.step:
            one = ["--one", json.dumps([step, numbers]), "--threads", str(args.threads)]
            results.setdefault(step, []).append(run_apart(__file__, one))
    lines = []
    for step, rows in results.items():
        lines += [f"**{step}**", "", *table(rows), ""]
    lines.append(f"`{command(parser, args, 'gitl_scale')}`; {versions()}, {args.threads} thread(s)")
    print("\n".join(lines))
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        write_csv(args.out / "gitl_scale.csv", [{"step": step} | row for step, rows in results.items() for row in rows])
        write_text(args.out / "gitl_scale.md", "\n".join(lines))
    figures = {}
    for step, rows in results.items():
        for i, row in enumerate(rows):
            figures |= {f"{step} {i}, {name}": value for name, value in row.items()}
    return figures


if __name__ == "__main__":
    main()
