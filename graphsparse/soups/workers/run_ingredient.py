"""Train one ingredient of a store; all that it needs and leaves behind are files."""

import copy
import platform
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch_geometric
from torch import Tensor, nn

import graphsparse
from graphsparse.nn.dropout import set_dropout
from graphsparse.ops.digest import digest
from graphsparse.soups.store.ingredient_folder import IngredientFolder
from graphsparse.soups.store.lease import TIMEOUT, Lease
from graphsparse.soups.store.store import read_content
from graphsparse.soups.store.stored_graph import read_graph
from graphsparse.soups.workers.job import Job
from graphsparse.training.fit import fit
from graphsparse.training.result import FitResult

#: What :func:`run_ingredient` returns.
DONE, BUSY = "done", "busy"


def run_ingredient(store: str | Path, key: str, job: Job, *, timeout: float = TIMEOUT) -> str:
    """Train an ingredient, unless it is finished or another process is at it.

    A training that was killed goes on where it was saved last, and ends with the same bits on the same machine.

    Args:
        store: Folder of the store.
        key: Name of the ingredient.
        job: Model and functions.
        timeout: Seconds without a sign of life after which the work of another process is taken over.

    Returns:
        ``"done"``, or ``"busy"`` if another process is at it.

    Raises:
        OSError: If the store cannot be written.
        Exception: Whatever goes wrong in the training.
    """
    folder = IngredientFolder(store, key)
    if folder.is_done():
        return DONE
    lease = Lease.take(folder.path, timeout=timeout)
    if lease is None:
        return BUSY
    with lease:
        if folder.is_done():  # by another one, before the lease was free
            return DONE
        folder.sweep()
        state, meta = _train(folder, job)
        if not lease.is_mine():  # this process was away for so long that another one took over
            return DONE if folder.is_done() else BUSY
        folder.publish(state, meta)
    return DONE


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
    model = _initial_model(folder.store, job, spec)
    loader = job.make_loader(graph, spec["data_seed"])
    # Layer by layer a graph need not fit onto the device, but without a loader it is trained on as a whole.
    stays = loader is not None and job.inference == "layerwise"
    # PyG moves a graph in place, and this one may be the loader's.
    return fit(
        model,
        graph if stays else copy.copy(graph).to(job.device),
        epochs=spec["epochs"],
        lr=spec["lr"],
        weight_decay=spec["weight_decay"],
        loader=loader,
        inference=job.infer,
        eval_every=spec["eval_every"],
        checkpoint=folder.state,
        checkpoint_every=job.checkpoint_every,
        seed=spec["dropout_seed"],
    )


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
