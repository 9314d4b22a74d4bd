"""Sparse model soups: prune, train several copies under one mask, average them, and again."""

import copy
import tempfile
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch_geometric.data import Data
from tqdm import tqdm

from graphsparse.ops.check import check_count, check_sparsity
from graphsparse.ops.select import num_removed
from graphsparse.soups.evaluation.evaluator import Evaluator
from graphsparse.soups.recipes.result import SoupResult
from graphsparse.soups.sparse.knobs import Knob, Knobs, turn
from graphsparse.soups.sparse.retrain import Retrain, Trained, without_test
from graphsparse.soups.sparse.shared_mask import Merge, check_merge, mask_digest, merge_copies
from graphsparse.soups.sparse.ticket_states import check_judged_graph
from graphsparse.soups.states.disk_states import DiskStates
from graphsparse.soups.states.prune_state import apply_masks, magnitude_masks, maskable_names, num_nonzero
from graphsparse.soups.states.states import State, check_states
from graphsparse.soups.states.ties import tie, tied_names
from graphsparse.soups.workers.jitter import stream_seed
from graphsparse.tickets import Ticket
from graphsparse.training import build_model, predict
from graphsparse.training.check import check_callable, check_data
from graphsparse.training.node_task import Inference
from graphsparse.typing import MakeModel
from graphsparse.utils.counter_random import check_seed

#: Applies a function to settings and gives the results in their order, as ``map`` does.
Map: TypeAlias = Callable[[Callable[[Knobs], Trained], Sequence[Knobs]], Iterable[Trained]]


