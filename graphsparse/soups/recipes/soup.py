"""What every soup is made with: checked ingredients, the acceptance of candidates, and the registry of all soups."""

import functools
import inspect
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from typing import Any, Protocol, TypeVar, cast

import torch
from torch import Tensor, nn
from tqdm import tqdm

from graphsparse.ops import constant
from graphsparse.soups.evaluation.evaluator import Evaluator
from graphsparse.soups.states import (
    Mixture,
    State,
    States,
    Weights,
    check_states,
    check_weights,
    floating,
    mix,
    tie,
    tied_names,
    weighted_sum,
)
from graphsparse.training.check import check_callable
from graphsparse.typing import Log
from graphsparse.utils.counter_random import check_seed

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class SoupResult:
    """One model made of several, of the same size as each of them.

    Args:
        state_dict: Weights and buffers; ``model.load_state_dict(result.state_dict)`` gives the model. Running
            statistics are those that the evaluator scored it with.
        weights: Share of every ingredient, ``[N]``, not negative and with sum 1 but in some merges; where tensors are
            mixed in different ways, one such vector for each floating tensor by its name.
            :func:`~graphsparse.soups.combine` builds the state from them, up to rounding and to statistics that were
            estimated anew. ``None`` where a soup is no weighted sum.
        val: Metric of the soup on the nodes that decided whether to accept it; ``None`` where none was asked.
        ingredient_vals: The same metric of every ingredient.
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
    weights: Weights | None
    val: float | None
    ingredient_vals: list[float]
    trace: list[dict[str, Any]] = field(default_factory=list)


class Ingredients:
    """State dicts that fit the model of an evaluator: checked once, read one at a time, given on the model's device.

    Each knows that it is this ingredient and no other, so that what :func:`~graphsparse.soups.mix` makes of two of
    them knows the shares of both.

    Args:
        states: A list of state dicts, or a store that reads them from disk when they are asked for.
        evaluator: Scores them.
    """

    def __init__(self, states: States, evaluator: Evaluator) -> None:
        model = getattr(evaluator, "model", None)
        if not callable(getattr(evaluator, "score", None)) or not isinstance(model, nn.Module):
            raise TypeError(f"'evaluator' must be an Evaluator (got {type(evaluator).__name__})")
        if callable(check_graph := getattr(states, "check_graph", None)):  # a store knows its graph
            check_graph(evaluator.data)
        check_states(states, model.state_dict())
        self._names = floating(model.state_dict())
        self._states, self._ties = states, tied_names(model)
        tensors = chain(model.parameters(), model.buffers())
        self._device = next((value.device for value in tensors), torch.device("cpu"))
        for i in range(len(states) if self._ties else 0):
            self._check_ties(i)

    def _check_ties(self, index: int) -> None:
        state = self._states[index]
        for name, first in self._ties.items():
            if name in state and first in state and not torch.equal(state[name], state[first]):
                raise ValueError(f"ingredient {index} has different values in {name!r} and {first!r}, one in the model")

    def __len__(self) -> int:
        """Return the number of ingredients."""
        return len(self._states)

    def __getitem__(self, index: int, /) -> Mixture:
        """Return an ingredient, in which all names of one tensor lead to one tensor."""
        state = {name: value.to(self._device) for name, value in self._states[index].items()}
        weights = torch.zeros(len(self), dtype=torch.float64)
        weights[index] = 1
        return Mixture(tie(state, self._ties), weights)

    def combine(self, weights: Weights) -> Mixture:
        """Return the weighted sum of all, with weights as those of :func:`~graphsparse.soups.combine`."""
        check_weights(weights, self._names, len(self))
        return Mixture(weighted_sum(self, weights), weights)


def checked_score(score: float, index: int) -> float:
    """Return the score of an ingredient, or refuse one that is not a number."""
    if math.isnan(score):
        raise ValueError(f"'evaluator' gives no number for ingredient {index}")
    return score


def checked_logits(logits: Tensor, index: int) -> Tensor:
    """Return the logits of an ingredient, or refuse such as are not numbers."""
    if bool(logits.isnan().any()):
        raise ValueError(f"ingredient {index} gives logits that are not numbers")
    return logits


class Acceptance:
    """Takes or refuses candidates for a soup by their scores, so that it gets better with each that is taken.

    The soup is the best ingredient at first. With halves of the judged nodes both must agree to a candidate: its score
    must rise on one, :attr:`fit`, and not fall on the other, :attr:`judge`, by which ingredients are ranked too and
    which gives the scores of the result. Without, it must rise on all of them. So the score of the soup is never below
    that of the best ingredient, exactly.

    Args:
        ingredients: What the soup is made of.
        evaluator: Scores candidates on its nodes.
        split_validation: Whether to propose by one half of these nodes and accept by the other.
        seed: Of the halves; also for what a recipe draws.
        name: Of the soup, for the progress bar.
        progress: Whether to show a progress bar.
        log: Receives the entries of the trace one by one.
    """

    def __init__(
        self,
        ingredients: Ingredients,
        evaluator: Evaluator,
        *,
        split_validation: bool = True,
        seed: int = 0,
        name: str = "",
        progress: bool = False,
        log: Log | None = None,
    ) -> None:
        if not isinstance(split_validation, bool):
            raise TypeError(f"'split_validation' must be True or False (got {split_validation!r})")
        if log is not None:
            check_callable(log, "log")
        self.seed = check_seed(seed)
        #: Evaluators of the nodes that propose and of those that accept.
        self.fit, self.judge = evaluator.halves(self.seed) if split_validation else (evaluator, evaluator)
        self.trace: list[dict[str, Any]] = []
        self._ingredients, self._name, self._progress, self._log = ingredients, name, progress, log
        self._soup: State | None = None
        self._sum: Weights | None = None
        self._val: float | None = None
        self._fit_val: float | None = None

    @cached_property
    def vals(self) -> list[float]:
        """Score of every ingredient on the accepting nodes."""
        states = self._ingredients
        return [checked_score(self.judge.score(states[i]), i) for i in range(len(states))]

    @cached_property
    def order(self) -> list[int]:
        """Numbers of the ingredients from the best to the worst; of equal ones the first comes first."""
        return sorted(range(len(self.vals)), key=lambda i: -self.vals[i])

    @property
    def soup(self) -> State:
        """What was taken last."""
        if self._soup is None:
            of = self._ingredients
            self._soup = of[self.order[0]] if self._sum is None else of.combine(self._sum)
        return self._soup

    @property
    def val(self) -> float:
        """Score of the soup on the accepting nodes."""
        return self.vals[self.order[0]] if self._val is None else self._val

    @property
    def fit_val(self) -> float:
        """Score of the soup on the proposing nodes."""
        if self.fit is self.judge:
            return self.val
        if self._fit_val is None:
            self._fit_val = self.fit.score(self.soup)
        return self._fit_val

    def offer(self, candidate: State, *, fit: float | None = None, **entry: Any) -> bool:
        """Take a candidate if it is better than the soup, and say whether it was taken.

        Args:
            candidate: State dict.
            fit: Its score on the proposing nodes, where it is known.
            entry: What the trace tells of it besides ``fit``, ``val``, which is ``None`` where the accepting nodes were
                not asked, and ``accepted``.
        """
        whole, val = self.fit is self.judge, None
        found = self.fit.score(candidate) if fit is None else fit
        if found > self.fit_val:
            # A known score may be rounded otherwise, as that of a scan, and the promise is about a score.
            val = found if whole and fit is None else self.judge.score(candidate)
        accepted = val is not None and (val > self.val if whole else val >= self.val)
        if accepted:
            self.take(candidate, val=val, fit=found)
        self.note(**entry, fit=found, val=val, accepted=accepted)
        return accepted

    def take(self, candidate: State, *, val: float | None = None, fit: float | None = None, keep: bool = True) -> None:
        """Take a candidate, for better or worse.

        Args:
            candidate: State dict.
            val: Its score on the accepting nodes, where it is known.
            fit: That on the proposing nodes.
            keep: Whether to keep the state in memory; else, of what ``ingredients.combine`` has made, only the weights,
                from which it is built again.
        """
        self._val = self.judge.score(candidate) if val is None else val
        self._fit_val = fit
        self._sum = None if keep else cast(Mixture, candidate).weights
        self._soup = candidate if keep else None

    def note(self, **entry: Any) -> None:
        """Add an entry to the trace."""
        self.trace.append(entry)
        if self._log is not None:
            self._log({**entry})

    def steps(self, items: Iterable[T]) -> Iterator[T]:
        """Yield some items, with a progress bar if one was asked for."""
        yield from tqdm(items, disable=not self._progress, desc=f"{self._name} soup")

    def result(self) -> SoupResult:
        """Return the soup; it shares no memory with an ingredient."""
        val, soup = self.val, self.soup
        weights = soup.weights if isinstance(soup, Mixture) else None
        soup = self.judge.prepared(soup)
        return SoupResult(dict(mix(soup, soup, 1.0)), weights, val, self.vals, self.trace)


class Soup(Protocol):
    """What :func:`soup` makes of a recipe."""

    name: str
    source: str

    def __call__(
        self,
        ingredients: States,
        evaluator: Evaluator,
        *,
        split_validation: bool = True,
        seed: int = 0,
        progress: bool = False,
        log: Log | None = None,
        **options: Any,
    ) -> SoupResult:
        """Make a soup of ingredients."""
        ...


#: All soups by name.
SOUPS: dict[str, Soup] = {}


def soup(name: str, source: str = "") -> Callable[[Callable[..., None]], Soup]:
    """Make a soup of a recipe, and register it in ``SOUPS``.

    A recipe ``recipe(ingredients, acceptance, *, ...)`` reads ingredients and offers candidates. All else is done for
    it: arguments and ingredients are checked, validation nodes are cut into halves, scores are asked for, what was
    tried is noted, and what was taken becomes a :class:`SoupResult`. Besides the ingredients, the evaluator and the
    options of the recipe, the soup takes as keywords

    * ``split_validation`` (``True``): whether both halves of the judged nodes must agree to a candidate, see
      :class:`Acceptance`. This guards against what looks better on a few hundred nodes by chance, and costs half the
      nodes for either question, so that small gains are missed more often;
    * ``seed`` (0): of the halves and of what the recipe draws;
    * ``progress`` (``False``): whether to show a progress bar;
    * ``log``: a function that receives the entries of the trace one by one.

    Args:
        name: Name of the soup; a soup that has it already is replaced.
        source: Where it was published.

    Returns:
        A decorator of recipes, functions with the parameters ``(ingredients, acceptance, *, ...)``.

    Raises:
        TypeError: If a recipe has other parameters.

    Example:
        >>> from torch_geometric.nn import GCN
        >>> from graphsparse.soups import SOUPS, Evaluator, mix
        >>> from graphsparse.testing import random_graph
        >>> @soup(name="halfway")
        ... def halfway_soup(ingredients, acceptance):
        ...     for i in acceptance.order[1:]:
        ...         acceptance.offer(mix(acceptance.soup, ingredients[i], 0.5), ingredient=i)
        >>> models = [GCN(8, 16, 2, 3) for _ in range(3)]
        >>> found = halfway_soup([model.state_dict() for model in models], Evaluator(models[0], random_graph()))
        >>> found.val >= max(found.ingredient_vals)
        True
        >>> del SOUPS["halfway"]
    """

    def register(recipe: Callable[..., None]) -> Soup:
        given = inspect.signature(recipe)
        options = list(given.parameters.values())[2:]
        if len(given.parameters) < 2 or any(option.kind is not option.KEYWORD_ONLY for option in options):
            raise TypeError(f"a recipe must have the parameters (ingredients, acceptance, *, ...) (got {given})")

        def make(
            ingredients: States,
            evaluator: Evaluator,
            *,
            split_validation: bool = True,
            seed: int = 0,
            progress: bool = False,
            log: Log | None = None,
            **options: Any,
        ) -> SoupResult:
            given.bind(None, None, **options)  # a wrong name must not be told after an hour of work
            states = Ingredients(ingredients, evaluator)
            common = {"split_validation": split_validation, "seed": seed, "progress": progress, "log": log}
            acceptance = Acceptance(states, evaluator, name=name, **common)  # type: ignore[arg-type]
            with constant(getattr(evaluator, "data", None)):
                recipe(states, acceptance, **options)
                return acceptance.result()

        common = list(inspect.signature(make).parameters.values())[:-1]
        made = cast(Any, functools.update_wrapper(make, recipe))
        made.name, made.source = name, source
        made.__signature__ = inspect.Signature([*common[:2], *options, *common[2:]], return_annotation=SoupResult)
        SOUPS[name] = made
        return cast(Soup, made)

    return register
