"""Open Graph Benchmark data sets, loaded safely, without questions, and without touching the raw files."""

import csv
import functools
import gzip
import shutil
import tempfile
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data, HeteroData, download_url, extract_zip

from graphsparse.datasets.cache import cached, data_root, raw_files, safe_loading
from graphsparse.datasets.check import as_mask, check_edges
from graphsparse.datasets.plain_pickle import read_torch_arrays
from graphsparse.utils.files import ContentError, read_arrays, reading

#: Kind of data set -> OGB's package for it.
_PACKAGES = {"ogbn": "ogb.nodeproppred", "ogbl": "ogb.linkproppred", "ogbg": "ogb.graphproppred"}
_CLASSES = {"ogbn": "PygNodePropPredDataset", "ogbl": "PygLinkPropPredDataset", "ogbg": "PygGraphPropPredDataset"}


def load_ogb(
    name: str,
    root: str | Path | None = None,
    *,
    download: bool = True,
    meta_dict: Mapping[str, object] | None = None,
) -> tuple[Any, Any]:
    """Return an OGB data set and the OGB ``Evaluator`` that judges predictions on it.

    OGB's own loaders process the files, once and in a temporary folder; no question is ever asked, no code in a file is
    run, and the raw files are only read. What was processed is kept in the cache, see
    :func:`graphsparse.datasets.cache.cached`. OGB shows its progress when it processes a set for the first time.

    What comes first in the pair depends on the name:

    * ``ogbn-*``, node property prediction: a ``Data`` with OGB's attributes (``x``, ``edge_index`` in OGB's
      directions, ``edge_attr``, ``node_year``, ... as far as the set has them), bool masks ``train_mask``,
      ``val_mask``, ``test_mask`` ``[N]``, and ``num_classes``, ``num_tasks``, ``name``. With one task ``y`` is int64
      ``[N]`` (OGB: ``[N, 1]``), -1 where there is no label, so that ``training.fit`` takes it as it is; with ``T``
      tasks it is OGB's ``[N, T]``. ``ogbn-mag`` is a ``HeteroData`` with the same attributes in each node type.
    * ``ogbl-*``, link property prediction: a ``Data`` (``ogbl-biokg``: a ``HeteroData``) with the graph of the
      training edges, ``name``, and ``split_edge``, OGB's dictionary of dictionaries of tensors: for most sets
      ``split_edge["train"]["edge"]`` ``[E, 2]``, and ``"edge"`` and ``"edge_neg"`` under ``"valid"`` and ``"test"``.
    * ``ogbg-*``, graph property prediction: OGB's ``PygGraphPropPredDataset``, with ``get_idx_split()``, in memory.

    The evaluator is OGB's, unchanged. On node sets it wants two dimensions, for a single task
    ``evaluator.eval({"y_true": data.y[:, None], "y_pred": logits.argmax(1, keepdim=True)})``.

    Args:
        name: OGB's name of the set, such as ``"ogbn-arxiv"``.
        root: Folder that holds ``ogbn_arxiv`` and the like; by default ``ogb`` in the folder named by
            ``GRAPHSPARSE_DATA``, else in ``data`` in the current folder.
        download: Download a set that is not there, however large (``ogbn-papers100M`` is 57 GB; OGB would ask from
            1 GB on). With ``False``, or without a network, an error says what to get from where. A folder that is
            there is never replaced, even if it is incomplete or of an old release: that is an error.
        meta_dict: What ``ogb.io.DatasetSaver.get_meta_dict`` returned, for a set in OGB's format that is not in
            OGB's list; ``root`` is not used then, and the evaluator is the one of ``name``.

    Returns:
        The pair ``(data, evaluator)``.

    Raises:
        TypeError: If ``name`` is not a string.
        ValueError: If OGB has no set of that name; the message lists those of the kind. If a file is damaged or holds
            Python objects; the message has the path.
        FileNotFoundError: If a file is missing and cannot be downloaded; the message says which, where, and how to
            get it.

    Note:
        ``ogb`` is imported by the first call only. Its import starts a thread that asks PyPI for a newer version of
        ``ogb`` and sets ``OUTDATED_IGNORE`` in the environment; it has no switch for that.

    Example:
        ::

            data, evaluator = load_ogb("ogbn-arxiv")
            graphs, evaluator = load_ogb("ogbg-molhiv")
            train = graphs[graphs.get_idx_split()["train"]]

    Source: Hu et al., "Open Graph Benchmark: Datasets for Machine Learning on Graphs", NeurIPS 2020.
    """
    meta: dict[str, object] = {**ogb_meta(name), **(meta_dict or {})}
    folder = ogb_folder(name, data_root() / "ogb" if root is None else Path(root).expanduser(), meta)
    require_ogb(name, folder, meta, download=download)

    kind = name.partition("-")[0]
    package = import_module(_PACKAGES[kind])
    cls = getattr(package, _CLASSES[kind])
    files = list(raw_files(folder, ["raw", f"split/{meta['split']}"]))
    content = cached(
        *(name, folder, files, lambda copy: _process(cls, name, folder, files, copy, meta), _check),
        variant=f"ogb {version('ogb')} {sorted((key, str(value)) for key, value in meta.items())}",
    )
    if kind == "ogbg":
        return _graphs(cls, folder, meta, content), package.Evaluator(name)
    data = _whole(content)
    data.name = name
    if kind == "ogbn":
        data.num_classes, data.num_tasks = int(str(meta["num classes"])), int(str(meta["num tasks"]))
        with reading(folder / "split"):
            _add_masks(data, content["split"])
    else:
        data.split_edge = content["split"]
    for store in data.node_stores:
        if "num_nodes" in store:
            store.num_nodes = int(store.num_nodes)
        if "y" in store and "classification" in str(meta["task type"]):
            store.y = _labels(store.y)
    return data, package.Evaluator(name)


