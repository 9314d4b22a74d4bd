"""TEDDY: trim edges by degree, distil from the dense model, project the weights on the l0 ball."""

from pathlib import Path
from typing import Literal

from torch import Tensor
from torch_geometric.data import Data

from graphsparse.ops.check import check_sparsity
from graphsparse.tickets.recipe import DistillNodes, Training, find_one_shot_ticket
from graphsparse.tickets.ticket import Ticket
from graphsparse.training import L0Projection
from graphsparse.typing import EdgeScore, Log, MakeModel


def find_teddy_ticket(
    make_model: MakeModel,
    data: Data,
    *,
    edge_sparsity: float,
    weight_sparsity: float,
    distill: float = 10.0,
    distill_nodes: DistillNodes = "train",
    temperature: float = 1.0,
    teacher: Tensor | None = None,
    score: str | EdgeScore = "teddy",
    scope: Literal["global", "tensor"] = "global",
    inductive: bool = False,
    epochs: int = 200,
    lr: float = 0.01,
    weight_decay: float = 5e-4,
    patience: int | None = None,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    progress: bool = False,
    log: Log | None = None,
) -> Ticket:
    r"""Find a ticket in one dense and one sparse training: edges go by degree, weights by projection.

    The edges with the lowest :func:`~graphsparse.edges.teddy_score` are removed at once. A model is then trained from
    the initial weights of the teacher on

    .. math::
        \mathrm{CE}(\mathrm{train}) + \lambda \,
        \mathrm{KL}(\mathrm{softmax}(Z_T) \,\|\, \mathrm{softmax}(Z_S)),

    and after every optimiser step its smallest weights are set to zero, so that exactly the wanted number is left
    (:class:`~graphsparse.training.L0Projection`).

    .. warning::
        ``distill_nodes="all"`` is the published protocol and there for replication only. The teacher's predictions for
        validation and test nodes, made on the dense graph, are then targets of the student: on Cora a student without
        any edge gets as accurate as the dense model, so the accuracy says nothing about the edges that were kept.
        Judge edges without distillation, with ``"train"``, or with ``inductive=True``, and compare with an empty graph.

    Args:
        make_model: Builds a fresh model, called as ``model(x, edge_index)``.
        data: The graph with ``x``, ``edge_index``, ``y`` and the three masks.
        edge_sparsity: Fraction of undirected edges to remove, in ``[0, 1)``.
        weight_sparsity: Fraction of the weights to remove, in ``[0, 1)``; biases and normalisation are not counted.
        distill: Weight :math:`\lambda` of the distillation term; 0 trains without a teacher.
        distill_nodes: Nodes whose teacher predictions the student sees: ``"train"``, ``"observed"`` (all but the
            validation and test nodes) or ``"all"`` (see the warning).
        temperature: Temperature of the distillation.
        teacher: Logits ``[N, C]`` of :func:`~graphsparse.tickets.train_teacher`, to share one teacher between
            tickets; trained here with the same settings when ``None``.
        score: Edge score, by name or callable; see :func:`~graphsparse.edges.edge_score`.
        scope: Rank the weights of all tensors together (``"global"``) or tensor by tensor (``"tensor"``).
        inductive: Hide validation and test nodes, and their edges, while teacher and student train. The training graph
            is pruned by its own scores.
        epochs: Number of epochs.
        lr: Learning rate of Adam.
        weight_decay: L2 coefficient of Adam.
        patience: Epochs without a better validation accuracy after which training stops; never when ``None``.
        seed: Seed of the initial weights, of dropout and of a random score.
        checkpoint: File from which a killed run goes on, with the ticket of an undisturbed one; that of the teacher
            lies beside it, as ``.teacher``. See :func:`~graphsparse.training.fit`.
        progress: Whether to show a progress bar.
        log: Receives the numbers of every epoch.

    Returns:
        The ticket with the weights of the epoch with the best validation accuracy.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If a sparsity is outside ``[0, 1)``, the graph lacks something, or the model does not fit it.

    Example:
        >>> from torch_geometric.nn import GCN
        >>> from graphsparse.datasets import synthetic_citation
        >>> data = synthetic_citation(1000, num_features=64, num_val=200, num_test=300)
        >>> make_model = lambda: GCN(64, 16, 2, 7, dropout=0.5)
        >>> ticket = find_teddy_ticket(make_model, data, edge_sparsity=0.4, weight_sparsity=0.6, epochs=5)
        >>> round(ticket.metrics["edge_sparsity"], 2)
        0.4

    Source: Seo et al., *TEDDY: Trimming Edges with Degree-based Discrimination strategY*, arXiv 2402.01261, Section 4.
    """
    check_sparsity(edge_sparsity, "edge_sparsity")
    check_sparsity(weight_sparsity, "weight_sparsity")
    return find_one_shot_ticket(
        make_model,
        data,
        edge_sparsity=edge_sparsity,
        score=score,
        prune_weights=lambda optimizer: L0Projection(optimizer, weight_sparsity, scope=scope),
        distill=distill,
        distill_nodes=distill_nodes,
        temperature=temperature,
        teacher=teacher,
        inductive=inductive,
        training=Training(epochs, lr, weight_decay, patience, seed, progress, log, checkpoint),
        config={"method": "teddy", "weight_sparsity": weight_sparsity, "scope": scope},
    )
