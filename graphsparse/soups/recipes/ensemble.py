"""The ensemble of all ingredients: what a soup is measured against, at N times its cost."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from graphsparse.soups.evaluation.evaluator import Evaluator
from graphsparse.soups.recipes.soup import Ingredients, checked_score
from graphsparse.soups.states import States

MEANS = ("logits", "probabilities")


@dataclass(frozen=True, eq=False)
class EnsembleResult:
    """What an ensemble found.

    Args:
        logits: Mean logits, or the logits of mean probabilities, of the judged nodes, ``[n, C]``.
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


@torch.no_grad()
def ensemble(ingredients: States, evaluator: Evaluator, *, mean: str = "logits") -> EnsembleResult:
    r"""Average what all ingredients say about each judged node, a reference that costs :math:`N` models to use.

    .. math:: \frac{1}{N} \sum_i Z_i \qquad\text{or}\qquad \log \frac{1}{N} \sum_i \operatorname{softmax}(Z_i)

    Where nodes have several labels ``[N, T]``, or there is one logit for two classes, probabilities are sigmoids, and
    the result is the logit of their mean. Ingredients are read and run one at a time.

    Args:
        ingredients: State dicts: a list, or a store that reads them from disk.
        evaluator: Runs them on its nodes.
        mean: ``logits`` for the mean of logits, the usual reference of soups; ``probabilities`` for that of
            probabilities, of which one confident ingredient can decide less.

    Returns:
        Logits and score of the ensemble.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If ``mean`` is unknown, there is no ingredient, or one does not fit the model or holds values that
            are not numbers.

    Example:
        >>> from torch_geometric.nn import GCN
        >>> from graphsparse.soups import Evaluator
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
        wide = logits.double() if mean == "logits" else _log_probabilities(logits.double(), evaluator.y)
        add = torch.add if mean == "logits" else torch.logaddexp
        total = wide if total is None else add(total, wide)
    assert total is not None  # there is at least one
    if mean == "logits":
        total = total / len(states)
    elif total.dim() == 3:
        total = total[0] - total[1]
    else:
        total = total - math.log(len(states))
    logits = total.to(logits.dtype)
    return EnsembleResult(logits, evaluator.score_logits(logits), scores)


def _log_probabilities(logits: Tensor, y: Tensor) -> Tensor:
    """Return logarithms of the probabilities of classes, or of yes and no, ``[2, n, T]``."""
    if y.dim() == 2 or logits.size(1) == 1:
        return torch.stack([F.logsigmoid(logits), F.logsigmoid(-logits)])
    return logits.log_softmax(dim=1)
