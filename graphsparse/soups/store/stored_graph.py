"""The graph of a store: one file that all workers map into memory, without test labels."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data

from graphsparse.ops.check import check_edge_index
from graphsparse.ops.digest import digest
from graphsparse.soups.store.ingredient_folder import is_intact
from graphsparse.training.node_task import hide_test
from graphsparse.typing import optional_module
from graphsparse.utils.files import ContentError, atomic_write, read_torch, reading

#: All that a training reads; whatever else a graph holds, such as its test mask, stays behind.
KEYS = ("x", "edge_index", "adj_t", "edge_weight", "edge_attr", "y", "train_mask", "val_mask")
#: The keys by which one graph with other labels is still the same.
STRUCTURE = ("x", "edge_index", "adj_t", "edge_weight")


def training_graph(data: Data) -> Data:
    """Return what ingredients are trained on: no test mask, and the label -1 at all nodes that are not for training.

    Nodes for training are those of ``train_mask`` and ``val_mask``. Tensors on CPU are shared with ``data``, except
    labels.
    """
    graph = Data()
    for key in KEYS:
        value = data.get(key)
        if value is not None:
            # Classes of tensors, such as PyG's EdgeIndex, are not read back from a file.
            is_class = isinstance(value, Tensor) and type(value) is not Tensor
            value = value.as_subclass(Tensor) if is_class else value
            graph[key] = value.detach().cpu()
    return hide_test(graph)


def graph_digests(data: Data, keys: tuple[str, ...] = KEYS) -> dict[str, str]:
    """Return a digest of each tensor of a graph, by its name; those that are not there are left out."""
    found = {}
    for key in keys:
        value = data.get(key)
        if value is not None:
            parts = _parts(value) if hasattr(value, "csr") else [value]
            found[f"data.{key}"] = f"{list(_sizes(value))} {digest(parts)}"
    return found


def write_graph(graph: Data, path: Path) -> None:
    """Write what :func:`training_graph` returned, whole or not at all."""
    content: dict[str, Any] = {}
    for key in KEYS:
        value = graph.get(key)
        if hasattr(value, "csr"):  # a class of torch-sparse, which only code could build again
            content[key] = {"parts": _parts(value), "sizes": list(value.sizes())}
        elif value is not None:
            content[key] = value.contiguous() if value.layout == torch.strided else value
    with atomic_write(path) as temporary:
        torch.save(content, temporary)


def read_graph(path: Path, digests: Mapping[str, str] | None = None) -> Data:
    """Map a graph from its file; what is not looked at is not read, and all who map it share the memory.

    Args:
        path: The file; if it is damaged, an error names it.
        digests: What :func:`graph_digests` returned for the graph, which is compared with the file the first time.
    """
    try:
        content = read_torch(path, mmap=True)
        with reading(path):
            graph = Data(**{key: _whole(content[key]) for key in KEYS if key in content})
            if "edge_index" in graph:
                check_edge_index(graph.edge_index, graph.num_nodes)
            if digests is not None and not is_intact(path, _text(digests), lambda: _text(graph_digests(graph))):
                raise ContentError("it does not have the digests that 'store.json' holds")
    except ValueError as error:
        raise ValueError(f"{error}; it is the graph of a store: delete it to write it anew") from None
    return graph


def _text(digests: Mapping[str, str]) -> str:
    return str(sorted(digests.items()))


def _parts(value: Any) -> list[Tensor | None]:
    """Return row pointers, columns and values of a matrix of torch-sparse."""
    return list(value.csr())


def _sizes(value: Any) -> list[int]:
    return list(value.sizes()) if hasattr(value, "csr") else list(value.shape)


def _whole(value: Tensor | Mapping[str, Any]) -> Any:
    if isinstance(value, Tensor):
        return value
    rowptr, col, weight = value["parts"]
    # Products with an index that is too large read memory that is not theirs.
    torch.sparse_csr_tensor(rowptr, col, col, value["sizes"], check_invariants=True)
    sparse_tensor = optional_module("torch_sparse").SparseTensor
    return sparse_tensor(rowptr=rowptr, col=col, value=weight, sparse_sizes=tuple(value["sizes"]), is_sorted=True)
