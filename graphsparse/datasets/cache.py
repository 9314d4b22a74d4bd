"""Where data sets lie, and where what is made of them is kept.

Shared by every loader here. PyG and OGB write a ``processed/`` folder beside the raw files, as pickles that they read
again. We let them do neither: they work once, in a temporary folder that nobody else can write to, and what they make
is kept as a file of tensors and plain values. The raw files are only read; they may lie in a folder that is read-only,
shared or under version control. :mod:`graphsparse.utils.files` and :mod:`graphsparse.datasets.plain_pickle` say how
nothing in any of these files is run.
"""

import os
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch_geometric
from torch import Tensor
from torch_geometric.data import Data, HeteroData
from torch_geometric.data.data import DataEdgeAttr, DataTensorAttr
from torch_geometric.data.storage import BaseStorage, EdgeStorage, GlobalStorage, NodeStorage

from graphsparse.ops.digest import digest
from graphsparse.utils.files import ContentError, FileError, read_tensors, reading, safe_names, write_tensors

_KIND = "processed data set"


def data_root() -> Path:
    """Return the folder in which data sets are looked for when no ``root`` is given.

    Returns:
        The folder named by the environment variable ``GRAPHSPARSE_DATA``, else ``data`` in the current folder.
    """
    return Path(os.environ.get("GRAPHSPARSE_DATA") or "data").expanduser()


def cache_root() -> Path:
    """Return the folder for processed data sets; it may be deleted at any time, everything in it can be made again.

    Returns:
        The folder named by ``GRAPHSPARSE_CACHE``, else ``graphsparse`` in ``$XDG_CACHE_HOME``, else
        ``~/.cache/graphsparse``.
    """
    own = os.environ.get("GRAPHSPARSE_CACHE")
    if own:
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "graphsparse"


def cached(
    name: str,
    source: Path,
    files: Iterable[str],
    build: Callable[[Path], dict[str, Any]],
    check: Callable[[dict[str, Any]], object],
    *,
    variant: str = "",
) -> dict[str, Any]:
    """Return what ``build`` makes of raw files, from the cache if it was made before.

    The file in the cache is named by a fingerprint of the place of ``source``, of the relative path, size and time of
    each raw file, of PyG's version and of ``variant``, so changed raw files are processed anew. It is whole or not
    there; one that is damaged is made anew. Processes that start together each build their own, which are equal.

    Args:
        name: Readable start of the file's name, and the name of the set in messages.
        source: Folder of the raw files; only read.
        files: The raw files, relative to ``source``.
        build: Called with an empty folder that only this user may enter, and that is gone afterwards; it may be in the
            folder of temporary files, which ``TMPDIR`` names. Returns tensors, plain values, and lists, tuples and
            dictionaries of them, by name; arrays and numbers of NumPy come back as those of PyTorch and Python.
        check: Raises an error if a file of the cache, which others may have written, holds what ``build`` never makes.
        variant: Tells apart what ``build`` makes of the same files, such as the arguments of a loader.

    Returns:
        What ``build`` returned.
    """
    file = cache_root() / "datasets" / f"{name}-{_fingerprint(source, sorted(files), variant)}.safetensors"
    try:
        tensors, header = read_tensors(file, _KIND)
        with reading(file):
            content = {key: _unpack(value, tensors) for key, value in header.items()}
            check(content)
            return content
    except (FileNotFoundError, PermissionError, FileError):  # for the latter two what is said below
        pass
    with tempfile.TemporaryDirectory(prefix="graphsparse-") as folder:
        content = build(Path(folder))
    tensors = {}
    header = {key: _pack(value, tensors) for key, value in content.items()}
    try:
        write_tensors(file, _KIND, tensors, header)
    except OSError as error:
        warnings.warn(
            f"{name} is processed anew each time: processed data sets are kept in {file.parent}, which cannot be "
            f"written ({error.strerror or error}); set GRAPHSPARSE_CACHE to a folder that can",
            UserWarning,
            stacklevel=2,
        )
    return {key: _unpack(value, tensors) for key, value in header.items()}


