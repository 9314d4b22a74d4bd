"""Whether the way between two ingredients leads over a hill of the loss."""

from torch import Tensor
from torch.nn import functional as F

from graphsparse.soups.evaluator import Evaluator
from graphsparse.soups.states import State, mix


def node_loss(logits: Tensor, y: Tensor) -> float:
    """Return the mean cross-entropy of some nodes, in nats.

    Args:
        logits: ``[n, C]``.
        y: Classes ``[n]``; or ``[n, C]`` of zeros and ones, for as many questions with two answers each.

    Example:
        >>> import torch
        >>> round(node_loss(torch.zeros(3, 2), torch.tensor([0, 1, 1])), 3)  # the logarithm of 2
        0.693
    """
    if y.dim() == 2:
        return float(F.binary_cross_entropy_with_logits(logits.double(), y.double()))
    return float(F.cross_entropy(logits.double(), y))


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
        losses = (node_loss(evaluator.logits(first), evaluator.y), node_loss(evaluator.logits(second), evaluator.y))
    between = node_loss(evaluator.logits(mix(first, second, ratio)), evaluator.y)
    return between - ratio * losses[0] - (1 - ratio) * losses[1]
