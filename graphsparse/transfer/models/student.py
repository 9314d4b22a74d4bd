"""A network that sees features only and so serves nodes without any link."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch_geometric.nn import MLP

from graphsparse.nn import accelerate
from graphsparse.ops.check import check_count, check_number
from graphsparse.training import build_model
from graphsparse.training.result import FitResult
from graphsparse.transfer.data.queries import check_dense_x, check_queries, check_split
from graphsparse.transfer.models.decoders import CHUNK, check_decoder, make_decoder, score_in_chunks
from graphsparse.transfer.models.link_model import LinkModel, check_x
from graphsparse.transfer.models.link_task import links_of
from graphsparse.transfer.models.link_training import LinkTraining, check_training, split_identity
from graphsparse.transfer.models.student_task import Lesson, StudentTask, encode_nodes
from graphsparse.transfer.models.teacher import PLACES, LinkTeacher
from graphsparse.transfer.models.validation import Validation
from graphsparse.typing import Log

if TYPE_CHECKING:
    from graphsparse.transfer.data.pair import SharedNodePair
    from graphsparse.transfer.data.split import LinkSplit

#: Which links are learned.
LINKS = ("target", "enriched_target")


class NodeMLP(nn.Module):
    """A multi-layer perceptron that is called like a graph neural network and reads no edge.

    Args:
        widths: Widths of input, hidden layers and output.
        dropout: Dropout after hidden layers.

    Example:
        >>> import torch
        >>> NodeMLP([4, 8, 3])(torch.randn(5, 4)).shape
        torch.Size([5, 3])
    """

    supports_edge_weight = True

    def __init__(self, widths: Sequence[int], dropout: float = 0.0) -> None:
        super().__init__()
        self.mlp = accelerate(MLP(list(widths), dropout=dropout, norm=None))

    def forward(self, x: Tensor, edge_index: Tensor | None = None, edge_weight: Tensor | None = None) -> Tensor:
        """Return vectors ``[N, d]``."""
        h: Tensor = self.mlp(x)
        return h


class MLPStudent:
    r"""Learns vectors of nodes from their features alone: those of a teacher on shared nodes, and links of the target.

    .. math::
        L = \lambda_e \frac{\mathrm{mean}(f_v - h_v)^2}{\mathrm{mean}\,h^2}
          + \lambda_l \,\mathrm{mean}\,\mathrm{BCE}(\sigma(s_{uv} / \tau), \sigma(t_{uv} / \tau))
          + \lambda_s L_{links}

    with the student's vectors :math:`f` and scores :math:`s`, and the teacher's :math:`h` and :math:`t`. The first term
    is over the shared nodes, the second over the links among them and as good as random pairs, and the third is the
    teacher's own loss over the training links of the target. No gradient reaches the teacher. No edge is read when
    pairs are scored, so that a node without any is served as well as others. Test pairs are never read; the best epoch
    is that with the best metric on the validation pairs.

    Without the first two terms it is a plain network, bit for bit, whether there is a teacher or not; for parametric
    decoders only where ``decoder`` is named.

    Args:
        hidden: Width of the hidden layers.
        num_layers: Number of layers; 1 for a linear student.
        channels: Width of the vectors; that of the teacher, or ``hidden`` without one, when ``None``.
        dropout: Dropout after hidden layers.
        input_dropout: Dropout of the features.
        emb_weight: :math:`\lambda_e`, of the teacher's vectors.
        logit_weight: :math:`\lambda_l`, of the teacher's scores.
        sup_weight: :math:`\lambda_s`, of links.
        temperature: :math:`\tau`.
        distil_on: Whose vectors and scores are learned: ``"intersection"``, those of the shared nodes on the graph
            among them, or ``"target"``, those of all target nodes.
        supervise_on: Whose links are learned: those of the ``"target"`` alone, or of the ``"enriched_target"``, with
            the source's between shared nodes.
        decoder: Name of a decoder, fresh; a copy of the teacher's, which is trained on, when ``None``, or the inner
            product without a teacher.
        num_neg: Non-links per link.
        normalize: Divide each row of the features by its length first.
        training: Epochs, learning rate, metric and the like.
        batch_size: Pairs in a batch; all at once when ``None``.
        chunk_size: Most pairs that are scored at a time.

    Attributes:
        model: The network and the decoder, once fitted.
        result: Course of the training, once fitted.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If one is out of range, or all three weights are 0.

    Example:
        >>> import torch
        >>> from graphsparse.testing import random_graph
        >>> from graphsparse.transfer.data.split import split_links
        >>> from graphsparse.transfer.data.pair import SharedNodePair
        >>> data, early, late = random_graph(), torch.arange(45), torch.arange(15, 60)
        >>> pair = SharedNodePair(data.subgraph(early), data.subgraph(late), early, late)
        >>> split = split_links(pair)
        >>> from graphsparse.transfer.models.link_model import sage_encoder
        >>> training = LinkTraining(epochs=10)
        >>> teacher = LinkTeacher(sage_encoder(16), training=training).fit(pair, split)
        >>> student = MLPStudent(32, training=training).fit(pair, split, teacher)
        >>> student.score(torch.tensor([[0, 1], [2, 3]])).shape
        torch.Size([2])

    Source: the teacher-student regime of Zheng et al., arXiv 2302.14189. Its losses are not known; these are ours, the
    first after Zheng et al., *Cold Brew*, arXiv 2111.04840.
    """

    def __init__(
        self,
        hidden: int = 256,
        num_layers: int = 2,
        channels: int | None = None,
        *,
        dropout: float = 0.3,
        input_dropout: float = 0.5,
        emb_weight: float = 1.0,
        logit_weight: float = 0.0,
        sup_weight: float = 1.0,
        temperature: float = 1.0,
        distil_on: str = "intersection",
        supervise_on: str = "target",
        decoder: str | None = None,
        num_neg: int = 3,
        normalize: bool = True,
        training: LinkTraining | None = None,
        batch_size: int | None = None,
        chunk_size: int = CHUNK,
    ) -> None:
        counts = {"hidden": hidden, "num_layers": num_layers, "num_neg": num_neg, "chunk_size": chunk_size}
        counts |= {name: n for name, n in (("channels", channels), ("batch_size", batch_size)) if n is not None}
        for name, count in counts.items():
            check_count(count, name)
        for name, weight in (("emb_weight", emb_weight), ("logit_weight", logit_weight), ("sup_weight", sup_weight)):
            check_number(weight, name, least=0)
        check_number(temperature, "temperature", least=0, strictly=True)
        check_number(dropout, "dropout", least=0, most=1)
        check_number(input_dropout, "input_dropout", least=0, most=1)
        if emb_weight == logit_weight == sup_weight == 0:
            raise ValueError("'emb_weight', 'logit_weight' and 'sup_weight' are all 0: nothing would be learned")
        for name, value, known in (("distil_on", distil_on, tuple(PLACES)), ("supervise_on", supervise_on, LINKS)):
            if value not in known:
                raise ValueError(f"'{name}' must be one of {known} (got {value!r})")
        if decoder is not None:
            check_decoder(decoder)
        self.hidden, self.num_layers, self.channels = hidden, num_layers, channels
        self.dropout, self.input_dropout, self.normalize = dropout, input_dropout, normalize
        self.weights, self.temperature = (float(emb_weight), float(logit_weight), float(sup_weight)), temperature
        self.distil_on, self.supervise_on, self.decoder = distil_on, supervise_on, decoder
        self.num_neg, self.batch_size, self.chunk_size = num_neg, batch_size, chunk_size
        self.training = LinkTraining(lr=1e-3, epochs=200) if training is None else training
        check_training(self.training)
        self.model: LinkModel | None = None
        self.result: FitResult | None = None
        self._x: Tensor | None = None
        self._vectors: Tensor | None = None

    @property
    def needs_teacher(self) -> bool:
        """Whether one of the teacher's terms has a weight."""
        return self.weights[0] > 0 or self.weights[1] > 0

    def alone(self) -> "MLPStudent":
        """Return a student of the same options that learns from the target's links alone, not fitted.

        Once this one is fitted, its vectors are as wide.

        Example:
            >>> MLPStudent(32, emb_weight=1.0).alone().needs_teacher
            False
        """
        other = copy.copy(self)
        other.weights, other.supervise_on = (0.0, 0.0, self.weights[2] or 1.0), "target"
        if self._vectors is not None or self.model is not None:
            other.channels = self.embed().size(1)
        other.model = other.result = other._x = other._vectors = None
        return other

    def fit(
        self,
        pair: "SharedNodePair",
        split: "LinkSplit",
        teacher: LinkTeacher | None = None,
        *,
        seed: int = 0,
        checkpoint: str | Path | None = None,
        progress: bool = False,
        log: Log | None = None,
    ) -> "MLPStudent":
        """Learn from a teacher and from links.

        Args:
            pair: Source and target.
            split: Links of the target that are held out.
            teacher: A teacher that was fitted on both; may be ``None`` where none of its terms has a weight.
            seed: Seed of initial weights, dropout and non-links.
            checkpoint: File from which a killed training goes on, see :func:`graphsparse.training.fit`.
            progress: Whether to show a progress bar.
            log: Receives the entries of the history one by one.

        Returns:
            The student itself.

        Raises:
            ValueError: If the split is that of another pair, there is no teacher though one is needed, or vectors of
                another width than the teacher's are to learn from them.
            RuntimeError: If the teacher has learned nothing yet.
        """
        check_split(pair, split)
        check_dense_x(pair)
        lesson = self._lesson(pair, split, teacher)
        target = pair.graph("target", without=split)
        graph = target if self.supervise_on == "target" else pair.graph("enriched_target", without=split)
        links = links_of(graph, directed=pair.directed)[0]
        self._x, self._vectors, self.result = target.x, None, None
        self.model = self._build(target.x, teacher, seed, pair.directed)
        check_x(target.x, self.model)
        task = StudentTask(
            target,
            links,
            Validation(split.val, split.val_neg, self.training.metric),
            lesson,
            weights=self.weights,
            temperature=self.temperature,
            seed=seed,
            num_neg=self.num_neg,
            directed=pair.directed,
            batch_size=self.batch_size,
            links_per_epoch=self.training.links_per_epoch,
        )
        learned = {"features": target.x, "links": links}
        if lesson is not None:
            learned |= {"lesson.nodes": lesson.nodes, "lesson.vectors": lesson.vectors, "lesson.links": lesson.links}
        self.result = self.training.run(
            self.model,
            task,
            seed=seed,
            checkpoint=checkpoint,
            identity={**split_identity(pair, split), **self.settings(), **learned},
            progress=progress,
            log=log,
        )
        return self

    def settings(self) -> dict[str, str | int | float | bool | None]:
        """Return the options that are not seen in the network, as plain values."""
        return {
            "weights": str(self.weights),
            "temperature": self.temperature,
            "distil_on": self.distil_on,
            "supervise_on": self.supervise_on,
            "num_neg": self.num_neg,
            "normalize": self.normalize,
            "dropout": self.dropout,
            "input_dropout": self.input_dropout,
            "batch_size": self.batch_size,
        }

    def embed(self, x: Tensor | None = None) -> Tensor:
        """Return vectors of the target nodes ``[N_t, d]``, or of any nodes from their features ``[n, F]``.

        Raises:
            RuntimeError: If nothing has been fitted.
        """
        model = self.fitted()
        if x is not None:
            return encode_nodes(model, x)
        if self._vectors is None:
            assert self._x is not None
            self._vectors = encode_nodes(model, self._x)
        return self._vectors

    def score(self, pairs: Tensor) -> Tensor:
        """Return the logits ``[Q]`` of pairs ``[2, Q]`` of target nodes, so many at a time.

        Raises:
            RuntimeError: If nothing has been fitted.
            ValueError: If a node is not in the target, or a pair is a self-loop.
        """
        model, h = self.fitted(), self.embed()
        return score_in_chunks(model.decoder, h, check_queries(pairs, h.size(0)), self.chunk_size)

    def fitted(self) -> LinkModel:
        """Return the model.

        Raises:
            RuntimeError: If nothing has been fitted.
        """
        if self.model is None or self.result is None:
            raise RuntimeError("the student has learned nothing yet: call 'fit(pair, split, teacher)' first")
        return self.model

    def _lesson(self, pair: Any, split: Any, teacher: LinkTeacher | None) -> Lesson | None:
        if not self.needs_teacher:
            return None
        if teacher is None:
            raise ValueError("'teacher' is missing, though 'emb_weight' or 'logit_weight' is not 0")
        teacher.fitted_on(pair, split)
        model = teacher.fitted()
        vectors, graph = teacher.embed(self.distil_on).detach(), teacher.graph(self.distil_on)
        return Lesson(graph.n_id, vectors, links_of(graph, directed=pair.directed)[0], model.decoder)

    def _build(self, x: Tensor, teacher: LinkTeacher | None, seed: int, directed: bool) -> LinkModel:
        taught = None if teacher is None or teacher.model is None else teacher.fitted()
        width = self.channels
        if taught is not None and (self.needs_teacher or width is None):
            given = teacher.embed(self.distil_on).size(1) if teacher is not None else 0
            if width is not None and self.weights[0] > 0 and width != given:
                raise ValueError(f"'channels' must be {given}, the width of the teacher's vectors (got {width})")
            width = given if width is None else width
        width = self.hidden if width is None else width
        widths = [x.size(1), *[self.hidden] * (self.num_layers - 1), width]
        network = build_model(lambda: NodeMLP(widths, self.dropout), seed)
        if self.decoder is None and taught is not None:
            decoder: nn.Module = copy.deepcopy(taught.decoder)
        else:
            name = self.decoder or ("bilinear" if directed else "dot")
            decoder = build_model(lambda: make_decoder(name, width, directed=directed), seed)
        return LinkModel(network, decoder, normalize=self.normalize, input_dropout=self.input_dropout).to(x.device)
