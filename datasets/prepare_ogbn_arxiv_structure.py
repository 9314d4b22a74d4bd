"""Make the file of ``load("ogbn-arxiv-structure")`` from the official ogbn-arxiv, which is downloaded if need be.

python datasets/prepare_ogbn_arxiv_structure.py --root data
"""

import argparse
from pathlib import Path

import numpy as np

from graphsparse.datasets.cache import data_root
from graphsparse.datasets.ogb import load_ogb
from graphsparse.datasets.structure import STRUCTURE_FILES

FILE, _ = STRUCTURE_FILES["ogbn-arxiv-structure"]


def main(argv: list[str] | None = None) -> dict[str, object]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=data_root(), help="data root; the set goes to its folder 'ogb'")
    parser.add_argument("--out", type=Path, help=f"file to write (default: {FILE} below the data root)")
    parser.add_argument("--no-download", action="store_true", help="use the files that are there, or fail")
    args = parser.parse_args(argv)
    out = args.out or args.root / FILE

    data, _ = load_ogb("ogbn-arxiv", args.root / "ogb", download=not args.no_download)
    # 0, 1, 2 for training, validation, test
    split = data.val_mask.numpy().astype(np.uint8) + 2 * data.test_mask.numpy().astype(np.uint8)
    out.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        out,
        edge_index=data.edge_index.numpy().astype(np.int32),
        y=data.y.numpy().astype(np.uint8),
        year=data.node_year.flatten().numpy().astype(np.int16),
        split=split,
    )
    print(f"wrote {out}: {data.num_nodes} nodes, {data.num_edges} edges")
    return {"file": out, "nodes": data.num_nodes, "edges": data.num_edges}


if __name__ == "__main__":
    main()
