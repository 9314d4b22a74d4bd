"""Train a model that judges whole graphs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch_geometric.data import Data, Dataset

from graphsparse.ops.check import check_count
from graphsparse.training.check import check_callable, check_loop, check_model, check_optimizer, check_scheduler
from graphsparse.training.checkpoint import Checkpoint, check_checkpoint
from graphsparse.training.extra_loss import ExtraLoss
from graphsparse.training.graph_batches import graph_split
from graphsparse.training.graph_call import GraphCall
from graphsparse.training.graph_labels import GraphMetric, GraphTarget, graph_metric, graph_target
from graphsparse.training.graph_task import GraphTask
from graphsparse.training.identity import training_identity
from graphsparse.training.loop import AfterStep, Loop
from graphsparse.training.result import FitResult
from graphsparse.training.seeding import seeded
from graphsparse.typing import Log


def fit_graphs(
    model: nn.Module,
    dataset: Dataset | Sequence[Data],
    *,
    split: Mapping[str, Tensor | Sequence[int]] | None = None,
    target: GraphTarget | None = None,
    evaluator: Any = None,
    metric: GraphMetric | None = None,
    maximize: bool | None = None,
    batch_size: int = 32,
    epochs: int = 100,
    lr: float = 0.001,
    weight_decay: float = 0.0,
    optimizer: Optimizer | None = None,
    scheduler: LRScheduler | None = None,
    call: GraphCall | None = None,
    extra_loss: ExtraLoss | None = None,
    after_step: Sequence[AfterStep] = (),
    patience: int | None = None,
    eval_every: int = 1,
    checkpoint: str | Path | None = None,
    checkpoint_every: int | None = None,
    seed: int = 0,
    progress: bool = False,
    log: Log | None = None,
) -> FitResult:
    """Train a classifier or regressor of graphs and keep the weights of the epoch with the best validation metric.

    The loss is the mean over all known labels of a batch: binary cross-entropy with logits, cross-entropy, or squared
    error; labels that are NaN are not known. Batches are shuffled in every epoch and drawn as PyG's ``DataLoader``
    draws, but a last batch of a single graph joins the one before, because batch normalisation in training has nothing
    to normalise in one graph. Only training labels are used to train and only validation labels to choose; test labels
    are read once, at the end, with the best weights. The rest is as in :func:`~graphsparse.training.fit`.

    The model is called as ``model(x, edge_index, batch=batch)``, and by name with ``edge_attr``, ``edge_weight``,
    ``pos`` (as far as the graphs have them) and ``batch_size`` if its ``forward`` takes an argument of that name. Give
    ``call`` for any other signature.

    Args:
        model: Returns one row of logits per graph: ``[G, T]`` for ``T`` binary questions or numbers, ``[G, C]`` for
            classes.
        dataset: The graphs, such as what :func:`~graphsparse.datasets.load_ogb` returns for ``"ogbg-..."``, or a list
            of ``Data``. Labels ``y`` are ``[1, T]`` or ``[T]`` in each graph.
        split: Graphs, as integers or a bool mask, under ``"train"``, ``"val"`` (or ``"valid"``) and, if known,
            ``"test"``; ``dataset.get_idx_split()`` when ``None``.
        target: ``"binary"``, ``"multiclass"`` or ``"regression"``; when ``None``, what ``dataset.task_type`` says, as
            OGB's data sets do.
        evaluator: An evaluator of OGB; whether more is better follows from its metric.
        metric: Figure of merit instead, ``(logits, y) -> float``, with ``y`` ``[G, T]``, for classes ``[G]``. Without
            both: mean AUROC, accuracy, or root mean square error, of which less is better.
        maximize: Whether more is better with ``metric``; yes when ``None``.
        batch_size: Graphs in a batch.
        epochs: Number of epochs.
        lr: Learning rate of Adam.
        weight_decay: L2 coefficient of Adam.
        optimizer: A ready optimiser of the model's parameters instead; ``lr`` and ``weight_decay`` are not used then.
        scheduler: Schedule of the learning rate of ``optimizer``, stepped after every epoch.
        call: ``(model, batch) -> logits`` for a model with another signature.
        extra_loss: A further term, ``(logits, batch, epoch) -> scalar``.
        after_step: Callables ``(model, epoch)``, run after every step of the optimiser.
        patience: Stop after so many epochs without a better validation metric; never when ``None``.
        eval_every: Evaluate every so many epochs, and after the last one.
        checkpoint: File from which a killed training goes on; none is written when ``None``.
        checkpoint_every: Save after every so many epochs, when ``None`` about every 10 seconds; see
            :func:`~graphsparse.training.fit`.
        seed: Seed of the order of the graphs, of dropout and of everything else that draws from the global generators.
        progress: Whether to show a progress bar.
        log: Receives a copy of the entries of ``history`` one by one; after a kill not those of before.

    Returns:
        The result at the best epoch. ``train``, ``val`` and ``test`` are the metric; ``train`` is measured once, at the
        end, so that the history has ``epoch``, ``loss`` and ``val`` only. ``logits`` has one row per graph of the data
        set, in its order, NaN for those in no part of the split.

    Raises:
        TypeError: If an argument, a graph or the model's output has the wrong type.
        ValueError: If the graphs or the model cannot be trained, or the checkpoint is that of another training; the
            message says what is wrong.
        FloatingPointError: If the loss is no longer finite, or a logit is not a number.

    Example:
        ::

            graphs, evaluator = load_ogb("ogbg-molbace")
            result = fit_graphs(model, graphs, evaluator=evaluator, batch_size=64, epochs=50)
            result.test  # ROC-AUC
    """
    after_step = check_loop(epochs, eval_every, patience, extra_loss, after_step, log)
    check_count(batch_size, "batch_size")
    if call is not None:
        check_callable(call, "call")
    check_checkpoint(checkpoint, checkpoint_every)
    check_scheduler(scheduler, optimizer)
    check_model(model)
    target = graph_target(target, dataset)
    judge, maximize = graph_metric(target, evaluator, metric, maximize)
    parts = graph_split(split, dataset)
    task = GraphTask(dataset, parts, target, judge, maximize, batch_size, call, extra_loss)
    with seeded(seed):
        task.check(model)
        described = {} if checkpoint is None else task.identity()
    if optimizer is None:
        optimizer = Adam(model.parameters(), lr=lr, weight_decay=weight_decay)
    check_optimizer(optimizer, model)
    file = None
    if checkpoint is not None:
        identity = training_identity(
            model,
            optimizer,
            scheduler,
            epochs=epochs,
            patience=patience,
            eval_every=eval_every,
            seed=seed,
            functions={"call": call, "extra_loss": extra_loss, "evaluator": evaluator, "metric": metric},
            after_step=after_step,
            data=described,
        )
        file = Checkpoint(checkpoint, checkpoint_every, identity)
    loop = Loop(
        epochs=epochs,
        optimizer=optimizer,
        scheduler=scheduler,
        after_step=after_step,
        patience=patience,
        eval_every=eval_every,
        seed=seed,
        progress=progress,
        log=log,
        checkpoint=file,
    )
    return loop.run(model, task)
