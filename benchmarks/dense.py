"""Dense products of a linear layer on CPU: torch's own beside those of `graphsparse.ops.linear`, in GFLOP/s.

python benchmarks/dense.py                      # 1 thread
python benchmarks/dense.py --threads 2 --shape 169343 256 256

A shape is rows, inputs and outputs. `forward` is the product with the weight, `input` and `weight` the gradients of
both. Which library `ops.linear` uses on this processor is printed on top; where it is MKL, both columns are the same.
"""

import argparse
import statistics
import time

import torch
import torch.nn.functional as F

import graphsparse
from graphsparse.ops import linear

SHAPES = [
    (2708, 448, 448),
    (2708, 1433, 256),
    (2708, 256, 7),
    (169343, 128, 256),
    (169343, 256, 256),
    (169343, 256, 40),
]


def seconds(functions, runs):
    """Return the median time of each function; they take turns."""
    times = [[] for _ in functions]
    for _ in range(runs + 1):
        for function, taken in zip(functions, times, strict=True):
            begin = time.perf_counter()
            function()
            taken.append(time.perf_counter() - begin)
    return [statistics.median(taken[1:]) for taken in times]


def measure(rows, inputs, outputs, runs):
    """Return GFLOP/s of torch and of ours for each step, after a comparison of the results."""
    generator = torch.Generator().manual_seed(0)
    x, weight, gradient = (
        torch.randn(size, generator=generator) for size in ((rows, inputs), (outputs, inputs), (rows, outputs))
    )
    figures = {}
    for step, for_x, for_weight in (("forward", False, False), ("input", True, False), ("weight", False, True)):
        calls, results = [], []
        for function in (F.linear, linear):
            a, b = x.clone().requires_grad_(for_x), weight.clone().requires_grad_(for_weight)
            out = function(a, b)
            wanted = [t for t in (a, b) if t.requires_grad]

            def forward(function=function, a=a, b=b):
                return function(a, b)

            def backward(out=out, wanted=wanted):
                return torch.autograd.grad(out, wanted, gradient, retain_graph=True)[0]

            calls.append(backward if wanted else forward)
            results.append(calls[-1]().detach())
        scale = float(results[0].abs().max())
        if float((results[0] - results[1]).abs().max()) > 1e-5 * scale:
            raise RuntimeError(f"the results of {step} differ for the shape {rows} x {inputs} x {outputs}")
        figures[step] = [2 * rows * inputs * outputs / taken / 1e9 for taken in seconds(calls, runs)]
    return figures


def main(argv=None):
    """Measure, print a table, and return the figures by shape, step and library."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, nargs=3, action="append", help="rows, inputs and outputs; may be repeated")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(argv)
    before = torch.get_num_threads()
    torch.set_num_threads(args.threads)
    try:
        print(
            f"oneDNN: {graphsparse.backends()['onednn']}; {args.threads} threads; GFLOP/s, torch / ops.linear / ratio\n"
        )
        print("| rows x inputs x outputs | forward | gradient of input | gradient of weight |\n|---|---|---|---|")
        figures = {}
        for shape in [tuple(shape) for shape in args.shape or SHAPES]:
            figures[shape] = measure(*shape, args.runs)
            cells = [f"{a:.0f} / {b:.0f} / {b / a:.2f}" for a, b in figures[shape].values()]
            print(f"| {' x '.join(f'{size:,}' for size in shape)} | {' | '.join(cells)} |", flush=True)
    finally:
        torch.set_num_threads(before)
    return figures


if __name__ == "__main__":
    main()
