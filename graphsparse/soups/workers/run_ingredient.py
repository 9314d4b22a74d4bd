"""Train one ingredient of a store, in whatever process; all that it needs and leaves behind are files."""

import copy
import functools
import platform
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
import torch_geometric
from torch import nn

import graphsparse
from graphsparse.nn.linear import set_dropout
from graphsparse.soups.store.claim import token_of
from graphsparse.soups.store.failures import is_storage_error, is_transient
from graphsparse.soups.store.ingredient_folder import IngredientFolder
from graphsparse.soups.store.store import read_content, read_initial
from graphsparse.soups.store.stored_graph import read_graph
from graphsparse.soups.workers.recipe import Recipe
from graphsparse.soups.workers.workers import Workers
from graphsparse.training import FitResult, NodeTask, fit
from graphsparse.training.check import has_label

#: How an attempt ends, and a process with it: finished, another supervisor took over, try again, no use to try again,
#: the store cannot be written.
DONE, LOST, AGAIN, LASTING, STORAGE = 0, 10, 11, 12, 13


class Job(Protocol):
    """Something else than a training that workers do with every ingredient."""

    @property
    def workers(self) -> Workers:
        """Where it is done, and how many at once."""
        ...

    def portable(self) -> "Job":
        """Return it in a form that can be sent to another process."""
        ...

    def work(self, folder: IngredientFolder) -> Callable[[], None]:
        """Do it with one ingredient, and return what writes the outcome."""
        ...


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended, and what there is to say about it."""

    code: int
    told: str = ""


def attempt(store: str | Path, key: str, recipe: Recipe | Job, token: str) -> Outcome:
    """Train an ingredient, or do another job with it, and say how it went.

    A training that was killed goes on where it was saved last, and ends with the same bits on the same machine.

    Args:
        store: Folder of the store.
        key: Name of the ingredient.
        recipe: How it is made, or what else to do with it.
        token: That of the claim under which this happens.
    """
    folder = IngredientFolder(store, key)
    try:
        folder.sweep()
        publish = _train(folder, recipe) if isinstance(recipe, Recipe) else recipe.work(folder)
        if token_of(folder.path) != token:  # this process was away for so long that another one took over
            return Outcome(LOST)
        publish()
    except Exception as error:
        code = STORAGE if is_storage_error(error, store) else AGAIN if is_transient(error) else LASTING
        return Outcome(code, traceback.format_exc())
    return Outcome(DONE)


def _train(folder: IngredientFolder, recipe: Recipe) -> Callable[[], None]:
    spec = folder.read_spec()
    start = time.monotonic()
    notes = []
    resumed = folder.state.exists()
    try:
        result, num_val = _fit(folder, recipe, spec)
    except ValueError as error:
        if not (str(error).startswith("'checkpoint'") and folder.state.exists()):
            raise
        notes.append(f"its saved state could not be used, so that it was trained from scratch: {error}")
        folder.state.unlink()
        resumed = False
        result, num_val = _fit(folder, recipe, spec)
    meta = {
        "key": folder.key,
        "index": spec["index"],
        "val": result.val,
        "train": result.train,
        "val_nodes": num_val,
        **({"part": spec["part"]} if "part" in spec else {}),
        "best_epoch": result.best_epoch,
        "epochs_run": result.epochs_run,
        "seconds": round(time.monotonic() - start, 3),
        "resumed": resumed,
        "attempts": len(folder.failures()) + 1,
        "device": recipe.workers.device,
        "threads": torch.get_num_threads(),
        "notes": notes,
        "versions": {
            "graphsparse": graphsparse.__version__,
            "torch": torch.__version__,
            "torch_geometric": torch_geometric.__version__,
            "python": platform.python_version(),
        },
    }
    return functools.partial(folder.publish, result.state_dict, meta)


def _fit(folder: IngredientFolder, recipe: Recipe, spec: dict[str, Any]) -> tuple[FitResult, int]:
    """Return the result, and on how many nodes an epoch was judged."""
    graph = read_graph(folder.store / "graph.pt", read_content(folder.store)["graph"])
    if recipe.own_parts is not None:
        graph = recipe.own_parts.graph(graph, folder.store, spec["part"]["number"])
    loader = recipe.make_loader(graph, spec["data_seed"], folder.store)
    # Layer by layer a graph need not fit onto the device, but without a loader it is trained on as a whole.
    stays = loader is not None and recipe.inference == "layerwise"
    # PyG moves a graph in place, and this one may be the loader's.
    data = graph if stays else copy.copy(graph).to(recipe.workers.device)
    training = replace(
        recipe.training,
        epochs=spec["epochs"],
        lr=spec["lr"],
        weight_decay=spec["weight_decay"],
        seed=spec["dropout_seed"],
        checkpoint=folder.state,
        checkpoint_every=recipe.workers.checkpoint_every,
        progress=False,
        log=None,
    )
    task = NodeTask(data, loader=loader, inference=recipe.infer)
    result = fit(_initial_model(folder.store, recipe, spec), task, training)
    return result, int((data.val_mask & has_label(data.y)).sum())


def _initial_model(store: Path, recipe: Recipe, spec: dict[str, Any]) -> nn.Module:
    model = recipe.model()
    if spec["dropout"] is not None:
        set_dropout(model, spec["dropout"])
    model.load_state_dict(read_initial(store, spec["initial"]))
    return model.to(recipe.workers.device)