def _process(
    cls: Any, name: str, folder: Path, files: list[str], copy: Path, meta: Mapping[str, object]
) -> dict[str, Any]:
    """Let OGB process a set in a folder that looks like its own, and return graphs, split and attributes."""
    for file in files:
        (copy / file).parent.mkdir(parents=True, exist_ok=True)
        if file.endswith(".pt"):
            torch.save(read_torch_arrays(folder / file), copy / file)
        else:  # texts and arrays, which no library reads as anything else
            _link(folder / file, copy / file)
    (copy / f"RELEASE_v{meta['version']}.txt").touch()
    try:
        with safe_loading():
            dataset = cls(name, meta_dict={**meta, "dir_path": str(copy)})
            split = dataset.get_edge_split() if name.startswith("ogbl") else dataset.get_idx_split()
        content: dict[str, Any] = {"split": split}
        if name.startswith("ogbg"):
            own = {key: value for key, value in vars(dataset).items() if key not in ("_data", "slices", "_data_list")}
            content |= {"data": dataset._data.to_dict(), "slices": dataset.slices, "attributes": own}
        else:
            content["data"] = dataset[0].to_dict()
        _check(content)
    except Exception as error:  # what OGB says names no file, or one of the copy
        lost = isinstance(error, FileNotFoundError | IsADirectoryError)
        with reading(_damaged(folder, files)):
            raise ContentError("it is no file") if lost else error from None
    return content


def _damaged(folder: Path, files: list[str]) -> Path:
    """Return the first file that holds no text or arrays, or is a folder; the folder of all if there is none."""
    for path in (folder / part for part in ("raw", "split")):
        for inner in path.rglob("*"):
            if inner.suffix in (".gz", ".npz", ".pt") and inner.is_dir():
                return inner
    for file in files:
        try:
            if file.endswith(".gz"):
                with gzip.open(folder / file, "rt", encoding="utf-8") as text:
                    if not sum(bool(line.strip()) for line in text):  # to the end: it may be cut off
                        return folder / file
            elif file.endswith(".npz"):
                with np.load(folder / file, allow_pickle=False) as arrays:
                    read_arrays(folder / file, *arrays)
        except Exception:
            return folder / file
    return folder


def _link(file: Path, link: Path) -> None:
    """Make ``link`` lead to ``file``, or hold the same bytes where links are not allowed."""
    try:
        link.symlink_to(file.resolve())
    except OSError:
        shutil.copyfile(file, link)


def _whole(content: dict[str, Any]) -> Any:
    """Return the one graph of a set for nodes or links."""
    data = Data.from_dict(content["data"])
    return _to_hetero(data) if "edge_index_dict" in data else data


def _check(content: dict[str, Any]) -> None:
    """Refuse edges of nodes that are not there."""
    if content["split"].keys() != {"train", "valid", "test"}:
        raise ContentError("its split has other parts than 'train', 'valid' and 'test'")
    if "slices" in content:
        return _check_graphs(content["data"], content["slices"])
    data = _whole(content)
    if isinstance(data, HeteroData):
        for kind in data.edge_types:
            check_edges(data[kind].edge_index, (int(data[kind[0]].num_nodes), int(data[kind[2]].num_nodes)))
        return None
    return check_edges(data.edge_index, (int(data.num_nodes),) * 2)


def _check_graphs(data: Mapping[str, Any], slices: Mapping[str, Tensor]) -> None:
    """Refuse graphs with edges of nodes that they do not have; in each of them nodes count from 0."""
    check_edges(data["edge_index"], (2**62, 2**62))
    sizes = torch.tensor(data["_num_nodes"])
    edges = slices["edge_index"].diff()
    if edges.shape != sizes.shape or int(edges.min()) < 0 or int(edges.sum()) != data["edge_index"].size(1):
        raise ContentError("its graphs have other numbers of edges than are told")
    if bool((data["edge_index"] >= sizes.repeat_interleave(edges)).any()):
        raise ContentError("an edge joins a node that its graph does not have")


