"""Make a folder a store, or see that it is one of the same graph and model."""

import contextlib
import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data

from graphsparse.ops.digest import digest
from graphsparse.soups.store.description import differences
from graphsparse.soups.store.failures import writing
from graphsparse.soups.store.ingredient_folder import sweep_store
from graphsparse.soups.store.store import FORMAT, read_content
from graphsparse.soups.store.stored_graph import graph_digests, read_graph, write_graph
from graphsparse.utils.atomic_write import atomic_write


def prepare_store(path: Path, graph: Data, model: Mapping[str, str], start: Mapping[str, Any]) -> dict[str, Any]:
    """Make a folder a store, or see that it is one of the same graph, model and initial weights.

    Args:
        path: The folder, made when it is missing.
        graph: What ingredients are trained on.
        model: Description of the model.
        start: Where the initial weights come from.

    Returns:
        What the store is made for.

    Raises:
        ValueError: If the store belongs to another graph, model or initial weights, or the folder holds other things.
        StorageError: If the folder cannot be made or written.
    """
    content = {
        "format": FORMAT,
        "graph": graph_digests(graph),
        "model": dict(model),
        "start": dict(start),
        "python": ".".join(platform.python_version_tuple()[:2]),
    }
    if path.exists() and not path.is_dir():
        raise ValueError(f"'store' must be a folder (got the file {str(path)!r})")
    if not (path / "store.json").exists():
        others = sorted(entry.name for entry in path.iterdir() if entry.name[0] != ".") if path.exists() else []
        if others and "store.json" not in others:  # else another call has just made it
            raise ValueError(
                f"'store' {str(path)!r} is a folder with other things in it, such as {others[0]!r}; name a new one"
            )
        with writing(path):
            _create(path / "store.json", content)
    saved = read_content(path)
    _compare(path, saved, content)
    if not _is_whole(path / "graph.pt", saved["graph"]):
        with writing(path):
            write_graph(graph, path / "graph.pt")
    with contextlib.suppress(OSError):  # of a finished store that cannot be written nothing is wanted
        sweep_store(path)
    return saved


def write_initial(path: Path, state: Mapping[str, Tensor], name: str) -> None:
    """Write initial weights once; a file that is there is never overwritten unless it is damaged.

    Args:
        path: Folder of the store.
        state: State dict.
        name: Digest of the weights.

    Raises:
        StorageError: If the folder cannot be written.
    """
    file = path / "initial" / f"{name}.pt"
    if not _holds(file, name):
        with writing(path), atomic_write(file) as temporary:
            torch.save({key: value.detach().cpu().clone() for key, value in state.items()}, temporary)


def _holds(file: Path, name: str) -> bool:
    try:
        return digest(torch.load(file, map_location="cpu", weights_only=True).values()) == name
    except Exception:  # missing, or damaged in any way
        return False


def _create(path: Path, content: Mapping[str, Any]) -> None:
    """Write a file unless another process was faster, whose file stays then."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    try:
        temporary.write_text(json.dumps(content, indent=1) + "\n")
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        try:
            path.hardlink_to(temporary)
        except FileExistsError:
            pass
        except OSError:  # a file system without links; two first calls at the same moment are not told apart there
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _compare(path: Path, saved: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    told = differences(saved["graph"], now["graph"])
    if told:
        raise ValueError(f"'store' {str(path)!r} belongs to another graph: {told}. Name another folder")
    models = [saved["model"], now["model"]]
    if saved["python"] != now["python"]:  # what code compiles to differs between releases
        models = [{key: text for key, text in model.items() if not key.startswith("code of")} for model in models]
    told = differences(*models)
    if told:
        raise ValueError(f"'store' {str(path)!r} belongs to another model: {told}. Name another folder")
    told = differences(saved["start"], now["start"])
    if told:
        raise ValueError(
            f"'store' {str(path)!r} holds ingredients with another start: {told}. Name another folder; "
            "'make_model' must draw its weights from the global generator of PyTorch"
        )


def _is_whole(path: Path, digests: Mapping[str, str]) -> bool:
    """Say whether the file of the graph is there and holds it."""
    try:
        read_graph(path, digests)
    except (FileNotFoundError, ValueError):
        return False
    return True
