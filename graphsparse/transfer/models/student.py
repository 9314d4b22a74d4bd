"""A network that sees features only and so serves nodes without any link."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.nn import MLP

from graphsparse.nn import accelerate
from graphsparse.nn.link_decoders import make_decoder
from graphsparse.ops.blocks import blocks
from graphsparse.ops.check import check_count, check_number
from graphsparse.training import Training, build_model, link_training
from graphsparse.training.link_batches import UniformNegatives, some_of
from graphsparse.training.link_task import LinkMetric, PairTask, check_features, decoder_of, link_loss, links_of
from graphsparse.training.task import add_extra
from graphsparse.transfer.data.queries import check_dense_x
from graphsparse.transfer.models.link_model import LinkModel
from graphsparse.transfer.models.predictor import VectorPredictor, check_training, part_of
from graphsparse.transfer.models.teacher import LinkTeacher
from graphsparse.utils.call_model import call_model
from graphsparse.utils.eval_mode import eval_mode

if TYPE_CHECKING:
    from graphsparse.transfer.data.pair import SharedNodePair
    from graphsparse.transfer.data.split import LinkSplit

#: Which links are learned.
LINKS = ("target", "enriched_target")
#: Nodes that are encoded at a time.
_ROWS = 1 << 16
#: Non-links per link.
_NUM_NEG = 3


class NodeMLP(nn.Module):
    """A multi-layer perceptron that is called like a graph neural network and reads no edge."""

    def __init__(self, widths: Sequence[int], dropout: float = 0.0) -> None:
        super().__init__()
        self.mlp = accelerate(MLP(list(widths), dropout=dropout, norm=None))

    def forward(self, x: Tensor, edge_index: Tensor | None = None) -> Tensor:
        """Return vectors ``[N, d]``."""
        h: Tensor = self.mlp(x)
        return h


@dataclass(frozen=True)
class StudentBatch:
    """Pairs to be told apart ``[2, Q]``, links first, and nodes whose vectors are learned, as places in the lesson."""

    pairs: Tensor
    num_links: int
    nodes: Tensor


class StudentTask(PairTask):
    r"""Learns :math:`\lambda_e L_{emb} + \lambda_s L_{sup}` from features alone; see ``MLPStudent``.

    Each term draws from a generator of its own, so that one without weight changes nothing in the other.

    Args:
        x: Features of all target nodes.
        links: Links to be learned ``[2, P]``.
        split: As for :class:`~graphsparse.training.LinkTask`.
        lesson: Nodes ``[n]`` and the vectors ``[n, d]`` that a teacher gives them; ``None`` without a teacher.
        weights: Weights of the two terms.
        directed: Whether each direction is a link of its own.
        batch_size: Links in a batch; all at once when ``None``.
        links_per_epoch: As for ``LinkTask``.
        metric: As for ``LinkTask``.
        seed: Seed of everything that is drawn.
    """

    def __init__(
        self,
        x: Tensor,
        links: Tensor,
        split: Mapping[str, tuple[Tensor, Tensor]],
        lesson: tuple[Tensor, Tensor] | None = None,
        *,
        weights: tuple[float, float] = (1.0, 1.0),
        directed: bool = False,
        batch_size: int | None = None,
        links_per_epoch: int | None = None,
        metric: LinkMetric | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(split, metric)
        self.x, self.links, self.weights = x, links, weights
        self.lesson = None if lesson is None or weights[0] == 0 else (lesson[0], lesson[1].detach())
        self.batch_size, self.links_per_epoch = batch_size, links_per_epoch
        self._order, self._drawn = (torch.Generator().manual_seed(3 * seed + i) for i in range(2))
        self.generators = [self._order, self._drawn]
        if weights[1] > 0:
            if links.size(1) == 0:
                raise ValueError("'split.train' leaves no link to learn from")
            self._negatives = UniformNegatives(x.size(0), links, self._drawn, directed=directed)
        self._scale = None if self.lesson is None else self.lesson[1].square().mean()

    def check(self, model: nn.Module) -> None:
        """Refuse features that are not finite, or of another type than the weights."""
        check_features(self.x, model, "x")

    def batches(self) -> Iterator[StudentBatch]:
        """Draw an epoch."""
        links = non_links = self.links.new_empty(2, 0)
        if self.weights[1] > 0:
            picked = some_of(self.links, self.links_per_epoch, self._drawn)
            links = self.links if picked is None else self.links[:, picked]
            non_links = self._negatives(_NUM_NEG * links.size(1)).to(links)
        known = torch.arange(0 if self.lesson is None else self.lesson[0].numel(), device=self.x.device)
        if self.batch_size is None:
            yield StudentBatch(torch.cat([links, non_links], 1), links.size(1), known)
            return
        # The longer of the lists gives the number of batches, and each is dealt out over all of them.
        length = max(links.size(1), known.numel())
        orders = [
            torch.randperm(size, generator=self._order).to(self.x.device) for size in (links.size(1), known.numel())
        ]
        for where in blocks(length, self.batch_size):
            mine, nodes = (order[_share(order.numel(), where, length)] for order in orders)
            drawn = non_links[:, _share(non_links.size(1), where, length)]
            yield StudentBatch(torch.cat([links[:, mine], drawn], 1), mine.numel(), known[nodes])

    def loss(self, model: nn.Module, batch: StudentBatch, extra: Callable[[Tensor], Tensor] | None) -> Tensor | None:
        """Return the weighted sum of the terms that have something to learn from in this batch."""
        terms = []
        x, place = self.x, _same
        if self.batch_size is not None:  # only the nodes of the batch
            learned = [] if self.lesson is None else [self.lesson[0][batch.nodes]]
            nodes = torch.unique(torch.cat([batch.pairs.view(-1), *learned]))
            x, place = self.x[nodes], partial(torch.searchsorted, nodes)
        vectors = call_model(model, without_edges(x))
        if 0 < batch.num_links < batch.pairs.size(1):
            scores = decoder_of(model)(vectors, place(batch.pairs))
            sup = link_loss(scores[: batch.num_links], scores[batch.num_links :])
            terms.append(self.weights[1] * add_extra(sup, extra, scores))
        if self.lesson is not None and batch.nodes.numel():
            own = vectors[place(self.lesson[0][batch.nodes])]
            terms.append(self.weights[0] * (own - self.lesson[1][batch.nodes]).square().mean() / self._scale)
        return torch.stack(terms).sum() if terms else None

    def encode(self, model: nn.Module) -> Tensor:
        """Return the vectors of all target nodes, in evaluation mode."""
        return encode_nodes(model, self.x)

    def identity(self) -> dict[str, Any]:
        """Return what tells one task from another in a checkpoint."""
        lesson = {} if self.lesson is None else {"lesson.nodes": self.lesson[0], "lesson.vectors": self.lesson[1]}
        return {"features": self.x, "links": self.links, **lesson, **super().identity()}


def _same(nodes: Tensor) -> Tensor:
    return nodes


def _share(size: int, where: slice, length: int) -> slice:
    """Return the part of a list of some size that goes with a part of a list of some length."""
    return slice(size * where.start // length, size * where.stop // length)


def without_edges(x: Tensor) -> Data:
    """Return a graph of nodes with features and without any edge."""
    return Data(x=x, edge_index=torch.empty(2, 0, dtype=torch.int64, device=x.device))


def encode_nodes(model: nn.Module, x: Tensor, rows: int = _ROWS) -> Tensor:
    """Return vectors of nodes from their features alone, in evaluation mode, so many rows at a time."""
    with eval_mode(model), torch.no_grad():
        # The whole, and no view of it, where it is one part: what was found out about it is then still known.
        parts = [x] if x.size(0) <= rows else torch.split(x, rows)
        return torch.cat([call_model(model, without_edges(part)) for part in parts])


@dataclass(eq=False)
class MLPStudent(VectorPredictor):
    r"""Learns vectors of nodes from their features alone: those of a teacher on shared nodes, and links of the target.

    .. math::
        L = \lambda_e \frac{\mathrm{mean}(f_v - h_v)^2}{\mathrm{mean}\,h^2} + \lambda_s L_{links}

    with the student's vectors :math:`f` and the teacher's :math:`h`. The first term is over the shared nodes, and the
    second is the teacher's own loss over the training links of the target. No gradient reaches the teacher. No edge is
    read when pairs are scored, so that a node without any is served as well as others. Test pairs are never read; the
    best epoch is that with the best metric on the validation pairs. Features are divided by their length first. Scores
    are made by a copy of the teacher's decoder, which is trained on.

    Without the first term it is a plain network, bit for bit, whether there is a teacher or not.

    Args:
        hidden: Width of the hidden layers.
        num_layers: Number of layers; 1 for a linear student.
        channels: Width of the vectors; that of the teacher, or ``hidden`` without one, when ``None``.
        dropout: Dropout after hidden layers.
        input_dropout: Dropout of the features.
        emb_weight: :math:`\lambda_e`, of the teacher's vectors.
        sup_weight: :math:`\lambda_s`, of links.
        supervise_on: Whose links are learned: those of the ``"target"`` alone, or of the ``"enriched_target"``, with
            the source's between shared nodes.
        batch_size: Links in a batch; all at once when ``None``.
        links_per_epoch: Most links that are learned from in an epoch, drawn anew each time; all when ``None``.
        metric: Figure of merit on the validation pairs, ``(scores of links, scores of non-links) -> float``; average
            precision when ``None``.
        training: How to train; :func:`~graphsparse.training.link_training` by default.

    Attributes:
        model: The network and the decoder, once fitted.
        result: Course of the training, once fitted.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If one is out of range, or both weights are 0.

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

    name = "student"

    hidden: int = 256
    num_layers: int = 2
    channels: int | None = None
    _: KW_ONLY
    dropout: float = 0.3
    input_dropout: float = 0.5
    emb_weight: float = 1.0
    sup_weight: float = 1.0
    supervise_on: str = "target"
    batch_size: int | None = None
    links_per_epoch: int | None = None
    metric: LinkMetric | None = None
    training: Training = field(default_factory=link_training)

    def __post_init__(self) -> None:
        for name in ("hidden", "num_layers", "channels", "batch_size"):
            if getattr(self, name) is not None:
                check_count(getattr(self, name), name)
        for name, most in (("dropout", 1.0), ("input_dropout", 1.0), ("emb_weight", inf), ("sup_weight", inf)):
            check_number(getattr(self, name), name, least=0, most=most)
        if self.emb_weight == self.sup_weight == 0:
            raise ValueError("'emb_weight' and 'sup_weight' are both 0: nothing would be learned")
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

    def alone(self) -> "MLPStudent":
        """Return a student of the same options that learns from the target's links alone, not fitted.

        Once this one is fitted, its vectors are as wide.

        Example:
            >>> MLPStudent(32, emb_weight=1.0).alone().needs_teacher
            False
        """
        channels = self.channels if self.model is None else self.embed().size(1)
        sup = self.sup_weight or 1.0
        other = replace(self, channels=channels, supervise_on="target", emb_weight=0.0, sup_weight=sup)
        other.name = f"{self.name}_alone"
        return other

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
        x: Tensor = pair.target.x
        lesson, width, taught = self._lesson(pair, split, teacher)
        links = links_of(pair.graph(self.supervise_on, without=split, features=False), directed=pair.directed)[0]
        widths = [x.size(1), *[self.hidden] * (self.num_layers - 1), width]
        network = build_model(partial(NodeMLP, widths, self.dropout), seed)
        decoder = build_model(partial(make_decoder, width, directed=pair.directed), seed)
        if taught is not None:
            decoder.load_state_dict(taught.scorer.state_dict())
        model = LinkModel(network, decoder, input_dropout=self.input_dropout).to(x.device)
        task = StudentTask(
            x,
            links,
            {"val": (split.val, split.val_neg)},
            lesson,
            weights=(self.emb_weight, self.sup_weight),
            directed=pair.directed,
            batch_size=self.batch_size,
            links_per_epoch=self.links_per_epoch,
            metric=self.metric,
            seed=seed,
        )
        self.train(model, task, self.training, seed, self.name)
        weights = {f"network.{key}": value for key, value in network.state_dict().items()}
        vectors = encode_nodes(model, x)
        return self.vectors_state(vectors, decoder, directed=pair.directed) | weights | {"widths": widths}

    def _lesson(
        self, pair: "SharedNodePair", split: "LinkSplit", teacher: LinkTeacher | None
    ) -> tuple[tuple[Tensor, Tensor] | None, int, LinkTeacher | None]:
        """Return what a teacher says of the shared nodes, the width of the vectors, and whose decoder is copied."""
        if teacher is None:
            if self.needs_teacher:
                raise ValueError("'teacher' is missing, though 'emb_weight' is not 0")
            return None, self.channels or self.hidden, None
        if self.needs_teacher:
            teacher.fitted_on(pair, split)
        vectors = teacher.embed("intersection")
        width = self.channels or vectors.size(1)
        if not self.needs_teacher:
            return None, width, teacher
        if width != vectors.size(1):
            raise ValueError(f"'channels' must be {vectors.size(1)}, the width of the teacher's vectors (got {width})")
        nodes = pair.shared.nonzero().view(-1).to(vectors.device)
        return (nodes, vectors), width, teacher

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
        assert self.model is not None
        return encode_nodes(self.model, x)
