"""What soups with learned mixing coefficients have in common."""

import math
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Data
from tqdm import tqdm

from graphsparse.nn.accelerate import accelerate
from graphsparse.ops.check import check_count, check_real
from graphsparse.soups.evaluation.evaluator import Evaluator
from graphsparse.soups.evaluation.gradient import inner_products, state_gradient
from graphsparse.soups.recipes.coefficients import Coefficients, SoftmaxCoefficients
from graphsparse.soups.recipes.es2025 import Es2025, Es2025Coefficients
from graphsparse.soups.recipes.ingredients import Ingredients, one_hot
from graphsparse.soups.recipes.result import SoupResult
from graphsparse.soups.recipes.split import fit_and_accept
from graphsparse.soups.states.grouping import Grouping, group_tensors
from graphsparse.soups.states.states import States, combine
from graphsparse.training.check import check_callable
from graphsparse.training.seeding import seeded
from graphsparse.typing import Log


@dataclass(frozen=True)
class Options:
    """What is asked of a learned soup.

    Args:
        groups: Which tensors share their coefficients.
        epochs: Number of steps.
        lr: Learning rate; that of the rule when ``None``.
        rule: How the authors did it, if so.
        eval_every: Steps between two evaluations.
        split_validation: Whether one half of the judged nodes accepts what the other has fitted.
        dropout: Whether dropout is on while coefficients are learned.
        seed: Of everything.
        progress: Whether to show a progress bar.
        log: Receives an entry of the trace for each step.
    """

    groups: str
    epochs: int
    lr: float | None
    rule: Es2025 | None
    eval_every: int
    split_validation: bool
    dropout: bool
    seed: int
    progress: bool
    log: Log | None

    def __post_init__(self) -> None:
        """Check what can be checked without the ingredients."""
        check_count(self.epochs, "epochs")
        check_count(self.eval_every, "eval_every")
        if self.lr is not None and not 0 < check_real(self.lr, "lr") < math.inf:
            raise ValueError(f"'lr' must be positive and finite (got {self.lr!r})")
        if self.rule is not None and self.groups != "tensor":
            raise ValueError(f"'groups' must be 'tensor' with 'compat' (got {self.groups!r})")
        if not isinstance(self.dropout, bool):
            raise TypeError(f"'dropout' must be True or False, not a rate (got {self.dropout!r})")
        if self.log is not None:
            check_callable(self.log, "log")


@dataclass
class _Best:
    """The best soup so far: its weights only, from which it is built again at the end."""

    weights: Tensor | Mapping[str, Tensor]
    score: float


@dataclass
class Learning:
    """Learns mixing coefficients step by step.

    Args:
        states: State dicts.
        evaluator: Scores them on its nodes.
        options: What is asked.
    """

    states: States
    evaluator: Evaluator
    options: Options
    ingredients: Ingredients = field(init=False)
    fit: Evaluator = field(init=False)
    accept: Evaluator = field(init=False)
    grouping: Grouping = field(init=False)
    model: nn.Module = field(init=False)

    def __post_init__(self) -> None:
        """Check the ingredients, and cut the judged nodes into halves."""
        options = self.options
        self.ingredients = Ingredients(self.states, self.evaluator)
        split = options.split_validation and options.rule is None
        self.fit, self.accept = fit_and_accept(self.evaluator, split, options.seed)
        self.grouping = group_tensors(self.evaluator.model, options.groups)
        with warnings.catch_warnings():
            # Layers that are not exchanged work too: nothing for a user to do.
            warnings.filterwarnings("ignore", r"accelerate\(\) left", UserWarning)
            self.model = accelerate(self.evaluator.model)

    def run(self, batches: Iterable[tuple[Data, float]]) -> SoupResult:
        """Take a step on each batch.

        Args:
            batches: Endless graphs with ``y`` and ``mask``, and the weight of the loss of each.
        """
        with seeded(self.options.seed):
            return self._learn(batches)

    def _learn(self, batches: Iterable[tuple[Data, float]]) -> SoupResult:
        options, num = self.options, len(self.ingredients)
        scores = self.ingredients.scores(self.accept)
        coefficients = self._coefficients()
        uniform = torch.full((num,), 1 / num, dtype=torch.float64)
        state = combine(self.ingredients, self._weights(coefficients) if options.rule else uniform)
        best = self._floor(scores, state, uniform)
        trace: list[dict[str, Any]] = [{"epoch": 0, "score": best.score}]
        with tqdm(range(1, options.epochs + 1), disable=not options.progress, desc="learned soup") as bar:
            for epoch, (data, weight) in zip(bar, batches, strict=False):
                loss, gradient = state_gradient(
                    self.model,
                    self.fit.prepared(state),
                    list(self.grouping.trained),
                    data,
                    weight=weight,
                    scale=coefficients.scale,
                    dropout=options.dropout,
                    call=self.fit.call,
                )
                del state  # two states are enough: the gradient, and the ingredient that is read
                coefficients.step(inner_products(self.ingredients, gradient, self.grouping))
                del gradient
                weights = self._weights(coefficients)
                state = combine(self.ingredients, weights)
                entry = {"epoch": epoch, "loss": loss}
                if epoch == options.epochs or (epoch % options.eval_every == 0 and options.rule is None):
                    entry["score"] = self.accept.score(state)
                    if entry["score"] > best.score or options.rule is not None:
                        best = _Best(weights, entry["score"])
                    bar.set_postfix(loss=f"{loss:.3f}", best=f"{best.score:.4f}", refresh=False)
                trace.append(entry)
                if options.log is not None:
                    options.log({**entry})
        del state
        state = combine(self.ingredients, best.weights)
        return SoupResult(dict(self.accept.prepared(state)), best.weights, best.score, scores, trace)

    def _coefficients(self) -> Coefficients:
        options, size = self.options, (self.grouping.count, len(self.ingredients))
        if options.rule is not None:
            lr = 10.0 if options.lr is None else options.lr
            return Es2025Coefficients(*size, lr, options.rule, options.seed)
        return SoftmaxCoefficients(*size, 0.1 if options.lr is None else options.lr, options.epochs)

    def _weights(self, coefficients: Coefficients) -> Tensor | Mapping[str, Tensor]:
        shares = coefficients.shares()
        return shares[0] if self.options.groups == "global" else self.grouping.weights(shares)

    def _floor(self, scores: list[float], state: dict[str, Tensor], uniform: Tensor) -> _Best:
        """Return the best of the uniform soup and all ingredients; of equal ones the soup, then the first."""
        best = _Best(uniform, self.accept.score(state))
        for i, score in enumerate(scores):
            if not best.score >= score:
                best = _Best(one_hot(i, len(scores)), score)
        return best
