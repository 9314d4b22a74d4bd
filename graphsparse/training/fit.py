"""The one training loop."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Adam, Optimizer
from torch_geometric.data import Data
from tqdm import tqdm

from graphsparse.metrics import accuracy
from graphsparse.training.check import check_data, check_model, check_output
from graphsparse.training.predict import call_model, predict
from graphsparse.training.seeding import seeded
from graphsparse.typing import Log

#: A further term of the loss, from the logits of a batch, the batch and the epoch.
ExtraLoss: TypeAlias = Callable[[Tensor, Data, int], Tensor]
#: Called with the model and the epoch after every step of the optimiser.
AfterStep: TypeAlias = Callable[[nn.Module, int], object]
#: A figure of merit, higher is better, from logits ``[N, C]``, labels ``[N]`` and a mask ``[N]``.
Metric: TypeAlias = Callable[[Tensor, Tensor, Tensor], float]
#: Returns the logits ``[N, C]`` of a whole graph in evaluation mode.
Inference: TypeAlias = Callable[[nn.Module, Data], Tensor]


@dataclass(frozen=True, eq=False)
class FitResult:
    """What a training left behind.

    Args:
        state_dict: Weights and buffers at the best epoch.
        logits: Logits ``[N, C]`` of the evaluated graph in evaluation mode at the best epoch.
        best_epoch: Epoch with the best validation metric, from 0; the first one if several are equal.
        epochs_run: Number of epochs that were run.
        train: Metric on the training nodes of the evaluated graph at the best epoch.
        val: Metric on the validation nodes at the best epoch.
        test: Metric on the test nodes at the best epoch; ``None`` where the graph has no test nodes.
        history: ``epoch``, ``loss``, ``train`` and ``val`` of every evaluated epoch.
    """

    state_dict: dict[str, Tensor]
    logits: Tensor
    best_epoch: int
    epochs_run: int
    train: float
    val: float
    test: float | None
    history: list[dict[str, float]]


def fit(
    model: nn.Module,
    data: Data,
    *,
    epochs: int = 200,
    lr: float = 0.01,
    weight_decay: float = 5e-4,
    optimizer: Optimizer | None = None,
    eval_data: Data | None = None,
    loader: Iterable[Data] | None = None,
    extra_loss: ExtraLoss | None = None,
    after_step: Sequence[AfterStep] = (),
    metric: Metric = accuracy,
    inference: Inference = predict,
    patience: int | None = None,
    eval_every: int = 1,
    seed: int = 0,
    progress: bool = False,
    log: Log | None = None,
) -> FitResult:
    """Train a node classifier and keep the weights of the epoch with the best validation metric.

    The loss is the cross-entropy on the training nodes, over the whole graph at once or over the batches of a loader.
    Only training labels are used to train and only validation labels to choose; the test mask is read once, at the
    end. The model is trained in place and holds the best weights when the function returns; after an error or an
    interruption it holds those of the last step.

    Args:
        model: Called as ``model(x, edge_index)`` (``adj_t`` where there is no ``edge_index``, and ``edge_weight`` as
            third argument where there is one), returns logits ``[N, C]``.
        data: The graph to train on, with ``x``, ``y`` and ``train_mask``; on the device of the model.
        epochs: Number of epochs.
        lr: Learning rate of Adam.
        weight_decay: L2 coefficient of Adam.
        optimizer: A ready optimiser of the model's parameters instead; ``lr`` and ``weight_decay`` are not used then.
        eval_data: The graph to evaluate on, with ``val_mask`` and, if known, ``test_mask``; ``data`` when ``None``.
            Another one makes an inductive training.
        loader: Any PyG loader of training batches. Of a batch with ``batch_size``, such as ``NeighborLoader``'s, the
            first so many nodes count, of others all; in both cases those in ``train_mask``.
        extra_loss: A further term, ``(logits, batch, epoch) -> scalar``.
        after_step: Callables ``(model, epoch)``, run after every step of the optimiser.
        metric: Figure of merit, higher is better.
        inference: Returns the logits of a whole graph in evaluation mode; one forward pass by default. For graphs that
            do not fit into one, pass a function that goes layer by layer.
        patience: Stop after so many epochs without a better validation metric; never when ``None``.
        eval_every: Evaluate every so many epochs, and after the last one.
        seed: Seed of dropout and of everything else that draws from PyTorch's generators, whose state is restored.
        progress: Whether to show a progress bar.
        log: Receives the entries of ``history`` one by one.

    Returns:
        The result at the best epoch.

    Raises:
        TypeError: If an argument, the labels or the model's output have the wrong type.
        ValueError: If the graph or the model cannot be trained; the message says what is wrong.
        FloatingPointError: If the loss is no longer finite.

    Example:
        >>> from torch_geometric.nn import GCN
        >>> from graphsparse.testing import random_graph
        >>> data = random_graph()
        >>> result = fit(GCN(8, 16, 2, 3, dropout=0.5), data, epochs=30)
        >>> result.test > 0.5
        True
    """
    eval_data = data if eval_data is None else eval_data
    for name, value in (("epochs", epochs), ("eval_every", eval_every), ("patience", patience or 1)):
        if value < 1:
            raise ValueError(f"'{name}' must be at least 1 (got {value})")
    check_model(model)
    check_data(data, "data")
    check_data(eval_data, "eval_data", ("val_mask",))
    logits = inference(model, eval_data)
    check_output(logits, eval_data, "eval_data", ("val_mask",))
    if eval_data is data:
        check_output(logits, data, "data", ("train_mask",))
    elif loader is None:
        check_output(inference(model, data), data, "data", ("train_mask",))
    if optimizer is None:
        optimizer = Adam(model.parameters(), lr=lr, weight_decay=weight_decay)

    history: list[dict[str, float]] = []
    best_val, best_epoch = -math.inf, 0
    with seeded(seed), tqdm(range(epochs), disable=not progress, unit="epoch") as bar:
        for epoch in bar:
            model.train()
            batches = loader if loader is not None else [data]
            losses = [_step(model, batch, optimizer, extra_loss, after_step, epoch) for batch in batches]
            if (epoch + 1) % eval_every and epoch + 1 < epochs:
                continue
            logits = inference(model, eval_data)
            val = metric(logits, eval_data.y, eval_data.val_mask)
            row = {"epoch": epoch, "loss": _mean(losses), "val": val}
            if eval_data.get("train_mask") is not None and eval_data.train_mask.any():
                row["train"] = metric(logits, eval_data.y, eval_data.train_mask)
            history.append(row)
            if log is not None:
                log(row)
            bar.set_postfix(
                loss=f"{row['loss']:.3f}", val=f"{val:.3f}", best=f"{max(val, best_val):.3f}", refresh=False
            )
            if val > best_val:
                best_val, best_epoch, best_logits = val, epoch, logits
                best_state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
                best_train = row.get("train", math.nan)
            if patience is not None and epoch - best_epoch >= patience:
                break
    if not history or best_val == -math.inf:
        raise ValueError("'metric' gave no number on the validation nodes")
    model.load_state_dict(best_state)
    test_mask = eval_data.get("test_mask")
    test = metric(best_logits, eval_data.y, test_mask) if test_mask is not None and test_mask.any() else None
    return FitResult(best_state, best_logits, best_epoch, epoch + 1, best_train, best_val, test, history)


def _step(
    model: nn.Module,
    batch: Data,
    optimizer: Optimizer,
    extra_loss: ExtraLoss | None,
    after_step: Sequence[AfterStep],
    epoch: int,
) -> float | None:
    """Take one step on a batch and return its loss; a batch that gives no loss is passed over."""
    mask = batch.train_mask
    size = batch.get("batch_size")
    if size is not None:
        mask = mask & (torch.arange(mask.numel(), device=mask.device) < size)
    if not mask.any() and extra_loss is None:
        return None
    optimizer.zero_grad()
    logits = call_model(model, batch)
    # The mean over no node is not a number; a batch without training nodes may still have the extra term.
    loss = F.cross_entropy(logits[mask], batch.y[mask]) if mask.any() else logits.new_zeros(())
    if extra_loss is not None:
        loss = loss + extra_loss(logits, batch, epoch)
    value = float(loss.detach())
    if not math.isfinite(value):
        raise FloatingPointError(f"the loss is {value} in epoch {epoch}; a smaller 'lr' may help")
    loss.backward()
    optimizer.step()
    for hook in after_step:
        hook(model, epoch)
    return value


def _mean(losses: Sequence[float | None]) -> float:
    known = [loss for loss in losses if loss is not None]
    if not known:
        raise ValueError("'loader' gave no batch with a training node")
    return sum(known) / len(known)
