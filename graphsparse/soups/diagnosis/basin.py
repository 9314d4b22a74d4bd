"""Whether the way between two ingredients leads over a hill of the loss."""

from graphsparse.soups.evaluation.evaluator import Evaluator
from graphsparse.soups.evaluation.gradient import node_loss
from graphsparse.soups.states.states import State, mix


def evaluator_loss(evaluator: Evaluator, state: State) -> float:
    """Return the mean cross-entropy of the judged nodes, in nats.

    Args:
        evaluator: Computes their logits.
        state: State dict.
    """
    return float(node_loss(evaluator.logits(state).double(), evaluator.y))


def loss_barrier(
    evaluator: Evaluator, first: State, second: State, losses: tuple[float, float] | None = None, ratio: float = 0.5
) -> float:
    r"""Return how far the loss of a mixture lies above the mixture of the losses, in nats.

    .. math:: L(\alpha W_1 + (1 - \alpha) W_2) - \alpha L(W_1) - (1 - \alpha) L(W_2)

    It is about zero or below where a straight way through low loss connects both, and positive where a hill lies
    between them.

    Args:
        evaluator: Computes the logits of its nodes, whose cross-entropy is the loss.
        first: State dict.
        second: State dict.
        losses: Those of both, if they are known.
        ratio: Share :math:`\alpha` of ``first``.

    Example:
        >>> from torch_geometric.nn import GCN
        >>> from graphsparse.testing import random_graph
        >>> state = GCN(8, 16, 2, 3).state_dict()
        >>> loss_barrier(Evaluator(GCN(8, 16, 2, 3), random_graph()), state, state)
        0.0

    Source: Frankle et al., *Linear Mode Connectivity and the Lottery Ticket Hypothesis*, arXiv 1912.05671.
    """
    if losses is None:
        losses = (evaluator_loss(evaluator, first), evaluator_loss(evaluator, second))
    between = evaluator_loss(evaluator, mix(first, second, ratio))
    return between - ratio * losses[0] - (1 - ratio) * losses[1]
