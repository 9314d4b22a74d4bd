"""Data sets that PyG can read: where their raw files lie, and how to read them without writing beside them."""

import shutil
import tempfile
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch_geometric.data import InMemoryDataset
from torch_geometric.datasets import Actor, Airports, CitationFull, HeterophilousGraphDataset, Planetoid, WebKB

from graphsparse.datasets.cache import drop_notes, private_copy, safe_loading

#: Seconds that a server has to answer before a download is given up; PyG itself would wait for minutes.
_PATIENCE = 10.0


@dataclass(frozen=True)
class PygSource:
    """One data set of PyG.

    Attributes:
        folder: Folder of its family below the data root; the ``root`` of PyG's class.
        files: Its raw files, relative to ``folder``.
        make: Builds PyG's data set from a ``root``.
        url: Official place of the raw files, for error messages and to see whether there is a network.
        bag_of_words: Whether ``x`` counts or weighs words, so that dividing a row by its sum makes sense.
    """

    folder: str
    files: tuple[str, ...]
    make: Callable[[str], InMemoryDataset]
    url: str
    bag_of_words: bool = True


def read_pyg(source: PygSource, name: str, root: Path) -> InMemoryDataset:
    """Read a data set of PyG; download it when its raw files are missing.

    PyG processes in a folder of the cache, see :func:`graphsparse.datasets.cache.private_copy`, or in a temporary one
    where the cache cannot be written. Nothing is ever written below ``root`` but raw files that were not there.

    Args:
        source: What to read.
        name: Name of the data set, for messages and for the folder in the cache.
        root: Data root.

    Raises:
        FileNotFoundError: If a raw file is missing and cannot be downloaded; the message says which, where, and how to
            get it.

    Example:
        ::

            dataset = read_pyg(PYG_SOURCES["cora"], "cora", Path("data"))
    """
    folder = root / source.folder
    missing = [file for file in source.files if not (folder / file).is_file()]
    if missing:
        _download(source, name, folder, missing)
    try:
        return _process(source, private_copy(folder, source.files, lambda copy: _process(source, copy), name=name))
    except OSError:  # no place in the cache; an unreadable raw file fails again below
        with tempfile.TemporaryDirectory() as temporary:
            for file in source.files:
                copy = Path(temporary, file)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(folder / file, copy)
            return _process(source, Path(temporary))


def _process(source: PygSource, folder: Path) -> InMemoryDataset:
    """Let PyG process the raw files in ``folder``, or load what it has processed there before."""
    with warnings.catch_warnings(), safe_loading():  # PyG adds a filter of its own for the old pickles of Planetoid
        dataset = source.make(str(folder))
    drop_notes(Path(dataset.processed_dir))
    return dataset


def _download(source: PygSource, name: str, folder: Path, missing: list[str]) -> None:
    """Let PyG download a data set, and move the missing files into ``folder``, each in one step."""
    try:
        _knock(source.url)
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=folder) as temporary:
            source.make(temporary)
            for file in missing:
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                Path(temporary, file).replace(folder / file)
    except Exception as error:  # whatever failed, network, disc or file, the remedy is the same
        others = f" (nor {len(missing) - 1} more of its files)" if len(missing) > 1 else ""
        raise FileNotFoundError(
            f"{name}: no file {folder / missing[0]}{others}, and it could not be downloaded from {source.url} "
            f"({type(error).__name__}: {error}); where there is a network, put the raw files of that place into "
            f"{(folder / missing[0]).parent}, or let GRAPHSPARSE_DATA or 'root' name a folder that holds "
            f"{source.folder}/{missing[0]}"
        ) from error


def _knock(url: str) -> None:
    """Raise an error unless a server answers, whatever it answers."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=_PATIENCE):
            pass
    except urllib.error.HTTPError:
        pass


def _quiet(cls: Any) -> Any:
    """Return a PyG data set class that does not write "Processing..." to stderr; its constructor has no switch."""
    return type(cls.__name__, (cls,), {"log": property(lambda self: False, lambda self, value: None)})


_PARTS = ("x", "tx", "allx", "y", "ty", "ally", "graph", "test.index")


def _planetoid(name: str) -> PygSource:
    files = tuple(f"{name}/raw/ind.{name.lower()}.{part}" for part in _PARTS)
    return PygSource("planetoid", files, lambda root: _quiet(Planetoid)(root, name), Planetoid.url)


def _geom_gcn(folder: str, raw: str, prefix: str, make: Callable[[str], InMemoryDataset]) -> PygSource:
    files = ["out1_node_feature_label.txt", "out1_graph_edges.txt"]
    files += [f"{prefix}_split_0.6_0.2_{split}.npz" for split in range(10)]
    return PygSource(folder, tuple(f"{raw}/{file}" for file in files), make, WebKB.url)


def _webkb(name: str) -> PygSource:
    return _geom_gcn("webkb", f"{name}/raw", name, lambda root: _quiet(WebKB)(root, name))


def _citation_full(name: str) -> PygSource:
    files, url = (f"{name}/raw/{name}.npz",), CitationFull.url.format(name)
    return PygSource("citation_full", files, lambda root: _quiet(CitationFull)(root, name), url)


def _heterophilous(name: str) -> PygSource:
    return PygSource(
        "heterophilous",
        (f"{name}/raw/{name}.npz",),
        lambda root: _quiet(HeterophilousGraphDataset)(root, name),
        f"{HeterophilousGraphDataset.url}/{name}.npz",
        bag_of_words=False,
    )


def _airports(name: str) -> PygSource:
    return PygSource(
        "airports",
        (f"{name}/raw/{name}-airports.edgelist", f"{name}/raw/labels-{name}-airports.txt"),
        lambda root: _quiet(Airports)(root, name),
        Airports.edge_url.format(name),
        bag_of_words=False,
    )


#: Every data set of PyG that :func:`graphsparse.datasets.load` knows.
PYG_SOURCES: dict[str, PygSource] = {
    "cora": _planetoid("Cora"),
    "citeseer": _planetoid("CiteSeer"),
    "pubmed": _planetoid("PubMed"),
    "texas": _webkb("texas"),
    "cornell": _webkb("cornell"),
    "wisconsin": _webkb("wisconsin"),
    "actor": _geom_gcn("actor", "raw", "film", lambda root: _quiet(Actor)(root)),
    "cora_ml": _citation_full("cora_ml"),
    "citeseer_full": _citation_full("citeseer"),
    "dblp": _citation_full("dblp"),
    "minesweeper": _heterophilous("minesweeper"),
    "tolokers": _heterophilous("tolokers"),
    "airports-usa": _airports("usa"),
    "airports-brazil": _airports("brazil"),
    "airports-europe": _airports("europe"),
}
