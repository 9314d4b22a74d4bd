"""What a soup is."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


@dataclass(frozen=True, eq=False)
class SoupResult:
    """One model made of several, of the same size as each of them.

    Args:
        state_dict: Weights and buffers; ``model.load_state_dict(result.state_dict)`` gives the model. Running
            statistics are those that the evaluator scored it with.
        weights: Share of every ingredient, ``[N]``, not negative and with sum 1; where tensors are mixed in different
            ways, one such vector for each floating tensor by its name. :func:`~graphsparse.soups.states.states.combine`
            builds the state from them, up to rounding and to statistics that were estimated anew. ``None`` where a soup
            is no weighted sum, because it was pruned in between.
        score: Metric of the soup on the nodes that decided whether to accept it.
        ingredient_scores: The same metric of every ingredient.
        trace: What was tried, one entry for each step.

    Example:
        >>> from torch_geometric.nn import GCN
        >>> from graphsparse.soups import Evaluator, uniform_soup
        >>> from graphsparse.testing import random_graph
        >>> model = GCN(8, 16, 2, 3)
        >>> soup = uniform_soup([model.state_dict()] * 2, Evaluator(model, random_graph()))
        >>> model.load_state_dict(soup.state_dict), soup.weights
        (<All keys matched successfully>, tensor([0.5000, 0.5000], dtype=torch.float64))
    """

    state_dict: dict[str, Tensor]
    weights: Tensor | Mapping[str, Tensor] | None
    score: float
    ingredient_scores: list[float]
    trace: list[dict[str, Any]] = field(default_factory=list)
