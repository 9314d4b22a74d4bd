"""Interpolation with one ingredient after another, at the best of a grid of ratios."""

import math
from collections.abc import Sequence

from tqdm import tqdm

from graphsparse.ops.check import check_count, check_real
from graphsparse.soups.evaluation.evaluator import Evaluator
from graphsparse.soups.recipes.ingredients import Ingredients, best_first, one_hot
from graphsparse.soups.recipes.result import SoupResult
from graphsparse.soups.recipes.split import fit_and_accept
from graphsparse.soups.states.states import States, mix
from graphsparse.training.check import check_callable
from graphsparse.typing import Log


def interpolation_soup(
    ingredients: States,
    evaluator: Evaluator,
    *,
    granularity: int = 20,
    split_validation: bool = True,
    min_delta: float = 0.0,
    seed: int = 0,
    progress: bool = False,
    log: Log | None = None,
) -> SoupResult:
    r"""Interpolate from the best ingredient to each other one, and go where the score is highest.

    .. math:: W \leftarrow \alpha W + (1 - \alpha) W_i, \qquad
        \alpha \in \{0, \tfrac{1}{g - 1}, \ldots, \tfrac{g - 2}{g - 1}, 1\}

    Ingredients come from the best to the worst. Ratios are looked at from large to small, and one is taken if its score
    exceeds that of the larger ones and of the soup as it is; ties keep the soup. A ratio of 1 is that soup and not
    evaluated. All ratios of a step go to ``evaluator.scan`` at once, which may share work between them.

    With ``split_validation`` the ratio is found on one half of the judged nodes, and the step is taken only if the
    score on the other half does not fall; by that half ingredients are ranked too, and it gives the scores of the
    result. The best of many ratios on a few hundred nodes is often better by chance alone; the other half tells. It
    costs half the nodes for either question, so that small gains are missed more often.

    The score of the result is never below that of the best ingredient, exactly. ``N + (N - 1)(g - 1)`` evaluations,
    one more for each step that is proposed, and with ``split_validation`` one of the first soup; never more than three
    states in memory.

    Args:
        ingredients: State dicts: a list, or a store that reads them from disk.
        evaluator: Scores them on its nodes.
        granularity: Number of ratios :math:`g`, with 0 and 1.
        split_validation: Whether to find ratios on one half of these nodes and accept them on the other.
        min_delta: By how much a score must exceed the one before; with ``split_validation``, that on the fitting half.
            One standard error of an accuracy :math:`a` of :math:`n` nodes is :math:`\sqrt{a (1 - a) / n}`.
        seed: Of the halves.
        progress: Whether to show a progress bar, of ingredients.
        log: Receives ``ingredient``, ``ratio`` and ``score`` (of the soup after it) for each step.

    Returns:
        The soup. Scores are those of the accepting half; each step of the trace has the ``ingredient``, the best
        ``ratio``, its score on the fitting half as ``fit``, the ``score``, ``None`` where no ratio but 1 was found, and
        whether it was ``accepted``.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If there is no ingredient, one does not fit the model or holds values that are not numbers, or a
            number is out of range.

    Example:
        >>> from torch_geometric.nn import GCN
        >>> from graphsparse.soups.evaluation.evaluator import Evaluator
        >>> from graphsparse.testing import random_graph
        >>> models = [GCN(8, 16, 2, 3) for _ in range(3)]
        >>> soup = interpolation_soup([model.state_dict() for model in models], Evaluator(models[0], random_graph()))
        >>> soup.score >= max(soup.ingredient_scores), round(float(soup.weights.sum()), 6)
        (True, 1.0)

    Source: Jaiswal et al., *Graph Ladling*, arXiv 2306.10466; there ties go to the smallest ratio, and all judged
    nodes choose.
    """
    ratios = _ratios(granularity)
    min_delta = _min_delta(min_delta)
    if log is not None:
        check_callable(log, "log")
    states = Ingredients(ingredients, evaluator)
    fit, accept = fit_and_accept(evaluator, split_validation, seed)
    with tqdm(total=2 * len(states) - 1, disable=not progress, desc="interpolation soup") as bar:
        scores = states.scores(accept, bar.update)
        order = best_first(scores)
        soup = states[order[0]]
        soup = mix(soup, soup, 1.0)  # the result must not share its tensors with an ingredient
        score, weights = scores[order[0]], one_hot(order[0], len(states))
        fit_score = score if fit is accept else fit.score(soup)
        trace = []
        for i in order[1:]:
            other = states[i]
            ratio, fit_found = _best(ratios, fit.scan(soup, other, ratios, fit_score + min_delta), fit_score, min_delta)
            found, accepted = None, False
            if ratio < 1:
                candidate = mix(soup, other, ratio)
                # A scan may be rounded otherwise than a score, and the promise is about the score.
                found = accept.score(candidate)
                accepted = found > score + min_delta if fit is accept else found >= score
                if accepted:
                    soup, score, fit_score = candidate, found, found if fit is accept else fit_found
                    weights = ratio * weights + (1 - ratio) * one_hot(i, len(states))
                del candidate
            del other  # before the next one is read
            trace.append({"ingredient": i, "ratio": ratio, "fit": fit_found, "score": found, "accepted": accepted})
            if log is not None:
                log({"ingredient": i, "ratio": ratio if accepted else 1.0, "score": score})
            bar.set_postfix(score=f"{score:.4f}", best=f"{scores[order[0]]:.4f}", refresh=False)
            bar.update()
    return SoupResult(dict(accept.prepared(soup)), weights, score, scores, trace)


def _ratios(granularity: int) -> list[float]:
    """Return the grid without 1, from large to small."""
    check_count(granularity, "granularity")
    if granularity < 2:
        raise ValueError(f"'granularity' must be at least 2, for the ratios 0 and 1 (got {granularity})")
    return [k / (granularity - 1) for k in range(granularity - 2, -1, -1)]


def _min_delta(min_delta: float) -> float:
    min_delta = check_real(min_delta, "min_delta")
    if not 0 <= min_delta < math.inf:
        raise ValueError(f"'min_delta' must be finite and not negative (got {min_delta!r})")
    return min_delta


def _best(
    ratios: Sequence[float], found: Sequence[float | None], score: float, min_delta: float
) -> tuple[float, float]:
    """Return the ratio to take, 1 if none exceeds the score, and its own score."""
    best = 1.0
    for ratio, value in zip(ratios, found, strict=True):
        if value is not None and value > score + min_delta:
            best, score = ratio, value
    return best, score
