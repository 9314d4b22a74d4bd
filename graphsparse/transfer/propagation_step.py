"""The last step of the chain: what known links around a pair add to its score, with a weight chosen on validation."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from graphsparse.transfer.data.leak import assert_no_leak
from graphsparse.transfer.data.negatives import degree_matched_negatives
from graphsparse.transfer.models.link_task import links_of
from graphsparse.transfer.models.validation import LinkMetric
from graphsparse.transfer.propagation.edge_propagation import EdgeLabelPropagation
from graphsparse.transfer.propagation.xmc import XMCPropagation

if TYPE_CHECKING:
    from graphsparse.transfer.data.pair import SharedNodePair
    from graphsparse.transfer.data.split import LinkSplit

#: Probabilities are kept so far from 0 and 1 where logits are made of them.
_EPS = 1e-6


def check_direction(propagation: EdgeLabelPropagation | XMCPropagation | None, pair: "SharedNodePair") -> None:
    """Refuse a propagation that takes links another way than the pair.

    Args:
        propagation: The propagation. ``EdgeLabelPropagation`` goes along links whatever their direction.
        pair: The pair.

    Raises:
        ValueError: If ``XMCPropagation`` is directed and the links of the pair are not, or the other way round.
    """
    if isinstance(propagation, XMCPropagation) and propagation.directed != pair.directed:
        raise ValueError(
            f"'propagation' must be XMCPropagation(directed={pair.directed}) for a pair with directed={pair.directed}"
            f" (got {propagation!r})"
        )


class PropagationStep:
    r"""Mixes scores of pairs with what a propagation says of them.

    With ``EdgeLabelPropagation`` the training links and as many pairs without a link, matched in degree, are its
    anchors, and mixing is its own. With ``XMCPropagation`` the score is :math:`\sigma(s_{uv}) + w F_{uv}`.

    Args:
        propagation: The propagation. A fixed ``lam`` of it is tried against 0 only.
        base: Returns the logits ``[Q]`` of pairs ``[2, Q]``.
        grid: Weights to choose from, with 0 among them.
        metric: Figure of merit on the validation pairs, higher is better.
        graph: Whose links it goes along: ``"enriched_target"`` for those of both, ``"target"``.

    Attributes:
        weight: The weight that was chosen, once fitted.
        tried: Metric for each weight, once fitted.
    """

    def __init__(
        self,
        propagation: EdgeLabelPropagation | XMCPropagation,
        base: Callable[[Tensor], Tensor],
        grid: Sequence[float],
        metric: LinkMetric,
        graph: str = "enriched_target",
    ) -> None:
        self.propagation, self.base, self.grid, self.metric = propagation, base, sorted(grid), metric
        self.graph = graph
        self.weight = 0.0
        self.tried: dict[float, float] = {}

    def fit(self, pair: "SharedNodePair", split: "LinkSplit", seed: int) -> "PropagationStep":
        """Take in the training links, and choose the weight on the validation pairs."""
        graph = pair.graph(self.graph, without=split, features=False).cpu()  # where the split is
        queries = torch.cat([split.val, split.val_neg], 1)
        logits = self.base(queries).cpu()
        positive = torch.arange(queries.size(1)) < split.val.size(1)
        if isinstance(self.propagation, EdgeLabelPropagation):
            self._fit_anchors(self.propagation, links_of(graph, directed=pair.directed)[0], pair, split, seed)
            grid = self.grid if self.propagation.lam is None else sorted({0.0, self.propagation.lam})
            values: list[float] = []

            def metric(score: Tensor, positive: Tensor) -> float:
                values.append(self.metric(score[positive], score[~positive]))
                return values[-1]

            self.weight = self.propagation.choose_lambda(queries, positive, logits.double().sigmoid(), grid, metric)
            self.tried = dict(zip(grid, values, strict=True))
            return self
        self.propagation.fit(graph.edge_index, pair.num_nodes)
        added = self.propagation.score(queries).cpu()
        for weight in self.grid:
            score = logits.double().sigmoid() + weight * added
            self.tried[weight] = self.metric(score[positive], score[~positive])
        self.weight = max(self.grid, key=lambda weight: (self.tried[weight], -weight))
        return self

    def _fit_anchors(
        self,
        propagation: EdgeLabelPropagation,
        links: Tensor,
        pair: "SharedNodePair",
        split: "LinkSplit",
        seed: int,
    ) -> None:
        links = torch.unique(links.sort(0).values, dim=1) if pair.directed else links  # anchors have no direction
        # Held-out pairs, links and non-links alike, are no anchors: which of them are links must not show.
        rest = degree_matched_negatives(links, pair.num_nodes, split.queries, seed)
        anchors = torch.cat([links, rest], 1)
        assert_no_leak(split, pair, anchors=anchors)
        labels = (torch.arange(anchors.size(1)) < links.size(1)).float()
        propagation.fit(anchors, labels, self.base(anchors).cpu().sigmoid(), pair.num_nodes)

    def score(self, pairs: Tensor) -> Tensor:
        """Return scores ``[Q]``: logits, save with a weight for ``XMCPropagation``."""
        logits = self.base(pairs)
        if self.weight == 0:
            return logits
        p = logits.double().sigmoid().cpu()
        if isinstance(self.propagation, XMCPropagation):
            return (p + self.weight * self.propagation.score(pairs.cpu())).to(logits)
        if self.propagation.lam == 0:
            return logits
        return torch.logit(self.propagation.correct(pairs.cpu(), p), eps=_EPS).to(logits)
