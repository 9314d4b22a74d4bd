"""One half of the judged nodes to fit on, the other to accept on."""

from graphsparse.soups.evaluation.evaluator import Evaluator
from graphsparse.utils.counter_random import check_seed


def fit_and_accept(evaluator: Evaluator, split_validation: bool, seed: int) -> tuple[Evaluator, Evaluator]:
    """Return what to fit with and what to accept with: two halves of an evaluator, or twice the whole.

    Args:
        evaluator: What judges.
        split_validation: Whether to cut its nodes into halves.
        seed: Of the halves.

    Raises:
        TypeError: If ``split_validation`` is no bool, or ``seed`` no integer.
        ValueError: If ``seed`` is negative, or there are too few nodes.
    """
    if not isinstance(split_validation, bool):
        raise TypeError(f"'split_validation' must be True or False (got {split_validation!r})")
    seed = check_seed(seed)
    return evaluator.halves(seed) if split_validation else (evaluator, evaluator)
