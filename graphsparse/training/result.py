"""What a training leaves behind."""

from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True, eq=False)
class FitResult:
    """What a training left behind.

    Args:
        state_dict: Weights and buffers at the best epoch.
        logits: Logits in evaluation mode at the best epoch: ``[N, C]`` of the evaluated graph for nodes; one row per
            graph of the data set, in its order, for graphs, NaN for a graph in no part of the split.
        best_epoch: Epoch with the best validation metric, from 0; the first one if several are equal.
        epochs_run: Number of epochs that were run.
        metric: Name of the metric.
        train: Metric on the training part at the best epoch; NaN where there is none.
        val: Metric on the validation part at the best epoch.
        test: Metric on the test part at the best epoch; ``None`` where there is none.
        history: ``epoch``, ``loss`` (mean over its steps), ``val`` and, for nodes, ``train`` of every evaluated epoch.
        weight_masks: Of every parameter that a projection of the optimiser covers, by name, which weights were kept at
            the best epoch; ``True`` = kept. A kept weight may be 0.
    """

    state_dict: dict[str, Tensor]
    logits: Tensor
    best_epoch: int
    epochs_run: int
    metric: str
    train: float
    val: float
    test: float | None
    history: list[dict[str, float]]
    weight_masks: dict[str, Tensor] = field(default_factory=dict)