def sparse_soup(
    make_model: MakeModel,
    data: Data,
    *,
    sparsity: float,
    phases: int = 3,
    copies: int = 3,
    knob: Knob = "seed",
    values: Sequence[float] | None = None,
    merge: Merge = "uniform",
    parent: Ticket | State | None = None,
    masked: Sequence[str] | None = None,
    epochs: int = 100,
    pretrain_epochs: int | None = None,
    lr: float = 0.01,
    weight_decay: float = 5e-4,
    make_loader: Callable[[Data, int], Iterable[Data]] | None = None,
    inference: Inference = predict,
    evaluator: Evaluator | None = None,
    split_validation: bool = True,
    seed: int = 0,
    run: Map = map,
    progress: bool = False,
    log: Callable[[dict[str, Any]], None] | None = None,
) -> SoupResult:
    r"""Prune a model step by step, and after each step average several copies that were trained under its mask.

    In each of :math:`J` phases the fraction :math:`p` of the weights that are left goes, the smallest of all tensors
    together; :math:`m` copies are trained from what remains, which differ in one knob, and become one:

    .. math:: m_j = \mathrm{keep}(W), \qquad W_k = \mathrm{train}_k(m_j \odot W), \qquad
        W \leftarrow \sum_k \lambda_k W_k, \qquad p = 1 - (1 - S)^{1 / J}

    All copies are zero in the same places, so that their mean is too, and costs what one costs. That the masks they
    held are equal, and that mean and copies are zero wherever the mask is, is checked in every phase. After the last
    exactly :math:`\lfloor S n \rfloor` of :math:`n` weights are gone.

    From a ticket, the soup is of its graph: every copy is trained and judged on its edges, which all have in common.
    Weights that its mask removed stay so; the phases lead from its sparsity to ``sparsity``, and with the same one they
    average under its mask.

    Labels of test nodes are hidden before anything is trained. Validation nodes choose the epoch of each copy and, with
    ``"greedy"``, the copies. Copies wait on disk: their number does not matter for memory, which holds what a training
    needs (model, optimiser, best weights), or three states beside the model.

    Args:
        make_model: Builds a fresh model, called as ``model(x, edge_index)``.
        data: The graph with ``x``, ``edge_index``, ``y``, ``train_mask`` and ``val_mask``; with a ticket the one it was
            found for, before sparsification.
        sparsity: Fraction :math:`S` of the weights to remove, in ``[0, 1)``.
        phases: Number of phases :math:`J`.
        copies: Number of copies :math:`m`.
        knob: What differs from copy to copy: ``"seed"`` (dropout, and batches if there is a loader),
            ``"weight_decay"``, ``"epochs"`` or ``"lr"``.
        values: Value of the knob for each copy; see :func:`~graphsparse.soups.sparse.knobs.turn` for those of ``None``.
        merge: ``"uniform"`` for the mean of all copies, ``"greedy"`` for that of those that raise the score on the
            judged nodes; then it is never below that of the best copy.
        parent: Ticket or state dict to start from; a model is trained from ``make_model`` and ``seed`` when ``None``.
        masked: Names of the parameters to prune; trained ones with at least two dimensions when ``None``.
        epochs: Number of epochs of each copy in each phase; the best one is kept.
        pretrain_epochs: Number of epochs of the first, dense model; ``epochs`` when ``None``.
        lr: Learning rate of Adam.
        weight_decay: L2 coefficient of Adam.
        make_loader: Returns the training batches for a graph and a seed; the whole graph at once when ``None``.
        inference: Returns the logits of the whole graph in evaluation mode, as in :func:`~graphsparse.training.fit`.
        evaluator: Scores copies and means, on the edges of the ticket; accuracy on the validation nodes when ``None``.
        split_validation: For ``"greedy"``, whether to propose by one half of the judged nodes and accept by the other.
        seed: Seed of everything; two calls with the same one give the same soup on CPU.
        run: Applies a function to a list, as ``map`` does: the ``map`` of a ``ProcessPoolExecutor`` trains the copies
            at the same time, if ``make_loader`` and ``inference`` can be sent to other processes.
        progress: Whether to show a progress bar, of trainings.
        log: Receives the entry of the trace after each phase.

    Returns:
        The soup of the last phase, with the shares of its copies as ``weights``. The trace has for each phase its
        ``phase`` from 0, ``sparsity``, number of weights left ``num_kept``, digest of its mask ``mask``, the
        ``ingredient_scores`` and ``best_epochs`` of the copies, their ``weights`` and the ``score``.
        :func:`~graphsparse.soups.soup_ticket` makes it a ticket.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range, the parent is of another model or graph, or sparser than wanted.

    Warns:
        UserWarning: If all copies of a phase are equal, as they are with the knob ``"seed"`` where nothing is random.

    Example:
        >>> from torch_geometric.nn import GCN
        >>> from graphsparse.testing import random_graph
        >>> from graphsparse.tickets import find_ticket
        >>> from graphsparse.training import Training
        >>> data, make_model = random_graph(), lambda: GCN(8, 16, 2, 3, dropout=0.5)
        >>> ticket = find_ticket(make_model, data, weight_sparsity=0.2, training=Training(epochs=5))
        >>> soup = sparse_soup(make_model, data, sparsity=0.75, phases=2, copies=2, parent=ticket, epochs=5)
        >>> [step["num_kept"] for step in soup.trace]  # of 176 weights, 141 of them in the ticket
        [79, 44]

    Source: Zimmer et al., *Sparse Model Soups: A Recipe for Improved Pruning via Model Averaging*, arXiv 2306.16788.
    There the learning rate follows a schedule, and batches are of images; here it is constant.
    """
    sparsity, seed = check_sparsity(sparsity), check_seed(seed)
    for value, name in ((phases, "phases"), (copies, "copies"), (epochs, "epochs")):
        check_count(value, name)
    check_count(epochs if pretrain_epochs is None else pretrain_epochs, "pretrain_epochs")
    for function, name in ((run, "run"), (inference, "inference"), (make_loader or map, "make_loader")):
        check_callable(function, name)
    if log is not None:
        check_callable(log, "log")
    check_merge(merge)
    check_data(data, "data", ("train_mask", "val_mask"))
    settings = turn(Knobs(epochs, lr, weight_decay), knob, copies, values)
    graph = without_test(parent.sparsify(data) if isinstance(parent, Ticket) else data)
    model = build_model(make_model, seed).to(data.x.device)
    names = _trainable_names(model, masked)
    evaluator = Evaluator(model, graph) if evaluator is None else evaluator
    if isinstance(parent, Ticket):
        check_judged_graph(parent, evaluator.data)
    with tqdm(total=phases * copies, disable=not progress, desc="sparse soup") as bar:
        if parent is None:
            train = Retrain(model, graph, {}, make_loader, inference)
            first = Knobs(epochs if pretrain_epochs is None else pretrain_epochs, lr, weight_decay)
            model.load_state_dict(train(_reseeded(first, seed, 0)).state)
        else:
            _load(model, parent.state_dict if isinstance(parent, Ticket) else parent)
        counts = kept_counts(model.state_dict(), names, sparsity, phases)
        within = {name: model.state_dict()[name] != 0 for name in names}
        trace: list[dict[str, Any]] = []
        for phase, num_kept in enumerate(counts):
            masks = magnitude_masks(model.state_dict(), names, num_kept, within)
            apply_masks(model.state_dict(), masks)
            within = masks
            retrain = Retrain(model, graph, masks, make_loader, inference)
            seeded = [_reseeded(knobs, seed, phase + 1) for knobs in settings]
            with tempfile.TemporaryDirectory(prefix="sparse-soup-") as folder:
                states, best_epochs = _train_copies(run, retrain, seeded, DiskStates(folder), bar)
                _warn_if_equal(states, phase, knob)
                soup = merge_copies(states, masks, evaluator, merge, split_validation, seed)
            model.load_state_dict(soup.state_dict)
            trace.append(
                {
                    "phase": phase,
                    "sparsity": 1 - num_kept / sum(mask.numel() for mask in masks.values()),
                    "num_kept": num_kept,
                    "mask": mask_digest(masks),
                    "ingredient_scores": soup.ingredient_scores,
                    "best_epochs": best_epochs,
                    "weights": soup.weights.tolist() if isinstance(soup.weights, Tensor) else None,
                    "score": soup.score,
                }
            )
            if log is not None:
                log(copy.deepcopy(trace[-1]))
            bar.set_postfix(sparsity=f"{trace[-1]['sparsity']:.3f}", score=f"{soup.score:.4f}", refresh=False)
    return SoupResult(soup.state_dict, soup.weights, soup.score, soup.ingredient_scores, trace)


