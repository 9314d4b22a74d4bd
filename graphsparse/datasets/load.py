"""One function for every node-classification graph."""

import difflib
from pathlib import Path

from torch_geometric.data import Data

from graphsparse.datasets.cache import data_root
from graphsparse.datasets.ogb import load_ogb, ogb_meta, ogb_names
from graphsparse.datasets.pyg_source import PYG_SOURCES, read_pyg
from graphsparse.datasets.split import stratified_split
from graphsparse.datasets.structure import STRUCTURE_FILES, structure_graph
from graphsparse.datasets.synthetic import synthetic_citation
from graphsparse.ops.check import check_integer

#: Every name that :func:`load` knows besides those of OGB.
NAMES = (*PYG_SOURCES, "synthetic", *STRUCTURE_FILES)


def load(
    name: str,
    root: str | Path | None = None,
    *,
    split: int = 0,
    normalize_features: bool = True,
    seed: int = 0,
) -> Data:
    """Return a graph for node classification, ready to train on.

    ==================== ======= ========= ======== ======= =========================
    name                   nodes   columns features classes splits
    ==================== ======= ========= ======== ======= =========================
    cora                   2,708    10,556    1,433       7 1, 140 / 500 / 1,000
    citeseer               3,327     9,104    3,703       6 1, 120 / 500 / 1,000
    pubmed                19,717    88,648      500       3 1, 60 / 500 / 1,000
    cora_ml                2,995    16,316    2,879       7 by ``seed``, 60/20/20 %
    citeseer_full          4,230    10,674      602       6 by ``seed``, 60/20/20 %
    dblp                  17,716   105,734    1,639       4 by ``seed``, 60/20/20 %
    texas (d)                183       325    1,703       5 10, 48/32/20 %
    cornell (d)              183       298    1,703       5 10, 48/32/20 %
    wisconsin (d)            251       515    1,703       5 10, 48/32/20 %
    actor (d)              7,600    30,019      932       5 10, 48/32/20 %
    minesweeper           10,000    78,804        7       2 10, 50/25/25 %
    tolokers              11,758 1,038,000       10       2 10, 50/25/25 %
    chameleon_filtered       890    17,708    2,325       5 10, 46/32/22 %
    squirrel_filtered      2,223    93,996    2,089       5 10, 47/32/20 %
    airports-usa (d)       1,190    13,599    1,190       4 by ``seed``, 60/20/20 %
    airports-brazil (d)      131     1,074      131       4 by ``seed``, 60/20/20 %
    airports-europe (d)      399     5,995      399       4 by ``seed``, 60/20/20 %
    ogbn-arxiv-structure 169,343 2,315,598      128      40 1, 90,941/29,799/48,603
    flickr-structure      89,250   899,756      128       7 1, 44,625/22,312/22,313
    synthetic              2,000     8,000      200       7 by ``seed``, 140/500/1,000
    ==================== ======= ========= ======== ======= =========================

    "columns" are those of ``edge_index``, which is what PyG makes of the raw files: both directions of every edge,
    except in the sets marked (d). Those are directed and stay so; make them undirected with
    ``torch_geometric.transforms.ToUndirected`` where a method needs it. WebKB, Actor and two of the airport graphs
    have self-loops. ``ogbn-arxiv-structure`` and ``flickr-structure`` are the official graphs, labels and splits with
    128 structural features (FastRP), which see every edge but no label, in place of words: accuracies are below those
    published and must not be compared with them. Of the sets of the Open Graph Benchmark, those that are one graph with
    features and one class per node can be loaded here, as :func:`load_ogb` returns them; all others by
    :func:`load_ogb` alone, which also returns OGB's evaluator. Sets without an official split get a random one in which
    every class is divided 60/20/20.

    Args:
        name: One of the names above, in capitals or not.
        root: Folder of the raw files, laid out as PyG does below ``planetoid``, ``webkb``, ``actor``,
            ``citation_full``, ``heterophilous``, ``heterophilous_extra``, ``airports``, and as OGB does below ``ogb``;
            by default the folder named by ``GRAPHSPARSE_DATA``, else ``data`` in the current folder. It is only read,
            unless raw files are missing there: these are downloaded into it. Nothing in a file is run. Processed data
            go to the cache, see :func:`graphsparse.datasets.cache.cache_root`.
        split: Which of the splits; 0 where there is one.
        normalize_features: Divide each row of ``x`` by its sum, as PyG's ``NormalizeFeatures`` does, where ``x`` holds
            words (the citation graphs, WebKB, Actor, ``synthetic``). The features of the other sets, one-hot or
            continuous, are never changed.
        seed: Seeds the random split of sets without an official one, the graph of ``synthetic``, and the features of
            ``ogbn-arxiv-structure`` and ``flickr-structure``.

    Returns:
        ``Data`` with ``x`` ``[N, F]`` float32, ``edge_index`` ``[2, E]`` int64, ``y`` ``[N]`` int64, bool masks
        ``train_mask``, ``val_mask``, ``test_mask`` ``[N]``, ``num_classes`` and ``name``.

    Raises:
        TypeError: If ``name`` is not a string.
        ValueError: If there is no such data set or split; if an OGB set is no graph with features and one class per
            node; if a file is damaged or holds Python objects. The message names what can be loaded, or the file.
        FileNotFoundError: If a raw file is missing and cannot be downloaded; the message says which, where, and how to
            get it.

    Example:
        >>> data = load("synthetic", seed=1)
        >>> data.name, data.num_nodes, data.num_classes, int(data.train_mask.sum())
        ('synthetic', 2000, 7, 140)

    Source: the cards in ``datasets/README.md`` of the repository name the papers and the files.
    """
    if not isinstance(name, str):
        raise TypeError(f"'name' must be the name of a data set (got {name!r} of type {type(name).__name__})")
    key = name.lower()
    official = {known.lower(): known for known in ogb_names()}
    if key not in NAMES and key not in official:
        close = difflib.get_close_matches(key, [*NAMES, *official], n=1)
        hint = f"; did you mean {official.get(close[0], close[0])!r}?" if close else "."
        raise ValueError(
            f"there is no data set {name!r}{hint} Known are {', '.join(sorted(NAMES))}, and the sets of OGB "
            f"{', '.join(official.values())}"
        )
    split = check_integer(split, "split")
    folder = data_root() if root is None else Path(root).expanduser()
    if key in official:
        _check_split(key, split, 1)
        return _from_ogb(official[key], folder)
    words = True
    if key in PYG_SOURCES:
        data, words = _from_pyg(key, folder, split, seed), PYG_SOURCES[key].bag_of_words
    else:
        _check_split(key, split, 1)
        if key == "synthetic":
            data = synthetic_citation(seed=seed)
        else:
            data, words = structure_graph(key, folder, seed), False
    if normalize_features and words:
        data.x = data.x / data.x.sum(dim=1, keepdim=True).clamp(min=1.0)
    data.name = key
    return data


