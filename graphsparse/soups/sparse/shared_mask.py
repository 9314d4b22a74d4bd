"""Soups of ingredients that are zero in the same places."""

import hashlib
from collections.abc import Sequence
from typing import Literal, TypeAlias

from graphsparse.soups.evaluation.evaluator import Evaluator
from graphsparse.soups.recipes.greedy import greedy_soup
from graphsparse.soups.recipes.result import SoupResult
from graphsparse.soups.recipes.uniform import uniform_soup
from graphsparse.soups.sparse.ticket_states import TicketStates
from graphsparse.soups.states.states import State, States
from graphsparse.tickets import Ticket
from graphsparse.tickets.format import pack_bits

#: How ingredients become one: their mean, or the mean of those that help.
Merge: TypeAlias = Literal["uniform", "greedy"]


def shared_mask_soup(
    tickets: Sequence[Ticket],
    evaluator: Evaluator,
    *,
    merge: Merge = "uniform",
    split_validation: bool = True,
    seed: int = 0,
) -> SoupResult:
    r"""Average tickets that have one weight mask and one edge mask.

    A mean of vectors that are zero in the same places is zero there too, so nothing needs to be pruned again:

    .. math:: \sum_i \lambda_i (m \odot W_i) = m \odot \sum_i \lambda_i W_i

    Masks of different tickets have no such mean; see :func:`~graphsparse.soups.lottery_pool` for them.

    Args:
        tickets: Tickets with the same masks.
        evaluator: Scores them on its nodes, on the graph that :meth:`~graphsparse.tickets.Ticket.sparsify` returns.
        merge: ``"uniform"`` as in :func:`~graphsparse.soups.uniform_soup`, ``"greedy"`` as in
            :func:`~graphsparse.soups.greedy_soup`.
        split_validation: For ``"greedy"``, whether to propose by one half of the judged nodes and accept by the other.
        seed: Of the halves.

    Returns:
        The soup. That it is zero wherever the mask is, is checked.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If masks differ, a ticket does not fit the model, or there is no ticket.

    Example:
        >>> from torch_geometric.nn import GCN
        >>> from graphsparse.testing import random_graph
        >>> from graphsparse.tickets import find_ticket
        >>> from graphsparse.training import Training
        >>> data, make_model = random_graph(), lambda: GCN(8, 16, 2, 3)
        >>> ticket = find_ticket(make_model, data, weight_sparsity=0.5, training=Training(epochs=5))
        >>> soup = shared_mask_soup([ticket, ticket], Evaluator(make_model(), ticket.sparsify(data)))
        >>> soup.score == soup.ingredient_scores[0]
        True

    Source: Zimmer et al., *Sparse Model Soups: A Recipe for Improved Pruning via Model Averaging*, arXiv 2306.16788.
    """
    if isinstance(tickets, Ticket) or not isinstance(tickets, Sequence):
        raise TypeError(f"'tickets' must be a list of tickets (got {type(tickets).__name__})")
    if len(tickets) == 0:
        raise ValueError("'tickets' must hold at least one ticket (got none)")
    states = TicketStates(tickets, evaluator)
    digests = [mask_digest(ticket.weight_masks) for ticket in tickets]
    for i, digest in enumerate(digests):
        if digest != digests[0]:
            raise ValueError(
                f"ticket {i} has another weight mask than ticket 0: their mean would have the weights of both. "
                "See 'lottery_pool' for tickets of different masks"
            )
    return merge_copies(states, tickets[0].weight_masks, evaluator, merge, split_validation, seed)


def merge_copies(
    states: States, masks: State, evaluator: Evaluator, merge: Merge, split_validation: bool, seed: int
) -> SoupResult:
    """Make one of states that are zero in the same places, and check that before and after.

    Args:
        states: State dicts.
        masks: For some of their tensors a mask, zero where the tensor must be.
        evaluator: Scores them.
        merge: ``"uniform"`` or ``"greedy"``.
        split_validation: For ``"greedy"``.
        seed: Of the halves.

    Raises:
        ValueError: If a state, or the soup, is not zero where a mask is, or ``merge`` is unknown.
    """
    check_merge(merge)
    for i in range(len(states)):
        check_support(states[i], masks, f"ingredient {i}")
    if merge == "uniform":
        soup = uniform_soup(states, evaluator)
    else:
        soup = greedy_soup(states, evaluator, split_validation=split_validation, seed=seed)
    check_support(soup.state_dict, masks, "the soup")
    return soup


def check_merge(merge: str) -> None:
    """Refuse an unknown way to merge."""
    if merge not in ("uniform", "greedy"):
        raise ValueError(f"'merge' must be 'uniform' or 'greedy' (got {merge!r})")


def check_support(state: State, masks: State, what: str) -> None:
    """Refuse a state dict that is not zero wherever masks are.

    Args:
        state: State dict.
        masks: For some of its tensors a mask, zero where the tensor must be.
        what: What the state is, for the message.

    Raises:
        ValueError: If a mask is missing in the state, or a weight is outside.

    Example:
        >>> import torch
        >>> check_support({"w": torch.tensor([0.0, 1.0])}, {"w": torch.tensor([False, True])}, "the soup")
    """
    for name, mask in masks.items():
        if name not in state or state[name].shape != mask.shape:
            raise ValueError(f"{what} has no tensor {name!r} of shape {list(mask.shape)}, as the mask has")
        outside = int(state[name][mask.to(state[name].device) == 0].count_nonzero())
        if outside:
            raise ValueError(f"{what} has {outside} weights outside the mask of {name!r}")


def mask_digest(masks: State) -> str:
    """Return a digest of masks, equal for equal ones.

    Args:
        masks: For every name a mask; only whether an entry is zero counts.

    Example:
        >>> import torch
        >>> mask_digest({"w": torch.tensor([True, False])}) == mask_digest({"w": torch.tensor([1, 0])})
        True
    """
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(masks):
        digest.update(f"{name} {list(masks[name].shape)} ".encode())
        digest.update(pack_bits(masks[name] != 0).numpy().tobytes())
    return digest.hexdigest()
