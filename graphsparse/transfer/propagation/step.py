"""The last step of the chain: what known links around a pair add to its score, with a weight chosen on validation."""

from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch_geometric.data import Data

from graphsparse.training.link_task import LinkMetric, links_of
from graphsparse.transfer.data.leak import assert_no_leak
from graphsparse.transfer.data.negatives import degree_matched_negatives
from graphsparse.transfer.propagation.edge_propagation import EPS, LAMBDA_GRID, EdgeLabelPropagation

if TYPE_CHECKING:
    from graphsparse.transfer.data.pair import SharedNodePair
    from graphsparse.transfer.data.split import LinkSplit


class PropagationStep:
    r"""Scores of pairs, corrected by ``EdgeLabelPropagation`` with a weight that the validation pairs choose.

    The training links and as many pairs without a link, matched in degree, are its anchors.

    Args:
        propagation: The propagation, of which a copy is fitted. A fixed ``lam`` of it is tried against 0 only.
        base: Returns the logits ``[Q]`` of pairs ``[2, Q]``.
        graph: Whose links it goes along: ``"enriched_target"`` for those of both, ``"target"``.

    Attributes:
        propagation: The copy.
        weight: The weight that was chosen, once fitted.
        tried: Metric for each weight, once fitted.
    """

    def __init__(
        self,
        propagation: EdgeLabelPropagation,
        base: Callable[[Tensor], Tensor],
        graph: str = "enriched_target",
    ) -> None:
        self.propagation, self.base, self.graph = copy(propagation), base, graph
        self.weight = 0.0
        self.tried: dict[float, float] = {}

    def fit(self, pair: "SharedNodePair", split: "LinkSplit", metric: LinkMetric, seed: int) -> "PropagationStep":
        """Take in the training links, and choose the weight on the validation pairs."""
        graph = pair.graph(self.graph, without=split, features=False).cpu()  # where the split is
        queries = torch.cat([split.val, split.val_neg], 1)
        positive = torch.arange(queries.size(1)) < split.val.size(1)
        p = self.base(queries).cpu().double().sigmoid()

        def judge(score: Tensor, positive: Tensor) -> float:
            return metric(score[positive], score[~positive])

        self._fit_anchors(graph, pair, split, seed)
        fixed = self.propagation.lam
        grid = LAMBDA_GRID if fixed is None else sorted({0.0, fixed})
        self.weight = self.propagation.choose_lambda(queries, positive, p, grid, judge)
        self.tried = self.propagation.tried
        return self

    def _fit_anchors(self, graph: Data, pair: "SharedNodePair", split: "LinkSplit", seed: int) -> None:
        links = links_of(graph, directed=pair.directed)[0]
        links = torch.unique(links.sort(0).values, dim=1) if pair.directed else links  # anchors have no direction
        # Held-out pairs, links and non-links alike, are no anchors: which of them are links must not show.
        rest = degree_matched_negatives(links, pair.num_nodes, split.queries, seed, side=graph.get("side"))
        anchors = torch.cat([links, rest], 1)
        assert_no_leak(split, pair, anchors=anchors)
        labels = (torch.arange(anchors.size(1)) < links.size(1)).float()
        self.propagation.fit(anchors, labels, self.base(anchors).cpu().sigmoid(), pair.num_nodes)

    def score(self, pairs: Tensor) -> Tensor:
        """Return scores ``[Q]``: logits."""
        logits = self.base(pairs)
        if self.weight == 0:
            return logits
        p = logits.double().sigmoid().cpu()
        return torch.logit(self.propagation.correct(pairs.cpu(), p), eps=EPS).to(logits)

    def state(self) -> dict[str, Any]:
        """Return what was fitted as tensors and plain values, for :meth:`restored`."""
        fitted = {f"fitted.{name}": value for name, value in self.propagation.state().items()}
        plain = {"options": asdict(self.propagation), "weight": self.weight, "graph": self.graph}
        return {**fitted, **plain}

    @classmethod
    def restored(cls, state: Mapping[str, Any], base: Callable[[Tensor], Tensor]) -> "PropagationStep":
        """Return the step that gave the state."""
        step = cls(EdgeLabelPropagation(**state["options"]), base, state["graph"])
        fitted = {
            name.removeprefix("fitted."): value.cpu() if isinstance(value, Tensor) else value  # as :meth:`fit` has it
            for name, value in state.items()
            if name.startswith("fitted.")
        }
        step.propagation.restore(fitted)
        step.weight = state["weight"]
        return step
