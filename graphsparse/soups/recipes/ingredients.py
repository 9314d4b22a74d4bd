"""Ingredients of a soup, checked once and read one at a time."""

import math
from collections.abc import Callable
from itertools import chain

import torch
from torch import Tensor, nn

from graphsparse.soups.evaluation.evaluator import Evaluator
from graphsparse.soups.states.states import States, check_states
from graphsparse.soups.states.ties import tie, tied_names
from graphsparse.soups.store.store import IngredientStore


class Ingredients:
    """State dicts that fit the model of an evaluator.

    All of them are read once, one after another, to be checked. They are given on the device of the model.

    Args:
        states: A list of state dicts, or a store that reads them from disk when they are asked for.
        evaluator: What scores them.
        name: What they are called in messages.

    Raises:
        TypeError: If an argument has the wrong type, or a state is no dictionary of tensors.
        ValueError: If there is no state, or one does not fit the model, holds values that are not numbers, or has
            different values in tensors that are one in the model; or the store is of another graph.

    Example:
        >>> from torch_geometric.nn import GCN
        >>> from graphsparse.testing import random_graph
        >>> models = [GCN(8, 16, 2, 3) for _ in range(3)]
        >>> len(Ingredients([model.state_dict() for model in models], Evaluator(models[0], random_graph())))
        3
    """

    def __init__(self, states: States, evaluator: Evaluator, name: str = "ingredients") -> None:
        if not callable(getattr(evaluator, "score", None)) or not isinstance(
            getattr(evaluator, "model", None), nn.Module
        ):
            raise TypeError(f"'evaluator' must be an Evaluator (got {type(evaluator).__name__})")
        if isinstance(states, IngredientStore):
            states.check_graph(evaluator.data)
        check_states(states, evaluator.model.state_dict(), name)
        self._states, self._ties = states, tied_names(evaluator.model)
        tensors = chain(evaluator.model.parameters(), evaluator.model.buffers())
        self._device = next((value.device for value in tensors), torch.device("cpu"))
        if self._ties:
            for i in range(len(states)):
                self._check_ties(i)

    def _check_ties(self, index: int) -> None:
        state = self._states[index]
        for name, first in self._ties.items():
            if name in state and first in state and not torch.equal(state[name], state[first]):
                raise ValueError(f"ingredient {index} has different values in {name!r} and {first!r}, one in the model")

    def __len__(self) -> int:
        """Return the number of ingredients."""
        return len(self._states)

    def __getitem__(self, index: int, /) -> dict[str, Tensor]:
        """Return a state dict in which names of one tensor lead to one tensor."""
        state = {name: value.to(self._device) for name, value in self._states[index].items()}
        return tie(state, self._ties)

    def scores(self, evaluator: Evaluator, done: Callable[[], object] = lambda: None) -> list[float]:
        """Return the score of each ingredient.

        Args:
            evaluator: What scores them.
            done: Called after each.

        Raises:
            ValueError: If a score is not a number.
        """
        found = []
        for i in range(len(self)):
            found.append(checked_score(evaluator.score(self[i]), i))
            done()
        return found


def checked_score(score: float, index: int) -> float:
    """Return the score of an ingredient, or refuse one that is not a number.

    Args:
        score: The score.
        index: Number of the ingredient.

    Raises:
        ValueError: If it is not a number.

    Example:
        >>> checked_score(0.5, 3)
        0.5
    """
    if math.isnan(score):
        raise ValueError(f"'evaluator' gives no number for ingredient {index}")
    return score


def best_first(scores: list[float]) -> list[int]:
    """Return indices from the highest score to the lowest; of equal ones the lower index comes first.

    Args:
        scores: Any numbers.

    Example:
        >>> best_first([0.5, 0.7, 0.5])
        [1, 0, 2]
    """
    return sorted(range(len(scores)), key=lambda i: -scores[i])


def one_hot(index: int, num: int) -> Tensor:
    """Return the weights of one ingredient alone, float64 ``[num]``."""
    weights = torch.zeros(num, dtype=torch.float64)
    weights[index] = 1
    return weights
