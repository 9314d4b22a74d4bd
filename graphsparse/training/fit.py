"""Train a node classifier."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from torch import nn
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch_geometric.data import Data

from graphsparse.metrics import accuracy
from graphsparse.training.check import check_callable, check_loop, check_model, check_optimizer, check_scheduler
from graphsparse.training.checkpoint import Checkpoint, check_checkpoint
from graphsparse.training.extra_loss import ExtraLoss
from graphsparse.training.identity import describe_loader, graph_tensors, training_identity
from graphsparse.training.loop import AfterStep, Loop
from graphsparse.training.node_task import Inference, Metric, NodeTask
from graphsparse.training.predict import predict
from graphsparse.training.result import FitResult
from graphsparse.training.seeding import seeded
from graphsparse.typing import Log

__all__ = ["AfterStep", "ExtraLoss", "FitResult", "Inference", "Metric", "fit"]


def fit(
    model: nn.Module,
    data: Data,
    *,
    epochs: int = 200,
    lr: float = 0.01,
    weight_decay: float = 5e-4,
    optimizer: Optimizer | None = None,
    scheduler: LRScheduler | None = None,
    eval_data: Data | None = None,
    loader: Iterable[Data] | None = None,
    extra_loss: ExtraLoss | None = None,
    after_step: Sequence[AfterStep] = (),
    metric: Metric = accuracy,
    inference: Inference = predict,
    same_forward: Callable[[], bool] | None = None,
    patience: int | None = None,
    eval_every: int = 1,
    checkpoint: str | Path | None = None,
    checkpoint_every: int | None = None,
    seed: int = 0,
    progress: bool = False,
    log: Log | None = None,
) -> FitResult:
    """Train a node classifier and keep the weights of the epoch with the best validation metric.

    The loss is the cross-entropy on the training nodes, over the whole graph at once or over the batches of a loader.
    Only training labels are used to train and only validation labels to choose; the test mask is read once, at the
    end. The model is trained in place and holds the best weights when the function returns; after an error or an
    interruption it holds those of the last whole step. Its mode, training or evaluation, is the one it came with. All
    arguments are checked before the first step, for which the model is called once in evaluation mode.

    With a ``checkpoint`` a killed training is not lost: the same call, on a model built the same way, goes on where the
    last save was and ends with the result of an undisturbed one, on CPU bit for bit. The file is whole at any time and
    holds the state dicts of model, optimiser and schedule, the best weights so far, and the state of all random
    generators, also of one that the loader was given. A finished training leaves its result there, and the same call
    returns it at once, without a step and without a ``log``. The file of another training is refused. What it cannot
    hold is what lives elsewhere: the own state of functions in ``after_step``, of ``metric`` and of ``extra_loss``, and
    of loaders that remember more than a generator. The functions themselves are told apart by name only, or by their
    fields if they are objects of a dataclass. Projections, such as ``L0Projection``, are held and told apart.

    Args:
        model: Called as ``model(x, edge_index)`` (``adj_t`` where there is no ``edge_index``, and ``edge_weight`` as
            third argument where there is one), returns logits ``[N, C]``.
        data: The graph to train on, with ``x``, ``y`` and ``train_mask``; on the device of the model.
        epochs: Number of epochs.
        lr: Learning rate of Adam.
        weight_decay: L2 coefficient of Adam.
        optimizer: A ready optimiser of the model's parameters instead; ``lr`` and ``weight_decay`` are not used then.
        scheduler: Schedule of the learning rate of ``optimizer``, stepped after every epoch.
        eval_data: The graph to evaluate on, with ``val_mask`` and, if known, ``test_mask``; ``data`` when ``None``.
            Another one makes an inductive training.
        loader: Any PyG loader of training batches, or a list of them. Of a batch with ``batch_size``, such as
            ``NeighborLoader``'s, the first so many nodes count, of others all; in both cases those in ``train_mask``.
            The loss is their mean, or the sum with the weights ``loss_weight`` of a batch, where it has them. Batches
            are moved to the device of the model.
        extra_loss: A further term, ``(logits, batch, epoch) -> scalar``.
        after_step: Callables ``(model, epoch)``, run after every step of the optimiser.
        metric: Figure of merit, higher is better, ``(logits, y, mask) -> float``.
        inference: Returns the logits of a whole graph in evaluation mode; one forward pass by default. For graphs that
            do not fit into one, pass a function that goes layer by layer.
        same_forward: Says, before an evaluation, whether from now on the forward pass of training computes what that
            of evaluation does: without dropout, batch normalisation and the like. One pass then serves as both the
            evaluation and the next step, which changes no bit of the result: it is done only after two such passes
            have been seen to be equal, over a whole graph, and not with ``loader``, ``inference`` or another
            ``eval_data``.
        patience: Stop after so many epochs without a better validation metric; never when ``None``. Looked at when the
            model is evaluated.
        eval_every: Evaluate every so many epochs, and after the last one.
        checkpoint: File from which a killed training goes on; none is written when ``None``.
        checkpoint_every: Save after every so many epochs. When ``None``, as often as a kill costs 10 seconds of work,
            or less often where saving would take more than a twentieth of the time.
        seed: Seed of dropout, of loaders and of everything else that draws from the global generators of PyTorch,
            Python and NumPy; their state is restored.
        progress: Whether to show a progress bar.
        log: Receives a copy of the entries of ``history`` one by one; after a kill not those of before.

    Returns:
        The result at the best epoch.

    Raises:
        TypeError: If an argument, the labels or the model's output have the wrong type.
        ValueError: If the graph or the model cannot be trained, or the checkpoint is that of another training; the
            message says what is wrong.
        FloatingPointError: If the loss is no longer finite, or a logit is not a number.

    Example:
        >>> from torch_geometric import seed_everything
        >>> from torch_geometric.nn import GCN
        >>> from graphsparse.testing import random_graph
        >>> seed_everything(0)
        >>> data = random_graph()
        >>> result = fit(GCN(8, 16, 2, 3, dropout=0.5), data, epochs=30)
        >>> result.test > 0.5
        True
    """
    after_step = check_loop(epochs, eval_every, patience, extra_loss, after_step, log)
    check_callable(metric, "metric")
    check_callable(inference, "inference")
    check_checkpoint(checkpoint, checkpoint_every)
    check_scheduler(scheduler, optimizer)
    check_model(model)
    eval_data = data if eval_data is None else eval_data
    if same_forward is not None:
        check_callable(same_forward, "same_forward")
    task = NodeTask(data, eval_data, loader, extra_loss, metric, inference, same_forward)
    with seeded(seed):
        task.check(model)
    if optimizer is None:
        optimizer = Adam(model.parameters(), lr=lr, weight_decay=weight_decay)
    check_optimizer(optimizer, model)
    file = None
    if checkpoint is not None:
        evaluated = {} if eval_data is data else graph_tensors(eval_data, "eval_data")
        identity = training_identity(
            model,
            optimizer,
            scheduler,
            epochs=epochs,
            patience=patience,
            eval_every=eval_every,
            seed=seed,
            functions={"extra_loss": extra_loss, "metric": metric, "inference": inference},
            after_step=after_step,
            data={**graph_tensors(data, "data"), **evaluated, "loader": describe_loader(loader)},
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