def raw_files(source: Path, entries: Sequence[str]) -> Iterator[str]:
    """Yield the relative path of every file below some files and folders, as paths relative to ``source``."""
    for entry in entries:
        path = source / entry
        if path.is_file():
            yield entry
            continue
        if not path.is_dir():
            raise FileNotFoundError(f"no file or folder {path}")
        seen = set()
        for folder, inner, names in os.walk(path, followlinks=True):
            place = os.path.realpath(folder)
            if place in seen:  # a link to a folder above would be followed for ever
                inner.clear()
                continue
            seen.add(place)
            yield from (str(each.relative_to(source)) for each in map(Path(folder).joinpath, names) if each.is_file())


def _fingerprint(source: Path, files: Sequence[str], variant: str) -> str:
    """Return 16 hexadecimal digits that change with anything that the processed data depend on."""
    parts = [str(source.resolve()), torch_geometric.__version__, variant]
    for file in files:
        status = (source / file).stat()
        parts.append(f"{file} {status.st_size} {status.st_mtime_ns}")
    return digest(parts)


def _pack(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Put tensors aside, by number, and return the rest in values that JSON can hold."""
    if isinstance(value, np.ndarray):
        value = torch.from_numpy(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Tensor):
        tensors[str(len(tensors))] = value
        return {"tensor": str(len(tensors) - 1)}
    if isinstance(value, dict):
        return {"dict": [[_pack(key, tensors), _pack(entry, tensors)] for key, entry in value.items()]}
    if isinstance(value, tuple):
        return {"tuple": [_pack(entry, tensors) for entry in value]}
    if isinstance(value, list):
        kinds = {type(entry) for entry in value}
        if kinds == {int}:  # one for each of many graphs
            return {"numbers": _pack(torch.tensor(value), tensors)}
        if kinds == {str}:  # one for each of many links, few of them different
            words = {word: place for place, word in enumerate(dict.fromkeys(value))}
            return {"words": list(words), "places": _pack(torch.tensor([words[word] for word in value]), tensors)}
        return {"list": [_pack(entry, tensors) for entry in value]}
    return value


def _unpack(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Return what :func:`_pack` was given."""
    if not isinstance(value, dict):
        return value
    if "words" in value:
        words = value["words"]
        return [words[place] for place in _unpack(value["places"], tensors).tolist()]
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "numbers":
        return _unpack(content, tensors).tolist()
    if kind == "dict":
        return {_unpack(key, tensors): _unpack(entry, tensors) for key, entry in content}
    if kind not in ("tuple", "list"):
        raise ContentError(f"it holds a {kind!r}")
    parts = [_unpack(entry, tensors) for entry in content]
    return tuple(parts) if kind == "tuple" else parts


# The functions that a pickled NumPy array and a pickled NumPy number name.
_ARRAY, _NUMBER = np.empty(0).__reduce__()[0], np.int64(0).__reduce__()[0]
#: What PyG and OGB put into the files of a temporary folder, which they read again.
_CONTAINERS: list[Any] = [
    *(Data, DataEdgeAttr, DataTensorAttr, HeteroData, BaseStorage, EdgeStorage, GlobalStorage, NodeStorage),
    *(np.ndarray, np.dtype, _ARRAY, _NUMBER, *(type(np.dtype(code)) for code in "?bBhHiIlLqQefd")),
]


@contextmanager
def safe_loading() -> Iterator[None]:
    """Let ``torch.load`` accept PyG's containers, so that PyG and OGB read again what they wrote, with safe loading.

    It is for files of this process's own temporary folders: everything else is read by
    :func:`graphsparse.utils.files.read_torch` and :func:`graphsparse.datasets.plain_pickle.read_torch_arrays`.
    """
    with safe_names(_CONTAINERS):
        yield