def _from_pyg(name: str, root: Path, split: int, seed: int) -> Data:
    """Build a data set that PyG can read."""
    data = read_pyg(PYG_SOURCES[name], name, root)
    if "train_mask" not in data:
        _check_split(name, split, 1)
        data.train_mask, data.val_mask, data.test_mask = stratified_split(data.y, seed=seed)
    elif data.train_mask.dim() == 1:
        _check_split(name, split, 1)
    else:
        _check_split(name, split, data.train_mask.size(1))
        for key in ("train_mask", "val_mask", "test_mask"):
            data[key] = data[key][:, split].clone()
    data.num_classes = int(data.y.max()) + 1
    return data


def _from_ogb(name: str, root: Path) -> Data:
    """Build a set of OGB that is one graph with features and one class per node; refuse any other before it is read."""
    meta = ogb_meta(name)
    if not name.startswith("ogbn-"):
        kind = "links" if name.startswith("ogbl-") else "many graphs"
        raise ValueError(f"{name!r} is a set of {kind}, not of classes of nodes; load_ogb({name!r}) loads it")
    if meta["is hetero"] == "True" or meta["num tasks"] != "1" or meta["has_node_attr"] != "True":
        raise ValueError(
            f"{name!r} is not one graph with features and one class per node, which 'load' returns; "
            f"load_ogb({name!r}) loads it"
        )
    data: Data = load_ogb(name, root / "ogb")[0]
    return data


def _check_split(name: str, split: int, count: int) -> None:
    """Raise an error unless there is such a split."""
    if not 0 <= split < count:
        only = f"'split' must be 0 for {name!r}" if count == 1 else f"'split' must be in [0, {count}) for {name!r}"
        raise ValueError(f"{only} (got {split})")
