"""Train an ingredient in another process: what it is given, and what it does."""

import contextlib
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import cloudpickle  # type: ignore[import-untyped]
import torch

from graphsparse.soups.store.failures import is_transient
from graphsparse.soups.workers.recipe import Recipe
from graphsparse.soups.workers.run_ingredient import AGAIN, LASTING, Job, Outcome, attempt


def dump_recipe(recipe: Recipe | Job) -> bytes:
    """Return what is to be done as bytes, with a model in place of what builds it, and what is set in this process."""
    try:
        payload = cloudpickle.dumps(recipe.portable())
    except Exception as error:  # what cannot be pickled may raise anything
        raise TypeError(
            "the model, the sampler, its options or another function cannot be sent to another process "
            f"({type(error).__name__}: {error}); workers=0 trains in this one"
        ) from error
    path = [str(Path(entry).absolute()) for entry in sys.path]
    return pickle.dumps({"path": path, "settings": _torch_settings(), "payload": payload})


def load_recipe(content: bytes) -> Recipe | Job:
    """Return the recipe of :func:`dump_recipe`, in another process, and set there what was set where it came from.

    It runs code: never take it from a folder that others can write to.
    """
    outer = pickle.loads(content)
    # In the same order, as names of modules may be there twice.
    sys.path[:] = [*outer["path"], *(entry for entry in sys.path if entry not in outer["path"])]
    settings = outer["settings"]
    torch.set_default_dtype(settings["dtype"])
    torch.use_deterministic_algorithms(settings["deterministic"], warn_only=settings["warn_only"])
    torch.set_float32_matmul_precision(settings["precision"])
    recipe: Recipe | Job = pickle.loads(outer["payload"])
    return recipe


def _torch_settings() -> dict[str, Any]:
    """Return what is set in PyTorch and changes results."""
    return {
        "dtype": torch.get_default_dtype(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "warn_only": torch.is_deterministic_algorithms_warn_only_enabled(),
        "precision": torch.get_float32_matmul_precision(),
    }


def attempt_elsewhere(content: bytes, store: str, key: str, token: str, threads: int) -> Outcome:
    """Train an ingredient in a process that got its recipe as bytes."""
    try:
        torch.set_num_threads(threads)
        recipe = load_recipe(content)
    except Exception as error:
        return Outcome(AGAIN if is_transient(error) else LASTING, traceback.format_exc())
    return attempt(store, key, recipe, token)


def main(arguments: Sequence[str]) -> int:
    """Train an ingredient in a process of its own, and return how it ended.

    Args:
        arguments: File of the recipe, store, key, token, number of threads, number of the process that started this.
    """
    file, store, key, token, threads, parent = arguments
    signal.signal(signal.SIGTERM, _leave)
    _leave_with(int(parent))
    outcome = attempt_elsewhere(_read_own(Path(file)), store, key, token, int(threads))
    with contextlib.suppress(OSError):
        sys.stderr.write(outcome.told)
    return outcome.code


def _read_own(file: Path) -> bytes:
    """Return a file that runs code, and refuse one that anybody else could have written, or put in its place."""
    for path in (file, file.parent):
        status = path.stat()
        if os.name != "nt" and (status.st_uid != os.geteuid() or status.st_mode & 0o022):
            raise PermissionError(
                f"{str(path)!r} could be written by others, and what it holds would be run; name a folder of your own "
                "for temporary files in TMPDIR"
            )
    return file.read_bytes()


def _leave(number: int, frame: FrameType | None) -> None:
    """End in order, so that no file is left half written."""
    raise SystemExit(128 + number)


def _leave_with(parent: int) -> None:
    """End when the process that started this one is gone: nobody would wait for it, and it would keep its device."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="parent", daemon=True).start()
