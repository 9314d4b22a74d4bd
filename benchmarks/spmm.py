"""Time and throughput of the sparse product by each backend and by PyG, beside what the memory of the device allows.

python benchmarks/spmm.py                                  # ogbn-arxiv on CPU, one thread
python benchmarks/spmm.py --device cuda --graph arxiv products
python benchmarks/spmm.py --graph products --scale 0.125   # an eighth of the nodes and edges

`arxiv` is the real graph where its data is at hand and the scale is 1, else a synthetic heavy-tailed one of that size;
`products` is always synthetic; the table says which. Values are those of the normalised adjacency of a GCN, and the
order of the nodes is the one they come in. A step is `forward`, `backward` (forward and the gradient of x) or `values`
(forward and the gradients of x and of the values of the edges).

Two limits stand beside each time. Both count every number of the indices, the values and the result once; they differ
in the rows of x: the `node` limit reads each row once, as if the cache were endless, the `edge` limit once for each
edge, as if there were none. Both divide by the bandwidth of a large copy, measured in the same run. The share of a
limit is its time over the measured one: above 1 of the `edge` limit where the cache holds rows from edge to edge, never
above 1 of the `node` limit. GB/s are the bytes of the `edge` limit over the measured time.

On CPU, memory that is freed stays with the process: new pages from the system would cost more than some products.
"""

import argparse
import os
import statistics
import sys
import time

import torch
from heavy_tailed import make_edges
from own_process import KEEP_MEMORY
from torch_geometric.utils import scatter

from graphsparse.datasets import load
from graphsparse.ops import Adjacency, spmm
from graphsparse.ops.kernels import BACKENDS
from graphsparse.typing import has_module

ARXIV = {"num_nodes": 169_343, "num_edges": 1_157_799}  # undirected
STEPS = ("forward", "backward", "values")
PYG = "PyG gather-scatter"
PLAIN, REDUCED = "torch.sparse.mm", "torch.sparse.mm, 'sum'"  # the two kernels that torch has


def graph(name, scale):
    """Return edges, number of nodes, and where they come from."""
    if name == "products":
        return *make_edges(scale), "synthetic"
    if scale == 1:
        try:
            data = load("ogbn-arxiv-structure")
        except FileNotFoundError:
            pass
        else:
            return data.edge_index, data.num_nodes, "real"
    return *make_edges(scale, **ARXIV), "synthetic"


def seconds(function, device, runs, budget):
    """Return the median time of a call after a warm-up; fewer runs than asked for where they exceed the budget."""
    start = time.perf_counter()
    for _ in range(3 if device.type == "cuda" else 1):
        function()
    if device.type == "cuda":
        torch.cuda.synchronize()
    times = []
    while len(times) < runs and (len(times) < 3 or time.perf_counter() - start < budget):
        if device.type == "cuda":
            events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
            events[0].record()
            function()
            events[1].record()
            torch.cuda.synchronize()
            times.append(events[0].elapsed_time(events[1]) / 1e3)
        else:
            begin = time.perf_counter()
            function()
            times.append(time.perf_counter() - begin)
    return statistics.median(times)


def copy_bandwidth(device, megabytes):
    """Return bytes read and written per second by a copy that no cache holds."""
    source = torch.ones(megabytes << 18, device=device)
    target = torch.empty_like(source)
    return 2 * (megabytes << 20) / seconds(lambda: target.copy_(source), device, 9, 5)


def least_bytes(num_nodes, num_edges, width, item, reduce, step):
    """Return the bytes that must be moved at least, with the rows of x read once per node and once per edge."""
    indices, rows, gathered = 4 * (num_edges + num_nodes), num_nodes * width * item, num_edges * width * item
    values = num_edges * item
    fixed, reads = indices + values + rows, 1
    if step != "forward" and reduce == "sum":  # the product with the transpose
        fixed, reads = 2 * fixed, 2
    elif step != "forward":  # from each element of the result to the edge where it stands
        fixed += 3 * rows
    if step == "values" and reduce == "sum":  # the product sampled at the edges: a row of the gradient, a row of x
        fixed, reads = fixed + indices + values + rows, reads + 1
    elif step == "values":
        fixed += values
    return fixed + reads * rows, fixed + reads * gathered


