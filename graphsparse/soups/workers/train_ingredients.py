"""Train the ingredients of a soup, apart from each other."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch_geometric.data import Data

from graphsparse.ops.check import check_count, check_number
from graphsparse.soups.store.description import describe_model
from graphsparse.soups.store.failures import IngredientError, StorageError, is_storage_error, storage_error
from graphsparse.soups.store.ingredient_folder import IngredientFolder
from graphsparse.soups.store.prepare_store import prepare_store, write_initial
from graphsparse.soups.store.store import IngredientStore, store_path
from graphsparse.soups.store.stored_graph import training_graph
from graphsparse.soups.workers.here_backend import run_here
from graphsparse.soups.workers.jitter import Jitter
from graphsparse.soups.workers.job import MakeLoader
from graphsparse.soups.workers.local_backend import gpu_tokens, run_local
from graphsparse.soups.workers.ray_backend import run_ray
from graphsparse.soups.workers.recipe import Recipe
from graphsparse.soups.workers.report import Report
from graphsparse.training.check import check_callable, check_data
from graphsparse.training.node_task import Inference
from graphsparse.typing import Log, MakeModel, optional_module

_OWN_START = (
    "init='independent': ingredients that start from different weights end in different basins, where a mean of their "
    "weights is worth little; keep 'shared' for soups"
)


def train_ingredients(
    make_model: MakeModel,
    data: Data,
    num: int,
    store: str | Path,
    *,
    sampler: str | MakeLoader = "full",
    sampler_options: Mapping[str, Any] | None = None,
    epochs: int = 200,
    lr: float = 0.01,
    weight_decay: float = 5e-4,
    jitter: Jitter | None = None,
    init: str = "shared",
    backend: str = "local",
    workers: int | None = None,
    gpus: float | Sequence[int | str] | None = None,
    threads: int | None = None,
    inference: str | Inference = "full",
    eval_every: int = 1,
    checkpoint_every: int | None = None,
    accelerate: bool = True,
    seed: int = 0,
    progress: bool = False,
    log: Log | None = None,
) -> IngredientStore:
    """Train the ingredients of a soup, apart from each other, and keep each in a folder of its own.

    Every ingredient is one :func:`~graphsparse.training.fit` and ends with the weights of its best validation epoch.
    All start from the same weights, without which a mean of their weights is worth little, and differ in what is drawn
    for each from its own seeds: the batches of the sampler, dropout, and options in ``jitter``. They never talk to each
    other: a process that dies costs its own ingredient only, which goes on where it was saved last.

    **The same call goes on.** An ingredient is named by all that its weights depend on: options, seeds, initial
    weights, model and graph. Finished ones are found again, missing ones are trained, and a larger ``num`` adds to
    them. Not part of the name, and free to change, are ``backend``, ``workers``, ``gpus``, ``threads``,
    ``checkpoint_every``, ``progress`` and ``log``. On CPU and with the same number of threads all backends give the
    same bits. Several calls may share a store at the same time and train each ingredient once.

    **Nothing of the test part reaches a worker**: the graph of the store has no test mask, and no label but those of
    training and validation nodes.

    Models and functions travel by ``cloudpickle``, so that lambdas, notebooks and scripts without a main guard work. A
    user's own layers, samplers and objects are told apart by their code and by all that they hold when the call begins:
    attributes, closures, default values, the object of a bound method. What has a content that cannot be read, such as
    an open file, is refused.

    **Not part of the name, although weights may depend on it**: functions and values that code finds in its module,
    code of libraries and compiled code, files, the order of dictionaries, what a class leaves out when it is pickled,
    and values in the body of a class whose content cannot be read. Change the store's folder when you change those.

    Args:
        make_model: Builds the model, on CPU, with weights drawn from the global generator of PyTorch.
        data: The graph, with ``train_mask`` and ``val_mask``.
        num: Number of ingredients.
        store: Folder of the store, made when it is missing; on several machines, one that all of them reach.
        sampler: Name of the sampler of training batches, see :func:`~graphsparse.loader.make_loader`; or a function
            ``(data, seed=..., **options)`` that returns a loader with all its randomness in ``generator``.
        sampler_options: Options of the sampler. The partition of ``cluster`` is computed once and kept in the store.
        epochs: Number of epochs.
        lr: Learning rate of Adam.
        weight_decay: L2 coefficient of Adam.
        jitter: Lists of values for ``lr``, ``weight_decay``, ``epochs`` or ``dropout``, of which each ingredient draws
            one, in place of the arguments of these names.
        init: ``"shared"``, or ``"independent"`` for initial weights of each ingredient's own.
        backend: ``"local"`` for one process per ingredient on this machine, or ``"ray"`` for one task each on the
            machines of a Ray cluster.
        workers: How many are trained at once. Locally, when ``None``, one for each of ``gpus``, or 1; 0 trains in this
            process. With Ray as many as the cluster has room for when ``None``.
        gpus: Locally, the number of GPUs or a list of their names, which the workers share, or 1 with ``workers=0`` for
            the current one; with Ray, the share of a GPU for each ingredient. Trains on CPU when ``None``.
        threads: Threads per worker; when ``None``, locally the cores shared evenly, and 1 with Ray.
        inference: How to evaluate on the whole graph: ``"full"``, ``"layerwise"`` for graphs that do not fit into one
            forward pass and models that :func:`~graphsparse.nn.layerwise_inference` runs, or a function
            ``(model, data) -> logits``.
        eval_every: Evaluate every so many epochs, and after the last one.
        checkpoint_every: Save after every so many epochs; when ``None``, as often as a kill costs 10 seconds of work.
        accelerate: Whether to train with the layers of this package in place of PyG's, which changes rounding, and with
            its dropout in place of torch's, which drops other entries.
        seed: Seed of everything; the streams of initial weights, data and dropout do not depend on each other.
        progress: Whether to show a bar of ingredients done, running and failed.
        log: Receives ``index``, ``val``, ``train``, ``best_epoch``, ``epochs_run``, ``seconds`` and ``attempts`` of
            each ingredient as it is finished.

    Returns:
        The ingredients in their order, for any soup; their weights stay on disk until they are used.

    Raises:
        TypeError: If an argument has the wrong type or a content that cannot be read, or the model cannot be sent to a
            worker.
        ValueError: If an argument is out of range or holds too much to be described, or the store belongs to another
            graph, model or start.
        IngredientError: If ingredients failed three times, or in a way that trying again cannot mend; the others are
            finished by then. Its message has the traceback, which is kept in the store.
        OSError: If the store cannot be written; what was finished before is kept.
        ImportError: If the backend is missing.

    Warns:
        UserWarning: If ``init`` is ``"independent"``, or a damaged file made an ingredient start from scratch.

    Example:
        >>> import tempfile
        >>> from torch_geometric.nn import GCN
        >>> from graphsparse.testing import random_graph
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     make_model = lambda: GCN(8, 16, 2, 3, dropout=0.5)
        ...     store = train_ingredients(make_model, random_graph(), 3, folder, epochs=20, workers=0)
        ...     len(store), min(store.scores) > 0.5
        (3, True)

    Source: Jaiswal et al., *Graph Ladling*, arXiv 2306.10466, Section 3.
    """
    check_count(num, "num")
    _check_runtime(backend, workers, gpus, threads, checkpoint_every, log)
    tokens = gpu_tokens(gpus) if backend == "local" else []  # type: ignore[arg-type]
    path = store_path(store, "store")
    if sampler_options is not None and not isinstance(sampler_options, Mapping):
        raise TypeError(f"'sampler_options' must map names of options to values (got {sampler_options!r})")
    recipe = Recipe(
        make_model=make_model,
        sampler=sampler,
        sampler_options=dict(sampler_options or {}),
        epochs=epochs,
        lr=lr,
        weight_decay=weight_decay,
        jitter=jitter,
        init=init,
        inference=inference,
        eval_every=eval_every,
        accelerate=accelerate,
        seed=seed,
    )
    recipe.check()
    check_data(data, "data", ("train_mask", "val_mask"))
    graph, model = training_graph(data), recipe.build(0)
    recipe.try_out(graph)
    if init == "independent":
        warnings.warn(_OWN_START, UserWarning, stacklevel=2)
    try:
        content = prepare_store(path, graph, describe_model(model), recipe.start(model))
        folders: list[IngredientFolder] = []
        written = set()
        for key, spec, state in recipe.ingredients(num, model, content):
            folders.append(IngredientFolder(path, key))
            if not folders[-1].is_done() and spec["initial"] not in written:
                write_initial(path, state, spec["initial"])
                written.add(spec["initial"])
            folders[-1].write_spec(spec)  # last: what has one can be trained
        with Report(folders, progress, log) as report:
            if report.open:
                job = recipe.job(model, path, "cuda" if gpus else "cpu", checkpoint_every)
                recipe.check_loader(job, model, graph)
                if backend == "ray":
                    share = float(gpus or 0)  # type: ignore[arg-type]
                    run_ray(job, report, gpus=share, threads=threads or 1, workers=workers)
                elif workers == 0:
                    run_here(job, report)
                else:
                    run_local(job, report, workers=workers or len(tokens) or 1, gpus=tokens, threads=threads)
            report.check()
    except (OSError, RuntimeError) as error:
        if isinstance(error, StorageError | IngredientError) or not is_storage_error(error, path):
            raise
        raise storage_error(path, error) from error
    return IngredientStore(path, [folder.key for folder in folders])


def _check_runtime(
    backend: str, workers: int | None, gpus: Any, threads: int | None, checkpoint_every: int | None, log: Any
) -> None:
    """Refuse wishes about how to train that cannot be met."""
    if backend not in ("local", "ray"):
        raise ValueError(f"'backend' must be 'local' or 'ray' (got {backend!r})")
    if workers is not None and (backend == "ray" or workers != 0 or isinstance(workers, bool)):
        check_count(workers, "workers")
    for name, value in (("threads", threads), ("checkpoint_every", checkpoint_every)):
        if value is not None:
            check_count(value, name)
    if log is not None:
        check_callable(log, "log")
    if backend == "ray":
        optional_module("ray")
        if gpus is not None:  # the share of one for each ingredient
            check_number(gpus, "gpus", least=0)
    elif gpus and not torch.cuda.is_available():
        raise ValueError(f"'gpus' is {gpus!r}, but PyTorch finds no GPU here")
    elif gpus and workers == 0 and gpus != 1:
        raise ValueError(f"'gpus' must be 1 with workers=0, which trains on this process's current one (got {gpus!r})")
