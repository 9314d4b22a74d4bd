"""A soup of tickets as a ticket."""

from collections.abc import Mapping
from typing import Any

from graphsparse.soups.recipes.result import SoupResult
from graphsparse.tickets import Ticket


def soup_ticket(soup: SoupResult, like: Ticket | None = None, *, config: Mapping[str, Any] | None = None) -> Ticket:
    """Return a soup as a ticket that can be saved, loaded and materialised.

    Args:
        soup: A soup of tickets, or a sparse soup.
        like: A ticket with the edges that the soup was judged on; ``None`` for the whole graph, and then the ticket
            belongs to no particular one.
        config: How the soup was made, in values that JSON can hold.

    Returns:
        A ticket whose weight masks mark what is not zero, in tensors of two or more dimensions that hold a zero. Its
        metrics are the soup's score and, if the other ticket knows it, the edge sparsity.

    Raises:
        TypeError: If ``soup`` is no soup, or ``like`` no ticket.

    Example:
        >>> from torch_geometric.nn import GCN
        >>> from graphsparse.soups.evaluation.evaluator import Evaluator
        >>> from graphsparse.soups.sparse.lottery_pool import lottery_pool
        >>> from graphsparse.testing import random_graph
        >>> from graphsparse.tickets import find_ticket
        >>> from graphsparse.training import Training
        >>> data, make_model = random_graph(), lambda: GCN(8, 16, 2, 3)
        >>> options = {"edge_sparsity": 0.3, "training": Training(epochs=5)}
        >>> tickets = [find_ticket(make_model, data, weight_sparsity=s, **options) for s in (0.2, 0.5)]
        >>> soup = lottery_pool(tickets, Evaluator(make_model(), tickets[1].sparsify(data)), target=1)
        >>> soup_ticket(soup, tickets[1])
        Ticket(soup: ... entries of edge_index and 88 of 176 weights left; score ...)
    """
    if not isinstance(soup, SoupResult):
        raise TypeError(f"'soup' must be a SoupResult (got {type(soup).__name__})")
    if like is not None and not isinstance(like, Ticket):
        raise TypeError(f"'like' must be a Ticket or None (got {type(like).__name__})")
    state = {name: value.detach().cpu() for name, value in soup.state_dict.items()}
    matrices = {name: value != 0 for name, value in state.items() if value.dim() >= 2 and value.is_floating_point()}
    masks = {name: mask for name, mask in matrices.items() if not mask.all()}
    seed = {} if like is None or "seed" not in like.config else {"seed": like.config["seed"]}
    metrics = {"score": float(soup.score)}
    if like is not None and "edge_sparsity" in like.metrics:
        metrics["edge_sparsity"] = like.metrics["edge_sparsity"]
    return Ticket(
        state,
        masks,
        edge_mask=None if like is None else like.edge_mask,
        graph=None if like is None else like.graph,
        config={"method": "soup", **seed, **(config or {})},
        metrics=metrics,
    )
