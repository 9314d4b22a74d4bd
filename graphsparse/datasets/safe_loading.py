"""Load the files of PyG and OGB without executing anything that a file may hold."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch_geometric.data import Data, HeteroData
from torch_geometric.data.data import DataEdgeAttr, DataTensorAttr
from torch_geometric.data.storage import BaseStorage, EdgeStorage, GlobalStorage, NodeStorage

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
