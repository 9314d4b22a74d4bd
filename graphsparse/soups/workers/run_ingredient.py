"""Train one ingredient of a store, in whatever process; all that it needs and leaves behind are files."""

import contextlib
import copy
import os
import platform
import signal
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import torch_geometric
from torch import Tensor, nn

import graphsparse
from graphsparse.nn.dropout import set_dropout
from graphsparse.ops.digest import digest
from graphsparse.soups.store.claim import token_of
from graphsparse.soups.store.failures import is_storage_error, is_transient
from graphsparse.soups.store.ingredient_folder import IngredientFolder
from graphsparse.soups.store.store import read_content
from graphsparse.soups.store.stored_graph import read_graph
from graphsparse.soups.workers.job import Job, apply_settings, load_job
from graphsparse.training import FitResult, NodeTask, fit

#: How an attempt ends, and a process with it: finished, another supervisor took over, try again, no use to try again,
#: the store cannot be written.
DONE, LOST, AGAIN, LASTING, STORAGE = 0, 10, 11, 12, 13


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended, and what there is to say about it."""

    code: int
    told: str = ""


def attempt(store: str | Path, key: str, job: Job, token: str) -> Outcome:
    """Train an ingredient, and say how it went.

    A training that was killed goes on where it was saved last, and ends with the same bits on the same machine.

    Args:
        store: Folder of the store.
        key: Name of the ingredient.
        job: Model and functions.
        token: That of the claim under which it is trained.
    """
    folder = IngredientFolder(store, key)
    try:
        folder.sweep()
        state, meta = _train(folder, job)
        if token_of(folder.path) != token:  # this process was away for so long that another one took over
            return Outcome(LOST)
        folder.publish(state, meta)
    except Exception as error:
        code = STORAGE if is_storage_error(error, store) else AGAIN if is_transient(error) else LASTING
        return Outcome(code, traceback.format_exc())
    return Outcome(DONE)


def attempt_elsewhere(content: bytes, store: str, key: str, token: str, threads: int) -> Outcome:
    """Train an ingredient in a process that got its job as bytes."""
    try:
        torch.set_num_threads(threads)
        job = load_job(content)
        apply_settings(job.settings)
    except Exception as error:
        return Outcome(AGAIN if is_transient(error) else LASTING, traceback.format_exc())
    return attempt(store, key, job, token)


def main(arguments: Sequence[str]) -> int:
    """Train an ingredient in a process of its own, and return how it ended.

    Args:
        arguments: Job file, store, key, token, number of threads, and number of the process that started this one.
    """
    job_file, store, key, token, threads, parent = arguments
    signal.signal(signal.SIGTERM, _leave)
    _leave_with(int(parent))
    outcome = attempt_elsewhere(Path(job_file).read_bytes(), store, key, token, int(threads))
    with contextlib.suppress(OSError):
        sys.stderr.write(outcome.told)
    return outcome.code


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


def _train(folder: IngredientFolder, job: Job) -> tuple[dict[str, Tensor], dict[str, Any]]:
    spec = folder.read_spec()
    start = time.monotonic()
    notes = []
    resumed = folder.state.exists()
    try:
        result = _fit(folder, job, spec)
    except ValueError as error:
        if not (str(error).startswith("'checkpoint'") and folder.state.exists()):
            raise
        notes.append(f"its saved state could not be used, so that it was trained from scratch: {error}")
        folder.state.unlink()
        resumed = False
        result = _fit(folder, job, spec)
    meta = {
        "key": folder.key,
        "index": spec["index"],
        "val": result.val,
        "train": result.train,
        "best_epoch": result.best_epoch,
        "epochs_run": result.epochs_run,
        "seconds": round(time.monotonic() - start, 3),
        "resumed": resumed,
        "attempts": len(folder.failures()) + 1,
        "peak_memory_bytes": _peak_memory(),
        "peak_gpu_memory_bytes": torch.cuda.max_memory_allocated() if job.device != "cpu" else 0,
        "device": job.device,
        "threads": torch.get_num_threads(),
        "notes": notes,
        "versions": {
            "graphsparse": graphsparse.__version__,
            "torch": torch.__version__,
            "torch_geometric": torch_geometric.__version__,
            "python": platform.python_version(),
        },
    }
    return result.state_dict, meta


def _fit(folder: IngredientFolder, job: Job, spec: dict[str, Any]) -> FitResult:
    graph = read_graph(folder.store / "graph.pt", read_content(folder.store)["graph"])
    loader = job.make_loader(graph, spec["data_seed"])
    # Layer by layer a graph need not fit onto the device, but without a loader it is trained on as a whole.
    stays = loader is not None and job.inference == "layerwise"
    # PyG moves a graph in place, and this one may be the loader's.
    data = graph if stays else copy.copy(graph).to(job.device)
    training = replace(
        job.training,
        epochs=spec["epochs"],
        lr=spec["lr"],
        weight_decay=spec["weight_decay"],
        seed=spec["dropout_seed"],
        checkpoint=folder.state,
        checkpoint_every=job.checkpoint_every,
    )
    return fit(_initial_model(folder.store, job, spec), NodeTask(data, loader=loader, inference=job.infer), training)


def _initial_model(store: Path, job: Job, spec: dict[str, Any]) -> nn.Module:
    model = job.make_model()
    if spec["dropout"] is not None:
        set_dropout(model, spec["dropout"])
    path = store / "initial" / f"{spec['initial']}.pt"
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file may raise anything
        raise ValueError(f"{str(path)!r} cannot be read as initial weights; delete it to write it anew") from error
    if digest(state.values()) != spec["initial"]:
        raise ValueError(f"{str(path)!r} does not hold the initial weights of this name; delete it to write it anew")
    model.load_state_dict(state)
    return model.to(job.device)


def _peak_memory() -> int:
    if sys.platform == "win32":
        return 0  # nobody tells there
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
