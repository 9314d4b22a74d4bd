"""All baselines by name, called alike; a decorator adds one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from graphsparse.training import Training, link_training
from graphsparse.transfer.models.predictor import LinkPredictor

if TYPE_CHECKING:
    from graphsparse.transfer.data.pair import SharedNodePair
    from graphsparse.transfer.data.split import LinkSplit

Make: TypeAlias = type[LinkPredictor] | Callable[["BaselineOptions"], LinkPredictor]
M = TypeVar("M", bound=Make)


@dataclass(frozen=True)
class BaselineOptions:
    """Options of the trained baselines, which are thus compared on equal terms; the heuristics read none of them.

    Args:
        hidden: Width of the hidden layers and of the vectors of graph neural networks.
        student_hidden: Width of the hidden layers of networks without a graph.
        num_layers: Number of layers of both.
        dropout: Dropout between layers.
        input_dropout: Dropout of the features.
        links_per_epoch: Most links that are learned from in an epoch, drawn anew each time; all when ``None``.
        num_neighbors: Fan-out of each hop, for batches; the whole graph at once when ``None``.
        batch_size: Links in a batch.
        training: Training of graph neural networks.
        student_training: Training of networks without a graph.
        pretraining_epochs: Most epochs of DGI and EGI.

    Example:
        >>> BaselineOptions(training=link_training(epochs=60, lr=5e-3)).hidden
        256
    """

    hidden: int = 256
    student_hidden: int = 256
    num_layers: int = 2
    dropout: float = 0.3
    input_dropout: float = 0.0
    links_per_epoch: int | None = None
    num_neighbors: Sequence[int] | None = None
    batch_size: int = 4096
    training: Training = field(default_factory=link_training)
    student_training: Training = field(default_factory=link_training)
    pretraining_epochs: int = 100

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
        training = link_training(epochs=epochs, lr=5e-3)
        return cls(
            hidden=64,
            student_hidden=128,
            input_dropout=0.5,
            links_per_epoch=links_per_epoch,
            training=training,
            student_training=replace(training, epochs=student_epochs),
        )


@dataclass(frozen=True)
class Baseline:
    """What a name of ``BASELINES`` stands for: makes a predictor and fits it."""

    maker: Make

    def make(self, options: BaselineOptions) -> LinkPredictor:
        """Return a predictor that is not fitted."""
        maker: Any = self.maker
        found: LinkPredictor = maker() if isinstance(maker, type) else maker(options)
        return found

    def __call__(
        self,
        pair: "SharedNodePair",
        split: "LinkSplit",
        seed: int | None = None,
        options: BaselineOptions | None = None,
    ) -> LinkPredictor:
        """Return a predictor that was fitted on what the split leaves."""
        return self.make(BaselineOptions() if options is None else options).fit(pair, split, seed=seed)


#: Baselines by name: ``BASELINES[name](pair, split, seed, options)`` returns a fitted predictor. Those that end in
#: ``_enriched`` use the source's links between shared nodes, too.
BASELINES: dict[str, Baseline] = {}


def register_baseline(name: str) -> Callable[[M], M]:
    """Return a decorator that adds a predictor to ``BASELINES``.

    Args:
        name: Its name there.

    Returns:
        A decorator of a class without arguments, or of a function from ``BaselineOptions`` to a predictor.

    Raises:
        ValueError: If the name is taken by something else.

    Example:
        ::

            @register_baseline("popularity")
            class Popularity(LinkPredictor):
                ...
    """

    def register(maker: M) -> M:
        old = BASELINES.get(name)
        if old is not None and _named(old.maker) != _named(maker):
            raise ValueError(f"'name' is taken by {'.'.join(_named(old.maker))} (got {name!r})")
        BASELINES[name] = Baseline(maker)  # the same again is a cell of a notebook that ran again
        return maker

    return register


def _named(maker: Any) -> tuple[str, str]:
    return maker.__module__, getattr(maker, "__qualname__", repr(maker))
