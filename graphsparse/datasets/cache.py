"""Where data sets lie, where what we make of them goes, and how the files of PyG and OGB are loaded safely.

Shared by every loader here. PyG and OGB write a ``processed/`` folder beside the raw files; we never do, because the
raw files may lie in a folder that is read-only, shared or under version control. :func:`private_copy` gives such a
loader a folder of its own that looks like the original and may be written.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch_geometric
from torch_geometric.data import Data, HeteroData
from torch_geometric.data.data import DataEdgeAttr, DataTensorAttr
from torch_geometric.data.storage import BaseStorage, EdgeStorage, GlobalStorage, NodeStorage

from graphsparse.ops.digest import digest

# The functions that a pickled NumPy array and a pickled NumPy number name.
_ARRAY, _NUMBER = np.empty(0).__reduce__()[0], np.int64(0).__reduce__()[0]

# What the files hold besides tensors and plain Python: PyG's containers, and NumPy arrays in OGB's splits.
_SAFE: list[Any] = [
    *(Data, DataEdgeAttr, DataTensorAttr, HeteroData, BaseStorage, EdgeStorage, GlobalStorage, NodeStorage),
    *(np.ndarray, np.dtype, _ARRAY, _NUMBER),
    *(type(np.dtype(code)) for code in "?bBhHiIlLqQefd"),
    # The names under which NumPy 1 wrote them; the official archives are that old.
    *((_ARRAY, "numpy.core.multiarray._reconstruct"), (_NUMBER, "numpy.core.multiarray.scalar")),
]


def data_root() -> Path:
    """Return the folder in which data sets are looked for when no ``root`` is given.

    Returns:
        The folder named by the environment variable ``GRAPHSPARSE_DATA``, else ``data`` in the current folder.

    Example:
        >>> isinstance(data_root(), Path)
        True
    """
    return Path(os.environ.get("GRAPHSPARSE_DATA") or "data").expanduser()


def cache_root() -> Path:
    """Return the folder for processed data sets; it may be deleted at any time, everything in it can be made again.

    Returns:
        The folder named by ``GRAPHSPARSE_CACHE``, else ``graphsparse`` in ``$XDG_CACHE_HOME``, else
        ``~/.cache/graphsparse``.

    Example:
        >>> isinstance(cache_root(), Path)
        True
    """
    own = os.environ.get("GRAPHSPARSE_CACHE")
    if own:
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "graphsparse"


def private_copy(
    source: Path | str,
    entries: Sequence[str],
    build: Callable[[Path], object],
    *,
    name: str | None = None,
    variant: str = "",
) -> Path:
    """Return a folder that looks like ``source``, may be written, and in which ``build`` has already run.

    The folder lies in :func:`cache_root`. Its sub-folders are real, its files are links to those of ``source``
    (copies where the system allows no links), so nothing that a loader creates, renames or deletes there reaches
    ``source``. It is made once: ``build`` runs in a temporary folder, which is then moved into place in one step.
    Processes that start together each build their own, the first one to finish wins, and all return the winner's;
    an interrupted one leaves nothing that is ever read.

    The folder's name holds a fingerprint of the place of ``source``, of the relative path, size and modification time
    of each file, of PyG's version and of ``variant``, so changed raw files are processed anew.

    Args:
        source: Folder with the raw files; only read.
        entries: Files and folders to link, as paths relative to ``source``, such as ``["raw"]`` or ``["Cora/raw"]``;
            each appears at the same relative path. Sub-folders are followed.
        build: Called with the temporary folder; makes the loader process there. It must keep no path into it.
        name: Readable start of the folder's name; the last part of ``source`` by default.
        variant: Tells apart what ``build`` makes of the same files, such as the arguments of a loader.

    Returns:
        The finished folder. Load from it again: its ``processed/`` is there by then.

    Raises:
        FileNotFoundError: If an entry does not exist; the message names it.
        PermissionError: If the cache cannot be written; the message says how to choose another folder.

    Example:
        The pattern for a PyG data set whose raw files are there::

            def build(folder):
                return Planetoid(folder, "Cora")

            dataset = build(private_copy(root, ["Cora/raw"], build, name="Cora"))
    """
    source = Path(source)
    files = sorted(_files(source, entries))
    target = cache_root() / "datasets" / f"{name or source.name}-{_fingerprint(source, files, variant)}"
    if target.is_dir():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    except OSError as error:
        raise PermissionError(
            f"processed data sets are kept in {target.parent}, which cannot be written ({error}); "
            "set GRAPHSPARSE_CACHE to a folder that can"
        ) from error
    try:
        for file in files:
            _link(source / file, temporary / file)
        build(temporary)
        try:
            temporary.rename(target)
        except OSError:
            if not target.is_dir():  # otherwise another process was faster, and its folder is as good as ours
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def _files(source: Path, entries: Sequence[str]) -> Iterator[str]:
    """Yield the relative path of every file below the entries."""
    for entry in entries:
        path = source / entry
        if path.is_file():
            yield entry
        elif path.is_dir():
            for folder, _, names in os.walk(path, followlinks=True):
                yield from (str((Path(folder) / name).relative_to(source)) for name in names)
        else:
            raise FileNotFoundError(f"no file or folder {path}")


def _fingerprint(source: Path, files: Sequence[str], variant: str) -> str:
    """Return 16 hexadecimal digits that change with anything that the processed data depend on."""
    # The place belongs to it: the links of a copy made from a folder that is gone would lead nowhere.
    parts = [str(source.resolve()), torch_geometric.__version__, variant]
    for file in files:
        status = (source / file).stat()
        parts.append(f"{file} {status.st_size} {status.st_mtime_ns}")
    return digest(parts)


def _link(file: Path, link: Path) -> None:
    """Make ``link`` lead to ``file``, or hold the same bytes where links are not allowed."""
    link.parent.mkdir(parents=True, exist_ok=True)
    try:
        link.symlink_to(file.resolve())
    except OSError:
        shutil.copy2(file, link)


@contextmanager
def safe_loading() -> Iterator[None]:
    """Let ``torch.load`` accept the classes of PyG's and OGB's files, and no others, while ``weights_only`` stays on.

    Example:
        >>> with safe_loading():
        ...     torch.serialization.get_safe_globals() != []
        True
    """
    with torch.serialization.safe_globals(_SAFE):
        yield


def drop_notes(processed: Path) -> None:
    """Delete the notes that PyG keeps beside a processed data set.

    PyG reads them with safe loading off, to compare the transforms of then and now; without them it reads nothing.
    """
    for note in ("pre_transform.pt", "pre_filter.pt"):
        (processed / note).unlink(missing_ok=True)
