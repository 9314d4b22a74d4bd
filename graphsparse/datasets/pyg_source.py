"""Data sets that PyG can read: where their raw files lie, and how they are read without running code in them."""

import pickle
import tempfile
import urllib.error
import urllib.request
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch_geometric.data import Data, InMemoryDataset
from torch_geometric.datasets import Actor, Airports, CitationFull, HeterophilousGraphDataset, Planetoid, WebKB

from graphsparse.datasets.cache import cached, safe_loading
from graphsparse.datasets.check import check_nodes
from graphsparse.datasets.plain_pickle import read_pickle
from graphsparse.utils.files import ContentError, FileError, read_arrays, reading

#: Seconds that a server has to answer before a download is given up; PyG itself would wait for minutes.
_TIMEOUT = 10.0


@dataclass(frozen=True)
class PygSource:
    """One data set of PyG.

    Attributes:
        folder: Folder of its family below the data root; the ``root`` of PyG's class.
        files: Its raw files, relative to ``folder``.
        dataset: PyG's class.
        arguments: What it takes besides the ``root``.
        url: Official place of the raw files, for error messages and to see whether there is a network.
        arrays: What PyG reads of those that end in ``.npz``.
        bag_of_words: Whether ``x`` counts or weighs words, so that dividing a row by its sum makes sense.
    """

    folder: str
    files: tuple[str, ...]
    dataset: Any
    arguments: tuple[str, ...]
    url: str
    arrays: tuple[str, ...] = ()
    bag_of_words: bool = True


def read_pyg(source: PygSource, name: str, root: Path) -> Data:
    """Read a data set of PyG; download it when its raw files are missing.

    Nothing is ever written below ``root`` but raw files that were not there. PyG reads copies of ours, which hold
    numbers, texts and arrays alone whatever is in the raw files, see :func:`graphsparse.datasets.cache.cached`.

    Raises:
        FileNotFoundError: If a raw file is missing and cannot be downloaded.
        ValueError: If a raw file is damaged, or holds anything else; the message has its path.
    """
    folder = root / source.folder
    for file in source.files:
        if (folder / file).exists() and not (folder / file).is_file():
            raise FileError(f"{str(folder / file)!r} is a folder in the place of a file, or a device")
    missing = [file for file in source.files if not (folder / file).is_file()]
    if missing:
        _download(source, name, folder, missing)

    def build(copy: Path) -> dict[str, Any]:
        for file in source.files:
            (copy / file).parent.mkdir(parents=True, exist_ok=True)
            _bring(source, folder / file, copy / file)
        # What PyG says names no file. It is none of the arrays, which were looked at.
        texts = [file for file in source.files if not file.endswith(".npz")] or source.files
        with reading(" or ".join(str(folder / file) for file in texts)):
            with warnings.catch_warnings(), safe_loading():  # PyG adds a filter of its own for old pickles
                data = _construct(source, copy)[0]
            check_nodes(data)
        found: dict[str, Any] = data.to_dict()
        return found

    return Data.from_dict(cached(name, folder, source.files, build, lambda found: check_nodes(Data.from_dict(found))))


def _bring(source: PygSource, file: Path, copy: Path) -> None:
    """Write what PyG reads of a raw file anew: its arrays, what its pickle describes, or its text."""
    if file.suffix == ".npz":
        arrays = read_arrays(file, *source.arrays)
        with reading(file):
            for part in ("attr", "adj") if source.dataset is CitationFull else ():
                _check_rows(*(arrays[f"{part}_{name}"] for name in ("data", "indices", "indptr", "shape")))
        np.savez(copy, **arrays)  # type: ignore[arg-type]
    elif source.dataset is Planetoid and not file.name.endswith(".test.index"):
        copy.write_bytes(pickle.dumps(read_pickle(file)))
    else:
        with reading(file):
            text = file.read_text(encoding="utf-8")
            if not text.strip() or text[-1] != "\n":  # PyG leaves out what is behind the last end of a line
                raise ContentError("its last line has no end, so that it may be cut off")
        copy.write_text(text, encoding="utf-8")


