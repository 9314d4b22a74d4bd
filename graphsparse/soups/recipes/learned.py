"""Mixing coefficients by gradient descent."""

from itertools import repeat

from graphsparse.soups.evaluation.evaluator import Evaluator
from graphsparse.soups.recipes.es2025 import Es2025, as_es2025
from graphsparse.soups.recipes.learning import Learning, Options
from graphsparse.soups.recipes.result import SoupResult
from graphsparse.soups.states.states import States
from graphsparse.typing import Log


def learned_soup(
    ingredients: States,
    evaluator: Evaluator,
    *,
    groups: str = "tensor",
    epochs: int = 50,
    lr: float | None = None,
    compat: str | Es2025 | None = None,
    split_validation: bool = True,
    eval_every: int = 1,
    dropout: bool = False,
    seed: int = 0,
    progress: bool = False,
    log: Log | None = None,
) -> SoupResult:
    r"""Learn how much of each ingredient goes into each tensor, by gradient descent on the loss of judged nodes.

    .. math:: W_j = \sum_i a_{ji} W_{ij}, \qquad a_j = \operatorname{softmax}(r_j)

    The loss is the cross-entropy of the mixture; the weights of the ingredients stay as they are, only :math:`r` is
    learned, from a uniform start. The gradient is never taken through the mixture: one backward pass gives the
    derivative :math:`G_j` with respect to mixed weights, and

    .. math:: \frac{\partial L}{\partial r_{ji}} = a_{ji} \Big(s_{ji} - \sum_k a_{jk} s_{jk}\Big), \qquad
        s_{ji} = \langle G_j, W_{ij} \rangle

    needs one ingredient at a time. So memory is that of two or three states and of one pass over the graph, whatever
    the number of ingredients, of which each is read twice per step. Running statistics of batch normalisation are
    constants of a step.

    The best mixture by the acceptance metric is kept, and it must exceed the uniform soup and every ingredient to be
    returned, so the score of the result is never below that of the best ingredient, exactly. With ``split_validation``
    that metric is taken on one half of the judged nodes and the loss on the other: coefficients cannot be accepted for
    having learned the labels that they are judged by. It costs half the nodes for either purpose. Where nodes are few,
    half of them say little about a small gain.

    ``compat="es2025"`` is the rule that the authors released instead: a softmax of a softmax per tensor, an output
    scale that is learned and thrown away, plain SGD with warm restarts on all judged nodes, and the weights of the last
    epoch without a look at their score. Nothing is promised then. Their code has dropout on, ``dropout=True`` here.
    Models with buffers, which it cannot mix, follow our rule in that.

    Args:
        ingredients: State dicts: a list, or a store that reads them from disk.
        evaluator: Scores them on its nodes, whose labels also give the loss. One pass over its whole graph must fit
            into memory; see :func:`partition_learned_soup` where it does not.
        groups: What shares its coefficients: each ``tensor`` has its own, each ``layer`` (a convolution with all that
            belongs to it, or another module that holds parameters), or all are ``global``. Two names of one tensor
            count once. Floating buffers follow their layer.
        epochs: Number of steps.
        lr: Learning rate, which falls to 0 along a cosine: of Adam 0.1 when ``None``; with ``compat`` of SGD, 10.
        compat: ``"es2025"``, or :class:`Es2025` to set its options.
        split_validation: Whether to fit on one half of the judged nodes and accept on the other; not with ``compat``.
        eval_every: Ask for the acceptance metric after every so many epochs, and after the last one.
        dropout: Whether dropout is on while the loss is computed.
        seed: Of the halves, of dropout and of start values.
        progress: Whether to show a progress bar, of epochs.
        log: Receives ``epoch``, ``loss`` and, where it was asked for, ``score``.

    Returns:
        The soup. Scores are those of the accepting half; ``weights`` are one vector for each floating tensor, or one
        for all with ``groups="global"`` and where the uniform soup or an ingredient is not exceeded; the trace holds
        what ``log`` receives, after an entry for epoch 0 with the score to exceed.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If there is no ingredient, one does not fit the model or holds values that are not numbers, or an
            option is unknown or out of range.
        FloatingPointError: If the loss is no longer finite.

    Example:
        >>> from torch_geometric.nn import GCN
        >>> from graphsparse.soups.evaluation.evaluator import Evaluator
        >>> from graphsparse.testing import random_graph
        >>> models = [GCN(8, 16, 2, 3) for _ in range(3)]
        >>> evaluator = Evaluator(models[0], random_graph())
        >>> soup = learned_soup([model.state_dict() for model in models], evaluator, epochs=5)
        >>> soup.score >= max(soup.ingredient_scores)
        True

    Source: *Enhanced Soups for Graph Neural Networks*, arXiv 2503.11612; learned soups: Wortsman et al., arXiv
    2203.05482, Appendix I.
    """
    options = Options(
        groups=groups,
        epochs=epochs,
        lr=lr,
        rule=as_es2025(compat),
        eval_every=eval_every,
        split_validation=split_validation,
        dropout=dropout,
        seed=seed,
        progress=progress,
        log=log,
    )
    learning = Learning(ingredients, evaluator, options)
    return learning.run(repeat((learning.fit.data, 1.0)))
