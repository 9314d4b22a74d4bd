"""Look at ingredients before they are mixed: which of them belong together."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from graphsparse.plotting import plot_matrix_and_bars
from graphsparse.soups.diagnosis.basin import loss_barrier
from graphsparse.soups.diagnosis.geometry import Geometry, geometry
from graphsparse.soups.evaluation.evaluator import Evaluator
from graphsparse.soups.evaluation.gradient import node_loss
from graphsparse.soups.recipes.ingredients import Ingredients, best_first, checked_score
from graphsparse.soups.sparse.ticket_states import ticket_states
from graphsparse.soups.states.states import States
from graphsparse.tickets import Ticket

#: Barrier, in nats, above which two ingredients count as lying in different basins; see :func:`diagnose`.
BARRIER = 0.1
#: Angle, in degrees, above which two ingredients count as started from different weights; see :func:`diagnose`.
ANGLE = 65.0


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """What was found about ingredients; printing it shows a table.

    Args:
        best: Index of the ingredient with the highest score, the first of equal ones.
        scores: Of each ingredient.
        losses: Mean cross-entropy of the judged nodes of each, in nats.
        barriers: Of each with the best one, in nats: how far the loss halfway lies above the mean of both losses.
        geometry: Distances and angles, to the mean of all and to each other.
        disagreement: Share of judged nodes that two ingredients put in different classes, float64 ``[N, N]``.
        pair_barriers: Barriers of all pairs, ``[N, N]``, if they were asked for.
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
    scores: list[float]
    losses: list[float]
    barriers: list[float]
    geometry: Geometry
    disagreement: Tensor
    pair_barriers: Tensor | None
    warnings: list[str]
    apart: list[int]
    barrier: float

    def table(self) -> str:
        """Return a table with a row for each ingredient; ``*`` marks the best and ``!`` those apart from it.

        Disagreement is the mean of that with all others.
        """
        count = len(self.scores)
        others = self.disagreement.sum(dim=1) / max(count - 1, 1)
        lines = ["ingredient   score    loss  barrier  distance  angle  angle to best  disagreement"]
        for i in range(count):
            mark = "*" if i == self.best else "!" if i in self.apart else " "
            lines.append(
                f"{i:>9} {mark}  {self.scores[i]:.4f}  {self.losses[i]:6.3f}  {self.barriers[i]:+7.3f}"
                f"  {float(self.geometry.distances[i]):8.3f}  {float(self.geometry.angles[i]):5.1f}"
                f"  {float(self.geometry.pair_angles[i, self.best]):13.1f}  {float(others[i]):12.4f}"
            )
        return "\n".join(lines)

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
            bar_label=f"loss barrier with ingredient {self.best} (nats)",
            label="ingredient",
            level=self.barrier,
            marked=self.apart,
        )


def diagnose(
    ingredients: Sequence[Ticket] | States,
    evaluator: Evaluator,
    *,
    pairs: bool = False,
    barrier: float = BARRIER,
    angle: float = ANGLE,
    progress: bool = False,
) -> Diagnosis:
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

    Distances and angles come from inner products in float64, of parameters only. Never more than three states in
    memory; ``2 N - 1`` evaluations, with ``pairs`` ``N + N (N - 1) / 2``.

    Args:
        ingredients: State dicts, a list or a store; or tickets with one common edge mask.
        evaluator: Scores them on its nodes.
        pairs: Whether to measure barriers of all pairs.
        barrier: Barrier in nats above which an ingredient is named.
        angle: Angle to the best one in degrees above which an ingredient is named.
        progress: Whether to show a progress bar, of evaluations.

    Returns:
        What was found; printed, it is a table with a line for each ingredient, and the warnings.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If there is no ingredient, or one does not fit the model or holds values that are not numbers.

    Warns:
        UserWarning: If there are ingredients that do not belong with the best one.

    Example:
        >>> from torch_geometric.nn import GCN
        >>> from graphsparse.testing import random_graph
        >>> model = GCN(8, 16, 2, 3)
        >>> states = [model.state_dict(), {name: 1.1 * value for name, value in model.state_dict().items()}]
        >>> diagnosis = diagnose(states, Evaluator(model, random_graph()))
        >>> print(diagnosis.table())
        ingredient   score    loss  barrier  distance  angle  angle to best  disagreement
        ...
        >>> diagnosis.apart
        []

    Source: Frankle et al., *Linear Mode Connectivity and the Lottery Ticket Hypothesis*, arXiv 1912.05671 (barriers);
    Wortsman et al., *Model soups*, arXiv 2203.05482 (angles and what they say of soups).
    """
    states = Ingredients(ticket_states(ingredients, evaluator), evaluator)
    count = len(states)
    found = geometry(states, [name for name, _ in evaluator.model.named_parameters()])
    total = count + (count * (count - 1) // 2 if pairs else count - 1)
    with tqdm(total=total, disable=not progress, desc="diagnosis") as bar:
        scores, losses, predictions = [], [], []
        for i in range(count):
            logits = evaluator.logits(states[i])
            scores.append(checked_score(evaluator.score_logits(logits), i))
            losses.append(float(node_loss(logits.double(), evaluator.y)))
            predictions.append(_predictions(logits, evaluator.y))
            bar.update()
        best = best_first(scores)[0]
        matrix = torch.zeros(count, count, dtype=torch.float64)
        for i in range(count) if pairs else [best]:
            first = states[i]
            for j in range(i + 1, count) if pairs else [j for j in range(count) if j != best]:
                second = states[j]
                matrix[i, j] = matrix[j, i] = loss_barrier(evaluator, first, second, (losses[i], losses[j]))
                del second  # before the next one is read
                bar.update()
    barriers = matrix[best].tolist()
    sentences, apart = _apart(best, barriers, found.pair_angles[best].tolist(), barrier, angle)
    if sentences:
        warnings.warn(" ".join(sentences), stacklevel=2)
    return Diagnosis(
        best,
        scores,
        losses,
        barriers,
        found,
        _disagreement(predictions),
        matrix if pairs else None,
        sentences,
        apart,
        barrier,
    )


def _predictions(logits: Tensor, y: Tensor) -> Tensor:
    """Return the predicted class of each node, or the answer to each of several questions."""
    return logits.argmax(dim=1).int() if y.dim() == 1 else logits > 0


def _disagreement(predictions: list[Tensor]) -> Tensor:
    found = torch.zeros(len(predictions), len(predictions), dtype=torch.float64)
    for i, first in enumerate(predictions):
        for j in range(i):
            found[i, j] = found[j, i] = float((first != predictions[j]).double().mean())
    return found


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
