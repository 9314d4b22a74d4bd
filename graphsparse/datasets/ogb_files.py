"""The raw files of an OGB data set: what belongs to it, whether it is there, and how it is downloaded."""

import csv
import tempfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from torch_geometric.data import download_url, extract_zip

#: Kind of data set -> OGB's package for it.
PACKAGES = {"ogbn": "ogb.nodeproppred", "ogbl": "ogb.linkproppred", "ogbg": "ogb.graphproppred"}


def ogb_meta(name: str) -> dict[str, str]:
    """Return OGB's own description of one of its data sets: one column of its table.

    Args:
        name: Name of a node (``ogbn-*``), link (``ogbl-*``) or graph (``ogbg-*``) property set.

    Raises:
        TypeError: If ``name`` is not a string.
        ValueError: If OGB has no such data set; the message lists those of the kind asked for.

    Example:
        >>> ogb_meta("ogbn-arxiv")["eval metric"]
        'acc'
    """
    if not isinstance(name, str):
        raise TypeError(f"'name' must be the name of an OGB data set (got {name!r} of type {type(name).__name__})")
    package = PACKAGES.get(name.partition("-")[0])
    if package is None:
        raise ValueError(f"'name' must begin with 'ogbn-', 'ogbl-' or 'ogbg-' (got {name!r})")
    ogb = find_spec("ogb")  # finds the folder without running the package, which takes a second and starts a thread
    if ogb is None or not ogb.submodule_search_locations:
        raise ImportError("'ogb' is needed here but not installed; to get it: pip install ogb")
    folder = Path(ogb.submodule_search_locations[0], *package.split(".")[1:])
    with (folder / "master.csv").open(encoding="utf-8", newline="") as table:
        (_, *names), *rows = csv.reader(table)
    if name not in names:
        raise ValueError(f"OGB has no data set {name!r}; of this kind there are {', '.join(names)}")
    column = 1 + names.index(name)
    return {row[0]: row[column] for row in rows}


def ogb_folder(name: str, root: Path, meta: Mapping[str, object]) -> Path:
    """Return the folder in which OGB keeps a data set: ``root / "ogbn_arxiv"`` for ``"ogbn-arxiv"``.

    Example:
        >>> ogb_folder("ogbn-arxiv", Path("ogb"), {}).name
        'ogbn_arxiv'
    """
    if "dir_path" in meta:
        return Path(str(meta["dir_path"]))
    folder = root / name.replace("-", "_")
    legacy = folder.with_name(f"{folder.name}_pyg")
    return legacy if legacy.is_dir() else folder


def missing_file(name: str, folder: Path, meta: Mapping[str, object]) -> Path | None:
    """Return the first file or folder that OGB's loader needs and that is not there; ``None`` if all are.

    Example:
        >>> missing_file("ogbn-arxiv", Path("nowhere"), ogb_meta("ogbn-arxiv")).name
        'nowhere'
    """
    needed = ["", "raw", *(f"raw/{file}" for file in _raw_files(name, meta)), f"split/{meta['split']}"]
    # Without this note of its release OGB takes a folder for an old one and asks whether to replace it.
    needed.append(f"RELEASE_v{meta['version']}.txt")
    return next((folder / path for path in needed if not (folder / path).exists()), None)


def _raw_files(name: str, meta: Mapping[str, object]) -> list[str]:
    """Return the names of the raw files that every set of this kind has, as OGB's classes list them."""
    hetero, binary = meta["is hetero"] == "True" if "is hetero" in meta else False, meta["binary"] == "True"
    if hetero:
        return ["edge_index_dict.npz"] if binary else ["num-node-dict.csv.gz", "triplet-type-list.csv.gz"]
    labels = {"ogbn": ["node-label"], "ogbg": ["graph-label"], "ogbl": []}[name.partition("-")[0]]
    if binary:
        return ["data.npz", *(f"{label}.npz" for label in labels)]
    files = ["edge", "num-node-list", "num-edge-list", *labels]
    files += ["node-feat"] if meta["has_node_attr"] == "True" else []
    files += ["edge-feat"] if meta["has_edge_attr"] == "True" else []
    return [f"{file}.csv.gz" for file in files]


def download_ogb(url: str, top: str, folder: Path) -> None:
    """Download and unpack the archive of a data set, without a question; ``folder`` appears complete or not at all.

    Args:
        url: Address of the archive.
        top: Name of the one folder in the archive.
        folder: Where that folder goes; must not exist, or be empty.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Beside its destination, so that moving it there is one step.
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
        extract_zip(download_url(url, temporary), temporary)
        (Path(temporary) / top).rename(folder)


def ogb_url(meta: Mapping[str, object]) -> str:
    """Return the official address of a data set's archive, over TLS.

    Example:
        >>> ogb_url(ogb_meta("ogbl-ddi"))
        'https://snap.stanford.edu/ogb/data/linkproppred/ddi.zip'
    """
    return str(meta["url"]).replace("http://", "https://", 1)


def require_ogb(name: str, folder: Path, meta: Mapping[str, object], *, download: bool) -> None:
    """Make sure that the raw files are there: download a set of which nothing is there, or raise an error.

    Args:
        name: Name of the data set, for the messages.
        folder: Its folder.
        meta: OGB's description of it.
        download: Whether it may be downloaded.

    Raises:
        FileNotFoundError: If a file is missing; the message says which, where, and how to get it.
    """
    missing = missing_file(name, folder, meta)
    if missing is None:
        return
    url = ogb_url(meta)
    manual = f"download {url} and rename the folder in it to {folder}"
    if folder.is_dir() and any(folder.iterdir()):
        raise FileNotFoundError(
            f"{name}: no {missing}, so {folder} is incomplete or of another release; move it away, then call again "
            f"with download=True, or {manual}"
        )
    if not download:
        raise FileNotFoundError(f"{name}: no folder {folder}; call with download=True, or {manual}")
    try:
        download_ogb(url, str(meta["download_name"]), folder)
    except Exception as error:  # whatever failed, network, disc or archive, the remedy is the same
        if missing_file(name, folder, meta) is None:  # another process was faster
            return
        raise FileNotFoundError(
            f"{name}: no folder {folder}, and {url} could not be downloaded ({type(error).__name__}: {error}); "
            f"where there is a network, {manual}"
        ) from error
    missing = missing_file(name, folder, meta)
    if missing is not None:
        raise FileNotFoundError(f"{name}: no {missing} in the archive {url}")