def kept_counts(state: State, names: Sequence[str], sparsity: float, phases: int) -> list[int]:
    r"""Return how many weights are left after each phase.

    Of :math:`n` weights :math:`n - \lfloor s_j n \rfloor`, with
    :math:`1 - s_j = (1 - s_0) \left(\frac{1 - S}{1 - s_0}\right)^{j / J}` and the fraction :math:`s_0` that is zero
    before.

    Args:
        state: State dict before the first phase.
        names: Names of the tensors to prune.
        sparsity: The sparsity :math:`S` after the last phase.
        phases: Their number :math:`J`.

    Raises:
        ValueError: If more are zero already than ``sparsity`` removes.

    Example:
        >>> kept_counts({"w": torch.ones(10, 10)}, ["w"], 0.75, 2)
        [50, 25]
    """
    total = sum(state[name].numel() for name in names)
    left = num_nonzero(state, names)
    last = total - num_removed(sparsity, total)
    if left < last:
        raise ValueError(
            f"'sparsity' must not be below that of 'parent', where {total - left} of {total} weights are zero already "
            f"(got {sparsity})"
        )
    found = []
    for phase in range(1, phases):
        kept = left / total * ((1 - sparsity) * total / left) ** (phase / phases)
        found.append(min(left, max(last, total - num_removed(min(max(1 - kept, 0.0), sparsity), total))))
    return [*found, last]


def _train_copies(
    run: Map, retrain: Retrain, settings: Sequence[Knobs], states: DiskStates, bar: Any
) -> tuple[DiskStates, list[int]]:
    """Train the copies of a phase, check that they held the same mask, and write them to disk."""
    digest, best_epochs = mask_digest(retrain.masks), []
    for trained in run(retrain, settings):
        if trained.digest != digest:
            raise RuntimeError(f"copy {len(states)} was trained under another mask than the others")
        states.append(trained.state)
        best_epochs.append(trained.best_epoch)
        del trained  # before the next one is made
        bar.update()
    if len(states) != len(settings):
        raise RuntimeError(f"'run' gave {len(states)} copies (expected {len(settings)})")
    return states, best_epochs


def _trainable_names(model: nn.Module, masked: Sequence[str] | None) -> list[str]:
    """Return the names of the parameters to prune; what is not trained cannot be held at zero either."""
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    names = maskable_names(model, masked)
    frozen = [name for name in names if name not in trained]
    if frozen and (masked is not None or len(frozen) == len(names)):
        raise ValueError(f"'masked' names {frozen[:3]}, which are not trained")
    return [name for name in names if name in trained]


def _reseeded(knobs: Knobs, seed: int, phase: int) -> Knobs:
    """Return settings whose seed depends on all three: streams of different ones have nothing in common."""
    return replace(knobs, seed=stream_seed(seed, "dropout", knobs.seed, phase))


def _load(model: nn.Module, state: State) -> None:
    """Take over the weights of the parent, if they fit."""
    check_states([state], model.state_dict())
    model.load_state_dict(tie(state, tied_names(model)))


def _warn_if_equal(states: DiskStates, phase: int, knob: Knob) -> None:
    first = states[0]
    if len(states) > 1 and all(
        torch.equal(value, first[name]) for i in range(1, len(states)) for name, value in states[i].items()
    ):
        warnings.warn(
            f"all {len(states)} copies of phase {phase} are equal: the knob {knob!r} changes nothing in this training; "
            "a seed matters only where there is dropout or a loader",
            stacklevel=3,
        )
