"""Exact k-th smallest of many scores: what the package selects with, beside the ways that torch offers.

python benchmarks/threshold.py                       # 368,640, 6,666,240 and 20,000,000 scores
python benchmarks/threshold.py --size 20000000 --sparsity 0.9

float32 scores from a normal distribution, seeded; one thread; the fastest of several runs; every way must return the
same value. `torch.kthvalue` and the others are called on the flat scores as they lie in memory, which favours them: a
search that holds one tensor per layer would join them first. "mask" is the selection and the comparison with it, all
that a step of a search does; "mask again" is the same where the scores have not changed.
"""

import argparse
import time

import torch

from graphsparse.nn.thresholds import ThresholdPlan, Thresholds
from graphsparse.ops.select import kth_smallest, num_removed

SIZES = (368_640, 6_666_240, 20_000_000)


def ways(scores, k, plan):
    """Return every way by its name; each gives the k-th smallest score, or the mask that follows from it."""
    scratch, known, fresh = torch.empty_like(scores), Thresholds(plan), Thresholds(plan)
    known.counts(scores)

    def select():
        return kth_smallest(scratch.copy_(scores), k, overwrite=True)

    def mask():
        fresh._found = None  # as if the scores had changed
        return fresh.counts(scores)

    return {
        "ours": select,
        "torch.kthvalue": lambda: scores.kthvalue(k).values,
        "torch.sort": lambda: scores.sort().values[k - 1],
        "torch.topk": lambda: scores.topk(scores.numel() - k + 1, sorted=False).values.min(),
        "mask": mask,
        "mask again": lambda: known.counts(scores),
    }


def measure(function, runs, budget):
    """Return the shortest time in ms, of at most so many runs and, after the first, so many seconds."""
    best, spent = float("inf"), 0.0
    for _ in range(runs):
        start = time.perf_counter()
        result = function()
        seconds = time.perf_counter() - start
        best, spent = min(best, seconds), spent + seconds
        if spent > budget:
            break
    return best * 1e3, result


def main(argv=None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs="+", default=SIZES, help="number of scores")
    parser.add_argument("--sparsity", type=float, default=0.9, help="fraction below the wanted one")
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--budget", type=float, default=5.0, help="seconds for one way, at least one run")
    args = parser.parse_args(argv)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    figures = {}
    try:
        for size in args.size:
            scores = torch.randn(size, generator=torch.Generator().manual_seed(0))
            k = num_removed(args.sparsity, size)
            plan = ThresholdPlan(sizes=(size,), widths=(size,), sparsities=(args.sparsity,))
            found = {name: measure(way, args.runs, args.budget) for name, way in ways(scores, k, plan).items()}
            values = {name: float(result) for name, (_, result) in found.items() if not name.startswith("mask")}
            if len(set(values.values())) > 1:
                raise RuntimeError(f"the ways disagree about the {k}-th of {size} scores: {values}")
            if not figures:
                print("| scores | " + " | ".join(f"{name} ms" for name in found) + " | kthvalue / ours |")
                print("|---|" + "---|" * (len(found) + 1))
            times = {name: ms for name, (ms, _) in found.items()}
            ratio = times["torch.kthvalue"] / times["ours"]
            print(f"| {size:,} | " + " | ".join(f"{ms:.2f}" for ms in times.values()) + f" | {ratio:.1f} |", flush=True)
            figures |= {f"{name} at {size}, ms": ms for name, ms in times.items()}
            figures[f"kthvalue / ours at {size}"] = ratio
    finally:
        torch.set_num_threads(threads)
    print(f"\ntorch {torch.__version__}, 1 thread, sparsity {args.sparsity}, fastest of up to {args.runs} runs")
    return figures


if __name__ == "__main__":
    main()
