"""Time and peak memory of clusters, a training epoch and exact inference on a graph of the size of ogbn-products.

python benchmarks/products_scale.py                             # 2,449,029 nodes, 61,859,140 undirected edges
python benchmarks/products_scale.py --scale 0.125 0.25 0.5 1    # growth

The graph is synthetic and seeded, with communities and heavy-tailed degrees, 100 features and 47 classes. On it:

partition   15,000 clusters. Beside it: PyG's way, sorting the edge list and handing it to METIS.
epoch       One epoch of GraphSAGE (3 layers, hidden 256) over the batches of PyG's ClusterLoader, with the model that
            `accelerate` returns. Beside it: the plain PyG model on the first batches, the same ones in the same order.
inference   Exact logits of all nodes. Beside it: PyG's `inference_per_layer` over a NeighborLoader with all neighbours,
            extrapolated from some batches of every layer.
check       The logits of some nodes, computed by SciPy from their full neighbourhood of three steps.

Every step runs in a process of its own and leaves its result in a work folder: a run that was stopped goes on where it
was. Seconds are without reading the graph from the disk; memory is the peak of the whole process, reading included.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import products_steps as steps
import torch
import torch_geometric
from own_process import peak_gb, reset_peak, run_apart, warm_up

from graphsparse.typing import has_module
from graphsparse.utils.files import atomic_write

NUM_PARTS = 15_000
#: What each step does, the options it takes, and the steps whose results it reads.
STEPS = {
    "graph": (steps.make_graph, ("scale", "seed"), ()),
    "partition": (steps.partition, ("scale", "parts"), ("graph",)),
    "PyG partition": (steps.partition_pyg, ("scale", "parts"), ("graph",)),
    "epoch": (steps.epoch, ("parts", "hidden", "clusters", "seed"), ("partition",)),
    "PyG epoch": (steps.epoch_pyg, ("parts", "hidden", "clusters", "seed", "sample"), ("partition",)),
    "inference": (steps.inference, ("hidden", "batch_size"), ("epoch",)),
    "PyG inference": (steps.inference_pyg, ("hidden", "sample"), ("epoch",)),
    "check": (steps.check, ("hidden",), ("inference",)),
}


def needs(step):
    """Return a step and all that come before it."""
    return [step, *(name for before in STEPS[step][2] for name in needs(before))]


def settings(step, options):
    """Return every option on which the result of a step depends."""
    return {name: options[name] for name in ("threads", *(name for one in needs(step) for name in STEPS[one][1]))}


def run_step(step, options):
    """Run a step and return its figures; called in a process of its own."""
    if options["threads"]:
        torch.set_num_threads(options["threads"])
    warm_up()
    reset_peak()
    function, names, _ = STEPS[step]
    figures = function(Path(options["folder"]), **{name: options[name] for name in names})
    return figures | {"gb": peak_gb(), "threads": torch.get_num_threads()}


def result_of(step, options, *, again=False):
    """Return the figures of a step, from an earlier run if there are any with the same options."""
    file = Path(options["folder"]) / f"{step.replace(' ', '_')}.json"
    stored = json.loads(file.read_text()) if file.exists() and not again else None
    if stored and stored["settings"] == settings(step, options):
        return stored["figures"], False
    figures = run_apart(__file__, ["--one", json.dumps([step, options])])
    with atomic_write(file) as temporary:
        temporary.write_text(json.dumps({"settings": settings(step, options), "figures": figures}))
    return figures, True


def run_scale(scale, args):
    """Return the figures of every step at one size."""
    folder = args.work / f"scale_{scale:g}"
    folder.mkdir(parents=True, exist_ok=True)
    options = {"folder": str(folder), "scale": scale, "parts": max(2, int(args.parts * scale)), "seed": args.seed}
    options |= {name: getattr(args, name) for name in ("hidden", "clusters", "batch_size", "sample", "threads")}
    results, fresh = {}, set()
    for step in STEPS:
        if step.startswith("PyG") and args.no_alternatives:
            continue
        if step == "PyG inference" and not (has_module("torch_sparse") or has_module("pyg_lib")):
            continue
        # What was made anew makes everything anew that was computed from it.
        start = time.perf_counter()
        results[step], new = result_of(step, options, again=bool(fresh & set(needs(step))))
        if new:
            fresh.add(step)
        said = f"{time.perf_counter() - start:.0f} s" if new else "done before"
        print(f"scale {scale:g}, {step}: {said}", file=sys.stderr, flush=True)
    return results


def compare_epochs(results):
    """Return the figures of both epochs over the batches that both trained, and check that they did the same."""
    ours, theirs = results["epoch"], results["PyG epoch"]
    number = len(theirs["losses"])
    error = abs(ours["losses"][0] - theirs["losses"][0])
    if not error <= 1e-4 * max(1.0, abs(theirs["losses"][0])):
        raise RuntimeError(f"the first batch has a loss of {ours['losses'][0]}, with PyG {theirs['losses'][0]}")
    whole = [sum(one["loading"][:number]) + sum(one["training"][:number]) for one in (ours, theirs)]
    median = [statistics.median(one["training"][:number]) for one in (ours, theirs)]
    return number, whole[1] / whole[0], median[1] / median[0]


def table(results):
    """Return the lines of a Markdown table of one size."""
    lines = ["| step | s | peak GB | PyG s | PyG peak GB | PyG / ours |", "|---|---|---|---|---|---|"]
    for step in ("graph", "partition", "epoch", "inference", "check"):
        ours, theirs = results[step], results.get(f"PyG {step}")
        cells = ["", "", ""]
        if theirs and step == "epoch":
            number, whole, _ = compare_epochs(results)
            per_batch = sum(theirs["loading"] + theirs["training"]) / number
            cells = [f"{per_batch * ours['batches']:.1f} (from {number} of {ours['batches']} batches)"]
            cells += [f"{theirs['gb']:.2f}", f"{whole:.2f}"]
        elif theirs:
            share = f" (from {theirs['share']:.1%} of the nodes)" if "share" in theirs else ""
            cells = [f"{theirs['seconds']:.1f}{share}", f"{theirs['gb']:.2f}"]
            cells += [f"{theirs['seconds'] / ours['seconds']:.2f}"]
        lines.append(f"| {step} | {ours['seconds']:.1f} | {ours['gb']:.2f} | {' | '.join(cells)} |")
    part, epoch_, check_ = results["partition"], results["epoch"], results["check"]
    lines += ["", f"Partition: {part['cut']:.1%} of the edges cut, largest part {part['largest']:.2f} times the mean"]
    if "PyG partition" in results:
        lines[-1] += f"; beside it {results['PyG partition']['cut']:.1%} cut"
    lines += [
        f"Epoch: clusters in order in {epoch_['prepared']:.1f} s, loading {sum(epoch_['loading']):.1f} s, training "
        f"{sum(epoch_['training']):.1f} s, loss {epoch_['losses'][0]:.3f} to {epoch_['losses'][-1]:.3f}"
    ]
    if "PyG epoch" in results:
        lines[-1] += f"; median training step of PyG / ours {compare_epochs(results)[2]:.2f}"
    lines += [
        f"Inference: accuracy {results['inference']['accuracy']:.3f}; differs by {check_['error']:.1e} of the largest "
        f"logit from a direct computation that saw {check_['nodes']:,} nodes"
    ]
    return lines


def main(argv=None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, nargs="+", default=[1.0], help="shares of the full size")
    parser.add_argument("--parts", type=int, default=NUM_PARTS, help="number of clusters at full size")
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--clusters", type=int, default=32, help="clusters in a batch")
    parser.add_argument("--batch-size", type=int, default=16_384, help="nodes in a block of the inference")
    parser.add_argument("--sample", type=int, default=10, help="batches of the alternative")
    parser.add_argument("--no-alternatives", action="store_true")
    parser.add_argument("--threads", type=int, help="torch's default, all cores, if not given")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=Path("out", "products_scale"), help="folder of what was done")
    parser.add_argument("--markdown", type=Path, help="also write the tables to this file")
    parser.add_argument("--one", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.one:
        print(json.dumps(run_step(*args.one)))
        return {}
    lines, figures, by_scale = [], {}, {}

    def show(new):
        print("\n".join([*new, ""]), flush=True)
        lines.extend([*new, ""])

    for scale in args.scale:
        results = by_scale[scale] = run_scale(scale, args)
        size = results["graph"]
        show([f"**{size['nodes']:,} nodes, {size['edges']:,} directed edges**", "", *table(results)])
        for step, row in results.items():
            figures |= {f"{step} s at {scale:g}": row["seconds"], f"{step} GB at {scale:g}": row["gb"]}
        figures[f"GB at {scale:g}"] = max(row["gb"] for step, row in results.items() if not step.startswith("PyG"))
        figures[f"error at {scale:g}"] = results["check"]["error"]
    if len(by_scale) > 1:
        heads = " | ".join(f"{scale:g}" for scale in by_scale)
        show(
            [
                f"| us per directed edge; peak GB | {heads} |",
                "|---|" + "---|" * len(by_scale),
                *(
                    f"| {step} | "
                    + " | ".join(
                        f"{row[step]['seconds'] / row['graph']['edges'] * 1e6:.2f}; {row[step]['gb']:.2f}"
                        for row in by_scale.values()
                    )
                    + " |"
                    for step in ("partition", "epoch", "inference")
                ),
            ]
        )
    threads = results["graph"]["threads"]
    show([f"torch {torch.__version__}, PyG {torch_geometric.__version__}, {threads} threads, hidden {args.hidden}"])
    if args.markdown:
        args.markdown.write_text("\n".join(lines))
    return figures


if __name__ == "__main__":
    main()