def available_bytes(device):
    """Return the free memory of a device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    with open("/proc/meminfo") as file:  # noqa: PTH123
        return next(int(line.split()[1]) for line in file if line.startswith("MemAvailable")) * 1024


def products(adj, reduce, step, device, dtype):
    """Return the name of each path with its product as a function of x and the values in the order of the edges."""
    paths = {}
    for backend in BACKENDS:
        absent = backend in ("numba", "torch-sparse") and not has_module(backend.replace("-", "_"))
        lacks = backend == "numba" or (backend == "torch" and reduce == "max")
        if not absent and not (lacks and device.type == "cuda"):
            paths[backend] = lambda x, value, b=backend: (
                spmm(adj, x, reduce, backend=b) if step != "values" else spmm(adj, x, reduce, value=value, backend=b)
            )
    (src, dst), _ = adj.to_edge_index()
    paths[PYG] = lambda x, value: scatter(
        x.index_select(0, src) * value.unsqueeze(1), dst, dim_size=adj.num_dst, reduce=reduce
    )
    if reduce == "sum" and step == "forward":
        matrix = adj.to_torch_csr().to(dtype)
        paths[PLAIN] = lambda x, value: torch.sparse.mm(matrix, x)
        if device.type == "cpu":
            paths[REDUCED] = lambda x, value: torch.sparse.mm(matrix, x, "sum")
    return paths


def measure(adj, width, reduce, step, device, dtype, args):
    """Return the seconds of each path, ``None`` where its memory would not do."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(adj.num_src, width, generator=generator).to(device, dtype)
    value = adj.to_edge_index()[1].to(dtype)
    grad = torch.randn(adj.num_dst, width, generator=generator).to(device, dtype)
    if step != "forward":
        x.requires_grad_()
    if step == "values":
        value.requires_grad_()
    inputs = [part for part in (x, value) if part.requires_grad]
    found, expected = {}, None
    for name, product in products(adj, reduce, step, device, dtype).items():
        if name == PYG and 3 * adj.num_edges * width * x.element_size() > available_bytes(device):
            found[name] = None
            continue

        def once(product=product):
            out = product(x, value)
            return [out, *torch.autograd.grad(out, inputs, grad)] if inputs else [out]

        results = [part.detach() for part in once()]
        expected = expected or results
        # A comparison of everything, so that no figure belongs to a wrong result; of equal maxima any may get the
        # gradient, and copies of an edge are always equal.
        for ours, theirs in zip(results[: 1 if reduce == "max" else None], expected, strict=False):
            scale = theirs.abs().max().item()
            torch.testing.assert_close(ours, theirs, rtol=0, atol=scale * (5e-2 if dtype == torch.bfloat16 else 1e-4))
        del results
        found[name] = seconds(once, device, args.runs, args.budget)
    return found


def main(argv=None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--graph", nargs="+", choices=["arxiv", "products"], default=["arxiv"])
    parser.add_argument("--scale", type=float, default=1.0, help="share of the nodes and edges")
    parser.add_argument("--width", type=int, nargs="+", default=[32, 128, 256])
    parser.add_argument("--reduce", nargs="+", choices=["sum", "max"], default=["sum", "max"])
    parser.add_argument("--step", nargs="+", choices=STEPS, default=["forward", "backward"])
    parser.add_argument("--dtype", choices=["float32", "float64", "bfloat16"], default="float32")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU")
    parser.add_argument("--runs", type=int, default=21, help="their median counts")
    parser.add_argument("--budget", type=float, default=5.0, help="seconds for each figure, in which 3 runs always fit")
    parser.add_argument("--copy-megabytes", type=int, default=1024, help="size of the copy that gives the bandwidth")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    device, dtype = torch.device(args.device), getattr(torch, args.dtype)
    bandwidth = copy_bandwidth(device, args.copy_megabytes)
    where = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {args.threads} thread(s)"
    print(f"{where}, torch {torch.__version__}, {args.dtype}; copy: {bandwidth / 1e9:.1f} GB/s; medians\n")
    print(
        "| graph | F | reduce | step | least MB: node, edge | path | ms | GB/s | share of edge limit | of node limit |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    figures = {"copy GB/s": bandwidth / 1e9}
    for name in args.graph:
        edge_index, num_nodes, source = graph(name, args.scale)
        adj = Adjacency.from_edge_index(edge_index, num_nodes=num_nodes, symmetric=True).gcn_norm().to(device)
        del edge_index
        label = f"{name} ({source}, {num_nodes:,} nodes, {adj.num_edges:,} entries)"
        for reduce in args.reduce:
            for step in args.step:
                for width in args.width:
                    item = torch.empty(0, dtype=dtype).element_size()
                    node, edge = least_bytes(num_nodes, adj.num_edges, width, item, reduce, step)
                    for path, took in measure(adj, width, reduce, step, device, dtype, args).items():
                        limits = f"{node / 1e6:.0f}, {edge / 1e6:.0f}"
                        cells = f"| {label} | {width} | {reduce} | {step} | {limits} | {path} "
                        if took is None:
                            print(cells + "| too large for the memory | | | |", flush=True)
                            continue
                        figures[f"{name}/{width}/{reduce}/{step}/{path} ms"] = took * 1e3
                        shares = [part / bandwidth / took for part in (edge, node)]
                        numbers = f"| {took * 1e3:.2f} | {edge / took / 1e9:.1f} | {shares[0]:.2f} | {shares[1]:.2f} |"
                        print(cells + numbers, flush=True)
    return figures


if __name__ == "__main__":
    if not KEEP_MEMORY.items() <= os.environ.items():  # read when a process starts, so it has to start again
        os.execve(sys.executable, sys.orig_argv, os.environ | KEEP_MEMORY)
    main()
