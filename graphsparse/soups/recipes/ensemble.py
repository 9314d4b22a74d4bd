"""The ensemble of all ingredients: what a soup is measured against, at N times its cost."""

from dataclasses import dataclass

import torch
from torch import Tensor

from graphsparse.soups.evaluation.evaluator import Evaluator
from graphsparse.soups.recipes.ingredients import Ingredients, checked_score
from graphsparse.soups.states.states import States

MEANS = ("logits", "probabilities")


@dataclass(frozen=True, eq=False)
class EnsembleResult:
    """What an ensemble found.

    Args:
        logits: Mean logits, or the logarithm of mean probabilities, of the judged nodes, ``[n, C]``.
        score: Metric of the ensemble on these nodes.
        ingredient_scores: The same metric of every ingredient.

    Example:
        >>> from torch_geometric.nn import GCN
        >>> from graphsparse.soups import Evaluator
        >>> from graphsparse.testing import random_graph
        >>> model, data = GCN(8, 16, 2, 3), random_graph()
        >>> found = ensemble([model.state_dict()] * 2, Evaluator(model, data))
        >>> found.logits.shape == (int(data.val_mask.sum()), 3), found.score == found.ingredient_scores[0]
        (True, True)
    """

    logits: Tensor
    score: float
    ingredient_scores: list[float]


def ensemble(ingredients: States, evaluator: Evaluator, *, mean: str = "logits") -> EnsembleResult:
    r"""Average what all ingredients say about each judged node, a reference that costs :math:`N` models to use.

    .. math:: \frac{1}{N} \sum_i Z_i \qquad\text{or}\qquad \log \frac{1}{N} \sum_i \operatorname{softmax}(Z_i)

    Ingredients are read and run one at a time.

    Args:
        ingredients: State dicts: a list, or a store that reads them from disk.
        evaluator: Runs them on its nodes.
        mean: ``logits`` for the mean of logits, the usual reference of soups; ``probabilities`` for that of softmax
            outputs, of which one confident ingredient can decide less.

    Returns:
        Logits and score of the ensemble.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If ``mean`` is unknown, there is no ingredient, or one does not fit the model or holds values that
            are not numbers.

    Example:
        >>> from torch_geometric.nn import GCN
        >>> from graphsparse.soups.evaluation.evaluator import Evaluator
        >>> from graphsparse.testing import random_graph
        >>> models = [GCN(8, 16, 2, 3) for _ in range(3)]
        >>> found = ensemble([model.state_dict() for model in models], Evaluator(models[0], random_graph()))
        >>> found.logits.shape
        torch.Size([20, 3])

    Source: Wortsman et al., *Model soups*, arXiv 2203.05482, who average logits.
    """
    if mean not in MEANS:
        raise ValueError(f"'mean' must be one of {MEANS} (got {mean!r})")
    states = Ingredients(ingredients, evaluator)
    total: Tensor | None = None
    scores = []
    for i in range(len(states)):
        logits = evaluator.logits(states[i])
        scores.append(checked_score(evaluator.score_logits(logits), i))
        wide = logits.to(torch.float64)
        wide = wide.softmax(dim=1) if mean == "probabilities" else wide
        total = wide if total is None else total.add_(wide)
    assert total is not None  # there is at least one
    total /= len(states)
    logits = (total.log() if mean == "probabilities" else total).to(logits.dtype)
    return EnsembleResult(logits, evaluator.score_logits(logits), scores)
