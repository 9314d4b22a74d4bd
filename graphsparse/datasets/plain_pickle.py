"""Arrays out of Python pickles, without running a pickle's code and without building an object that it describes.

A pickle is a program: it names functions and says what to call them with. The raw files of Planetoid and some splits
of OGB are pickles all the same. Here every name in them that may be called stands for one of three inert classes of
this file, which keep what they are told; any other name is refused. Arrays are made of what was kept at the end, after
types, lengths and indices were checked, because NumPy and SciPy trust their own pickles and would go beyond the memory
of an array whose pickle lies.
"""

import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from graphsparse.utils.files import ContentError, read_torch, reading, safe_names

_Array = npt.NDArray[Any]

#: Numbers and truth values: letter and bytes of each.
_NUMBERS = re.compile(r"b1|i[1248]|u[1248]|f[248]|[?bBhHiIlLqQefd]")


class _Type:
    """A NumPy data type: its letter and size, and its order of bytes."""

    def __init__(self, code: str = "", *_: object) -> None:
        self.code, self.order = code, "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, self.order, *structure = state
        if any(part is not None for part in structure[:3]):
            raise ContentError("it holds an array of records, which is not read")


class _Values:
    """A NumPy array, or one number."""

    def __init__(self, *state: Any) -> None:
        self.state = state

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.state = state

    def value(self) -> Any:
        if len(self.state) == 2:  # of a number: type and bytes
            kind, data = self.state
            return np.frombuffer(_bytes(data), _type(kind))[0].item()
        _, shape, kind, by_columns, data = self.state
        found = np.frombuffer(_bytes(data), _type(kind)).reshape(shape, order="F" if by_columns else "C")
        return found.astype(found.dtype.newbyteorder("="))  # a copy, which may be written


class _Matrix:
    """A sparse matrix of SciPy."""

    def value(self) -> Any:
        from scipy.sparse import csr_matrix  # slow to import

        state = vars(self)
        data, indices, indptr = (_plain(state[name]) for name in ("data", "indices", "indptr"))
        found = csr_matrix((data, indices, indptr), shape=tuple(state["_shape" if "_shape" in state else "shape"]))
        found.check_format(full_check=True)  # else an index that is too large is written to whatever memory is there
        return found


def _type(kind: Any) -> "np.dtype[Any]":
    code, order = (kind.code, kind.order) if type(kind) is _Type else (kind, "=")
    if not (isinstance(code, str) and _NUMBERS.fullmatch(code) and order in ("<", ">", "|", "=")):
        raise ContentError(f"it holds an array of type {code!r}, and only numbers are read")
    return np.dtype(code).newbyteorder(order)  # type: ignore[arg-type]


def _number(*state: Any) -> _Values:
    return _Values(*state)


def _begun(*_: Any) -> _Values:
    return _Values()


def _no_bytes(*_: Any) -> bytes:
    return b""


def _dictionary(*_: Any) -> dict[Any, Any]:
    return {}


#: Every name that may be called, and what it stands for. The older ones are those of Python 2, NumPy 1 and old SciPy.
_NAMES: dict[str, Callable[..., Any]] = {
    "numpy.ndarray": _Values,
    "numpy.dtype": _Type,
    **{f"numpy.{core}.multiarray._reconstruct": _begun for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray.scalar": _number for core in ("core", "_core")},
    **{f"scipy.sparse.{module}.csr_matrix": _Matrix for module in ("csr", "_csr")},
    "collections.defaultdict": _dictionary,
    **{f"{module}.list": list for module in ("__builtin__", "builtins")},
    **{f"{module}.bytes": _no_bytes for module in ("__builtin__", "builtins")},  # of an array without entries
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        found = _NAMES.get(f"{module}.{name}")
        if found is None:
            raise ContentError(f"it would run {module}.{name}")
        return found

    def persistent_load(self, pid: Any) -> Any:
        raise ContentError("it refers to other files")


def read_pickle(path: str | Path) -> Any:
    """Return the numbers, arrays, sparse matrices, dictionaries and lists of a pickle, and refuse any other.

    Raises:
        ValueError: If it holds something else, or is damaged; the message has the path.
    """
    with reading(path), Path(path).open("rb") as file:
        return _plain(_Unpickler(file, encoding="latin1").load())


def read_torch_arrays(path: str | Path) -> Any:
    """Return what ``torch.save`` wrote, with a tensor in the place of each array of NumPy.

    Raises:
        ValueError: If it holds something else, or is damaged; the message has the path.
    """
    names = [(stand_in, name) for name, stand_in in _NAMES.items() if name.startswith(("numpy.", "builtins.b"))]
    with safe_names(names):
        content = read_torch(path)
    with reading(path):
        return _plain(content, as_tensors=True)


def _plain(value: Any, *, as_tensors: bool = False) -> Any:
    """Return a value with arrays in the place of what stands for them."""
    if type(value) in (_Values, _Matrix):
        found = type(value).value(value)  # not what a pickle may have put under this name
        return torch.from_numpy(found) if as_tensors and isinstance(found, np.ndarray) else found
    if type(value) is dict:
        return {_plain(key): _plain(entry, as_tensors=as_tensors) for key, entry in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_plain(entry, as_tensors=as_tensors) for entry in value)
    if value is None or type(value) in (bool, int, float, str) or (as_tensors and type(value) is Tensor):
        return value
    raise ContentError(f"it holds a {type(value).__name__}, and only numbers, texts and arrays are read")


def _bytes(data: Any) -> bytes:
    # Python 2 wrote bytes as text.
    return data.encode("latin1") if isinstance(data, str) else bytes(data)
