"""The mean of those ingredients that help."""

import torch

from graphsparse.soups.evaluation.evaluator import Evaluator
from graphsparse.soups.recipes.ingredients import Ingredients, best_first
from graphsparse.soups.recipes.result import SoupResult
from graphsparse.soups.recipes.split import fit_and_accept
from graphsparse.soups.states.states import States, mix


def greedy_soup(
    ingredients: States, evaluator: Evaluator, *, split_validation: bool = True, seed: int = 0
) -> SoupResult:
    r"""Add ingredients to a mean one by one, from the best to the worst, and keep those that help.

    .. math:: W' = \frac{k W + W_i}{k + 1}

    Such a mean is taken if its score is higher than that of the mean before. With ``split_validation`` the two halves
    of the judged nodes must agree: the score must rise on one and not fall on the other, by which ingredients are also
    ranked and which gives the scores of the result. This guards against what looks better on a few hundred nodes by
    chance. It costs half the nodes for either question, so that small gains are missed more often.

    The score of the result is never below that of the best ingredient, exactly. ``2 N - 1`` evaluations, with halves up
    to ``3 N - 1``; never more than three states in memory.

    Args:
        ingredients: State dicts: a list, or a store that reads them from disk.
        evaluator: Scores them on its nodes.
        split_validation: Whether to propose by one half of these nodes and accept by the other.
        seed: Of the halves.

    Returns:
        The soup. Scores are those of the accepting half; each step of the trace has the ``ingredient``, the score on
        the fitting half as ``fit``, the ``score``, ``None`` where it was not asked for, and whether the ingredient was
        ``accepted``.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If there is no ingredient, or one does not fit the model or holds values that are not numbers.

    Example:
        >>> from torch_geometric.nn import GCN
        >>> from graphsparse.soups.evaluation.evaluator import Evaluator
        >>> from graphsparse.testing import random_graph
        >>> models = [GCN(8, 16, 2, 3) for _ in range(3)]
        >>> soup = greedy_soup([model.state_dict() for model in models], Evaluator(models[0], random_graph()))
        >>> soup.score >= max(soup.ingredient_scores)
        True

    Source: Wortsman et al., *Model soups*, arXiv 2203.05482, Recipe 1.
    """
    states = Ingredients(ingredients, evaluator)
    fit, accept = fit_and_accept(evaluator, split_validation, seed)
    scores = states.scores(accept)
    order = best_first(scores)
    # Mixing with nothing copies: the result must not share its tensors with an ingredient.
    soup = states[order[0]]
    soup = mix(soup, soup, 1.0)
    score, members = scores[order[0]], [order[0]]
    fit_score = score if fit is accept else fit.score(soup)
    trace = []
    for i in order[1:]:
        candidate = mix(soup, states[i], len(members) / (len(members) + 1))
        fit_found = fit.score(candidate)
        found: float | None = fit_found if fit is accept else None
        if fit is not accept and fit_found > fit_score:
            found = accept.score(candidate)
        accepted = fit_found > fit_score and found is not None and found >= score
        trace.append({"ingredient": i, "fit": fit_found, "score": found, "accepted": accepted})
        if accepted and found is not None:
            soup, score, fit_score = candidate, found, fit_found
            members.append(i)
        del candidate  # before the next ingredient is read
    weights = torch.zeros(len(states), dtype=torch.float64)
    weights[members] = 1 / len(members)
    return SoupResult(dict(accept.prepared(soup)), weights, score, scores, trace)
