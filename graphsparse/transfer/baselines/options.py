"""What all trained baselines have in common, so that they are compared on equal terms."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from graphsparse.ops.check import check_count
from graphsparse.transfer.models.link_model import Encoder, sage_encoder
from graphsparse.transfer.models.link_training import LinkTraining, check_training
from graphsparse.typing import Log


@dataclass(frozen=True)
class BaselineOptions:
    """Options of the trained baselines; the heuristics read none of them.

    Args:
        hidden: Width of the hidden layers and of the vectors of graph neural networks.
        student_hidden: Width of the hidden layers of networks without a graph.
        num_layers: Number of layers of both.
        dropout: Dropout between layers.
        input_dropout: Dropout of the features.
        num_neg: Non-links per link.
        training: Training of graph neural networks.
        student_training: Training of networks without a graph.
        pretraining_epochs: Most epochs of DGI and EGI.
        num_neighbors: Fan-out of each hop, for batches; the whole graph at once when ``None``.
        batch_size: Links in a batch.
        encoder: Builds an encoder for a number of features, in place of GraphSAGE.
        progress: Whether to show progress bars.
        log: Receives the entries of the history of every training.

    Raises:
        TypeError: If a number or a training is none.
        ValueError: If a number is below 1.

    Example:
        >>> BaselineOptions(training=LinkTraining(epochs=60, lr=5e-3)).hidden
        256
    """

    hidden: int = 256
    student_hidden: int = 256
    num_layers: int = 2
    dropout: float = 0.3
    input_dropout: float = 0.0
    num_neg: int = 3
    training: LinkTraining = field(default_factory=LinkTraining)
    student_training: LinkTraining = field(default_factory=LinkTraining)
    pretraining_epochs: int = 100
    num_neighbors: Sequence[int] | None = None
    batch_size: int = 4096
    encoder: Encoder | None = None
    progress: bool = False
    log: Log | None = None

    def __post_init__(self) -> None:
        for name in ("hidden", "student_hidden", "num_layers", "num_neg", "pretraining_epochs", "batch_size"):
            check_count(getattr(self, name), name)
        for name in ("training", "student_training"):
            check_training(getattr(self, name), name)

    @classmethod
    def small(
        cls, epochs: int = 60, student_epochs: int = 120, links_per_epoch: int | None = None
    ) -> "BaselineOptions":
        """Return options for graphs of some thousand nodes with words as features, those of ``GITL.small``.

        Args:
            epochs: Epochs of graph neural networks.
            student_epochs: Epochs of networks without a graph.
            links_per_epoch: Most links that are learned from in an epoch.

        Example:
            >>> BaselineOptions.small().input_dropout
            0.5
        """
        training = LinkTraining(epochs=epochs, lr=5e-3, links_per_epoch=links_per_epoch)
        return cls(
            hidden=64,
            student_hidden=128,
            input_dropout=0.5,
            training=training,
            student_training=replace(training, epochs=student_epochs),
        )

    def make_encoder(self) -> Encoder:
        """Return what builds the encoder."""
        return sage_encoder(self.hidden, self.num_layers, self.dropout) if self.encoder is None else self.encoder
