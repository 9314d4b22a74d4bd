"""Make the file of ``load("flickr-structure")`` from the Flickr graph of PyG, which is downloaded if need be.

python datasets/prepare_flickr_structure.py --root data
"""

import argparse
from pathlib import Path

import numpy as np
from torch_geometric.datasets import Flickr

from graphsparse.datasets.cache import data_root
from graphsparse.datasets.structure import STRUCTURE_FILES

FILE, _ = STRUCTURE_FILES["flickr-structure"]


def main(argv: list[str] | None = None) -> dict[str, object]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=data_root(), help="data root; the set goes to its folder 'flickr'")
    parser.add_argument("--out", type=Path, help=f"file to write (default: {FILE} below the data root)")
    args = parser.parse_args(argv)
    out = args.out or args.root / FILE

    data = Flickr(str(args.root / "flickr"))[0]
    one_way = data.edge_index[:, data.edge_index[0] <= data.edge_index[1]]
    # 0, 1, 2 for training, validation, test
    split = data.val_mask.numpy().astype(np.uint8) + 2 * data.test_mask.numpy().astype(np.uint8)
    out.parent.mkdir(parents=True, exist_ok=True)
    edges, y = one_way.numpy().astype(np.int32), data.y.numpy().astype(np.uint8)
    np.savez_compressed(out, edge_index=edges, y=y, split=split)
    print(f"wrote {out}: {data.num_nodes} nodes, {one_way.size(1)} undirected edges")
    return {"file": out, "nodes": data.num_nodes, "edges": one_way.size(1)}


if __name__ == "__main__":
    main()
