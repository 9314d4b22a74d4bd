"""A network that sees features only and so serves nodes without any link."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.nn import MLP

from graphsparse.nn import accelerate
from graphsparse.nn.link_decoders import make_decoder
from graphsparse.ops.check import check_count, check_number
from graphsparse.training import LinkTask, Training, build_model, link_training, predict
from graphsparse.training.link_task import LinkBatch, LinkMetric
from graphsparse.transfer.data.split import check_dense_x
from graphsparse.transfer.models.link_model import LinkModel, message_graph
from graphsparse.transfer.models.predictor import VectorPredictor, check_new_x, check_training, part_of
from graphsparse.transfer.models.teacher import LinkTeacher

if TYPE_CHECKING:
    from graphsparse.transfer.data.pair import SharedNodePair
    from graphsparse.transfer.data.split import LinkSplit

#: Which links are learned.
LINKS = ("target", "enriched_target")
#: Nodes that are encoded at a time.
_ROWS = 1 << 16


class NodeMLP(nn.Module):
    """A multi-layer perceptron that is called like a graph neural network and reads no edge."""

    def __init__(self, widths: Sequence[int], dropout: float = 0.0) -> None:
        super().__init__()
        self.mlp = accelerate(MLP(list(widths), dropout=dropout, norm=None))

    def forward(self, x: Tensor, edge_index: Tensor | None = None) -> Tensor:
        """Return vectors ``[N, d]``."""
        h: Tensor = self.mlp(x)
        return h


class StudentTask(LinkTask):
    r"""Learns :math:`\lambda_e L_{emb} + L_{links}`; see ``MLPStudent``.

    Args:
        data: Features of all target nodes, and the links to be learned, which are no messages.
        split: As for :class:`~graphsparse.training.LinkTask`.
        lesson: Nodes ``[n]``, and the vectors ``[n, d]`` that a teacher gives them; ``None`` for the second term alone.
        emb_weight: :math:`\lambda_e`.
        options: As for ``LinkTask``.
    """

    def __init__(
        self,
        data: Data,
        split: Mapping[str, tuple[Tensor, Tensor]],
        lesson: tuple[Tensor, Tensor] | None,
        emb_weight: float = 1.0,
        **options: Any,
    ) -> None:
        super().__init__(data, split, **options)
        self.lesson, self.emb_weight = lesson, emb_weight

    def check(self, model: nn.Module) -> None:
        """Find out whether the model fits; with a teacher there may be no links."""
        if self.lesson is None or self.links.size(1):
            super().check(model)

    def loss_of(
        self, model: nn.Module, h: Tensor, batch: LinkBatch, extra: Callable[[Tensor], Tensor] | None
    ) -> Tensor:
        """Return the weighted sum of both terms, or the first alone where there are no links."""
        if self.lesson is None:
            return super().loss_of(model, h, batch, extra)
        nodes, taught = self.lesson
        loss = self.emb_weight * ((h[nodes] - taught).square().mean() / taught.square().mean())
        return super().loss_of(model, h, batch, extra) + loss if batch.picked.numel() else loss

    def identity(self) -> dict[str, Any]:
        """Return what tells one task from another in a checkpoint."""
        lesson = {} if self.lesson is None else dict(zip(("lesson.nodes", "lesson.vectors"), self.lesson, strict=True))
        return {**super().identity(), **lesson}


def encode_rows(model: nn.Module, data: Data) -> Tensor:
    """Return vectors of nodes from their features alone, in evaluation mode, so many rows at a time."""
    x, none = data.x, torch.empty(2, 0, dtype=torch.int64, device=data.x.device)
    # The whole, and no view of it, where it is one part: what was found out about it is then still known.
    parts = [x] if x.size(0) <= _ROWS else torch.split(x, _ROWS)
    return torch.cat([predict(model, Data(x=part, edge_index=none)) for part in parts])


@dataclass(eq=False)
class MLPStudent(VectorPredictor):
    r"""Learns vectors of nodes from their features alone: those of a teacher on shared nodes, and links of the target.

    .. math::
        L = \lambda_e \frac{\mathrm{mean}(f_v - h_v)^2}{\mathrm{mean}\,h^2} + L_{links}

    with the student's vectors :math:`f` and the teacher's :math:`h`. The first term is over the shared nodes, and the
    second is the teacher's own loss over the training links of the target, if it has any. No gradient reaches the
    teacher. No edge is read when pairs are scored, so that a node without any is served as well as others. Test pairs
    are never read; the best epoch is that with the best metric on the validation pairs. Features are divided by their
    length first. Scores are made by a copy of the teacher's decoder, which is trained on.

    Without the first term it is a plain network, bit for bit, whether there is a teacher or not.

    Args:
        hidden: Width of the hidden layers.
        num_layers: Number of layers; 1 for a linear student.
        channels: Width of the vectors; that of the teacher, or ``hidden`` without one, when ``None``.
        dropout: Dropout after hidden layers.
        input_dropout: Dropout of the features.
        emb_weight: :math:`\lambda_e`, of the teacher's vectors.
        supervise_on: Whose links are learned: those of the ``"target"`` alone, or of the ``"enriched_target"``, with
            the source's between shared nodes.
        links_per_epoch: Most links that are learned from in an epoch, drawn anew each time; all when ``None``.
        metric: Figure of merit on the validation pairs, ``(scores of links, scores of non-links) -> float``; average
            precision when ``None``.
        training: How to train; :func:`~graphsparse.training.link_training` by default.

    Attributes:
        model: The network and the decoder, once fitted.
        result: Course of the training, once fitted.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If one is out of range.

    Example:
        >>> from graphsparse.testing import random_graph
        >>> from graphsparse.training import link_training
        >>> from graphsparse.transfer import SharedNodePair, sage_encoder, split_links
        >>> data, early, late = random_graph(), torch.arange(45), torch.arange(15, 60)
        >>> pair = SharedNodePair(data.subgraph(early), data.subgraph(late), early, late)
        >>> split, training = split_links(pair), link_training(epochs=10)
        >>> teacher = LinkTeacher(sage_encoder(16), training=training).fit(pair, split)
        >>> student = MLPStudent(32, training=training).fit(pair, split, teacher)
        >>> student.score(torch.tensor([[0, 1], [2, 3]])).shape
        torch.Size([2])

    Source: the teacher-student regime of Zheng et al., arXiv 2302.14189. Its losses are not known; these are ours, the
    first after Zheng et al., *Cold Brew*, arXiv 2111.04840.
    """

    stage = "student"

    hidden: int = 256
    num_layers: int = 2
    channels: int | None = None
    _: KW_ONLY
    dropout: float = 0.3
    input_dropout: float = 0.5
    emb_weight: float = 1.0
    supervise_on: str = "target"
    links_per_epoch: int | None = None
    metric: LinkMetric | None = None
    training: Training = field(default_factory=link_training)

    def __post_init__(self) -> None:
        for name in ("hidden", "num_layers", "channels"):
            if getattr(self, name) is not None:
                check_count(getattr(self, name), name)
        for name, most in (("dropout", 1.0), ("input_dropout", 1.0), ("emb_weight", inf)):
            check_number(getattr(self, name), name, least=0, most=most)
        if self.supervise_on not in LINKS:
            raise ValueError(f"'supervise_on' must be one of {LINKS} (got {self.supervise_on!r})")
        check_training(self.training)
        self.model: LinkModel | None = None

    def forget(self) -> None:
        """Be as before the first call of ``fit``."""
        super().forget()
        self.model = None

    @property
    def needs_teacher(self) -> bool:
        """Whether the teacher's term has a weight."""
        return self.emb_weight > 0

    def fit(
        self,
        pair: "SharedNodePair",
        split: "LinkSplit",
        teacher: LinkTeacher | None = None,
        *,
        seed: int | None = None,
    ) -> "MLPStudent":
        """Learn from a teacher and from links.

        Args:
            pair: Source and target.
            split: Links of the target that are held out.
            teacher: A teacher that was fitted on both; may be ``None`` where its term has no weight.
            seed: Seed of all that is drawn; that of ``training`` when ``None``.

        Returns:
            The student itself.

        Raises:
            TypeError: If the graphs are heterogeneous, or their features no floating point numbers.
            ValueError: If the split is that of another pair, there is no teacher though one is needed, or vectors of
                another width than the teacher's are to learn from them.
            RuntimeError: If the teacher has learned nothing yet.
        """
        return self._fit(pair, split, seed, teacher)

    def learn(
        self, pair: "SharedNodePair", split: "LinkSplit", seed: int, teacher: LinkTeacher | None = None
    ) -> Mapping[str, Any]:
        """Train the network, and encode the target nodes."""
        check_dense_x(pair)
        if self.needs_teacher:
            if teacher is None:
                raise ValueError("'teacher' is missing, though 'emb_weight' is not 0")
            teacher.fitted_on(pair, split)
        taught = None if teacher is None else teacher.embed("intersection")
        width = self.channels or (self.hidden if taught is None else taught.size(1))
        lesson = None
        if self.needs_teacher and taught is not None:
            if width != taught.size(1):
                raise ValueError(f"'channels' must be {taught.size(1)}, as wide as the teacher's vectors (got {width})")
            lesson = pair.shared.nonzero().view(-1).to(taught.device), taught
        data = message_graph(pair.graph(self.supervise_on, without=split))
        widths = [data.x.size(1), *[self.hidden] * (self.num_layers - 1), width]
        network = build_model(partial(NodeMLP, widths, self.dropout), seed)
        decoder = build_model(partial(make_decoder, width, directed=pair.directed), seed)
        if teacher is not None:
            decoder.load_state_dict(teacher.scorer.state_dict())
        model = LinkModel(network, decoder, input_dropout=self.input_dropout).to(data.x.device)
        task = StudentTask(
            data,
            {"val": (split.val, split.val_neg)},
            lesson,
            self.emb_weight,
            links_per_epoch=self.links_per_epoch,
            directed=pair.directed,
            metric=self.metric,
            inference=encode_rows,
            seed=3 * seed + 1,
        )
        self.train(model, task, self.training, seed, self.stage)
        weights = {f"network.{key}": value for key, value in network.state_dict().items()}
        vectors = encode_rows(model, data)
        return self.vectors_state(vectors, decoder, directed=pair.directed) | weights | {"widths": widths}

    def prepare(self) -> None:
        """Build the network and the decoder."""
        super().prepare()
        network = NodeMLP(self.state["widths"], self.dropout)
        network.load_state_dict(part_of(self.state, "network."))
        model = LinkModel(network, self.scorer, input_dropout=self.input_dropout)
        self.model = model.to(self.state["vectors"].device).eval()

    def embed(self, x: Tensor | None = None) -> Tensor:
        """Return vectors of the target nodes ``[N_t, d]``, or of any nodes from their features ``[n, F]``.

        Raises:
            RuntimeError: If nothing has been fitted.
        """
        vectors: Tensor = self.state["vectors"]
        if x is None:
            return vectors
        return self.from_features(x)

    def from_features(self, x: Tensor) -> Tensor:
        """Return vectors ``[n, d]`` of any nodes from their features."""
        check_new_x(x, self.state["widths"][0])
        assert self.model is not None
        return encode_rows(self.model, Data(x=x.to(self.state["vectors"].device)))
