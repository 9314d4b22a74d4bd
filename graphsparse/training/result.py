"""What a training leaves behind."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class FitResult:
    """What a training left behind.

    Args:
        state_dict: Weights and buffers at the best epoch.
        logits: Logits in evaluation mode at the best epoch: ``[N, C]`` of the evaluated graph after
            :func:`~graphsparse.training.fit`; one row per graph of the data set, in its order, after
            :func:`~graphsparse.training.fit_graphs`, NaN for a graph in no part of the split.
        best_epoch: Epoch with the best validation metric, from 0; the first one if several are equal.
        epochs_run: Number of epochs that were run.
        train: Metric on the training nodes of the evaluated graph, or on the training graphs, at the best epoch; NaN
            where there are none.
        val: Metric on the validation nodes or graphs at the best epoch.
        test: Metric on the test nodes or graphs at the best epoch; ``None`` where there are none.
        history: ``epoch``, ``loss`` (mean over its steps), ``val`` and, for nodes, ``train`` of every evaluated epoch.
    """

    state_dict: dict[str, Tensor]
    logits: Tensor
    best_epoch: int
    epochs_run: int
    train: float
    val: float
    test: float | None
    history: list[dict[str, float]]
