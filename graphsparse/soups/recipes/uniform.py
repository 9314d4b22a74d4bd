"""The plain mean of all ingredients."""

import torch

from graphsparse.soups.evaluation.evaluator import Evaluator
from graphsparse.soups.recipes.ingredients import Ingredients
from graphsparse.soups.recipes.result import SoupResult
from graphsparse.soups.states.states import States, combine


def uniform_soup(ingredients: States, evaluator: Evaluator) -> SoupResult:
    r"""Average all ingredients with equal weights.

    .. math:: W = \frac{1}{N} \sum_{i=1}^{N} W_i

    Nothing is chosen, so the evaluator only reports, and nothing promises that the mean is as good as an ingredient. It
    is where all started from the same weights; of networks that did not, the mean is often far worse than each.

    Ingredients are read one at a time, ``N + 1`` evaluations are made.

    Args:
        ingredients: State dicts: a list, or a store that reads them from disk.
        evaluator: Scores them on its nodes; see :class:`~graphsparse.soups.Evaluator`.

    Returns:
        The soup; of its integer buffers and the like those of the first ingredient.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If there is no ingredient, or one does not fit the model or holds values that are not numbers.

    Example:
        >>> from torch_geometric.nn import GCN
        >>> from graphsparse.soups.evaluation.evaluator import Evaluator
        >>> from graphsparse.testing import random_graph
        >>> models = [GCN(8, 16, 2, 3) for _ in range(3)]
        >>> soup = uniform_soup([model.state_dict() for model in models], Evaluator(models[0], random_graph()))
        >>> _ = models[0].load_state_dict(soup.state_dict)

    Source: Wortsman et al., *Model soups*, arXiv 2203.05482; for graphs: Jaiswal et al., *Graph Ladling*, arXiv
    2306.10466.
    """
    states = Ingredients(ingredients, evaluator)
    scores = states.scores(evaluator)
    weights = torch.full((len(states),), 1 / len(states), dtype=torch.float64)
    soup = combine(states, weights)
    return SoupResult(dict(evaluator.prepared(soup)), weights, evaluator.score(soup), scores)
