"""Mixing coefficients by gradient descent on parts of the graph."""

from collections.abc import Iterator
from pathlib import Path

from torch_geometric.data import Data

from graphsparse.loader.parts import ClusterBatches
from graphsparse.ops.check import check_count
from graphsparse.soups.evaluation.evaluator import Evaluator
from graphsparse.soups.recipes.es2025 import Es2025, as_es2025
from graphsparse.soups.recipes.learning import Learning, Options
from graphsparse.soups.recipes.result import SoupResult
from graphsparse.soups.states.states import States
from graphsparse.training.check import check_one_graph
from graphsparse.typing import Log


def partition_learned_soup(
    ingredients: States,
    evaluator: Evaluator,
    *,
    num_parts: int = 32,
    parts_per_step: int = 8,
    save_dir: str | Path | None = None,
    groups: str = "tensor",
    epochs: int = 50,
    lr: float | None = None,
    compat: str | Es2025 | None = None,
    split_validation: bool = True,
    eval_every: int | None = None,
    dropout: bool = False,
    seed: int = 0,
    progress: bool = False,
    log: Log | None = None,
) -> SoupResult:
    r"""Learn mixing coefficients as :func:`learned_soup` does, each step on some parts of the graph.

    The graph is cut once, into :math:`K` parts with about as many judged nodes in each. A step sees the subgraph of
    :math:`R` of them, with the edges inside and between them: a share :math:`R / K` of the nodes and their edges, and
    :math:`R (R - 1) / (K (K - 1))` of the edges between parts. Parts are shuffled and walked through, so that each is
    seen equally often; then they are shuffled anew. The loss of a step is weighted by the number of judged nodes in it,

    .. math:: L = \frac{K}{R\,n} \sum_{v \in \text{step}} \ell_v ,

    which is the loss of all :math:`n` of them for :math:`R = K`. Parts without any are passed over.

    Time and memory of a step are about :math:`R / K` of those of :func:`learned_soup`. Acceptance is on the full graph,
    in the way of the evaluator, so that the score of the result is never below that of the best ingredient, exactly. A
    model with running statistics of a normalisation costs a pass over the full graph in each step, unless the evaluator
    has ``batch_norm="keep"``.

    With ``compat="es2025"`` each step draws its parts anew, and its loss is the mean over the judged nodes in it.

    Args:
        ingredients: State dicts: a list, or a store that reads them from disk.
        evaluator: Scores them on its nodes; its graph must have ``edge_index``.
        num_parts: Number of parts :math:`K`.
        parts_per_step: Parts in a step :math:`R`; fewer at the end of a walk where they do not come out even.
        save_dir: Folder to keep the partition in; nothing is kept when ``None``.
        groups: As in :func:`learned_soup`.
        epochs: Number of steps; a walk through all parts takes :math:`\lceil K / R \rceil` of them.
        lr: As in :func:`learned_soup`.
        compat: As in :func:`learned_soup`.
        split_validation: As in :func:`learned_soup`.
        eval_every: Ask for the acceptance metric after every so many steps, and after the last one; after every walk
            when ``None``.
        dropout: Whether dropout is on while the loss is computed.
        seed: Of the partition, the walks, the halves, dropout and start values.
        progress: Whether to show a progress bar, of steps.
        log: As in :func:`learned_soup`.

    Returns:
        The soup, as :func:`learned_soup` returns it.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If there is no ingredient, one does not fit the model or holds values that are not numbers, an
            option is unknown or out of range, or a layer of the model keeps the first graph it sees.
        FloatingPointError: If the loss is no longer finite.

    Example:
        >>> from torch_geometric.nn import GCN
        >>> from graphsparse.soups.evaluation.evaluator import Evaluator
        >>> from graphsparse.testing import random_graph
        >>> models = [GCN(8, 16, 2, 3) for _ in range(3)]
        >>> states = [model.state_dict() for model in models]
        >>> evaluator = Evaluator(models[0], random_graph())
        >>> soup = partition_learned_soup(states, evaluator, num_parts=6, parts_per_step=2, epochs=6)
        >>> soup.score >= max(soup.ingredient_scores)
        True

    Source: *Enhanced Soups for Graph Neural Networks*, arXiv 2503.11612.
    """
    check_count(num_parts, "num_parts")
    check_count(parts_per_step, "parts_per_step")
    if parts_per_step > num_parts:
        raise ValueError(f"'parts_per_step' must be at most 'num_parts', {num_parts} (got {parts_per_step})")
    rule = as_es2025(compat)
    options = Options(
        groups=groups,
        epochs=epochs,
        lr=lr,
        rule=rule,
        eval_every=-(-num_parts // parts_per_step) if eval_every is None else eval_every,
        split_validation=split_validation,
        dropout=dropout,
        seed=seed,
        progress=progress,
        log=log,
    )
    learning = Learning(ingredients, evaluator, options)
    check_one_graph(evaluator.model)
    mask = evaluator.data.mask
    batches = ClusterBatches(
        learning.fit.data,
        num_parts=num_parts,
        parts_per_batch=parts_per_step,
        # Both halves have about the same share of each part, and the same partition serves every split.
        node_weight=1 + (mask.numel() // int(mask.sum())) * mask.long(),
        partition_seed=seed,
        save_dir=save_dir,
        seed=seed,
    )
    return learning.run(_drawn(batches) if rule else _walked(batches, learning.fit.num_nodes))


def _walked(batches: ClusterBatches, num_judged: int) -> Iterator[tuple[Data, float]]:
    """Yield graphs with judged nodes and the weights of their losses, walk after walk."""
    share = batches.batch_size / batches.num_parts
    while True:
        for batch in batches:
            present = int(batch.mask.sum())
            if present:
                yield batch, present / (num_judged * share)


def _drawn(batches: ClusterBatches) -> Iterator[tuple[Data, float]]:
    """Yield graphs of parts that are drawn anew for each."""
    while True:
        batch = next(iter(batches))
        if batch.mask.any():
            yield batch, 1.0
