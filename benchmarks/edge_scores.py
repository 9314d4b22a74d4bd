"""Time and memory of TEDDY's score, selection and removal, beside one `coalesce` of the same edges by PyG.

python benchmarks/edge_scores.py                 # 1/8, 1/4, 1/2 and full size: 2,449,029 nodes, 61,859,140 edges
python benchmarks/edge_scores.py --scale 0.125

The graph is synthetic, seeded and heavy-tailed, both directions of every edge, in random order, int64. Every figure
comes from a process of its own, one thread; memory is the peak of the process above what it held with the edges loaded.
`coalesce` is what users of PyG call to bring an edge list in order, before anything is scored.
"""

import argparse
import json
import resource
import subprocess
import sys
import time

import torch
from heavy_tailed import NUM_EDGES, make_edges
from torch_geometric.utils import coalesce

from graphsparse.edges import sparsify_edge

STEPS = ("sparsify_edge", "coalesce")


def memory():
    """Return the memory that the process holds now, in GB."""
    with open("/proc/self/statm") as file:  # noqa: PTH123
        return int(file.read().split()[1]) * resource.getpagesize() / 1e9


def measure(step, scale):
    """Run one step and return its figures; called in a process of its own."""
    torch.set_num_threads(1)
    edge_index, num_nodes = make_edges(scale)
    # The peak of the process must be that of the step, not that of making the edges.
    with open("/proc/self/clear_refs", "w") as file:  # noqa: PTH123
        file.write("5")
    held = memory()
    start = time.perf_counter()
    if step == "coalesce":
        coalesce(edge_index, num_nodes=num_nodes)
        seconds, kept = time.perf_counter() - start, None
    else:
        _, mask = sparsify_edge(edge_index, 0.5, num_nodes=num_nodes)
        seconds, kept = time.perf_counter() - start, int(mask.count_nonzero())
    with open("/proc/self/status") as file:  # noqa: PTH123
        high = next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) * 1024 / 1e9
    return {"seconds": seconds, "above_input_gb": high - held, "kept": kept}


def main(argv=None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, nargs="+", default=[0.125, 0.25, 0.5, 1.0])
    parser.add_argument("--runs", type=int, default=3, help="the fastest one counts")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.step:
        print(json.dumps(measure(args.step, args.scale[0])))
        return {}
    print("| size | directed edges | sparsify_edge s | coalesce s | ratio | GB above input | coalesce GB |")
    print("|---|---|---|---|---|---|---|")
    figures = {}
    for scale in args.scale:
        row = {}
        for step in STEPS:
            command = [sys.executable, "-W", "ignore", __file__, "--step", step, "--scale", str(scale)]
            runs = [
                json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
                for _ in range(args.runs)
            ]
            row[step] = min(runs, key=lambda run: run["seconds"])
        ours, theirs = row["sparsify_edge"], row["coalesce"]
        ratio = ours["seconds"] / theirs["seconds"]
        figures |= {f"ratio at {scale}": ratio, f"GB above input at {scale}": ours["above_input_gb"]}
        print(
            f"| {scale:g} | {2 * int(NUM_EDGES * scale):,} | {ours['seconds']:.1f} | {theirs['seconds']:.1f} "
            f"| {ratio:.2f} | {ours['above_input_gb']:.2f} | {theirs['above_input_gb']:.2f} |",
            flush=True,
        )
    print(f"\ntorch {torch.__version__}, 1 thread, fastest of {args.runs} runs, half of the undirected edges removed")
    return figures


if __name__ == "__main__":
    main()
