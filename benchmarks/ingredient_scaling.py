"""How much faster several workers train ingredients than one.

python benchmarks/ingredient_scaling.py                     # 1 and 2 workers, 8 ingredients on PubMed
python benchmarks/ingredient_scaling.py --workers 1 2 4 8 --data ogbn-arxiv-structure --epochs 20

Every number of workers starts from an empty store, one thread per worker, and must end with the same weights, bit for
bit. The time is that of the whole call: starting the processes, reading the graph and writing the results belong to it.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tables import write_text
from torch_geometric.nn import GCN

from graphsparse.datasets import load
from graphsparse.soups import Workers, train_ingredients
from graphsparse.training import Training


def main(argv=None):
    """Measure, print a table, and return the seconds by the number of workers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="pubmed")
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--ingredients", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=300)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--out", type=Path, help="folder for a Markdown table")
    args = parser.parse_args(argv)

    data = load(args.data)
    text = [f"{args.data}, GCN 2 x {args.hidden}, {args.ingredients} ingredients, {args.epochs} epochs, 1 thread each"]
    text += ["", "| workers | seconds | times faster |", "|---|---|---|"]
    print("\n".join(text), flush=True)
    seconds, weights = {}, {}
    for workers in args.workers:
        with tempfile.TemporaryDirectory() as folder:
            begin = time.perf_counter()
            store = train_ingredients(
                lambda: GCN(data.num_features, args.hidden, 2, data.num_classes, dropout=0.5),
                data,
                args.ingredients,
                folder,
                training=Training(epochs=args.epochs),
                workers=Workers(num=workers, threads=1),
            )
            seconds[workers] = time.perf_counter() - begin
            weights[workers] = [store.meta(i)["weights"] for i in range(len(store))]
        if weights[workers] != weights[args.workers[0]]:
            raise RuntimeError(f"{workers} workers gave other weights than {args.workers[0]}")
        text.append(f"| {workers} | {seconds[workers]:.1f} | {seconds[args.workers[0]] / seconds[workers]:.2f} |")
        print(text[-1], flush=True)
    if args.out:
        write_text(args.out / "ingredient_scaling.md", "\n".join(text))
    return seconds


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
