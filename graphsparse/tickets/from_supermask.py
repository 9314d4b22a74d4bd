"""From a mask that was searched to a ticket."""

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor
from torch_geometric.data import Data

from graphsparse.nn.supermask import Supermask
from graphsparse.tickets.frozen_weights import FrozenRole, FrozenTensor, FrozenWeights
from graphsparse.tickets.ticket import Ticket
from graphsparse.utils.fingerprint import graph_fingerprint


def ticket_from_supermask(
    supermask: Supermask,
    *,
    data: Data | None = None,
    edge_mask: Tensor | None = None,
    config: Mapping[str, Any] | None = None,
    metrics: Mapping[str, float] | None = None,
) -> Ticket:
    r"""Return the final mask of a supermask as a ticket whose file holds a seed in place of weights.

    Args:
        supermask: The supermask, on any device. It is left as it is.
        data: The graph that the ticket belongs to, before sparsification; ``None`` if it belongs to none, as for
            tasks on many graphs.
        edge_mask: Which entries of the ``edge_index`` of ``data`` are left, bool ``[E]``; all by default.
        config: How the mask was searched, in values that JSON can hold. Method, seed, sparsities, scope and transform
            are added.
        metrics: What was measured. The counted ``weight_sparsity`` is added.

    Returns:
        The ticket, on CPU. Its model gives the logits of ``supermask.materialize()``, bit for bit on CPU.

    Raises:
        TypeError: If ``supermask`` is none.
        ValueError: If ``edge_mask`` does not fit ``data``, or the frozen weights are no longer those of their seed.

    Example:
        >>> from torch_geometric.nn import GCN
        >>> from graphsparse.testing import random_graph
        >>> data = random_graph()
        >>> ticket = ticket_from_supermask(Supermask(GCN(8, 16, 2, 3), 0.8, seed=1), data=data)
        >>> ticket.summary()
        'untrained: 298 of 298 entries of edge_index and 36 of 176 weights left; weight_sparsity 0.7955'
        >>> ticket.materialize(lambda: GCN(8, 16, 2, 3))(data.x, data.edge_index).shape
        torch.Size([60, 3])
    """
    if not isinstance(supermask, Supermask):
        raise TypeError(f"'supermask' must be a Supermask (got {type(supermask).__name__})")
    edge_mask, graph = _graph_of(data, edge_mask)
    frozen = _frozen_weights(supermask)
    plan = supermask.plan
    masks = {name: mask.cpu() for name, mask in supermask.masks().items()}
    state_dict = {name: tensor.cpu() for name, tensor in supermask.materialize().state_dict().items()}
    try:
        frozen.check(state_dict, masks)
    except ValueError as error:
        raise ValueError(
            "'supermask' no longer holds the frozen weights of its seed, as after a change of its type "
            f"(redraw() brings them back): {error}"
        ) from error
    masks |= {name: masks[first] for name, first in frozen.same.items() if first in masks}
    described = {
        "method": "untrained",
        "seed": supermask.seed,
        "sparsities": [float(sparsity) for sparsity in plan.sparsities],
        "scope": plan.scope,
        "transform": plan.transform,
    }
    return Ticket(
        state_dict=state_dict,
        weight_masks=masks,
        edge_mask=edge_mask,
        graph=graph,
        config=described | dict(config or {}),
        metrics={"weight_sparsity": supermask.sparsity().total} | dict(metrics or {}),
        frozen=frozen,
    )


def _frozen_weights(supermask: Supermask) -> FrozenWeights:
    tensors: dict[str, FrozenTensor] = {}
    same: dict[str, str] = {}
    entries = supermask.frozen_tensors()
    for entry in entries:
        first, *more = entry.names
        role = cast(FrozenRole, entry.role)
        tensors[first] = FrozenTensor(role, tuple(entry.parameter.shape), entry.source or first)
        same |= dict.fromkeys(more, first)
    square = supermask.mean_square
    return FrozenWeights(supermask.seed, supermask.law, square, entries[0].parameter.dtype, tensors, same)


def _graph_of(data: Data | None, edge_mask: Tensor | None) -> tuple[Tensor | None, str | None]:
    """Return mask and fingerprint of the edges."""
    if data is None:
        if edge_mask is not None:
            raise ValueError("'edge_mask' needs 'data', the graph whose edges it refers to")
        return None, None
    if data.get("edge_index") is None:
        raise ValueError(
            "'data' must hold 'edge_index', which the mask of a ticket refers to "
            f"(got {sorted(data.keys())}; torch_geometric.utils.to_edge_index converts 'adj_t')"
        )
    num = data.edge_index.size(1)
    if edge_mask is None:
        edge_mask = torch.ones(num, dtype=torch.bool)
    if edge_mask.dtype != torch.bool or edge_mask.shape != (num,):
        raise ValueError(
            f"'edge_mask' must be bool and of one entry for each of the {num} entries of 'edge_index' "
            f"(got {edge_mask.dtype}, shape {list(edge_mask.shape)})"
        )
    return edge_mask.cpu(), graph_fingerprint(data.edge_index, data.num_nodes)
