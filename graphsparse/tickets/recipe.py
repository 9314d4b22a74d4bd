"""What all one-shot tickets share: a dense teacher, a sparse graph, one sparse training with distillation."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer
from torch_geometric.data import Data

from graphsparse.edges.mask import mask_data_edges
from graphsparse.edges.sparsify import edge_keep_mask
from graphsparse.metrics import edge_sparsity as measured_edge_sparsity
from graphsparse.metrics import weight_sparsity
from graphsparse.tickets.ticket import Ticket
from graphsparse.training import FitResult, build_model, distillation_loss, fit, predict
from graphsparse.training.check import check_data
from graphsparse.training.checkpoint import check_checkpoint
from graphsparse.training.step_projection import StepProjection
from graphsparse.typing import EdgeScore, Log, MakeModel
from graphsparse.utils.fingerprint import graph_fingerprint

DistillNodes: TypeAlias = Literal["train", "observed", "all"]


@dataclass(frozen=True)
class Training:
    """How a model is trained; the same for teacher and student.

    Args:
        epochs: Number of epochs.
        lr: Learning rate of Adam.
        weight_decay: L2 coefficient of Adam.
        patience: Epochs without a better validation accuracy after which training stops; never when ``None``.
        seed: Seed of the initial weights and of dropout.
        progress: Whether to show a progress bar.
        log: Receives the numbers of every epoch.
        checkpoint: File from which a killed training goes on; the dense model has one of its own beside it.
    """

    epochs: int
    lr: float
    weight_decay: float
    patience: int | None
    seed: int
    progress: bool
    log: Log | None
    checkpoint: str | Path | None = None

    def __post_init__(self) -> None:
        """Refuse a checkpoint that cannot be one before anything is trained."""
        check_checkpoint(self.checkpoint, None)

    def of_teacher(self) -> "Training":
        """Return the same training for the dense model."""
        if self.checkpoint is None:
            return self
        path = Path(self.checkpoint)
        return replace(self, checkpoint=path.with_name(f"{path.name}.teacher"))

    def run(self, model: nn.Module, optimizer: Optimizer, data: Data, eval_data: Data, **options: Any) -> FitResult:
        """Train a model on ``data`` and choose its weights on ``eval_data``."""
        return fit(
            model,
            data,
            eval_data=eval_data,
            optimizer=optimizer,
            epochs=self.epochs,
            patience=self.patience,
            seed=self.seed,
            progress=self.progress,
            log=self.log,
            checkpoint=self.checkpoint,
            **options,
        )

    def adam(self, model: nn.Module) -> Optimizer:
        """Return the optimiser."""
        return Adam(model.parameters(), lr=self.lr, weight_decay=self.weight_decay)


@dataclass(frozen=True)
class Distillation:
    """The term of the loss that holds a student to the predictions of its teacher.

    Args:
        targets: Logits of the teacher for the nodes of the training graph, ``[N, C]``.
        nodes: Nodes that count, bool ``[N]``.
        weight: Weight of the term.
        temperature: Temperature of both softmaxes.
    """

    targets: Tensor
    nodes: Tensor
    weight: float
    temperature: float

    def __call__(self, logits: Tensor, batch: Data, epoch: int) -> Tensor:
        """Return the term."""
        return self.weight * distillation_loss(logits[self.nodes], self.targets[self.nodes], self.temperature)


def check_graph(data: Data) -> None:
    """Refuse a graph that cannot be trained on, or without ``edge_index``, whose entries a ticket refers to."""
    check_data(data, "data", ("train_mask", "val_mask"))
    if data.get("edge_index") is None:
        raise ValueError(
            "'data' must hold 'edge_index', which the mask of a ticket refers to "
            f"(got {sorted(data.keys())}; torch_geometric.utils.to_edge_index converts 'adj_t')"
        )


def observed_nodes(data: Data) -> Tensor:
    """Return the nodes that are neither in the validation nor in the test set, bool ``[N]``."""
    hidden: Tensor = data.val_mask
    test_mask = data.get("test_mask")
    return ~hidden if test_mask is None else ~(hidden | test_mask)


def observed_graph(data: Data) -> Data:
    """Return the graph without validation and test nodes and their edges."""
    observed = observed_nodes(data)
    if data.x.layout != torch.sparse_csr:
        return data.subgraph(observed)
    # Rows of a CSR tensor cannot be selected by a mask; they go through COO.
    graph = copy.copy(data)
    del graph.x
    graph.num_nodes = data.num_nodes
    graph = graph.subgraph(observed)
    graph.x = (
        data.x.to_sparse(layout=torch.sparse_coo)
        .index_select(0, observed.nonzero().squeeze(1))
        .coalesce()
        .to_sparse(layout=torch.sparse_csr)
    )
    return graph


def train_teacher(
    make_model: MakeModel,
    data: Data,
    *,
    inductive: bool = False,
    epochs: int = 200,
    lr: float = 0.01,
    weight_decay: float = 5e-4,
    patience: int | None = None,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    progress: bool = False,
    log: Log | None = None,
) -> tuple[Tensor, FitResult]:
    """Train the dense model on the whole graph and return its logits, for the tickets that learn from it.

    Args:
        make_model: Builds a fresh model.
        data: The graph with ``x``, ``edge_index``, ``y`` and the three masks.
        inductive: Hide validation and test nodes, and their edges, while training. The logits of hidden nodes are zero
            then, and nothing learns from them.
        epochs: Number of epochs.
        lr: Learning rate of Adam.
        weight_decay: L2 coefficient of Adam.
        patience: Epochs without a better validation accuracy after which training stops; never when ``None``.
        seed: Seed of the initial weights and of dropout.
        checkpoint: File from which a killed training goes on; see :func:`~graphsparse.training.fit`.
        progress: Whether to show a progress bar.
        log: Receives the numbers of every epoch.

    Returns:
        Logits ``[N, C]`` in evaluation mode at the epoch of the best validation accuracy, as seen from the training
        graph, and the result of the training, whose test accuracy is that of the dense model.

    Example:
        >>> from torch_geometric.nn import GCN
        >>> from graphsparse.datasets import synthetic_citation
        >>> data = synthetic_citation(1000, num_features=64, num_val=200, num_test=300)
        >>> logits, result = train_teacher(lambda: GCN(64, 16, 2, 7), data, epochs=5)
        >>> logits.shape
        torch.Size([1000, 7])

    Source: Seo et al., arXiv 2402.01261, Section 4 (distillation).
    """
    training = Training(epochs, lr, weight_decay, patience, seed, progress, log, checkpoint)
    return run_teacher(make_model, data, inductive, training)


def run_teacher(make_model: MakeModel, data: Data, inductive: bool, training: Training) -> tuple[Tensor, FitResult]:
    """Train the dense model; see :func:`train_teacher`."""
    check_graph(data)
    model = build_model(make_model, training.seed)
    train_data = observed_graph(data) if inductive else data
    result = training.run(model, training.adam(model), train_data, data)
    if not inductive:
        return result.logits, result
    logits = torch.zeros_like(result.logits)
    logits[observed_nodes(data)] = predict(model, train_data)
    return logits, result


def find_one_shot_ticket(
    make_model: MakeModel,
    data: Data,
    *,
    edge_sparsity: float,
    score: str | EdgeScore,
    prune_weights: Callable[[Optimizer], StepProjection],
    distill: float,
    distill_nodes: DistillNodes,
    temperature: float,
    teacher: Tensor | None,
    inductive: bool,
    training: Training,
    config: Mapping[str, Any],
) -> Ticket:
    """Sparsify the graph once, train once from the initial weights under a weight constraint, and return the ticket."""
    check_graph(data)
    check_distillation(distill, distill_nodes, temperature, teacher, data, inductive)
    edge_mask = edge_keep_mask(data.edge_index, edge_sparsity, score, num_nodes=data.num_nodes, seed=training.seed)
    sparse = mask_data_edges(data, edge_mask)
    observed = observed_nodes(data)
    train_data = sparse
    if inductive:
        # The training graph is pruned by its own scores: those of the whole graph know the degrees of hidden nodes.
        train_data = observed_graph(data)
        num_nodes = train_data.num_nodes
        kept = edge_keep_mask(train_data.edge_index, edge_sparsity, score, num_nodes=num_nodes, seed=training.seed)
        train_data = mask_data_edges(train_data, kept)

    extra_loss = None
    if distill > 0:
        if teacher is None:
            teacher, _ = run_teacher(make_model, data, inductive, training.of_teacher())
        targets = teacher[observed] if inductive else teacher
        nodes = distillation_nodes(train_data, distill_nodes)
        extra_loss = Distillation(targets, nodes, distill, temperature)

    model = build_model(make_model, training.seed)
    optimizer = training.adam(model)
    pruned = {id(parameter) for parameter in prune_weights(optimizer).parameters}
    result = training.run(model, optimizer, train_data, sparse, extra_loss=extra_loss)
    # The model holds the weights of the best epoch; a tied weight is stored under each of its names.
    support = {name: p.detach() != 0 for name, p in model.named_parameters(remove_duplicate=False) if id(p) in pruned}
    metrics = {
        "val_accuracy": result.val,
        "test_accuracy": result.test,
        "edge_sparsity": measured_edge_sparsity(data.edge_index, sparse.edge_index, data.num_nodes),
        "weight_sparsity": weight_sparsity(parameter for parameter in model.parameters() if id(parameter) in pruned),
        "best_epoch": result.best_epoch,
    }
    return Ticket(
        state_dict={name: tensor.cpu() for name, tensor in result.state_dict.items()},
        weight_masks={name: mask.cpu() for name, mask in support.items() if not mask.all()},
        edge_mask=edge_mask.cpu(),
        graph=graph_fingerprint(data.edge_index, data.num_nodes),
        config={
            **config,
            "edge_sparsity": edge_sparsity,
            "score": score if isinstance(score, str) else getattr(score, "__qualname__", type(score).__qualname__),
            "distill": distill,
            "distill_nodes": distill_nodes,
            "temperature": temperature,
            "inductive": inductive,
            "epochs": training.epochs,
            "lr": training.lr,
            "weight_decay": training.weight_decay,
            "patience": training.patience,
            "seed": training.seed,
        },
        metrics={name: value for name, value in metrics.items() if value is not None},
    )


def distillation_nodes(data: Data, distill_nodes: DistillNodes) -> Tensor:
    """Return the nodes whose teacher predictions the student sees, bool ``[N]``."""
    train: Tensor = data.train_mask
    if distill_nodes == "train":
        return train
    if distill_nodes == "observed":
        return observed_nodes(data)
    return torch.ones_like(train)


def check_distillation(
    distill: float,
    distill_nodes: str,
    temperature: float,
    teacher: Tensor | None,
    data: Data,
    inductive: bool,
) -> None:
    """Refuse arguments of the distillation that make no sense, before anything is trained."""
    if not distill >= 0:
        raise ValueError(f"'distill' is the weight of the distillation term and must not be negative (got {distill!r})")
    if not temperature > 0:
        raise ValueError(f"'temperature' must be positive (got {temperature!r})")
    if distill_nodes not in ("train", "observed", "all"):
        raise ValueError(f"'distill_nodes' must be 'train', 'observed' or 'all' (got {distill_nodes!r})")
    if inductive and distill_nodes == "all":
        raise ValueError("'distill_nodes' cannot be 'all' with 'inductive': hidden nodes have no teacher prediction")
    if teacher is not None and (teacher.dim() != 2 or teacher.size(0) != data.num_nodes):
        raise ValueError(
            f"'teacher' must hold one row of logits per node, [{data.num_nodes}, C] (got {list(teacher.shape)})"
        )
