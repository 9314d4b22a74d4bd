"""Dropout on CPU: torch's own beside `graphsparse.ops.dropout`, in milliseconds, forward and backward.

python benchmarks/dropout.py                                  # 1 thread
python benchmarks/dropout.py --shape 169343 256 --p 0.5 0.1

The share of zeros and the mean of what is left of ones are checked before anything is timed.
"""

import argparse

import torch
import torch.nn.functional as F
from dense import seconds

from graphsparse.ops import dropout

SHAPES = [(2708, 64), (3327, 64), (19717, 64), (169343, 256)]


def measure(shape, p, runs):
    """Return milliseconds of torch and of ours, after a comparison of what is dropped."""
    torch.manual_seed(0)
    ones = torch.ones(shape)
    for function in (F.dropout, dropout):
        out = function(ones, p)
        deviations = abs(float((out == 0).double().mean()) - p) / (p * (1 - p) / out.numel()) ** 0.5
        if deviations > 5 or abs(float(out.max()) * (1 - p) - 1) > 1e-4:
            raise RuntimeError(f"{function.__module__}.{function.__name__} does not drop a share of {p}")
    x, gradient = torch.randn(shape).requires_grad_(), torch.randn(shape)

    def step(function):
        return lambda: torch.autograd.grad(function(x, p), x, gradient)

    return [1e3 * taken for taken in seconds([step(F.dropout), step(dropout)], runs)]


def main(argv=None):
    """Measure, print a table, and return the milliseconds by shape, rate and library."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, nargs=2, action="append", help="rows and columns; may be repeated")
    parser.add_argument("--p", type=float, nargs="+", default=[0.5, 0.1])
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(argv)
    before = torch.get_num_threads()
    torch.set_num_threads(args.threads)
    figures = {}
    try:
        print(f"{args.threads} threads, torch {torch.__version__}; ms for forward and backward\n")
        print("| entries | p | torch | ops.dropout | times faster |\n|---|---|---|---|---|")
        for shape in [tuple(shape) for shape in args.shape or SHAPES]:
            for p in args.p:
                figures[shape, p] = theirs, ours = measure(shape, p, args.runs)
                size = " x ".join(f"{number:,}" for number in shape)
                print(f"| {size} | {p:g} | {theirs:.2f} | {ours:.2f} | {theirs / ours:.1f} |", flush=True)
    finally:
        torch.set_num_threads(before)
    return figures


if __name__ == "__main__":
    main()