def _check_rows(data: Any, indices: Any, indptr: Any, shape: Any) -> None:
    """Refuse compressed rows with an index that is too large: SciPy would write to whatever memory is there."""
    from scipy.sparse import csr_matrix  # slow to import

    csr_matrix((data, indices, indptr), shape=tuple(shape)).check_format(full_check=True)


def _construct(source: PygSource, folder: str | Path, **methods: Any) -> InMemoryDataset:
    """Make PyG's object, which processes what is in the folder, silently; its constructor has no switch for that."""
    silent = {"log": property(lambda self: False, lambda self, value: None)}
    kind = type(source.dataset.__name__, (source.dataset,), silent | methods)
    return kind(str(folder), *source.arguments)


def _download(source: PygSource, name: str, folder: Path, missing: list[str]) -> None:
    """Let PyG download a data set, and move the missing files into ``folder``, each in one step."""
    try:
        _check_server(source.url)
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=folder) as temporary:
            # Only to download: processing would open the pickles of a server.
            _construct(source, temporary, _process=lambda self: None, load=lambda self, path: None)
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


def _check_server(url: str) -> None:
    """Raise an error unless a server answers, whatever it answers."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=_TIMEOUT):
            pass
    except urllib.error.HTTPError:
        pass


_PARTS = ("x", "tx", "allx", "y", "ty", "ally", "graph", "test.index")
_MASKS = ("train_mask", "val_mask", "test_mask")


def _planetoid(name: str) -> PygSource:
    files = tuple(f"{name}/raw/ind.{name.lower()}.{part}" for part in _PARTS)
    return PygSource("planetoid", files, Planetoid, (name,), Planetoid.url)


def _geom_gcn(folder: str, raw: str, prefix: str, dataset: Any, *arguments: str) -> PygSource:
    files = ["out1_node_feature_label.txt", "out1_graph_edges.txt"]
    files += [f"{prefix}_split_0.6_0.2_{split}.npz" for split in range(10)]
    return PygSource(folder, tuple(f"{raw}/{file}" for file in files), dataset, arguments, WebKB.url, _MASKS)


def _webkb(name: str) -> PygSource:
    return _geom_gcn("webkb", f"{name}/raw", name, WebKB, name)


def _citation_full(name: str) -> PygSource:
    arrays = [f"{part}_{entry}" for part in ("attr", "adj") for entry in ("data", "indices", "indptr", "shape")]
    files, url = (f"{name}/raw/{name}.npz",), CitationFull.url.format(name)
    return PygSource("citation_full", files, CitationFull, (name,), url, (*arrays, "labels"))


class _Filtered(HeterophilousGraphDataset):  # type: ignore[misc]
    """A graph of the same authors and in the same form that PyG's class does not know by name."""

    def __init__(self, root: str, name: str) -> None:
        self.name = name
        InMemoryDataset.__init__(self, root)
        self.load(self.processed_paths[0])

    @property
    def raw_dir(self) -> str:
        return str(self.root)


def _heterophilous(name: str, folder: str = "heterophilous", dataset: Any = HeterophilousGraphDataset) -> PygSource:
    return PygSource(
        folder,
        (f"{name}.npz" if dataset is _Filtered else f"{name}/raw/{name}.npz",),
        dataset,
        (name,),
        f"{HeterophilousGraphDataset.url}/{name}.npz",
        ("node_features", "node_labels", "edges", *(f"{mask}s" for mask in _MASKS)),
        bag_of_words=False,
    )


def _airports(name: str) -> PygSource:
    return PygSource(
        "airports",
        (f"{name}/raw/{name}-airports.edgelist", f"{name}/raw/labels-{name}-airports.txt"),
        Airports,
        (name,),
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
    "actor": _geom_gcn("actor", "raw", "film", Actor),
    "cora_ml": _citation_full("cora_ml"),
    "citeseer_full": _citation_full("citeseer"),
    "dblp": _citation_full("dblp"),
    "minesweeper": _heterophilous("minesweeper"),
    "tolokers": _heterophilous("tolokers"),
    "chameleon_filtered": _heterophilous("chameleon_filtered", "heterophilous_extra", _Filtered),
    "squirrel_filtered": _heterophilous("squirrel_filtered", "heterophilous_extra", _Filtered),
    "airports-usa": _airports("usa"),
    "airports-brazil": _airports("brazil"),
    "airports-europe": _airports("europe"),
}
