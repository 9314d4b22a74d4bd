"""The one training loop."""

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Adam, Optimizer
from torch_geometric.data import Data
from tqdm import tqdm

from graphsparse.metrics import accuracy
from graphsparse.training.check import (
    check_callable,
    check_count,
    check_data,
    check_labels,
    check_model,
    check_one_graph,
    check_optimizer,
    check_output,
)
from graphsparse.training.predict import predict
from graphsparse.training.seeding import seeded
from graphsparse.typing import Log
from graphsparse.utils.call_model import call_model
from graphsparse.utils.eval_mode import eval_mode, keep_mode

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
        train: Metric on the training nodes of the evaluated graph at the best epoch; NaN where it has none.
        val: Metric on the validation nodes at the best epoch.
        test: Metric on the test nodes at the best epoch; ``None`` where the graph has no test nodes.
        history: ``epoch``, ``loss`` (mean over its steps), ``train`` and ``val`` of every evaluated epoch.
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
    interruption it holds those of the last whole step. Its mode, training or evaluation, is the one it came with. All
    arguments are checked before the first step, for which the model is called once in evaluation mode.

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
        loader: Any PyG loader of training batches, or a list of them. Of a batch with ``batch_size``, such as
            ``NeighborLoader``'s, the first so many nodes count, of others all; in both cases those in ``train_mask``.
            Batches are moved to the device of the model.
        extra_loss: A further term, ``(logits, batch, epoch) -> scalar``.
        after_step: Callables ``(model, epoch)``, run after every step of the optimiser.
        metric: Figure of merit, higher is better, ``(logits, y, mask) -> float``.
        inference: Returns the logits of a whole graph in evaluation mode; one forward pass by default. For graphs that
            do not fit into one, pass a function that goes layer by layer.
        patience: Stop after so many epochs without a better validation metric; never when ``None``. Looked at when the
            model is evaluated.
        eval_every: Evaluate every so many epochs, and after the last one.
        seed: Seed of dropout, of loaders and of everything else that draws from the global generators of PyTorch,
            Python and NumPy; their state is restored.
        progress: Whether to show a progress bar.
        log: Receives a copy of the entries of ``history`` one by one.

    Returns:
        The result at the best epoch.

    Raises:
        TypeError: If an argument, the labels or the model's output have the wrong type.
        ValueError: If the graph or the model cannot be trained; the message says what is wrong.
        FloatingPointError: If the loss is no longer finite, or a logit is not a number.

    Example:
        >>> from torch_geometric.nn import GCN
        >>> from graphsparse.testing import random_graph
        >>> data = random_graph()
        >>> result = fit(GCN(8, 16, 2, 3, dropout=0.5), data, epochs=30)
        >>> result.test > 0.5
        True
    """
    check_count(epochs, "epochs")
    check_count(eval_every, "eval_every")
    check_count(1 if patience is None else patience, "patience")
    for name, function in (("extra_loss", extra_loss), ("log", log)):
        if function is not None:
            check_callable(function, name)
    check_callable(metric, "metric")
    check_callable(inference, "inference")
    if callable(after_step):
        raise TypeError(f"'after_step' must be a list of functions (got {after_step!r})")
    after_step = list(after_step)
    for hook in after_step:
        check_callable(hook, "after_step")
    check_model(model)
    eval_data = data if eval_data is None else eval_data
    with seeded(seed):
        _check(model, data, eval_data, loader, inference)
    if optimizer is None:
        optimizer = Adam(model.parameters(), lr=lr, weight_decay=weight_decay)
    check_optimizer(optimizer, model)
    batches = [data] if loader is None else _OnDevice(loader, next(model.parameters()).device)

    history: list[dict[str, float]] = []
    best_val, best_epoch = -math.inf, 0
    with keep_mode(model), seeded(seed), tqdm(range(epochs), disable=not progress, unit="epoch") as bar:
        for epoch in bar:
            model.train()
            losses = [_step(model, batch, optimizer, extra_loss, after_step, epoch) for batch in batches]
            loss = _mean(losses)
            if (epoch + 1) % eval_every and epoch + 1 < epochs:
                continue
            logits = _evaluate(model, eval_data, inference)
            if logits.isnan().any():
                raise FloatingPointError(f"a logit is not a number after epoch {epoch}; a smaller 'lr' may help")
            val = metric(logits, eval_data.y, eval_data.val_mask)
            row = {"epoch": epoch, "loss": loss, "val": val}
            if eval_data.get("train_mask") is not None and eval_data.train_mask.any():
                row["train"] = metric(logits, eval_data.y, eval_data.train_mask)
            history.append(row)
            if log is not None:
                log(dict(row))
            bar.set_postfix(loss=f"{loss:.3f}", val=f"{val:.3f}", best=f"{max(val, best_val):.3f}", refresh=False)
            if val > best_val:
                best_val, best_epoch, best_logits = val, epoch, logits
                best_state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
                best_train = row.get("train", math.nan)
            if patience is not None and epoch - best_epoch >= patience:
                break
    if best_val == -math.inf:
        raise ValueError("'metric' gave no number on the validation nodes")
    model.load_state_dict(best_state)
    test_mask = eval_data.get("test_mask")
    test = metric(best_logits, eval_data.y, test_mask) if test_mask is not None and test_mask.any() else None
    return FitResult(best_state, best_logits, best_epoch, epoch + 1, best_train, best_val, test, history)


def _evaluate(model: nn.Module, data: Data, inference: Inference) -> Tensor:
    """Call ``inference``, which may care neither for the mode of the model nor for gradients."""
    with eval_mode(model), torch.no_grad():
        return inference(model, data)


def _check(model: nn.Module, data: Data, eval_data: Data, loader: Iterable[Data] | None, inference: Inference) -> None:
    """Find out before training starts whether the model, the graphs and the loader fit together."""
    if isinstance(loader, Iterator):
        raise TypeError("'loader' is used up after one epoch; give a loader or a list of batches")
    if loader is not None or eval_data is not data:
        check_one_graph(model)
    used: dict[str, tuple[Data, tuple[str, ...]]]
    if eval_data is data:
        used = {"data": (data, ("train_mask", "val_mask"))}
    else:
        used = {"data": (data, ("train_mask",)), "eval_data": (eval_data, ("val_mask",))}
    for name, (graph, masks) in used.items():
        check_data(graph, name, masks)
    logits = _evaluate(model, eval_data, inference)
    name = "data" if eval_data is data else "eval_data"
    check_output(logits, eval_data, name, used[name][1])
    if loader is None and eval_data is not data:
        check_output(predict(model, data), data, "data", ("train_mask",))
    elif eval_data is not data:  # a graph that is trained on in batches may be too large for a forward pass
        check_labels(logits.size(1), data, "data", ("train_mask",))


class _OnDevice:
    """The batches of a loader on the device of the model; those of the loader stay where they are."""

    def __init__(self, loader: Iterable[Data], device: torch.device) -> None:
        self.loader = loader
        self.device = device

    def __iter__(self) -> Iterator[Data]:
        for batch in self.loader:
            if not isinstance(batch, Data) or batch.get("train_mask") is None:
                raise ValueError(f"'loader' must give Data with a 'train_mask' (got {batch!r})")
            yield copy.copy(batch).to(self.device)


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
    has_train_nodes = bool(mask.any())
    if not has_train_nodes and extra_loss is None:
        return None
    optimizer.zero_grad()
    logits = call_model(model, batch)
    # The mean over no node is not a number, but their sum is 0; a batch without any may still have the extra term.
    loss = F.cross_entropy(logits[mask], batch.y[mask]) if has_train_nodes else logits[mask].sum()
    if extra_loss is not None:
        extra = extra_loss(logits, batch, epoch)
        if not isinstance(extra, Tensor) or extra.dim() != 0:
            raise ValueError(f"'extra_loss' must return a scalar tensor (got {extra!r})")
        loss = loss + extra
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
