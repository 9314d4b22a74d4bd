"""Untrained tickets: a mask over frozen random weights."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch_geometric.data import Data

from graphsparse.nn import Supermask, accelerate
from graphsparse.nn.dropout import set_dropout
from graphsparse.ops.check import check_count, check_sparsity
from graphsparse.tickets.controls import Control, check_controls, run_controls
from graphsparse.tickets.mask_search import MaskSearch, Preset, mask_search
from graphsparse.tickets.search_task import SearchTask
from graphsparse.tickets.ticket import Ticket
from graphsparse.training import FitResult, build_model, predict
from graphsparse.training.checkpoint import check_checkpoint
from graphsparse.training.node_task import Inference
from graphsparse.training.target import Target as GraphTarget
from graphsparse.typing import Log, MakeModel


def find_untrained_ticket(
    make_model: MakeModel,
    data: Any,
    *,
    sparsity: float,
    preset: Preset = "ugt",
    controls: Sequence[Control] = (),
    epochs: int | None = None,
    lr: float | None = None,
    weight_decay: float | None = None,
    dropout: float | None = 0.0,
    loader: Iterable[Data] | None = None,
    inference: Inference = predict,
    evaluator: Any = None,
    split: Mapping[str, Any] | None = None,
    target: GraphTarget | None = None,
    batch_size: int = 512,
    patience: int | None = None,
    eval_every: int = 1,
    fast: bool = True,
    checkpoint: str | Path | None = None,
    seed: int = 0,
    progress: bool = False,
    log: Log | None = None,
    **supermask: Any,
) -> Ticket:
    r"""Find a mask under which a model with random, never trained weights does its task.

    The weights of the model are drawn from the seed and frozen; what is trained is a score for each of them, and the
    :math:`\lfloor \mathrm{sparsity} \cdot n \rfloor` weights with the lowest scores are left out; see
    :class:`~graphsparse.nn.Supermask`. The sparsity grows from 0 over the first half of the epochs. In every epoch the
    mask of the final sparsity is judged on the validation part, and the ticket is the one of the best epoch, which may
    lie within the ramp. The test part is read once, for that mask.

    =========================  =====================================================================================
    preset                     what is searched
    =========================  =====================================================================================
    ``"ugt"``                  one threshold for all tensors, signed scores, Kaiming-uniform weights; AdamW, 400 epochs
    ``"edge_popup"``           the same with one threshold per tensor and without the ramp, the baseline of UGT
    ``"edge_popup_original"``  absolute scores, weights :math:`\pm\sigma`, SGD with momentum and a cosine schedule
    ``"multicoated"``          three nested masks whose sum multiplies weights :math:`\pm\sigma`, scaled; AdamW
    =========================  =====================================================================================

    Args:
        make_model: Builds a fresh model; for nodes it is called as ``model(x, edge_index)``.
        data: A graph with ``x``, ``edge_index``, ``y`` and the three masks; or a data set of graphs, as
            :func:`~graphsparse.training.fit_graphs` takes it.
        sparsity: Fraction of the scores that removes its weight, in ``[0, 1)``, that of the first coat if there are
            several.
        preset: One of the names above.
        controls: What to compare with, on the same data and from the same seed: ``"dense"`` (trained, the dropout
            chosen on validation), ``"random_untrained"`` and ``"random_trained"`` (a random mask of the same sparsity),
            ``"magnitude"`` and ``"magnitude_iterative"`` (the largest weights of the trained model, rewound and trained
            again, at once or 20 % a round). Each adds its metrics under its name to those of the ticket.
        epochs: Number of epochs; ``None`` for that of the preset, as for the following two.
        lr: Learning rate.
        weight_decay: Weight decay of the scores.
        dropout: Dropout of the model during the search; ``None`` leaves it as ``make_model`` sets it.
        loader: Training batches of nodes, any PyG loader.
        inference: Logits of the whole graph from a plain model, for graphs that don't fit into one forward pass.
        evaluator: OGB's evaluator, for graphs; as the following three, see :func:`~graphsparse.training.fit_graphs`.
        split: Training, validation and test graphs.
        target: What is asked of graphs.
        batch_size: Graphs per batch.
        patience: Epochs without a better validation metric after which the search stops; never when ``None``.
        eval_every: Evaluate every so many epochs.
        fast: Search with :func:`~graphsparse.nn.accelerate`, which warns about layers that it leaves as they are.
        checkpoint: File from which a killed search goes on, with the result of an undisturbed one; see
            :func:`~graphsparse.training.fit`. The controls are not covered by it.
        seed: Seed of weights, scores, batches and controls.
        progress: Whether to show a progress bar.
        log: Receives the numbers of every epoch.
        supermask: Arguments of :class:`~graphsparse.nn.Supermask` that replace those of the preset, such as
            ``coats=5``, ``scope="2:4"``, ``select=...`` or ``ramp="cubic"``. With ``coat_spacing="adaptive_linear"``
            and no ``coat_scores`` a search with one coat comes first.

    Returns:
        The ticket. Its weights follow from the seed, so that its file holds little more than the mask.

    Raises:
        TypeError: If an argument has the wrong type or is unknown.
        ValueError: If an argument is out of range, the data lack something, or the model does not fit them.

    Example:
        >>> from torch_geometric.nn import GCN
        >>> from graphsparse.datasets import synthetic_citation
        >>> data = synthetic_citation(1000, num_features=64, num_val=200, num_test=300)
        >>> make_model = lambda: GCN(64, 32, 2, 7, bias=False)
        >>> ticket = find_untrained_ticket(make_model, data, sparsity=0.5, epochs=20, controls=["random_untrained"])
        >>> ticket.metrics["test_accuracy"] > ticket.metrics["random_untrained_test_accuracy"]
        True

    Source: Huang et al., *You Can Have Better Graph Neural Networks by Not Training Weights at All*, arXiv 2211.15335,
    Section 3; coats: Yan et al., arXiv 2312.03236.
    """
    check_sparsity(sparsity)
    check_controls(controls)
    if epochs is not None:
        check_count(epochs, "epochs")
    search = mask_search(preset, supermask, epochs=epochs, lr=lr, weight_decay=weight_decay)
    task = SearchTask(
        data,
        loader=loader,
        inference=plain_inference(inference),
        evaluator=evaluator,
        split=split,
        target=target,
        batch_size=batch_size,
        epochs=search.epochs,
        patience=patience,
        eval_every=eval_every,
        seed=seed,
        progress=progress,
        log=log,
    )
    check_checkpoint(checkpoint, None)
    path = None if checkpoint is None else Path(checkpoint)
    found, result = search_supermask(make_model, task, search, sparsity, dropout=dropout, fast=fast, checkpoint=path)
    metrics = {
        f"val_{task.metric}": result.val,
        f"test_{task.metric}": result.test,
        "weight_sparsity": found.sparsity().total,
        "best_epoch": result.best_epoch,
    }
    metrics |= run_controls(controls, make_model, task, sparsity, search, fast=fast)
    options = {name: value for name, value in search.supermask.items() if isinstance(value, (str, int, float, bool))}
    config = {
        "method": "untrained",
        "preset": preset,
        **options,
        "sparsity": sparsity,
        "epochs": search.epochs,
        "lr": search.lr,
        "weight_decay": search.weight_decay,
        "seed": seed,
    }
    return found.to_ticket(
        data=data if task.on_nodes else None,
        config=config,
        metrics={name: value for name, value in metrics.items() if value is not None},
    )


def search_supermask(
    make_model: MakeModel,
    task: SearchTask,
    search: MaskSearch,
    sparsity: float,
    *,
    dropout: float | None = 0.0,
    fast: bool = True,
    checkpoint: Path | None = None,
) -> tuple[Supermask, FitResult]:
    """Search a mask; see :func:`find_untrained_ticket`.

    Returns:
        The wrapped model with the scores of the best epoch, and the result of the search.
    """
    options = dict(search.supermask)
    if options.get("coat_spacing") == "adaptive_linear" and options.get("coat_scores") is None:
        single = dataclasses.replace(search, supermask={**options, "coats": 1, "coat_spacing": "uniform"})
        first = None if checkpoint is None else checkpoint.with_name(f"{checkpoint.name}.one-coat")
        found, _ = search_supermask(make_model, task, single, sparsity, dropout=dropout, fast=fast, checkpoint=first)
        options["coat_scores"] = found.scores.detach()
    model = build_model(make_model, task.seed)
    if dropout is not None:
        set_dropout(model, dropout)
    if fast:
        model = accelerate(model)
    masked = Supermask(model, sparsity, seed=task.seed, total_steps=search.epochs, **options)
    del model  # the wrapper has a copy without weights
    optimizer, scheduler = search.make_optimizer(masked)
    result = task.run(
        masked,
        optimizer,
        scheduler=scheduler,
        after_step=[_one_step_per_epoch],
        checkpoint=checkpoint,
    )
    return masked, result


def plain_inference(inference: Inference) -> Inference:
    """Return what calls ``inference`` with the plain model that a supermask stands for."""
    if inference is predict:
        return inference

    def infer(model: nn.Module, data: Data) -> Tensor:
        return inference(model.materialize() if isinstance(model, Supermask) else model, data)

    return infer


def _one_step_per_epoch(model: nn.Module, epoch: int) -> None:
    """Move the ramp on with the first batch of an epoch: the length of an epoch need not be known."""
    assert isinstance(model, Supermask)
    if model.steps_done <= epoch:
        model.step()
