"""The files of one ingredient."""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from graphsparse.ops.digest import digest
from graphsparse.utils.files import (
    ContentError,
    FileError,
    atomic_write,
    read_tensors,
    read_torch,
    reading,
    write_tensors,
)

#: After so many failures an ingredient is not tried again.
MOST_FAILURES = 3
#: What ``meta.json`` must hold for a store to be opened, and of which type; the rest is for people.
_META: dict[str, Any] = {"index": int, "val": int | float, "weights": str}
#: Files that were found to hold what is known of them, each as it was then.
_INTACT: set[tuple[str, int, int, int, str]] = set()


class IngredientFolder:
    """The folder of an ingredient, which is named by all that its weights depend on.

    ==========================  ================================================================================
    ``spec.json``               what to train
    ``state.pt``                how far the training is; gone when it is finished
    ``weights.pt``              state dict of the best epoch
    ``meta.json``               validation metric, epochs, time, memory, releases, digest of the weights
    ``DONE``                    written last: without it nothing of the above counts
    ``failure-<n>.txt``         what went wrong in an attempt
    ``FAILED``                  all attempts went wrong, and how; delete it to try again
    ``claim``                   who is at work
    ``statistics.safetensors``  Gram matrices for a merge without the graph, if they were asked for
    ==========================  ================================================================================

    Args:
        store: Folder of the store.
        key: Name of the folder.

    Example:
        >>> IngredientFolder("store", "abc").weights.as_posix()
        'store/ingredients/abc/weights.pt'
    """

    def __init__(self, store: str | Path, key: str) -> None:
        self.store, self.key = Path(store), key
        self.path = self.store / "ingredients" / key
        self.spec, self.state, self.weights = self.path / "spec.json", self.path / "state.pt", self.path / "weights.pt"
        self.statistics = self.path / "statistics.safetensors"
        self.meta, self.mark, self.given_up = self.path / "meta.json", self.path / "DONE", self.path / "FAILED"

    def is_done(self) -> bool:
        """Whether the ingredient is finished."""
        return self.mark.exists()

    def is_given_up(self) -> bool:
        """Whether the ingredient failed too often."""
        return self.given_up.exists() and not self.is_done()

    def write_spec(self, spec: Mapping[str, Any]) -> None:
        """Note what to train, unless that is known; a note that is damaged or was edited is written anew."""
        try:
            saved = self.read_spec()
            if all(saved.get(name) == value for name, value in spec.items() if name not in ("index", "seed")):
                return
        except ValueError:
            pass
        write_json(self.spec, spec)

    def read_spec(self) -> dict[str, Any]:
        """Return what to train."""
        return read_json(self.spec)

    def read_meta(self) -> dict[str, Any]:
        """Return what is known of the finished ingredient; an error says how to train it anew."""
        try:
            meta = read_json(self.meta)
            with reading(self.meta):
                for name, kinds in _META.items():
                    if not isinstance(meta[name], kinds) or meta[name] != meta[name]:  # NaN is not itself
                        raise ContentError(f"{name!r} cannot be {meta[name]!r}")
        except ValueError as error:
            raise ValueError(f"{error}; delete {str(self.mark)!r} to train the ingredient anew") from None
        return meta

    def read_weights(self) -> dict[str, Tensor]:
        """Map the state dict from its file, which is compared with its digest the first time."""
        known = self.read_meta()["weights"]
        try:
            state = read_state(self.weights, mmap=True)
            if not is_intact(self.weights, known, lambda: digest(state.values())):
                raise FileError(f"{str(self.weights)!r} cannot be read: it has another digest than 'meta.json' says")
        except (OSError, ValueError) as error:
            raise ValueError(
                f"{error}; delete {str(self.mark)!r} and call train_ingredients once more to train the ingredient anew"
            ) from None
        return state

    def publish(self, state: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
        """Write the result, and last of all that it is there; then remove what only the training needed."""
        with atomic_write(self.weights) as temporary:
            torch.save({name: value.detach().cpu().clone() for name, value in state.items()}, temporary)
        write_json(self.meta, {**meta, "weights": digest(state.values())})
        with atomic_write(self.mark) as temporary:
            temporary.write_text("")
        self.state.unlink(missing_ok=True)
        self.forget_failures()

    def read_statistics(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the tensors and the header of :meth:`write_statistics`, of the weights that are here now."""
        try:
            found, header = read_tensors(self.statistics, "statistics file")
            if header.get("weights") != self.read_meta()["weights"]:
                raise FileError(f"{str(self.statistics)!r} belongs to other weights")
        except (OSError, ValueError) as error:
            raise ValueError(f"{error}; write_statistics writes them anew") from None
        return found, header

    def write_statistics(self, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
        """Write what a merge needs to know of the ingredient besides its weights."""
        write_tensors(self.statistics, "statistics file", tensors, {**header, "weights": self.read_meta()["weights"]})
        self.forget_failures()

    def forget_failures(self) -> None:
        """Remove what went wrong before."""
        self.given_up.unlink(missing_ok=True)
        for path in self.failures():
            path.unlink(missing_ok=True)

    def failures(self) -> list[Path]:
        """Return the files of failed attempts, from the first to the last."""
        return sorted(self.path.glob("failure-*.txt"))

    def record_failure(self, report: str, *, lasting: bool = False) -> bool:
        """Keep what went wrong; say whether the ingredient is given up, after too many failures or a lasting one."""
        number = len(self.failures()) + 1
        with atomic_write(self.path / f"failure-{number}.txt") as temporary:
            temporary.write_text(report)
        if not lasting and number < MOST_FAILURES:
            return False
        told = [
            f"attempt {k}\n{path.read_text(errors='replace').strip()}\n"
            for k, path in enumerate(self.failures(), start=1)
        ]
        with atomic_write(self.given_up) as temporary:
            temporary.write_text("\n".join(told))
        # Who deletes FAILED begins to count anew.
        for path in self.failures():
            path.unlink(missing_ok=True)
        return True

    def sweep(self) -> None:
        """Remove what killed writers left behind; only for the one who is at work here."""
        for file in (self.state, self.weights, self.meta, self.mark, self.statistics):
            for path in self.path.glob(f".{file.name}.*"):
                path.unlink(missing_ok=True)


def sweep_store(store: Path, age: float = 3600.0) -> None:
    """Remove what killed writers left in a store, if nobody wrote on it for so many seconds."""
    for path in [*store.glob(".*"), *(store / "initial").glob(".*"), *store.glob("ingredients/*/.*")]:
        try:
            if path.is_file() and time.time() - path.stat().st_mtime > age:
                path.unlink(missing_ok=True)
        except OSError:  # gone, or not ours to remove
            continue


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write plain values, whole or not at all."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read plain values; a file that is missing or damaged is named."""
    try:
        with reading(path):
            found = json.loads(path.read_text())
    except (FileNotFoundError, ValueError) as error:
        raise ValueError(f"{str(path)!r} is missing or damaged ({error})") from None
    if not isinstance(found, dict):
        raise ValueError(f"{str(path)!r} is damaged: it holds no dictionary")
    return found


def read_state(path: Path, *, mmap: bool = False) -> dict[str, Tensor]:
    """Return a state dict from its file, and refuse a file of anything else."""
    state = read_torch(path, mmap=mmap)
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise FileError(f"{str(path)!r} cannot be read: it holds no tensors by name")
    return state


def is_intact(path: Path, known: str, look: Callable[[], str]) -> bool:
    """Say whether a file holds what is known of it; it is looked at again only after it was written anew."""
    status = path.stat()
    place = (str(path.absolute()), status.st_ino, status.st_size, status.st_mtime_ns, known)
    if place not in _INTACT and look() == known:
        _INTACT.add(place)
    return place in _INTACT
