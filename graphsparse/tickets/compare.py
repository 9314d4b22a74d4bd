"""What a ticket is compared with: the dense model, random masks, masks by magnitude, or any other method."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from graphsparse.nn.linear import set_dropout
from graphsparse.tickets.distillation import Distillation
from graphsparse.tickets.find import as_task, find_ticket, resolve
from graphsparse.tickets.method import PruningMethod
from graphsparse.tickets.run import TicketRun
from graphsparse.training import FitResult, Training, build_model
from graphsparse.typing import MakeModel

#: Dropouts among which the validation part chooses for the dense model, and then for all that are trained.
DROPOUTS = (0.0, 0.3, 0.5, 0.7)


def compare_tickets(
    make_model: MakeModel,
    data: Any,
    methods: Sequence[str | PruningMethod],
    *,
    edge_sparsity: float = 0.0,
    weight_sparsity: float = 0.0,
    training: Training | None = None,
    distillation: Distillation | None = None,
    dropouts: Sequence[float] = DROPOUTS,
) -> list[dict[str, Any]]:
    """Find a ticket by each of several methods, with one seed and one training, beside the dense model.

    The dense model is trained with each dropout, the validation part chooses one, and every model whose weights are
    trained has that one.

    Args:
        make_model: As for :func:`~graphsparse.tickets.find_ticket`, like most that follow.
        data: The graph, the data set of graphs, or a task.
        methods: Names or objects; none for the dense model alone.
        edge_sparsity: Fraction of undirected edges to remove, by the methods that prune edges.
        weight_sparsity: Fraction of the weights to remove, by the methods that prune weights.
        training: How models are trained; its ``checkpoint`` is a folder, with one inside for each method.
        distillation: How trained weights learn from the dense model; those of ``SupTickets`` and the like do not.
        dropouts: Dropouts to choose from.

    Returns:
        One row for the dense model, with the chosen ``dropout``, and one for each method in its order: ``method``,
        ``val``, ``test`` (``None`` where there is no test part), ``best_epoch`` (``None`` for the mean of several, and
        the like), ``edge_sparsity`` and
        ``weight_sparsity``.

    Raises:
        TypeError: As for :func:`~graphsparse.tickets.find_ticket`.
        ValueError: As for :func:`~graphsparse.tickets.find_ticket`.

    Example:
        >>> from torch_geometric.nn import GCN
        >>> from graphsparse.testing import random_graph
        >>> data, make_model = random_graph(), lambda: GCN(8, 16, 2, 3)
        >>> rows = compare_tickets(make_model, data, ["random"], weight_sparsity=0.9, training=Training(epochs=5))
        >>> [(row["method"], round(row["weight_sparsity"], 1)) for row in rows]
        [('dense', 0.0), ('random', 0.9)]
    """
    training, task = Training() if training is None else training, as_task(data)
    named = [resolve(method) for method in methods]
    dropout, result, test = _dense(make_model, task, _inside(training, "dense"), dropouts)
    rows: list[dict[str, Any]] = [
        {"method": "dense", "val": result.val, "test": test, "best_epoch": result.best_epoch, "dropout": dropout}
    ]
    rows[0] |= {"edge_sparsity": 0.0, "weight_sparsity": 0.0}
    for name, method in named:
        sparsities = {"edge_sparsity": edge_sparsity, "weight_sparsity": weight_sparsity}
        ticket = find_ticket(
            _with_dropout(make_model, dropout),
            task,
            **{key: value for key, value in sparsities.items() if f"{key.partition('_')[0]}s" in method.prunes},
            method=method,
            training=_inside(training, name),
            distillation=distillation if getattr(method, "distils", True) else None,
        )
        row = {"method": name, "test": None, "best_epoch": None, "edge_sparsity": 0.0, "weight_sparsity": 0.0}
        rows.append({**row, **ticket.metrics})
    return rows


def _dense(
    make_model: MakeModel, task: Any, training: Training, dropouts: Sequence[float]
) -> tuple[float, FitResult, float | None]:
    """Return dropout, result and test metric of the dense model that is best on the validation part."""
    # Without a dropout to set, one training is enough.
    places = set_dropout(build_model(make_model, training.seed), dropouts[0])
    found: list[tuple[float, FitResult]] = []
    for dropout in dropouts if places else dropouts[:1]:
        run = TicketRun(_with_dropout(make_model, dropout), task, [], training)
        found.append((dropout, run.train(run.model(), f"dropout-{dropout:g}")))
    sign = 1 if task.maximize else -1
    dropout, result = max(found, key=lambda one: sign * one[1].val)  # the first of equal ones
    model = build_model(make_model, training.seed)
    model.load_state_dict(result.state_dict)
    return dropout, result, run.test(model, result.best_epoch)


def _with_dropout(make_model: MakeModel, dropout: float) -> MakeModel:
    def make() -> nn.Module:
        model = make_model()
        set_dropout(model, dropout)
        return model

    return make


def _inside(training: Training, name: str) -> Training:
    """Return the same training with a folder of its own, and its name at progress bars."""
    folder = training.checkpoint
    return (training if folder is None else replace(training, checkpoint=Path(folder) / name)).named(name)
