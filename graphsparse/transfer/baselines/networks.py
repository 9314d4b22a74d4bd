"""Networks that are trained on one graph of a pair and score the target: on graphs, and on features alone."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import nn
from torch_geometric.data import Data
from torch_geometric.nn import MessagePassing

from graphsparse.transfer.baselines.registry import BaselineOptions, register_baseline
from graphsparse.transfer.models.link_model import LinkModel, sage_encoder
from graphsparse.transfer.models.student import MLPStudent
from graphsparse.transfer.models.teacher import LinkTeacher

if TYPE_CHECKING:
    from graphsparse.transfer.data.pair import SharedNodePair


class GraphLinkPredictor(LinkTeacher):
    """A graph neural network trained on one graph of a pair, and perhaps on a second one afterwards.

    Held-out links are in none of the graphs. The epoch is chosen on the validation pairs of the target, scored with the
    vectors that the encoder makes on ``messages``. Where the pair has no features, a vector per node is trained
    instead.

    Args:
        train_on: Graph that it learns the links of: ``"target"``, ``"union"``, ``"enriched_target"``,
            ``"enriched_intersection"`` or ``"source"``.
        messages: Graph whose vectors score the target: ``"target"``, ``"enriched_target"`` or ``"union"``.
        fine_tune: Learn the links of the target afterwards, with the messages of ``messages``: with ``"all"`` weights,
            or those of the ``"last"`` layer; not when ``None``.
        settings: Width, epochs and the like.
    """

    def __init__(
        self, train_on: str, messages: str, fine_tune: str | None = None, settings: BaselineOptions | None = None
    ) -> None:
        settings = BaselineOptions() if settings is None else settings
        super().__init__(
            sage_encoder(settings.hidden, settings.num_layers, settings.dropout),
            id_channels=settings.hidden,
            input_dropout=settings.input_dropout,
            num_neighbors=settings.num_neighbors,
            batch_size=settings.batch_size,
            links_per_epoch=settings.links_per_epoch,
            training=settings.training,
        )
        self.stage, self.places = "gnn", {}
        self.train_on, self.messages, self.fine_tune = train_on, messages, fine_tune

    def options(self) -> dict[str, Any]:
        """Return the names of the graphs and of what is tuned."""
        return {"train_on": self.train_on, "messages": self.messages, "fine_tune": self.fine_tune}

    def graphs(self, pair: "SharedNodePair") -> tuple[str, str]:
        """Return the names of the graph that is learned on and of that whose vectors score the target."""
        return self.train_on, self.messages

    def stages(
        self, model: LinkModel, data: Data, graph: Callable[[str], Data]
    ) -> Iterator[tuple[str, Data, Iterable[nn.Parameter] | None]]:
        """Yield name, graph and parameters of each training; all parameters when ``None``."""
        yield self.stage, data, None
        if self.fine_tune is not None:
            last = None if self.fine_tune == "all" else last_layer(model.encoder).parameters()
            yield f"{self.stage}_tuned", graph("target"), last


def last_layer(encoder: nn.Module) -> nn.Module:
    """Return the message passing layer with weights that comes last in the order of registration.

    Example:
        >>> from torch_geometric.nn import GraphSAGE
        >>> model = GraphSAGE(4, 8, 2)
        >>> last_layer(model) is model.convs[1]
        True
    """
    layers = [m for m in encoder.modules() if isinstance(m, MessagePassing) and next(m.parameters(), None) is not None]
    last: nn.Module = layers[-1]
    return last


def plain_student(supervise_on: str, options: BaselineOptions) -> MLPStudent:
    """Return a student without a teacher."""
    return MLPStudent(
        options.student_hidden,
        options.num_layers,
        options.hidden,
        dropout=options.dropout,
        input_dropout=options.input_dropout,
        emb_weight=0.0,
        supervise_on=supervise_on,
        links_per_epoch=options.links_per_epoch,
        training=options.student_training,
    )


def _gnn(train_on: str, messages: str, fine_tune: str | None, options: BaselineOptions) -> GraphLinkPredictor:
    return GraphLinkPredictor(train_on, messages, fine_tune, options)


register_baseline("gnn_target")(partial(_gnn, "target", "target", None))
register_baseline("gnn_union")(partial(_gnn, "union", "union", None))
register_baseline("gnn_enriched")(partial(_gnn, "enriched_target", "enriched_target", None))
for _messages, _end in (("target", ""), ("enriched_target", "_enriched")):
    register_baseline(f"source_zero_shot{_end}")(partial(_gnn, "source", _messages, None))
    register_baseline(f"fine_tune_all{_end}")(partial(_gnn, "source", _messages, "all"))
    register_baseline(f"fine_tune_last{_end}")(partial(_gnn, "source", _messages, "last"))
register_baseline("mlp_target")(partial(plain_student, "target"))
register_baseline("mlp_enriched")(partial(plain_student, "enriched_target"))
