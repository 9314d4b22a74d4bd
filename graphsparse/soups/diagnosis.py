"""Look at ingredients before they are mixed: which of them belong together."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from graphsparse.plotting import plot_matrix_and_bars
from graphsparse.soups.evaluation.evaluator import Evaluator
from graphsparse.soups.recipes.learned import node_loss
from graphsparse.soups.recipes.soup import Ingredients, checked_logits, checked_score
from graphsparse.soups.states import State, States, mix

#: Barrier, in nats, above which two ingredients count as lying in different basins; see :func:`diagnose`.
BARRIER = 0.1
#: Angle, in degrees, above which two ingredients count as started from different weights; see :func:`diagnose`.
ANGLE = 65.0


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """What was found about ingredients; printing it shows a table.

    Args:
        best: Index of the ingredient with the highest score, the first of equal ones.
        vals: Score of each ingredient.
        losses: Mean cross-entropy of the judged nodes of each, in nats.
        barriers: Of each with the best one, in nats: how far the loss halfway lies above the mean of both losses.
        angles: Of each to the best one, in degrees, as vectors of all parameters.
        disagreement: Share of judged nodes that two ingredients put in different classes, float64 ``[N, N]``.
        warnings: A sentence for each ingredient that does not belong with the best one.
        apart: The indices of these ingredients.
        barrier: The barrier above which one is named.

    Example:
        >>> from torch_geometric.nn import GCN
        >>> from graphsparse.soups import Evaluator
        >>> from graphsparse.testing import random_graph
        >>> model = GCN(8, 16, 2, 3)
        >>> found = diagnose([model.state_dict()] * 3, Evaluator(model, random_graph()))
        >>> found.best, found.barriers, found.disagreement.shape, found.warnings
        (0, [0.0, 0.0, 0.0], torch.Size([3, 3]), [])
    """

    best: int
    vals: list[float]
    losses: list[float]
    barriers: list[float]
    angles: list[float]
    disagreement: Tensor
    warnings: list[str]
    apart: list[int]
    barrier: float

    def table(self) -> str:
        """Return a table with a row for each ingredient, and what its columns are."""
        others = self.disagreement.sum(dim=1) / max(len(self.vals) - 1, 1)
        lines = ["ingredient     val    loss  barrier  angle  disagreement"]
        for i, val in enumerate(self.vals):
            mark = "*" if i == self.best else "!" if i in self.apart else " "
            lines.append(
                f"{i:>9} {mark}  {val:.4f}  {self.losses[i]:6.3f}  {self.barriers[i]:+7.3f}"
                f"  {self.angles[i]:5.1f}  {float(others[i]):12.4f}"
            )
        return "\n".join(
            [
                *lines,
                "*: the best one; !: does not belong with it. barrier: how far the loss halfway to the best one lies",
                "above that of both, in nats; angle: to the best one, in degrees, between the vectors of all weights;",
                "disagreement: share of nodes that another ingredient puts in another class, mean over all others.",
            ]
        )

    def __str__(self) -> str:
        """Return the table and the warnings."""
        return "\n".join([self.table(), *self.warnings])

    def plot(self, path: str | Path) -> None:
        """Draw the disagreement of all pairs and the barriers into a file.

        Args:
            path: The file; its ending, PNG, SVG or PDF, chooses the format.

        Raises:
            ImportError: If matplotlib is missing.
        """
        plot_matrix_and_bars(
            path,
            self.disagreement.tolist(),
            self.barriers,
            matrix_label="disagreement (share of judged nodes)",
            bar_label=f"loss barrier with ingredient {self.best} (nats; dashed: the limit)",
            label="ingredient",
            level=self.barrier,
            marked=self.apart,
        )


def diagnose(ingredients: States, evaluator: Evaluator, *, barrier: float = BARRIER, angle: float = ANGLE) -> Diagnosis:
    r"""Say which ingredients can be mixed, before they are.

    The mean of two networks is good where a straight way through low loss connects them. Halfway between each
    ingredient and the best one the loss must not be far above the mean of both:

    .. math:: B_i = L\left(\tfrac{1}{2}(\theta_i + \theta_b)\right) - \tfrac{1}{2}\left(L(\theta_i) + L(\theta_b)\right)

    with the cross-entropy :math:`L` of the judged nodes. An ingredient is named, in ``warnings`` of the result and by a
    Python warning, if its barrier exceeds ``barrier``, or its angle to the best one exceeds ``angle``.

    Both defaults are rules of thumb, which a test holds on Cora with a GCN: ingredients that share their initial
    weights are not named; of those that do not, all but the best are. Elsewhere the barrier alone may miss the latter,
    because the mean of two over-confident networks is less confident, which the loss rewards; so the angle tells where
    weights started, and the barrier what that costs.

    Never more than three states in memory; ``2 N - 1`` evaluations.

    Args:
        ingredients: State dicts, a list or a store.
        evaluator: Scores them on its nodes.
        barrier: Barrier in nats above which an ingredient is named.
        angle: Angle to the best one in degrees above which an ingredient is named.

    Returns:
        What was found; printed, it is a table with a line for each ingredient, and the warnings.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If there is no ingredient, one does not fit the model or holds values that are not numbers, or the
            labels are none that cross-entropy is defined for.

    Warns:
        UserWarning: If there are ingredients that do not belong with the best one.

    Example:
        >>> from torch_geometric.nn import GCN
        >>> from graphsparse.soups import Evaluator
        >>> from graphsparse.testing import random_graph
        >>> model = GCN(8, 16, 2, 3)
        >>> states = [model.state_dict(), {name: 1.1 * value for name, value in model.state_dict().items()}]
        >>> diagnosis = diagnose(states, Evaluator(model, random_graph()))
        >>> print(diagnosis.table())
        ingredient     val    loss  barrier  angle  disagreement
        ...
        >>> diagnosis.apart
        []

    Source: Frankle et al., *Linear Mode Connectivity and the Lottery Ticket Hypothesis*, arXiv 1912.05671 (barriers);
    Wortsman et al., *Model soups*, arXiv 2203.05482 (angles and what they say of soups).
    """
    states = Ingredients(ingredients, evaluator)
    vals, losses, predictions = [], [], []
    for i in range(len(states)):
        logits = checked_logits(evaluator.logits(states[i]), i)
        vals.append(checked_score(evaluator.score_logits(logits), i))
        losses.append(_loss(evaluator, logits))
        several = evaluator.y.dim() > 1 or logits.size(1) == 1
        predictions.append(logits > 0 if several else logits.argmax(dim=1).int())
    best = max(range(len(vals)), key=lambda i: vals[i])
    disagreement = torch.zeros(len(vals), len(vals), dtype=torch.float64)
    for i, first in enumerate(predictions):
        for j in range(i):
            disagreement[i, j] = disagreement[j, i] = float((first != predictions[j]).double().mean())
    names = [name for name, _ in evaluator.model.named_parameters()]
    barriers, angles = [0.0] * len(vals), [0.0] * len(vals)
    best_state = states[best]
    for i in range(len(vals)):
        if i != best:
            other = states[i]
            angles[i] = angle_between(best_state, other, names)
            halfway = _loss(evaluator, evaluator.logits(mix(best_state, other, 0.5)))
            barriers[i] = halfway - (losses[best] + losses[i]) / 2
    sentences, apart = _apart(best, barriers, angles, barrier, angle)
    if sentences:
        warnings.warn(" ".join(sentences), stacklevel=2)
    return Diagnosis(best, vals, losses, barriers, angles, disagreement, sentences, apart, barrier)


def _loss(evaluator: Evaluator, logits: Tensor) -> float:
    return float(node_loss(logits.double(), evaluator.y))


@torch.no_grad()
def angle_between(first: State, second: State, names: Sequence[str]) -> float:
    """Return the angle of two state dicts in degrees, as vectors of the named tensors; NaN where one is zero.

    From the lengths of both and of their difference, which is accurate for the smallest angles too: the arc cosine of
    an inner product has an error of about 1e-6 degrees near 0.

    Source: Kahan, *Miscalculating Area and Angles of a Needle-like Triangle*, 2014.
    """
    squares = torch.zeros(3, dtype=torch.float64)
    for name in names:
        one, other = first[name].double(), second[name].double()
        squares += torch.stack([one.square().sum(), other.square().sum(), (one - other).square().sum()]).cpu()
    a, b, c = squares.sqrt().tolist()
    long, short = max(a, b), min(a, b)
    if short == 0:
        return math.nan
    rest = max(c - (long - short) if short >= c else short - (long - c), 0.0)
    below = max((long + (short + c)) * ((long - c) + short), 0.0)
    return math.degrees(2 * math.atan2(math.sqrt(((long - short) + c) * rest), math.sqrt(below)))


def _apart(
    best: int, barriers: list[float], angles: list[float], barrier: float, angle: float
) -> tuple[list[str], list[int]]:
    """Return sentences about the ingredients that do not belong with the best one, and their indices."""
    sentences, apart = [], []
    for i, (height, turned) in enumerate(zip(barriers, angles, strict=True)):
        if i == best or (height <= barrier and not turned > angle):
            continue
        apart.append(i)
        if not height <= barrier:  # also what is not a number
            sentences.append(
                f"Ingredient {i} lies in another basin than ingredient {best}, the best one: halfway between them the "
                f"loss is {height:.3f} nats above the mean of theirs (more than {barrier:g})."
            )
        else:
            sentences.append(
                f"Ingredient {i} seems to have started from other weights than ingredient {best}, the best one: the "
                f"angle between them is {turned:.0f} degrees (more than {angle:g})."
            )
    if len(apart) > 1 and len(apart) == len(barriers) - 1:
        sentences.append(
            f"None belongs with ingredient {best}: either it is the one that lies apart, or all started from different "
            "weights."
        )
    return sentences, apart
