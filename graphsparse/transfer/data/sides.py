"""The two sides between which the links of a target are, where it is bipartite: users and items, say."""

import math
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphsparse.ops.check import check_edge_index
from graphsparse.ops.pairs import key_pairs, pair_keys, unique_keys

#: What is found by chance with a probability of at most 2 to the power of minus this counts as no accident.
_EVIDENCE = 20
#: Links that are looked at first: most graphs that are not bipartite show it there.
_FIRST = 1 << 18
#: Share of the links that the largest component must have, for the sides of its nodes to be enough.
_GIANT = 0.9


def read_sides(between: Any, num_nodes: int, links: Tensor) -> Tensor | None:
    """Return the side 0 or 1 of each node that was given, int8 ``[N]``, -1 on neither; ``None`` for ``"any"``.

    Example:
        >>> read_sides((torch.tensor([0, 1]), torch.tensor([3])), 4, torch.tensor([[0], [3]]))
        tensor([ 0,  0, -1,  1], dtype=torch.int8)
    """
    if isinstance(between, str) and between == "any":
        return None
    if isinstance(between, Tensor) and between.dtype == torch.bool:
        if between.shape != (num_nodes,):
            raise ValueError(f"'between' must say True or False of {num_nodes} nodes (got {list(between.shape)})")
        side = between.cpu().to(torch.int8)
    elif isinstance(between, (tuple, list)) and len(between) == 2 and all(isinstance(one, Tensor) for one in between):
        side = torch.full((num_nodes,), -1, dtype=torch.int8)
        for number, nodes in enumerate(between):
            ends = nodes.view(-1).cpu()
            check_edge_index(torch.stack([ends, ends]), num_nodes, "between")
            if number and bool((side[ends.long()] == 0).any()):
                raise ValueError("'between' must hold two sides without a node in common")
            side[ends.long()] = number
    else:
        raise TypeError(
            "'between' must be 'any', a bool tensor [N] that is True on one side, such as data.node_type == 0, or two "
            f"tensors with the nodes of each side (got {type(between).__name__})"
        )
    within = ~across(links, side)
    if bool(within.any()):
        raise ValueError(
            f"{int(within.count_nonzero())} links of the target are not between the sides of 'between', such as "
            f"{links[:, within][:, 0].tolist()}"
        )
    return side


def find_sides(links: Tensor, listed: Tensor, num_nodes: int) -> Tensor | None:
    """Return the side of each node as :func:`read_sides` does, or ``None`` where links are not surely between two.

    They are if the nodes of one side have smaller numbers than those of the other, as ``to_homogeneous`` numbers them,
    if all edges are listed from one side to the other, or if no cycle has an odd length, of enough that could have.

    Args:
        links: Links ``[2, P]``.
        listed: The edges as they were given, ``[2, E]``.
        num_nodes: Number of nodes.

    Example:
        >>> links = torch.cartesian_prod(torch.arange(6), torch.arange(6, 12)).t()
        >>> find_sides(links, links, 12).tolist()
        [0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1]
    """
    links = key_pairs(unique_keys(pair_keys(links, num_nodes)), num_nodes)  # each once, the smaller end first
    if links.size(1) < _EVIDENCE + math.log2(max(num_nodes, 1)):
        return None
    side = torch.full((num_nodes,), -1, dtype=torch.int8)
    last, first = int(links[0].max()), int(links[1].min())
    if last < first:
        side[: last + 1], side[first:] = 0, 1
        return side
    for part in (links[:, :_FIRST], links):
        label = _cover(part, num_nodes)
        if bool((label[0] == label[1])[part].any()):
            return None
    components, of_link, sizes = torch.unique(label.amin(0)[links[0]], return_inverse=True, return_counts=True)
    proper = listed[:, listed[0] != listed[1]].cpu().long()
    if links.size(1) - components.numel() >= _EVIDENCE and not np.intersect1d(*proper.numpy()).size:
        side[proper[0]], side[proper[1]] = 0, 1
        return extend_sides(side, links)
    if links.size(1) - torch.unique(links).numel() + components.numel() < _EVIDENCE:
        warnings.warn(
            "the links of the target have no odd cycle, so that they may be between two sides, but too few cycles to "
            "be sure: non-links are drawn from all pairs; 'between' says the sides, or 'any'",
            UserWarning,
            stacklevel=4,
        )
        return None
    largest = int(sizes.argmax())
    if sizes[largest] < _GIANT * links.size(1):
        raise ValueError(
            f"the links of the target are between two sides, but in {components.numel()} components of which it is not "
            "known which sides belong together: say it with 'between', or draw non-links from all pairs with "
            "between='any'"
        )
    for number in (0, 1):
        side[label[number] == label[0, links[0, of_link == largest][0]]] = number
    apart = links.size(1) - int(sizes[largest])
    if apart:
        warnings.warn(
            f"the links of the target are between two sides, but {apart} of them are in small components, in which "
            "it is not known which nodes are on which side: they are for training; 'between' may say the sides",
            UserWarning,
            stacklevel=4,
        )
    return side


def extend_sides(side: Tensor, edge_index: Tensor) -> Tensor | None:
    """Return the sides of more nodes, as edges between two sides tell them; ``None`` if these contradict each other.

    Example:
        >>> side = torch.tensor([0, 1, -1, -1], dtype=torch.int8)
        >>> extend_sides(side, torch.tensor([[0, 1], [1, 2]]))
        tensor([ 0,  1,  0, -1], dtype=torch.int8)
        >>> extend_sides(side, torch.tensor([[0, 1, 2], [2, 2, 0]])) is None
        True
    """
    label = _cover(edge_index.cpu(), side.numel())
    known = (side >= 0).nonzero().view(-1)
    near = torch.zeros(2 * side.numel(), dtype=torch.bool)
    near[label[side[known].long(), known]] = True
    first, second = near[label]
    if bool((first & second).any()):
        return None
    return torch.where(first, 0, torch.where(second, 1, -1)).to(torch.int8)


def across(pairs: Tensor, side: Tensor) -> Tensor:
    """Say of pairs ``[2, P]`` whether one end is on each side."""
    first, second = side[pairs[0]], side[pairs[1]]
    return (first >= 0) & (second >= 0) & (first != second)


def _cover(links: Tensor, num_nodes: int) -> Tensor:
    """Return the components ``[2, N]`` of a graph that has each node once per side, and each link both ways across.

    The two of a node are in one component if and only if the node is in, or joined to, a cycle of odd length.
    """
    from scipy.sparse import coo_array  # slow to import, and seldom needed
    from scipy.sparse.csgraph import connected_components

    u, v = links.numpy()
    ends = np.concatenate([u, v]), np.concatenate([v, u]) + num_nodes
    graph = coo_array((np.ones(len(ends[0]), dtype=np.int8), ends), shape=(2 * num_nodes, 2 * num_nodes))
    _, label = connected_components(graph, directed=False)
    return torch.from_numpy(label.reshape(2, num_nodes)).long()
