"""What a student without a graph learns, as a task of the training loop."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data

from graphsparse.training.task import Evaluation
from graphsparse.transfer.data.negatives import UniformNegatives
from graphsparse.transfer.models.decoders import score_in_chunks
from graphsparse.transfer.models.distil_loss import embedding_loss, logit_loss
from graphsparse.transfer.models.link_batches import some_of
from graphsparse.transfer.models.link_loss import link_loss
from graphsparse.transfer.models.link_model import LinkModel
from graphsparse.transfer.models.validation import Validation
from graphsparse.utils.eval_mode import eval_mode

#: Nodes that are encoded at a time.
_ROWS = 1 << 16


@dataclass(frozen=True)
class Lesson:
    """What a teacher knows.

    Args:
        nodes: Nodes that it gives vectors of, ``[n]``.
        vectors: The vectors ``[n, d]``, without a gradient.
        links: Links between these nodes that its scores are learned on, ``[2, P]``, in the numbering of ``nodes``.
        decoder: Scores pairs of vectors.
    """

    nodes: Tensor
    vectors: Tensor
    links: Tensor
    decoder: Any


@dataclass(frozen=True)
class StudentBatch:
    """Pairs of an epoch, all of them or a part.

    Args:
        pairs: Pairs to be told apart ``[2, Q]``, links first, and their number.
        num_links: See above.
        nodes: Positions of the nodes of the lesson whose vectors are learned, ``[n]``.
        taught: Pairs of the lesson whose scores are learned, ``[2, T]``.
    """

    pairs: Tensor
    num_links: int
    nodes: Tensor
    taught: Tensor


class StudentTask:
    r"""Learns :math:`\lambda_e L_{emb} + \lambda_l L_{logit} + \lambda_s L_{sup}`; see ``MLPStudent``.

    Each term draws from a generator of its own, so that one without weight changes nothing in the others.

    Args:
        graph: All target nodes; no edge of it is read.
        links: Links to be learned ``[2, P]``.
        validation: The validation pairs.
        lesson: What the teacher knows; ``None`` where neither of its terms has a weight.
        weights: Weights of the three terms.
        temperature: Temperature of the logits.
        seed: Seed of everything that is drawn.
        num_neg: Non-links per link, drawn anew in every epoch.
        directed: Whether each direction is a link of its own.
        batch_size: Links in a batch; all at once when ``None``.
        links_per_epoch: Most links, and most of the lesson's, that are learned from in an epoch, drawn anew each time;
            all when ``None``.
    """

    unit = "link"
    metric = "average_precision"
    described: dict[str, Any] | None = None
    maximize = True

    def __init__(
        self,
        graph: Data,
        links: Tensor,
        validation: Validation,
        lesson: Lesson | None,
        *,
        weights: tuple[float, float, float],
        temperature: float,
        seed: int,
        num_neg: int = 3,
        directed: bool = False,
        batch_size: int | None = None,
        links_per_epoch: int | None = None,
    ) -> None:
        self.links_per_epoch = links_per_epoch
        self.x, self.links, self.validation, self.lesson = graph.x, links, validation, lesson
        self.emb_weight, self.logit_weight, self.sup_weight = weights
        self.temperature, self.num_neg, self.batch_size = temperature, num_neg, batch_size
        if self.sup_weight > 0 and links.size(1) == 0:
            raise ValueError("'split.train' leaves no link to learn from")
        num_nodes = graph.x.size(0)
        self.order, self.drawn, self.taught = (torch.Generator().manual_seed(3 * seed + i) for i in range(3))
        self.generators: Sequence[torch.Generator] = [self.order, self.drawn, self.taught]
        self.negatives = self.untaught = None
        if self.sup_weight > 0:
            self.negatives = UniformNegatives(num_nodes, links, self.drawn, directed=directed)
        if lesson is not None and self.logit_weight > 0:
            self.untaught = UniformNegatives(lesson.nodes.numel(), lesson.links, self.taught, directed=directed)
        self.scale = None if lesson is None else lesson.vectors.detach().square().mean()

    def check(self, model: Any) -> None:
        """Everything was checked where the task was made."""

    def identity(self) -> dict[str, Any]:
        """Return what who trains says of the task."""
        return self.described or {}

    def without_test(self) -> Any:
        """Test pairs are not known here."""
        return self

    def batches(self) -> Iterator[StudentBatch]:
        """Draw an epoch."""
        none = self.links.new_empty(2, 0)
        lesson = self.lesson
        links, negative, known, taught = none, none, none[0], none
        if self.negatives is not None:
            links = self._some(self.links, self.drawn)
            negative = self.negatives(self.num_neg * links.size(1)).to(links)
        if lesson is not None and self.emb_weight > 0:
            known = torch.arange(lesson.nodes.numel(), device=self.x.device)
        if lesson is not None and self.untaught is not None:
            taught = self._some(lesson.links, self.taught)
            taught = torch.cat([taught, self.untaught(self.num_neg * taught.size(1)).to(taught)], 1)
        if self.batch_size is None:
            yield StudentBatch(torch.cat([links, negative], 1), links.size(1), known, taught)
            return
        # The longest of the lists gives the number of batches, and each is dealt out over all of them.
        length = max(links.size(1), known.numel(), taught.size(1))
        sizes = [links.size(1), known.numel(), taught.size(1)]
        orders = [torch.randperm(size, generator=self.order).to(self.x.device) for size in sizes]
        for start in range(0, length, self.batch_size):
            ends = (start, min(start + self.batch_size, length))
            picked, nodes, told = (order[_share(order.numel(), ends, length)] for order in orders)
            drawn = negative[:, _share(negative.size(1), ends, length)]
            pairs = torch.cat([links[:, picked], drawn], 1)
            yield StudentBatch(pairs, picked.numel(), known[nodes], taught[:, told])

    def _some(self, links: Tensor, generator: torch.Generator) -> Tensor:
        picked = some_of(links.size(1), self.links_per_epoch, generator)
        return links if picked is None else links[:, picked.to(links.device)]

    def loss(self, model: Any, batch: StudentBatch, extra: Any = None) -> Tensor | None:
        """Return the weighted sum of the terms that have something to learn from in this batch."""
        terms = []
        vectors, place = self._encode(model, batch)
        if 0 < batch.num_links < batch.pairs.size(1):
            scores = model.decoder(vectors, place(batch.pairs))
            terms.append(self.sup_weight * link_loss(scores[: batch.num_links], scores[batch.num_links :]))
        if self.lesson is not None and batch.nodes.numel():
            own = vectors[place(self.lesson.nodes[batch.nodes])]
            terms.append(self.emb_weight * embedding_loss(own, self.lesson.vectors[batch.nodes], self.scale))
        if self.lesson is not None and batch.taught.numel():
            told = score_in_chunks(self.lesson.decoder, self.lesson.vectors, batch.taught)
            said = model.decoder(vectors, place(self.lesson.nodes[batch.taught]))
            terms.append(self.logit_weight * logit_loss(said, told, self.temperature))
        return torch.stack(terms).sum() if terms else None

    def _encode(self, model: LinkModel, batch: StudentBatch) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """Return vectors of the nodes of a batch, and what tells the rows of nodes."""
        if self.batch_size is None:
            return model(self.x, no_edges(self.x)), lambda nodes: nodes
        parts = [batch.pairs.view(-1)]
        if self.lesson is not None:
            parts += [self.lesson.nodes[batch.nodes], self.lesson.nodes[batch.taught].view(-1)]
        nodes = torch.unique(torch.cat(parts))
        x = self.x[nodes]
        return model(x, no_edges(x)), lambda wanted: torch.searchsorted(nodes, wanted)

    def evaluate(self, model: Any, epoch: int) -> Evaluation:
        """Return the metric on the validation pairs."""
        return self.validation.judge(model.decoder, encode_nodes(model, self.x), epoch)

    def finish(self, model: Any, best: Evaluation) -> tuple[Tensor, float, float | None]:
        """Return the scores of the validation pairs; test pairs are not known here."""
        return best.logits, math.nan, None


def _share(size: int, ends: tuple[int, int], length: int) -> slice:
    """Return the part of a list that goes with a part of a longer one.

    Example:
        >>> _share(4, (0, 5), 10), _share(4, (5, 10), 10)
        (slice(0, 2, None), slice(2, 4, None))
    """
    return slice(size * ends[0] // length, size * ends[1] // length)


def no_edges(x: Tensor) -> Tensor:
    """Return an edge list without any edge, on the device of ``x``.

    Example:
        >>> no_edges(torch.zeros(3, 2)).shape
        torch.Size([2, 0])
    """
    return torch.empty(2, 0, dtype=torch.int64, device=x.device)


def encode_nodes(model: LinkModel, x: Tensor, rows: int = _ROWS) -> Tensor:
    """Return vectors of nodes from their features alone, in evaluation mode, so many rows at a time.

    Example:
        >>> from graphsparse.transfer.models.decoders import DotDecoder
        >>> from graphsparse.transfer.models.student import NodeMLP
        >>> encode_nodes(LinkModel(NodeMLP([4, 8, 3]), DotDecoder()), torch.randn(5, 4), rows=2).shape
        torch.Size([5, 3])
    """
    with eval_mode(model), torch.no_grad():
        # The whole, and no view of it, where it is one part: what was found out about it is then still known.
        parts = [x] if x.size(0) <= rows else torch.split(x, rows)
        return torch.cat([model(part, no_edges(part)) for part in parts])
