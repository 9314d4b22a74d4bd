"""Soups of tickets: state dicts with common edges, and a pool of other sparsities that improves one of them."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch_geometric.data import Data

from graphsparse.ops.check import check_integer, check_list, check_number
from graphsparse.ops.select import smallest_k_mask
from graphsparse.soups.recipes.soup import Acceptance, Ingredients, soup
from graphsparse.soups.states import State, mix
from graphsparse.tickets import Ticket

#: Shares of the soup in a mixture, those of the paper.
COEFFICIENTS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)


class TicketStates:
    """The state dicts of tickets, as ingredients of any soup.

    Weights that were trained on one set of edges are not judged on another, and edge masks have no mean. So all tickets
    must be of the same graph and keep the same edges of it, and the evaluator of a soup must judge on these.

    Where they have one weight mask in common, every soup has it too: a mean of zeros is zero. Tickets of other weight
    masks become denser; :func:`lottery_pool` prunes them again.

    Args:
        tickets: A list of tickets.

    Raises:
        TypeError: If one is no ticket.
        ValueError: If tickets differ in their graph or its edges.

    Example:
        >>> from torch_geometric.nn import GCN
        >>> from graphsparse.testing import random_graph
        >>> from graphsparse.tickets import find_tickets
        >>> from graphsparse.training import Training
        >>> targets, training = [(0.3, 0.2), (0.3, 0.5)], Training(epochs=2)
        >>> tickets = find_tickets(lambda: GCN(8, 16, 2, 3), random_graph(), targets=targets, training=training)
        >>> len(TicketStates(tickets))
        2
    """

    def __init__(self, tickets: Sequence[Ticket]) -> None:
        for i, ticket in enumerate(tickets):
            if not isinstance(ticket, Ticket):
                raise TypeError(f"'tickets' must be tickets (got {type(ticket).__name__} at {i})")
            if ticket.graph != tickets[0].graph:
                raise ValueError(
                    f"ticket {i} was found for another graph than ticket 0: its fingerprint is {ticket.graph}, "
                    f"not {tickets[0].graph} (nodes-edges-digest)"
                )
            if isinstance(ticket.edge_mask, Mapping):
                raise ValueError(f"ticket {i} is of a HeteroData, on which no evaluator of a soup judges")
            masks = (ticket.edge_mask, tickets[0].edge_mask)
            if (
                isinstance(masks[0], Tensor)
                and isinstance(masks[1], Tensor)
                and not torch.equal(masks[0].cpu(), masks[1].cpu())
            ):
                raise ValueError(
                    f"ticket {i} keeps other edges than ticket 0: tickets of a soup must have one common edge mask. "
                    "Find them with the same edge sparsity and score, or give their 'state_dict's to have all of them "
                    "judged on the graph of the evaluator"
                )
        self.tickets = tickets

    def __len__(self) -> int:
        """Return the number of tickets."""
        return len(self.tickets)

    def __getitem__(self, index: int, /) -> State:
        """Return the state dict of a ticket."""
        return self.tickets[index].state_dict

    def check_graph(self, data: Data) -> None:
        """Refuse a graph that has other numbers of nodes and edges than the sparsified graph of the tickets.

        Raises:
            ValueError: If it has.
        """
        graph, mask = (self.tickets[0].graph, self.tickets[0].edge_mask) if self.tickets else (None, None)
        if graph is None or not isinstance(mask, Tensor):
            return
        nodes, edges = int(graph.split("-")[0]), int(mask.count_nonzero())
        if (data.num_nodes, data.num_edges) != (nodes, edges):
            raise ValueError(
                f"'evaluator' must judge on the sparsified graph of the tickets, with {nodes} nodes and {edges} "
                f"entries of edge_index: build it on ticket.sparsify(data) (got {data.num_nodes} nodes and "
                f"{data.num_edges} entries)"
            )


@soup(name="lottery pool", source="Yin et al., arXiv 2208.10842, Algorithm 1")
def lottery_pool(
    ingredients: Ingredients, acceptance: Acceptance, *, target: int, coefficients: Sequence[float] = COEFFICIENTS
) -> None:
    r"""Interpolate a ticket with tickets of other sparsities, and prune the mixture to its own.

    Two tickets of different sparsity have different masks, and their mixture has the union of both. So the weights of
    smallest magnitude are removed from it until as many are left as the target :math:`t` has, of all tensors with at
    least two dimensions together:

    .. math:: W \leftarrow \mathrm{prune}_{k_t}\!\left(\alpha W + (1 - \alpha) W_i\right),
        \qquad k_t = \lVert W_t \rVert_0

    The other tickets come by the distance of their index from that of the target: :math:`t-1, t+1, t-2, t+2` and so
    on. Of each the coefficient :math:`\alpha` with the best score on the proposing nodes is offered, of equally good
    ones the largest. The score of the result is never below that of the target, exactly, and as many weights are left,
    perhaps others. ``N + 1 + S (C + 1)`` evaluations for ``S`` other tickets and ``C`` coefficients; never more than
    three states in memory, and for a moment the magnitudes that are ranked.

    Args:
        ingredients: :class:`TicketStates` of tickets that are ordered by sparsity, or state dicts.
        evaluator: Scores them on its nodes, on the graph with the edges that all tickets keep; further keywords are
            those of every :func:`~graphsparse.soups.soup`.
        target: Index of the ticket to improve; -1 is the last.
        coefficients: Shares :math:`\alpha` of the soup, each in (0, 1).

    Returns:
        The soup; it has no ``weights``, since it was pruned in between. Each step of the trace has the ``ingredient``,
        its best coefficient as ``ratio``, the score of that as ``fit`` on the proposing and as ``val`` on the accepting
        nodes, ``None`` where these were not asked, and whether it was ``accepted``.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If there is no ticket, one does not fit the model or the others, or a number is out of range.

    Example:
        >>> from dataclasses import replace
        >>> from torch_geometric.nn import GCN
        >>> from graphsparse.soups import Evaluator
        >>> from graphsparse.testing import random_graph
        >>> from graphsparse.tickets import find_tickets
        >>> from graphsparse.training import Training
        >>> data, make_model = random_graph(), lambda: GCN(8, 16, 2, 3)
        >>> targets, training = [(0.3, 0.2), (0.3, 0.5), (0.3, 0.8)], Training(epochs=5)
        >>> tickets = find_tickets(make_model, data, targets=targets, training=training)
        >>> evaluator = Evaluator(make_model(), tickets[1].sparsify(data))
        >>> found = lottery_pool(TicketStates(tickets), evaluator, target=1)
        >>> found.val >= found.ingredient_vals[1]
        True
        >>> masks = {name: found.state_dict[name] != 0 for name in tickets[1].weight_masks}
        >>> ticket = replace(tickets[1], state_dict=found.state_dict, weight_masks=masks, metrics={"val": found.val})
        >>> sum(int(mask.sum()) for mask in ticket.weight_masks.values())  # half of 8 * 16 + 16 * 3
        88

    Source: Yin et al., *Lottery Pools: Winning More by Interpolating Tickets without Increasing Training or Inference
    Cost*, arXiv 2208.10842, Algorithm 1, where one validation set both finds and accepts, and ties are accepted.
    """
    ratios = sorted({check_number(a, "coefficients") for a in check_list(coefficients, "coefficients")}, reverse=True)
    if not ratios or not 0 < ratios[-1] <= ratios[0] < 1:
        raise ValueError(f"'coefficients' must be numbers between 0 and 1, without both (got {coefficients!r})")
    if not -len(ingredients) <= check_integer(target, "target") < len(ingredients):
        raise ValueError(f"'target' must be the index of one of {len(ingredients)} tickets (got {target})")
    target %= len(ingredients)
    acceptance.take(dict(ingredients[target]), val=acceptance.vals[target])
    num_kept = num_nonzero(acceptance.soup)
    others = sorted(set(range(len(ingredients))) - {target}, key=lambda i: (abs(i - target), i))
    for i in acceptance.steps(others):
        other = ingredients[i]
        best, fit = ratios[0], -torch.inf
        for ratio in ratios:
            candidate = _prune(mix(acceptance.soup, other, ratio), num_kept)
            # Where weights of opposite sign cancel, fewer are left than the target has.
            found = acceptance.fit.score(candidate) if num_nonzero(candidate) == num_kept else -torch.inf
            if found > fit:
                best, fit = ratio, found
            del candidate  # before the next one is made
        acceptance.offer(_prune(mix(acceptance.soup, other, best), num_kept), fit=fit, ingredient=i, ratio=best)


def num_nonzero(state: State) -> int:
    """Return how many weights are not zero, in tensors with at least two dimensions."""
    return sum(int(value.count_nonzero()) for value in _matrices(state))


@torch.no_grad()
def _prune(state: State, num_kept: int) -> State:
    """Set to zero, in place, all but the largest weights; of equal ones the first go first."""
    values = _matrices(state)
    sizes = torch.cat([value.abs().reshape(-1) for value in values])
    masks = torch.split(smallest_k_mask(sizes, sizes.numel() - num_kept), [value.numel() for value in values])
    for value, mask in zip(values, masks, strict=True):
        value.masked_fill_(mask.view(value.shape), 0)
    return state


def _matrices(state: State) -> list[Tensor]:
    """Return the tensors with at least two dimensions, one with two names once."""
    found = {id(value): value for value in state.values() if value.is_floating_point() and value.dim() >= 2}
    return list(found.values())