def _graphs(cls: Any, folder: Path, meta: Mapping[str, object], content: dict[str, Any]) -> Any:
    """Return OGB's object of graphs that are read already; its constructor would read files that others may write."""
    dataset = cls.__new__(cls)
    vars(dataset).update(content["attributes"])
    place = str(folder)
    vars(dataset).update(root=place, dir_name=place, meta_info={**meta, "dir_path": place})
    dataset._data, dataset.slices, dataset._data_list = Data.from_dict(content["data"]), content["slices"], None
    dataset.get_idx_split = functools.partial(_kept_split, content["split"], str(meta["split"]))
    return dataset


def _kept_split(split: Mapping[str, Tensor], name: str, split_type: str | None = None) -> dict[str, Tensor]:
    """Return the official split, in place of OGB's method, which reads a file."""
    if split_type not in (None, name):
        raise ValueError(f"'split_type' must be {name!r}, the official one (got {split_type!r})")
    return {part: torch.as_tensor(index).clone() for part, index in split.items()}


def _to_hetero(data: Data) -> HeteroData:
    """Turn OGB's ``Data`` full of dictionaries by type into the ``HeteroData`` that it stands for."""
    hetero = HeteroData()
    for key, by_type in data.to_dict().items():
        for kind, value in by_type.items():
            hetero[kind][key.removesuffix("_dict")] = value
    return hetero


def _add_masks(data: Any, split: Mapping[str, Any]) -> None:
    """Add the official split as bool masks, in a heterogeneous graph to each node type that has one."""
    for part, key in (("train", "train_mask"), ("valid", "val_mask"), ("test", "test_mask")):
        indices = split[part] if isinstance(data, HeteroData) else {None: split[part]}
        for kind, index in indices.items():
            store = data if kind is None else data[kind]
            store[key] = as_mask(index, int(store.num_nodes))


def _labels(y: Tensor) -> Tensor:
    """Return the labels of a single task as int64 ``[N]``, -1 for none; those of several tasks as they are."""
    if y.dim() != 2 or y.size(1) != 1:
        return y
    y = y.squeeze(1)
    return torch.where(y.isnan(), -1, y).to(torch.int64) if y.is_floating_point() else y


def ogb_meta(name: str) -> dict[str, str]:
    """Return OGB's own description of one of its data sets: one column of its table."""
    if not isinstance(name, str):
        raise TypeError(f"'name' must be the name of an OGB data set (got {name!r} of type {type(name).__name__})")
    kind = name.partition("-")[0]
    if kind not in _PACKAGES:
        raise ValueError(f"'name' must begin with 'ogbn-', 'ogbl-' or 'ogbg-' (got {name!r})")
    (_, *names), *rows = _table(kind)
    if name not in names:
        raise ValueError(f"OGB has no data set {name!r}; of this kind there are {', '.join(names)}")
    column = 1 + names.index(name)
    return {row[0]: row[column] for row in rows}


def ogb_names() -> list[str]:
    """Return the name of every data set of OGB: none where it is not installed."""
    if find_spec("ogb") is None:
        return []
    return [name for kind in _PACKAGES for name in _table(kind)[0][1:]]


def _table(kind: str) -> list[list[str]]:
    """Return OGB's own table of its data sets of a kind, one in a column."""
    ogb = find_spec("ogb")  # finds the folder without running the package, which takes a second and starts a thread
    if ogb is None or not ogb.submodule_search_locations:
        raise ImportError("'ogb' is needed here but not installed; to get it: pip install ogb")
    folder = Path(ogb.submodule_search_locations[0], *_PACKAGES[kind].split(".")[1:])
    with (folder / "master.csv").open(encoding="utf-8", newline="") as table:
        return list(csv.reader(table))


def ogb_folder(name: str, root: Path, meta: Mapping[str, object]) -> Path:
    """Return the folder in which OGB keeps a data set: ``root / "ogbn_arxiv"`` for ``"ogbn-arxiv"``."""
    if "dir_path" in meta:
        return Path(str(meta["dir_path"]))
    folder = root / name.replace("-", "_")
    legacy = folder.with_name(f"{folder.name}_pyg")
    return legacy if legacy.is_dir() else folder


def missing_file(name: str, folder: Path, meta: Mapping[str, object]) -> Path | None:
    """Return the first file or folder that OGB's loader needs and that is not there; ``None`` if all are."""
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
    """Download and unpack an archive with one folder ``top`` in it; ``folder`` appears complete or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Beside its destination, so that moving it there is one step.
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
        extract_zip(download_url(url, temporary), temporary)
        (Path(temporary) / top).rename(folder)


def ogb_url(meta: Mapping[str, object]) -> str:
    """Return the official address of a data set's archive, over TLS."""
    return str(meta["url"]).replace("http://", "https://", 1)


def require_ogb(name: str, folder: Path, meta: Mapping[str, object], *, download: bool) -> None:
    """Make sure that the raw files are there: download a set of which nothing is there, or raise an error."""
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
