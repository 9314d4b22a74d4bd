"""Soups without training: averages of states, and the ensemble of all of them."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from graphsparse.ops.check import check_count
from graphsparse.soups.evaluation.evaluator import Evaluator
from graphsparse.soups.recipes.soup import Acceptance, Ingredients, checked_logits, checked_score, soup
from graphsparse.soups.states import States, mix

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
        ValueError: If ``mean`` is unknown, there is no ingredient, one does not fit the model or holds values or gives
            logits that are not numbers, or outputs are numbers to be met and no logits of which ``probabilities`` are.

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
    y = evaluator.y
    if mean == "probabilities" and y.is_floating_point() and bool(((y != 0) & (y != 1) & ~y.isnan()).any()):
        raise ValueError("'mean' cannot be 'probabilities' for labels that are neither classes nor 0, 1 or NaN")
    total: Tensor | None = None
    scores = []
    for i in range(len(states)):
        logits = checked_logits(evaluator.logits(states[i]), i)
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


@soup(name="uniform", source="Wortsman et al., arXiv 2203.05482; for graphs: Jaiswal et al., arXiv 2306.10466")
def uniform_soup(ingredients: Ingredients, acceptance: Acceptance) -> None:
    r"""Average all ingredients with equal weights.

    .. math:: W = \frac{1}{N} \sum_{i=1}^{N} W_i

    Nothing is chosen, and nothing promises that the mean is as good as an ingredient. It is where all started from the
    same weights; of networks that did not, the mean is often far worse than each.

    Args:
        ingredients: State dicts: a list, or a store that reads them from disk.
        evaluator: Scores them on its nodes; further keywords are those of every :func:`~graphsparse.soups.soup`.

    Returns:
        The soup; of its integer buffers and the like those of the first ingredient.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If there is no ingredient, or one does not fit the model or holds values that are not numbers.

    Example:
        >>> from torch_geometric.nn import GCN
        >>> from graphsparse.soups import Evaluator
        >>> from graphsparse.testing import random_graph
        >>> models = [GCN(8, 16, 2, 3) for _ in range(3)]
        >>> found = uniform_soup([model.state_dict() for model in models], Evaluator(models[0], random_graph()))
        >>> _ = models[0].load_state_dict(found.state_dict)

    Source: Wortsman et al., *Model soups*, arXiv 2203.05482; for graphs: Jaiswal et al., *Graph Ladling*, arXiv
    2306.10466.
    """
    num = len(ingredients)
    acceptance.take(ingredients.combine(torch.full((num,), 1 / num, dtype=torch.float64)))


@soup(name="greedy", source="Wortsman et al., arXiv 2203.05482, Recipe 1")
def greedy_soup(ingredients: Ingredients, acceptance: Acceptance) -> None:
    r"""Add ingredients to a mean one by one, from the best to the worst, and keep those that help.

    .. math:: W' = \frac{k W + W_i}{k + 1}

    The score of the result is never below that of the best ingredient, exactly. ``2 N - 1`` evaluations, with halves up
    to ``3 N - 1``; never more than three states in memory.

    Args:
        ingredients: State dicts: a list, or a store that reads them from disk.
        evaluator: Scores them on its nodes; further keywords are those of every :func:`~graphsparse.soups.soup`.

    Returns:
        The soup. Each step of the trace has the ``ingredient``, the score of the mean with it as ``fit`` on the
        proposing and as ``val`` on the accepting nodes, ``None`` where these were not asked, and whether it was
        ``accepted``.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If there is no ingredient, or one does not fit the model or holds values that are not numbers.

    Example:
        >>> from torch_geometric.nn import GCN
        >>> from graphsparse.soups import Evaluator
        >>> from graphsparse.testing import random_graph
        >>> models = [GCN(8, 16, 2, 3) for _ in range(3)]
        >>> found = greedy_soup([model.state_dict() for model in models], Evaluator(models[0], random_graph()))
        >>> found.val >= max(found.ingredient_vals)
        True

    Source: Wortsman et al., *Model soups*, arXiv 2203.05482, Recipe 1.
    """
    members = 1
    for i in acceptance.steps(acceptance.order[1:]):
        ratio = members / (members + 1)
        members += acceptance.offer(mix(acceptance.soup, ingredients[i], ratio), ingredient=i)


@soup(name="interpolation", source="Jaiswal et al., arXiv 2306.10466")
def interpolation_soup(ingredients: Ingredients, acceptance: Acceptance, *, granularity: int = 20) -> None:
    r"""Interpolate from the best ingredient to each other one, and go where the score is highest.

    .. math:: W \leftarrow \alpha W + (1 - \alpha) W_i, \qquad
        \alpha \in \{0, \tfrac{1}{g - 1}, \ldots, \tfrac{g - 2}{g - 1}, 1\}

    Ingredients come from the best to the worst. Ratios are looked at from large to small, and the best one on the
    proposing nodes is offered if it exceeds the soup there; ties keep the soup. A ratio of 1 is that soup and not
    evaluated. All ratios of a step go to ``evaluator.scan`` at once, which may share work between them.

    The score of the result is never below that of the best ingredient, exactly. ``N + (N - 1)(g - 1)`` evaluations,
    one more for each step that is proposed, and with halves one of the first soup; never more than three states in
    memory.

    Args:
        ingredients: State dicts: a list, or a store that reads them from disk.
        evaluator: Scores them on its nodes; further keywords are those of every :func:`~graphsparse.soups.soup`.
        granularity: Number of ratios :math:`g`, with 0 and 1.

    Returns:
        The soup. Each step of the trace has the ``ingredient``, the best ``ratio``, its score as ``fit`` on the
        proposing and as ``val`` on the accepting nodes, ``None`` where these were not asked, and whether it was
        ``accepted``.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If there is no ingredient, one does not fit the model or holds values that are not numbers, or
            ``granularity`` is below 2.

    Example:
        >>> from torch_geometric.nn import GCN
        >>> from graphsparse.soups import Evaluator
        >>> from graphsparse.testing import random_graph
        >>> models = [GCN(8, 16, 2, 3) for _ in range(3)]
        >>> found = interpolation_soup([model.state_dict() for model in models], Evaluator(models[0], random_graph()))
        >>> found.val >= max(found.ingredient_vals), float(found.weights.sum())
        (True, 1.0)

    Source: Jaiswal et al., *Graph Ladling*, arXiv 2306.10466; there ties go to the smallest ratio, and all judged
    nodes choose.
    """
    check_count(granularity, "granularity", least=2)
    ratios = [k / (granularity - 1) for k in range(granularity - 2, -1, -1)]
    for i in acceptance.steps(acceptance.order[1:]):
        other = ingredients[i]
        best, fit = 1.0, acceptance.fit_val
        vals = acceptance.fit.scan(acceptance.soup, other, ratios, fit)
        for ratio, val in zip(ratios, vals, strict=True):
            if val is not None and val > fit:
                best, fit = ratio, val
        acceptance.offer(mix(acceptance.soup, other, best), fit=fit, ingredient=i, ratio=best)
