"""Time of a linear layer over features that are mostly zeros: as a sparse matrix beside the dense one that it is.

python benchmarks/sparse_features.py                       # the size of Cora, 1 thread
python benchmarks/sparse_features.py --rows 20000 --width 16 64 256 --threads 2

The rule that is read from the table stands in `graphsparse/nn/features.py` as `SPARSE_BELOW`: features are brought into
sparse form where no larger share of their entries is other than zero. A step is `forward`, or `both` with the gradient
of the weight; the features themselves need none. Conversion happens once and is given apart, in steps of the dense
product. A ratio below 1 means that the sparse product is the faster one.
"""

import argparse
import statistics
import time

import torch
import torch.nn.functional as F

from graphsparse.nn.features import SPARSE_BELOW, constant_features, to_dense

STEPS = ("forward", "both")


def features(rows, columns, density, generator):
    """Return a matrix of which a share of the entries are ones, as in a bag of words."""
    return (torch.rand(rows, columns, generator=generator) < density).float()


def seconds(functions, runs, budget):
    """Return the median time of each function; they take turns, so that what else the machine does meets all alike."""
    start = time.perf_counter()
    times = [[] for _ in functions]
    for function in functions:
        function()
    while len(times[0]) < runs and (len(times[0]) < 3 or time.perf_counter() - start < budget):
        for function, taken in zip(functions, times, strict=True):
            begin = time.perf_counter()
            function()
            taken.append(time.perf_counter() - begin)
    return [statistics.median(taken) for taken in times]


def sparse_form(x):
    """Return constant features as our layers multiply them, whatever the rule says, and the seconds that it took."""
    begin = time.perf_counter()
    form = constant_features(x.to_sparse_csr(), True)
    return form, time.perf_counter() - begin


def measure(x, form, width, runs, budget):
    """Return the seconds of each step, dense and sparse, after a comparison of their results."""
    weight = torch.randn(width, x.size(1), generator=torch.Generator().manual_seed(1), requires_grad=True)
    gradient = torch.randn(x.size(0), width, generator=torch.Generator().manual_seed(2))

    def forward(x):
        with torch.no_grad():
            return [F.linear(x, weight)]

    def both(x):
        out = F.linear(x, weight)
        return [out.detach(), *torch.autograd.grad(out, weight, gradient)]

    for dense, sparse in zip(both(x), both(form), strict=True):
        torch.testing.assert_close(sparse, dense, rtol=0, atol=1e-4 * dense.abs().max().item())
    found = {}
    for step, function in zip(STEPS, (forward, both), strict=True):
        calls = [lambda given=given, function=function: function(given) for given in (x, form)]
        found[step] = seconds(calls, runs, budget)
    return found


def main(argv=None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2708)
    parser.add_argument("--columns", type=int, default=1433)
    parser.add_argument("--density", type=float, nargs="+", default=[0.01, 0.05, 0.1, 0.2])
    parser.add_argument("--width", type=int, nargs="+", default=[16, 64, 256, 512])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=15, help="their median counts")
    parser.add_argument("--budget", type=float, default=2.0, help="seconds for each figure, in which 3 runs always fit")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    print(f"[{args.rows}, {args.columns}] features, {args.threads} thread(s), torch {torch.__version__}; medians.")
    print(f"Sparse form is taken up to a density of {SPARSE_BELOW}.\n")
    print("| density | width | step | dense ms | sparse ms | sparse / dense | conversion / dense |")
    print("|---|---|---|---|---|---|---|")
    figures = {}
    for density in args.density:
        x = features(args.rows, args.columns, density, torch.Generator().manual_seed(0))
        form, conversion = sparse_form(x)
        if not torch.equal(to_dense(form), x):
            raise RuntimeError("the sparse form stands for other features")
        for width in args.width:
            for step, (dense, sparse) in measure(x, form, width, args.runs, args.budget).items():
                figures[f"{density}, {width}, {step}"] = sparse / dense
                times = f"{dense * 1e3:.2f} | {sparse * 1e3:.2f} | {sparse / dense:.2f} | {conversion / dense:.1f}"
                print(f"| {density} | {width} | {step} | {times} |")
    return figures


if __name__ == "__main__":
    main()
