"""The random ticket: the baseline that any choice of edges and weights must beat."""

from pathlib import Path
from typing import Literal

from torch import Tensor
from torch_geometric.data import Data

from graphsparse.ops.check import check_sparsity
from graphsparse.tickets.recipe import DistillNodes, Training, find_one_shot_ticket
from graphsparse.tickets.ticket import Ticket
from graphsparse.training import FixedMask
from graphsparse.typing import Log, MakeModel


def find_random_ticket(
    make_model: MakeModel,
    data: Data,
    *,
    edge_sparsity: float,
    weight_sparsity: float,
    distill: float = 10.0,
    distill_nodes: DistillNodes = "train",
    temperature: float = 1.0,
    teacher: Tensor | None = None,
    scope: Literal["global", "tensor"] = "tensor",
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
    r"""Find a ticket whose edges and weights are chosen by chance, and train it like any other.

    :math:`\lfloor \mathrm{sparsity} \cdot n \rfloor` undirected edges and as many weights are drawn uniformly without
    replacement before training; the drawn weights are zero from the first step to the last. Everything else, the
    distillation too, is as in :func:`~graphsparse.tickets.find_teddy_ticket`, whose warning holds here as well. With
    one seed, the edges drawn at one sparsity are also drawn at every higher one.

    Args:
        make_model: Builds a fresh model, called as ``model(x, edge_index)``.
        data: The graph with ``x``, ``edge_index``, ``y`` and the three masks.
        edge_sparsity: Fraction of undirected edges to remove, in ``[0, 1)``.
        weight_sparsity: Fraction of the weights to remove, in ``[0, 1)``; biases and normalisation are not counted.
        distill: Weight of the distillation term; 0 trains without a teacher.
        distill_nodes: ``"train"``, ``"observed"`` or ``"all"``.
        temperature: Temperature of the distillation.
        teacher: Logits ``[N, C]`` of :func:`~graphsparse.tickets.train_teacher`; trained here when ``None``.
        scope: Draw the weights from every tensor alike (``"tensor"``) or from all of them together (``"global"``).
        inductive: Hide validation and test nodes, and their edges, while teacher and student train.
        epochs: Number of epochs.
        lr: Learning rate of Adam.
        weight_decay: L2 coefficient of Adam.
        patience: Epochs without a better validation accuracy after which training stops; never when ``None``.
        seed: Seed of the draws, of the initial weights and of dropout.
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
        >>> ticket = find_random_ticket(make_model, data, edge_sparsity=0.4, weight_sparsity=0.6, epochs=5)
        >>> round(ticket.metrics["edge_sparsity"], 2)
        0.4

    Source: the random baseline of Chen et al., *A Unified Lottery Ticket Hypothesis for Graph Neural Networks*,
    arXiv 2102.06790, Section 4.
    """
    check_sparsity(edge_sparsity, "edge_sparsity")
    check_sparsity(weight_sparsity, "weight_sparsity")
    return find_one_shot_ticket(
        make_model,
        data,
        edge_sparsity=edge_sparsity,
        score="random",
        prune_weights=lambda optimizer: FixedMask(optimizer, weight_sparsity, scope=scope, seed=seed),
        distill=distill,
        distill_nodes=distill_nodes,
        temperature=temperature,
        teacher=teacher,
        inductive=inductive,
        training=Training(epochs, lr, weight_decay, patience, seed, progress, log, checkpoint),
        config={"method": "random", "weight_sparsity": weight_sparsity, "scope": scope},
    )
