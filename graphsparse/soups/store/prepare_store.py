"""Make a folder a store, or see that it is one of the same graph and model."""

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data

from graphsparse.ops.digest import digest
from graphsparse.soups.store.failures import writing
from graphsparse.soups.store.ingredient_folder import sweep_store
from graphsparse.soups.store.key import differences
from graphsparse.soups.store.store import FORMAT, read_content
from graphsparse.soups.store.stored_graph import read_graph, write_graph
from graphsparse.utils.atomic_write import atomic_write


def prepare_store(
    path: Path, digests: Mapping[str, str], model: Mapping[str, str], start: Mapping[str, Any], graph: Data
) -> None:
    """Make a folder a store, or see that it is one of the same graph, model and initial weights.

    Args:
        path: The folder, made when it is missing.
        digests: Those of the graph.
        model: Description of the model.
        start: Where the initial weights come from.
        graph: What ingredients are trained on.

    Raises:
        ValueError: If the store belongs to another graph, model or initial weights, or the folder holds other things.
        StorageError: If the folder cannot be made or written.
    """
    parts = {"graph": dict(digests), "model": dict(model), "start": dict(start)}
    if path.exists() and not path.is_dir():
        raise ValueError(f"'store' must be a folder (got the file {str(path)!r})")
    if not (path / "store.json").exists():
        others = sorted(entry.name for entry in path.iterdir() if entry.name[0] != ".") if path.exists() else []
        if others and "store.json" not in others:  # else another call has just made it
            raise ValueError(
                f"'store' {str(path)!r} is a folder with other things in it, such as {others[0]!r}; name a new one"
            )
        with writing(path):
            _create(path / "store.json", {"format": FORMAT, **parts})
    saved = read_content(path)
    told = {name: differences(saved[name], part) for name, part in parts.items()}
    if told["graph"] or told["model"]:
        part = "graph" if told["graph"] else "model"
        raise ValueError(f"'store' {str(path)!r} belongs to another {part}: {told[part]}. Name another folder")
    if told["start"]:
        raise ValueError(
            f"'store' {str(path)!r} holds ingredients with another start: {told['start']}. Name another folder; "
            "'make_model' must draw its weights from the global generator of PyTorch"
        )
    try:
        read_graph(path / "graph.pt", saved["graph"])
    except (FileNotFoundError, ValueError):
        with writing(path):
            write_graph(graph, path / "graph.pt")
    with contextlib.suppress(OSError):  # of a finished store that cannot be written nothing is wanted
        sweep_store(path)


def write_initial(path: Path, state: Mapping[str, Tensor], name: str) -> None:
    """Write initial weights, named by their digest, unless they are there and whole."""
    file = path / "initial" / f"{name}.pt"
    try:
        if digest(torch.load(file, map_location="cpu", weights_only=True).values()) == name:
            return
    except Exception:  # missing, or damaged in any way
        pass
    with writing(path), atomic_write(file) as temporary:
        torch.save({key: value.detach().cpu().clone() for key, value in state.items()}, temporary)


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
