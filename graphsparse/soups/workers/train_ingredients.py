"""Train the ingredients of a soup, apart from each other."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch_geometric.data import Data

from graphsparse.ops.check import check_count
from graphsparse.soups.store.failures import IngredientError, StorageError, is_storage_error, storage_error
from graphsparse.soups.store.ingredient_folder import IngredientFolder
from graphsparse.soups.store.key import describe_model
from graphsparse.soups.store.store import IngredientStore, prepare_store, store_path, write_initial
from graphsparse.soups.store.stored_graph import graph_digests, training_graph
from graphsparse.soups.workers.pools import make_pool
from graphsparse.soups.workers.recipe import OWN_PART, Jitter, MakeLoader, Recipe
from graphsparse.soups.workers.supervise import Report, supervise
from graphsparse.soups.workers.workers import Workers, as_workers
from graphsparse.training import Training
from graphsparse.training.check import check_data
from graphsparse.training.node_task import Inference
from graphsparse.typing import MakeModel

_OWN_START = (
    "init='independent': ingredients that start from different weights end in different basins, where a mean of their "
    "weights is worth little"
)


def train_ingredients(
    make_model: MakeModel,
    data: Data,
    num: int,
    store: str | Path,
    *,
    training: Training | None = None,
    sampler: str | MakeLoader = "full",
    sampler_options: Mapping[str, Any] | None = None,
    jitter: Jitter | None = None,
    init: str = "shared",
    inference: str | Inference = "full",
    workers: int | Workers = 1,
    tag: str | None = None,
) -> IngredientStore:
    """Train the ingredients of a soup, apart from each other, and keep each in a folder of its own.

    Every ingredient is one :func:`~graphsparse.training.fit` and ends with the weights of its best validation epoch.
    All start from the same weights, without which a mean of their weights is worth little, and differ in what is drawn
    for each from its own seeds: the batches of the sampler, dropout, and options in ``jitter``. They never talk to each
    other: a process that dies costs its own ingredient only, which goes on where it was saved last.

    **The same call goes on.** Finished ingredients are found again, missing ones are trained, and a larger ``num`` adds
    to them. On CPU and with the same number of threads all workers give the same bits. Several calls may share a store
    at the same time and train each ingredient once.

    **What tells one ingredient from another** is its key. It follows from the fields of ``training`` (except
    ``progress`` and ``log``), ``sampler``, ``sampler_options``, ``jitter``, ``init``, ``inference``, ``tag``, the
    classes of the model's layers and their attributes, the first weights, and the graph without test labels. Options
    count by their ``repr``, tensors and arrays by their content. **Functions and classes count by their full names
    alone: after changing one that keeps its name, give another** ``tag``, or the ingredients of the old one are found.
    The same holds for whatever else weights depend on: values in a module, files, the release of a library. What has
    neither a name nor a ``repr`` that tells it from others is refused unless there is a ``tag``: lambdas, functions and
    classes within functions, and objects whose ``repr`` holds an address or rounds numbers.

    **Nothing of the test part reaches a worker**: the graph of the store has no test mask, and no label but those of
    training and validation nodes. Models and functions travel by ``cloudpickle``, so that notebooks and scripts without
    a main guard work.

    **Ingredients that know different parts.** With ``sampler="own_part"`` ingredient :math:`i` is trained on part
    :math:`i` mod ``num_parts`` of :func:`~graphsparse.utils.partition_graph`, on the subgraph that its nodes induce: it
    sees no edge, feature or label of another part, as machines would that each hold one and share nothing. Its best
    epoch is chosen on the validation nodes of its part, and ``val`` is its score on these, ``val_nodes`` in its meta
    their number. Options are ``num_parts``, which is ``num`` unless given; ``halo``, over how many hops neighbours of
    the part are seen, 0 unless given: their features and all edges among what is seen, but never their labels; and
    ``seed`` of the partition, 0 unless given. It is computed once and kept in the store. A mean of such ingredients is
    worth little: :func:`~graphsparse.soups.merge` makes one network of them, and asks each for its own nodes alone.

    Args:
        make_model: Builds the model, on CPU, with weights drawn from the global generator of PyTorch.
        data: The graph, with ``train_mask`` and ``val_mask``.
        num: Number of ingredients.
        store: Folder of the store, made when it is missing; on several machines, one that all of them reach.
        training: How to train each. All seeds follow from ``seed``, and the streams of initial weights, data and
            dropout do not depend on each other. ``progress`` shows a bar of ingredients done, running and failed;
            ``log`` receives ``index``, ``val``, ``train``, ``best_epoch``, ``epochs_run``, ``seconds`` and ``attempts``
            of each as it is finished.
        sampler: Name of the sampler of training batches, see :func:`~graphsparse.loader.make_loader`; or a function
            ``(data, seed=..., **options)`` that returns a loader with all its randomness in ``generator``. With
            ``"own_part"``, see above, each ingredient knows one part of the graph alone.
        sampler_options: Options of the sampler. The partition of ``cluster`` is computed once and kept in the store.
        jitter: Lists of values for ``lr``, ``weight_decay``, ``epochs`` or ``dropout``, of which each ingredient draws
            one, in place of the fields of these names.
        init: ``"shared"``, or ``"independent"`` for initial weights of each ingredient's own.
        inference: How to evaluate on the whole graph: ``"full"``, ``"layerwise"`` for graphs that do not fit into one
            forward pass and models that :func:`~graphsparse.nn.layerwise_inference` runs, or a function
            ``(model, data) -> logits``.
        workers: How many processes of this machine train at once, 0 for this process alone, or
            :class:`~graphsparse.soups.Workers`, which also has GPUs, threads and Ray.
        tag: A text that stands for all that the key does not see.

    Returns:
        The ingredients in their order, for any soup; their weights stay on disk until they are used.

    Raises:
        TypeError: If an argument has the wrong type or needs a ``tag``, or the model cannot be sent to a worker.
        ValueError: If an argument is out of range, or the store belongs to another graph, model or start.
        IngredientError: If ingredients failed three times, or in a way that trying again cannot mend; the others are
            finished by then. Its message has the traceback, which is kept in the store.
        OSError: If the store cannot be written; what was finished before is kept.

    Warns:
        UserWarning: If ``init`` is ``"independent"``, or a damaged file made an ingredient start from scratch.

    Example:
        >>> import tempfile
        >>> from torch_geometric.nn import GCN
        >>> from graphsparse.testing import random_graph
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     make_model = lambda: GCN(8, 16, 2, 3, dropout=0.5)
        ...     training = Training(epochs=20)
        ...     store = train_ingredients(make_model, random_graph(), 3, folder, training=training, workers=0)
        ...     len(store), min(store.scores) > 0.5
        (3, True)

    Source: Jaiswal et al., *Graph Ladling*, arXiv 2306.10466, Section 3.
    """
    check_count(num, "num")
    where, path = as_workers(workers), store_path(store, "store")
    training = Training() if training is None else training
    options = {} if sampler_options is None else sampler_options
    if sampler == OWN_PART and isinstance(options, Mapping):
        options = {"num_parts": num, **options}
    recipe = Recipe(make_model, training, sampler, options, jitter, init, inference, tag, where)
    recipe.check()
    check_data(data, "data", ("train_mask", "val_mask"))
    graph, model = training_graph(data), recipe.build(0)
    layers, digests = describe_model(model, tag), graph_digests(graph)
    recipe.try_out(graph)
    if init == "independent":
        better = "take merge(store, model, data)" if sampler == OWN_PART else "keep 'shared' for soups, or take merge()"
        warnings.warn(f"{_OWN_START}; {better}", UserWarning, stacklevel=2)
    try:
        prepare_store(path, digests, layers, recipe.start(model), graph)
        folders: list[IngredientFolder] = []
        written = set()
        for key, spec, state in recipe.ingredients(num, model, digests, layers):
            folders.append(IngredientFolder(path, key))
            if not folders[-1].is_done() and spec["initial"] not in written:
                write_initial(path, state, spec["initial"])
                written.add(spec["initial"])
            folders[-1].write_spec(spec)  # last: what has one can be trained
        with Report(folders, training.progress, training.log) as report:
            if report.open:
                recipe.check_loader(model, graph, path)
                supervise(make_pool(recipe), report)
            report.check()
    except (OSError, RuntimeError) as error:
        if isinstance(error, StorageError | IngredientError) or not is_storage_error(error, path):
            raise
        raise storage_error(path, error) from error
    return IngredientStore(path, [folder.key for folder in folders])
