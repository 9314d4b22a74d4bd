"""Score state dicts of one model on the judged nodes of one graph."""

import copy
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from graphsparse.nn.inference import Layers, exact_copy
from graphsparse.soups.evaluation.cached_forward import CachedForward
from graphsparse.soups.evaluation.judge import Judge, Judged, halves, judged_nodes
from graphsparse.soups.evaluation.plain_forward import PlainForward, estimate_statistics
from graphsparse.soups.states import State, mix
from graphsparse.training.check import check_callable
from graphsparse.utils.call_model import Call, call_model, check_device
from graphsparse.utils.copy_model import copy_model
from graphsparse.utils.running_norms import running_norms

#: A figure of merit, higher is better, from the logits ``[n, C]`` and the labels of the judged nodes.
NodeMetric: TypeAlias = Callable[[Tensor, Tensor], float]
MODES = ("auto", "plain", "cached")
BATCH_NORMS = ("recompute", "keep")


class Evaluator:
    r"""Scores state dicts of one model on some nodes of one graph, always in the same way.

    Of the judged nodes :math:`V`, by default, the share that a model with weights :math:`W` gets right:

    .. math:: \frac{1}{|V|} \sum_{v \in V} [\arg\max_c f_W(G)_{vc} = y_v]

    Whole graphs are taken, never sampled ones: a soup that takes or leaves an ingredient by a score that changes from
    call to call promises nothing.

    Args:
        model: Any PyG model; its weights do not matter. A copy of it is kept, in evaluation mode.
        data: The graph, as in :func:`~graphsparse.training.fit`.
        mask: The judged nodes: a bool mask ``[N]``, or the name of one that ``data`` holds. Only their labels are
            kept, so nothing that is chosen with an evaluator can have seen another one, of the test nodes say. Nodes
            without a label, -1 or -100 among classes and NaN else, are not judged.
        metric: Higher is better; accuracy when ``None``, as the number of correct nodes divided by their number.
        mode: ``plain`` for one pass over the whole graph with the layers of this package; ``cached`` for what
            :mod:`~graphsparse.soups.evaluation.cached_forward` does for the models that
            :func:`~graphsparse.nn.layerwise_inference` takes, with the same result up to rounding at a fraction of the
            cost. ``auto`` is ``cached`` where the model allows it, else ``plain``. The attribute ``mode`` says which
            one is active, and ``reason`` why it is not ``cached``.
        batch_norm: ``recompute`` estimates running statistics, of batch or instance normalisation, anew for every
            state, by one pass over the graph with dropout off; ``keep`` takes those of the state, which mixing has
            averaged.
        call: How to call the model on a graph.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If one is out of range, the graph has no such mask, ``mode`` is ``cached`` and the model does not
            allow it, or without ``metric`` a judged node has no class.

    Example:
        >>> from torch_geometric.nn import GCN
        >>> from graphsparse.testing import random_graph
        >>> model = GCN(8, 16, 2, 3)
        >>> evaluator = Evaluator(model, random_graph())
        >>> 0 <= evaluator.score(model.state_dict()) <= 1
        True

    Source: Jaiswal et al., *Graph Ladling*, arXiv 2306.10466, which chooses by the accuracy on validation nodes of an
    exact pass over the whole graph; ``cached`` is our own.
    """

    def __init__(
        self,
        model: nn.Module,
        data: Data,
        mask: str | Tensor = "val_mask",
        *,
        metric: NodeMetric | None = None,
        mode: str = "auto",
        batch_norm: str = "recompute",
        call: Call = call_model,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"'model' must be a torch.nn.Module (got {type(model).__name__})")
        if mode not in MODES:
            raise ValueError(f"'mode' must be one of {MODES} (got {mode!r})")
        if batch_norm not in BATCH_NORMS:
            raise ValueError(f"'batch_norm' must be one of {BATCH_NORMS} (got {batch_norm!r})")
        check_callable(call, "call")
        judged = judged_nodes(data, mask)
        if call is call_model:
            check_device(model, data)
        if metric is None:
            _check_classes(judged.y)
        else:
            check_callable(metric, "metric")
        self.model = copy_model(model).eval().requires_grad_(False)
        self.metric, self.batch_norm, self.call = metric, batch_norm, call
        #: Which mode is active, and why it is not ``"cached"``.
        self.mode, self.reason = "plain", "another mode was asked for"
        self._layers: Layers | None = None
        if mode != "plain":
            try:
                self._layers = self._find_layers(judged.data)
                self.mode, self.reason = "cached", ""
            except (TypeError, ValueError) as error:
                if mode == "cached":
                    raise ValueError(f"'mode' cannot be 'cached' here: {error}") from error
                self.reason = str(error)
        self._judge(judged)

    def _find_layers(self, data: Data) -> Layers:
        if self.call is not call_model:
            raise ValueError("'call' is given, and only how models are called as usual is known")
        if self._re_estimates:
            raise ValueError("batch normalisation is estimated anew for every state, which takes a whole pass")
        layers = Layers(self.model, data)
        if layers.edge_attr is not None:
            raise ValueError("a layer takes features of edges")
        return layers

    @cached_property
    def _fast(self) -> nn.Module:
        """The model with the layers of this package, where it can be copied."""
        try:
            return exact_copy(self.model)
        except (TypeError, ValueError):
            return self.model

    def _judge(self, judged: Judged) -> None:
        """Take other nodes; what is known of model and graph stays."""
        self._judged = judged
        self.data, self.nodes, self.y = judged.data, judged.nodes, judged.y
        self._forward: PlainForward | CachedForward
        if self._layers is None:
            self._forward = PlainForward(self._fast, self.data, self.nodes, self.call)
        else:
            self._forward = CachedForward(self._layers, self.nodes)

    @property
    def _re_estimates(self) -> bool:
        return self.batch_norm == "recompute" and bool(running_norms(self.model))

    @property
    def num_nodes(self) -> int:
        """Number of judged nodes."""
        return self.nodes.numel()

    def halves(self, seed: int = 0) -> tuple["Evaluator", "Evaluator"]:
        """Return two evaluators, for one half of the judged nodes each, with about the same classes in both.

        Args:
            seed: Two calls with the same one give the same halves.

        Returns:
            Two evaluators of the same model, graph and metric.

        Raises:
            ValueError: If there are fewer than two judged nodes.
        """
        parts = []
        for judged in halves(self._judged, seed):
            part = copy.copy(self)
            part._judge(judged)
            parts.append(part)
        return parts[0], parts[1]

    def prepared(self, state: State) -> State:
        """Return a state with the running statistics that it is scored with.

        Args:
            state: State dict.

        Returns:
            The same state dict where there are none to estimate, else another one with the same weights.
        """
        if not self._re_estimates:
            return state
        return estimate_statistics(self._fast, state, self.data, self.call)

    def logits(self, state: State) -> Tensor:
        """Return the logits of the judged nodes.

        Args:
            state: State dict.

        Returns:
            Logits ``[n, C]``, in the order of the nodes.
        """
        return self._forward.logits(self.prepared(state))

    def score(self, state: State) -> float:
        """Return the metric on the judged nodes.

        Args:
            state: State dict.

        Returns:
            The metric; by default the share of nodes that are right, exactly a number of nodes divided by another.
        """
        return self.score_logits(self.logits(state))

    def score_logits(self, logits: Tensor) -> float:
        """Return the metric of logits that are there.

        Args:
            logits: Logits ``[n, C]`` of the judged nodes.

        Returns:
            The metric, as of a state with these logits.
        """
        judge = Judge(self.y, 1, metric=self.metric)
        judge.add(0, slice(0, self.num_nodes), logits)
        (score,) = judge.scores()
        assert score is not None  # there is no floor to give up below
        return score

    def scan(
        self, soup: State, other: State, ratios: Sequence[float], floor: float = -float("inf")
    ) -> list[float | None]:
        """Return the scores of mixtures of two states.

        Args:
            soup: State dict.
            other: State dict.
            ratios: Shares of ``soup``.
            floor: A score that must be exceeded.

        Returns:
            One score for each ratio; ``None`` where it cannot exceed the floor and was given up early.

        Raises:
            ValueError: If a ratio is not in [0, 1].
        """
        for ratio in ratios:
            if not 0 <= ratio <= 1:
                raise ValueError(f"'ratios' must be in [0, 1] (got {ratio!r})")
        if isinstance(self._forward, CachedForward):
            judge = Judge(self.y, len(ratios), floor, self.metric)
            self._forward.scan(soup, other, ratios, judge)
            return judge.scores()
        return [self.score(mix(soup, other, ratio)) for ratio in ratios]


def _check_classes(y: Tensor) -> None:
    """Refuse labels that accuracy is not defined for."""
    if y.dim() != 1:
        raise ValueError(
            f"'data.y' must hold one class per node, [N], where 'metric' is None (got {['N', *y.shape[1:]]})"
        )
    if y.is_floating_point() or y.dtype == torch.bool:
        raise ValueError(f"'data.y' must hold classes, as integers, where 'metric' is None (got {y.dtype})")
