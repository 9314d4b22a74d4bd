"""Find tickets by any method."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from graphsparse.ops.check import check_sparsity
from graphsparse.tickets.described import as_plain, open_folder
from graphsparse.tickets.distillation import Distillation
from graphsparse.tickets.finish import TicketMaker
from graphsparse.tickets.method import PruningMethod, Target
from graphsparse.tickets.methods import METHODS
from graphsparse.tickets.run import TicketRun
from graphsparse.tickets.ticket import Ticket
from graphsparse.training import Task, Training
from graphsparse.training.fit import task_of
from graphsparse.typing import MakeModel


def find_ticket(
    make_model: MakeModel,
    data: Any,
    *,
    edge_sparsity: float = 0.0,
    weight_sparsity: float = 0.0,
    method: str | PruningMethod = "teddy",
    training: Training | None = None,
    distillation: Distillation | None = None,
) -> Ticket:
    r"""Find a sparse graph and a sparse model that belong together.

    Of :math:`M` undirected edges and :math:`D` weights exactly :math:`\lfloor s M \rfloor` and
    :math:`\lfloor s D \rfloor` are removed. The method says which; what it leaves is trained from the initial weights
    of the seed, and the ticket holds the weights of the epoch with the best validation metric. Methods see no test
    label: these are read once, for the ticket. Its metrics say what it took, in ``trainings`` and ``epochs``: those of
    the search up to it, of a teacher, and the last one.

    =========================== ==========================================================================
    ``"teddy"``                 edges by degree, weights by projection, one training: ``OneShot("teddy", L0())``
    ``"random"``                edges and weights by chance, of weights more in small tensors (Erdos-Renyi):
                                ``OneShot("random", Fixed())``
    ``"gmp"``                   the smallest weights go little by little: ``OneShot(None, Gradual())``
    ``"set"``                   small weights are exchanged for drawn ones: ``OneShot(None, SET())``
    ``"rigl"``                  small weights are exchanged for those with large gradients: ``OneShot(None, RigL())``
    ``"magnitude"``             the largest weights of the trained model: ``Magnitude()``
    ``"iterative_magnitude"``   the same, 20 % a round: ``Magnitude(per_round=0.2)``
    ``"ugs"``                   masks of edges and weights that are trained and shrunk, in rounds: ``UGS()``
    ``"wd-glt"``                the same, with a term that reaches all edges: ``WDGLT()``
    ``"fastglt"``               one early pruning, whose mistakes are mended in training: ``FastGLT()``
    ``"snip"``                  the weights that the loss depends on most, before any training: ``AtInit("snip")``;
                                ``"grasp"``, ``"synflow"`` and ``"magnitude_at_init"`` rank them by other scores
    ``"instant_soup"``          the weights that several short trainings vote for, 10 % a round: ``InstantSoup()``
    ``"untrained"``             a mask over weights that are never trained: ``Untrained()``
    ``"random_untrained"``      a mask that nobody searched over the same weights: ``Untrained(epochs=1, lr=0)``
    =========================== ==========================================================================

    Args:
        make_model: Builds a fresh model; see the task for how it is called.
        data: A graph with ``x``, ``edge_index``, ``y`` and the masks of its parts, a ``Data`` or a ``HeteroData``; a
            data set of graphs; or a task with more to say, such as ``NodeTask(data, inductive=True)``,
            ``GraphTask(graphs, metric=evaluator)`` or ``LinkTask(data, split)``. Where it trains on batches and edges
            go, its ``loader`` must be a function of the graph.
        edge_sparsity: Fraction of undirected edges to remove, in ``[0, 1)``; of a ``HeteroData`` of each edge type, a
            type and its reverse being one; of a data set of each graph, by a score that has a name; for links of the
            edges that messages go along, not of the links to learn.
        weight_sparsity: Fraction of the weights to remove, in ``[0, 1)``; biases and normalisation are not counted.
        method: A name of the table, one of its objects with other options, or any
            :class:`~graphsparse.tickets.PruningMethod`.
        training: How models are trained; ``Training()`` when ``None``. Its ``checkpoint`` is a folder: when a run was
            killed, the same call goes on, with the ticket of an undisturbed one.
        distillation: Let trained weights learn from the dense model as well; not done when ``None``.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If a sparsity is outside ``[0, 1)``, the method does not prune what shall be sparse, the data lack
            something, the model does not fit them, or the checkpoint is that of another run.

    Example:
        >>> from torch_geometric.nn import GCN
        >>> from graphsparse.datasets import synthetic_citation
        >>> data = synthetic_citation(1000, num_features=64, num_val=200, num_test=300)
        >>> make_model = lambda: GCN(64, 16, 2, 7, dropout=0.5)
        >>> ticket = find_ticket(make_model, data, edge_sparsity=0.4, weight_sparsity=0.6, training=Training(epochs=5))
        >>> round(ticket.metrics["edge_sparsity"], 2)
        0.4
    """
    if (members := getattr(resolve(method)[1], "members", 1)) > 1:
        raise ValueError(f"'method' finds {members} tickets for a target: find_tickets() returns them (got {method!r})")
    options: dict[str, Any] = {"method": method, "training": training, "distillation": distillation}
    (ticket,) = find_tickets(make_model, data, targets=[(edge_sparsity, weight_sparsity)], **options)
    return ticket


def find_tickets(
    make_model: MakeModel,
    data: Any,
    *,
    targets: Iterable[tuple[float, float]],
    method: str | PruningMethod = "teddy",
    training: Training | None = None,
    distillation: Distillation | None = None,
) -> list[Ticket]:
    """Find tickets of several sparsities; a method that goes in rounds finds them on its way.

    Args:
        make_model: As for :func:`find_ticket`, like all that follow.
        data: The graph, the data set of graphs, or a task.
        targets: Pairs of edge and weight sparsity. A method that goes in rounds needs them from the least sparse to the
            sparsest.
        method: The method.
        training: How models are trained.
        distillation: How they learn from the dense model, which is trained once for all.

    Returns:
        The tickets in the order of the targets; next to each other where a method finds several for one.

    Raises:
        TypeError: As for :func:`find_ticket`.
        ValueError: As for :func:`find_ticket`.

    Example:
        >>> from torch_geometric.nn import GCN
        >>> from graphsparse.testing import random_graph
        >>> targets, training = [(0.2, 0.5), (0.4, 0.9)], Training(epochs=5)
        >>> tickets = find_tickets(lambda: GCN(8, 16, 2, 3), random_graph(), targets=targets, training=training)
        >>> [round(ticket.metrics["weight_sparsity"], 1) for ticket in tickets]
        [0.5, 0.9]
    """
    chosen = [Target(*target) for target in targets]
    for target in chosen:
        check_sparsity(target.edges, "edge_sparsity")
        check_sparsity(target.weights, "weight_sparsity")
    name, method = resolve(method)
    for what in ("edges", "weights"):
        wanted = [getattr(target, what) for target in chosen if getattr(target, what) > 0]
        if wanted and what not in method.prunes:
            raise ValueError(f"'method' {name!r} prunes no {what}: '{what[:-1]}_sparsity' must be 0 (got {wanted[0]})")
    if distillation is not None and not getattr(method, "distils", True):
        raise ValueError(f"'method' {name!r} learns from no teacher: 'distillation' must be None (got {distillation})")
    task = as_task(data)
    training = Training() if training is None else training
    run = TicketRun(make_model, task, chosen, training, distillation)
    open_folder(method, chosen, training, distillation, task)
    maker, tickets = TicketMaker(run), []
    for found in method.find(run):
        ticket = maker.finish(found)
        if not method.nested:
            maker.next_search()
        config = {type(method).__name__: as_plain(method), **ticket.config, "method": name}
        tickets.append(replace(ticket, config=config))
    if len(tickets) != len(chosen) * getattr(method, "members", 1):
        raise ValueError(f"'method' {name!r} found {len(tickets)} tickets for {len(chosen)} targets")
    return tickets


def as_task(data: Any) -> Task:
    """Return what stands for a graph or a data set of graphs; a task is handed through."""
    if hasattr(data, "evaluate"):
        task: Task = data
        return task
    return task_of(data)(data)


def resolve(method: str | PruningMethod) -> tuple[str, PruningMethod]:
    """Return a method by its name, and the name of a method: that under which it is known, or its class."""
    if isinstance(method, str):
        if method not in METHODS:
            raise ValueError(f"'method' must be one of {list(METHODS)} or an object with find() (got {method!r})")
        return method, METHODS[method]
    if not hasattr(method, "find"):
        raise TypeError(f"'method' must be a name or an object with find() (got {type(method).__name__})")
    known = [name for name, other in METHODS.items() if other == method]
    return (known[0] if known else type(method).__name__), method
