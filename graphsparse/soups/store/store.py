"""Ingredients on disk: a folder that is made for one graph, one model and one start."""

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import torch
from torch import Tensor
from torch_geometric.data import Data

from graphsparse.ops.digest import digest
from graphsparse.soups.store.failures import writing
from graphsparse.soups.store.ingredient_folder import IngredientFolder, read_json, read_state, sweep_store
from graphsparse.soups.store.key import differences
from graphsparse.soups.store.own_part import OwnParts
from graphsparse.soups.store.stored_graph import STRUCTURE, graph_digests, read_graph, write_graph
from graphsparse.utils.files import atomic_write

FORMAT = "graphsparse ingredients 2"


class IngredientStore:
    """The finished ingredients of a folder; weights are mapped from their files when they are asked for.

    What :func:`~graphsparse.soups.train_ingredients` returns holds the ingredients of that call. Opened by its path, a
    store holds all that are finished at this moment, by their number and, where several have the same one because they
    were trained with other options, by their key.

    Args:
        path: Folder of the store.
        keys: Which ingredients, in which order; all finished ones when ``None``.

    Raises:
        TypeError: If the path is none.
        ValueError: If there is no store, or an ingredient is missing or not finished.

    Example:
        >>> import tempfile
        >>> from torch_geometric.nn import GCN
        >>> from graphsparse.soups.workers.train_ingredients import train_ingredients
        >>> from graphsparse.testing import random_graph
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = train_ingredients(lambda: GCN(8, 16, 2, 3), random_graph(), 2, folder, workers=0)
        ...     store = IngredientStore(folder)
        ...     len(store), sorted(store[1])[:2]
        (2, ['convs.0.bias', 'convs.0.lin.weight'])
    """

    def __init__(self, path: str | Path, keys: Sequence[str] | None = None) -> None:
        self.path = store_path(path, "path")
        self._content = read_content(self.path)
        listed = [path.name for path in (self.path / "ingredients").glob("*")] if keys is None else keys
        folders = [IngredientFolder(self.path, key) for key in listed]
        missing = [folder.key for folder in folders if not folder.is_done()]
        if keys is not None and missing:
            raise ValueError(f"'store' {str(self.path)!r} holds no finished ingredient {missing[0]}")
        found = [(folder, folder.read_meta()) for folder in folders if folder.key not in missing]
        if keys is None:
            found.sort(key=lambda entry: (entry[1]["index"], entry[0].key))
        self._folders = [folder for folder, _ in found]
        self._meta = [meta for _, meta in found]

    def __len__(self) -> int:
        """Return the number of ingredients."""
        return len(self._folders)

    @overload
    def __getitem__(self, index: int, /) -> dict[str, Tensor]: ...
    @overload
    def __getitem__(self, index: slice, /) -> "IngredientStore": ...
    def __getitem__(self, index: int | slice, /) -> "dict[str, Tensor] | IngredientStore":
        """Return a state dict, mapped from its file, which is compared with its digest the first time.

        A slice gives a store of some of the ingredients.

        Raises:
            ValueError: If the file is damaged, or holds weights of another ingredient.
        """
        if isinstance(index, slice):
            return IngredientStore(self.path, self.keys[index])
        return self._folders[index].read_weights()

    def __repr__(self) -> str:
        return f"IngredientStore({str(self.path)!r}, {len(self)} ingredients)"

    @property
    def keys(self) -> list[str]:
        """Names of the ingredients."""
        return [folder.key for folder in self._folders]

    @property
    def scores(self) -> list[float]:
        """Metric of each ingredient on all validation nodes, or on those of its own part if it was trained on one."""
        return [float(meta["val"]) for meta in self._meta]

    def meta(self, index: int) -> dict[str, Any]:
        """Return what is known of an ingredient.

        Args:
            index: Number of the ingredient.

        Returns:
            ``val``, ``val_nodes`` (on how many nodes that is), ``train``, ``best_epoch``, ``epochs_run``, ``seconds``,
            ``attempts``, ``resumed``, ``notes``, ``device``, ``threads``, ``versions``, ``weights`` (a digest),
            ``part`` if it was trained on one of its own, and, under ``spec``, how it was trained.
        """
        return {**self._meta[index], "spec": self._folders[index].read_spec()}

    def graph(self) -> Data:
        """Return what the ingredients were trained on, mapped from its file, without labels of test nodes."""
        return read_graph(self.path / "graph.pt", self._content["graph"])

    def parts(self, *, halo: bool = False) -> list[Tensor] | None:
        """Return the nodes of the part that each ingredient was trained on.

        Args:
            halo: Whether to count in the neighbours whose features it saw, if it saw any.

        Returns:
            Sorted indices ``[n_i]`` of nodes for each ingredient, all nodes for one that was trained on all, ``None``
            if none was trained on a part of its own (``sampler="own_part"``).

        Example:
            >>> import tempfile
            >>> from torch_geometric.nn import GCN
            >>> from graphsparse.soups.workers.train_ingredients import train_ingredients
            >>> from graphsparse.testing import random_graph
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     make_model = lambda: GCN(8, 16, 2, 3)
            ...     store = train_ingredients(make_model, random_graph(), 2, folder, sampler="own_part", workers=0)
            ...     sum(len(part) for part in store.parts())
            60
        """
        given = [meta.get("part") for meta in self._meta]
        if not any(given):
            return None
        graph = self.graph()
        found, known = [], dict[OwnParts, Tensor]()
        for part in given:
            if part is None:
                found.append(torch.arange(graph.num_nodes))
                continue
            how = OwnParts(**{name: value for name, value in part.items() if name != "number"})
            if how not in known:
                known[how] = how.partition(graph, self.path)
            own = (known[how] == part["number"]).nonzero().squeeze(1)
            found.append(how.seen(graph, own) if halo else own)
        return found

    def initial(self) -> dict[str, Tensor]:
        """Return the weights that all ingredients started from.

        Raises:
            ValueError: If they started from different ones (``init="independent"``), or the file is damaged.
        """
        start = self._content["start"]
        if "weights" not in start:
            raise ValueError(
                f"the ingredients of {str(self.path)!r} started from different weights (init='independent'), so that "
                "there are none that all share"
            )
        return read_initial(self.path, start["weights"])

    def statistics(self, index: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return what :func:`~graphsparse.soups.write_statistics` wrote of an ingredient: tensors, and what they are.

        Args:
            index: Number of the ingredient.

        Raises:
            ValueError: If nothing was written, or the file is damaged, or belongs to other weights.
        """
        return self._folders[index].read_statistics()

    def check_graph(self, data: Data) -> None:
        """Refuse a graph with other features or edges than the one that the ingredients were trained on.

        Args:
            data: The graph; its labels and masks do not matter.

        Raises:
            ValueError: If it is another one; the message names what differs.
        """
        names = {f"data.{key}" for key in STRUCTURE}
        saved = {name: value for name, value in self._content["graph"].items() if name in names}
        told = differences(saved, graph_digests(data, STRUCTURE))
        if told:
            raise ValueError(f"'store' {str(self.path)!r} belongs to another graph: {told}")


def read_content(path: Path) -> dict[str, Any]:
    """Return the graph, model and first weights that a store is made for, or refuse what is none of this release."""
    file = path / "store.json"
    if not file.exists():
        raise ValueError(f"'store' {str(path)!r} is no store of ingredients: it has no 'store.json'")
    content = read_json(file)
    if content.get("format") != FORMAT:
        raise ValueError(
            f"'store' {str(path)!r} is of another release: {str(file)!r} holds the format {content.get('format')!r}, "
            f"this release reads {FORMAT!r}; name another folder"
        )
    lost = [name for name in ("graph", "model", "start") if not isinstance(content.get(name), dict)]
    if lost:
        raise ValueError(f"'store' {str(path)!r} is damaged: {str(file)!r} lacks {lost[0]!r}; name another folder")
    return content


def store_path(path: str | Path, name: str) -> Path:
    """Return the folder of a store, or refuse what is no path; ``name`` is what it is called in the message."""
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"'{name}' must be the folder of a store (got {path!r} of type {type(path).__name__})")
    return Path(path)


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
        if digest(read_state(file).values()) == name:
            return
    except (OSError, ValueError):  # missing, or damaged in any way
        pass
    with writing(path), atomic_write(file) as temporary:
        torch.save({key: value.detach().cpu().clone() for key, value in state.items()}, temporary)


def read_initial(path: Path, name: str) -> dict[str, Tensor]:
    """Return initial weights, and see that they have the digest that they are named by."""
    file = path / "initial" / f"{name}.pt"
    try:
        state = read_state(file)
    except (OSError, ValueError) as error:
        raise ValueError(f"{error}; it holds initial weights: delete it to write it anew") from None
    if digest(state.values()) != name:
        raise ValueError(f"{str(file)!r} does not hold the initial weights of this name; delete it to write it anew")
    return state


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
