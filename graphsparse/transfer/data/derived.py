"""The edges of the graphs that are derived from a pair: sets of links joined, cut to some nodes, and written out."""

import numpy as np
import torch
from torch import Tensor

from graphsparse.ops.blocks import BLOCK
from graphsparse.ops.pairs import is_among
from graphsparse.transfer.data.link_code import LinkCode, both_ends, sorted_codes
from graphsparse.transfer.data.roles import NodeMatch

#: Origins of edges.
FROM_TARGET, FROM_SOURCE, FROM_BOTH = 1, 2, 3


def derived_links(
    graph: str, code: LinkCode, target: Tensor, source: Tensor, ends: tuple[NodeMatch, NodeMatch]
) -> tuple[Tensor, Tensor]:
    r"""Return the links of a derived graph and where each comes from.

    With :math:`A^t` and :math:`A^s` the links of target and sources, and :math:`A[V^\cap]` those between shared nodes,

    ======================= =====================================
    intersection            :math:`A^t[V^\cap]`
    enriched_intersection   :math:`A^t[V^\cap] + A^s[V^\cap]`
    enriched_target         :math:`A^t + A^s[V^\cap]`
    union                   :math:`A^t + A^s`
    ======================= =====================================

    Args:
        graph: Name of the derived graph.
        code: How the links are numbered, with global numbers of nodes.
        target: Links of the target, sorted.
        source: Links of all sources, sorted.
        ends: The nodes at both ends.

    Returns:
        Sorted numbers int64 ``[P]``, and origins int8 ``[P]``: 1 for links of the target, 2 for links of a source, 3
        for links of both. A graph that is made of one of them only has its number everywhere.
    """
    shared = [_shared_everywhere(match) for match in ends]
    parts = []
    if graph != "source":
        cut = graph in ("intersection", "enriched_intersection")
        parts.append((target[both_ends(code, target, *shared)] if cut else target, FROM_TARGET))
    if graph not in ("target", "intersection"):
        cut = graph in ("enriched_intersection", "enriched_target")
        parts.append((source[both_ends(code, source, *shared)] if cut else source, FROM_SOURCE))
    if len(parts) == 1:
        (links, origin) = parts[0]
        return links, torch.full((links.numel(),), origin, dtype=torch.int8)
    return _merge(parts[0][0], parts[1][0])


def _shared_everywhere(match: NodeMatch) -> Tensor:
    """Mark the shared nodes among all."""
    mark = torch.zeros(match.num_nodes, dtype=torch.bool)
    mark[: match.num_target] = match.shared
    return mark


def _merge(target: Tensor, source: Tensor) -> tuple[Tensor, Tensor]:
    """Join two sorted sets of links. The origin travels in the lowest two bits of what is sorted."""
    packed = np.concatenate([target.numpy() << 2 | FROM_TARGET, source.numpy() << 2 | FROM_SOURCE])
    packed.sort()
    first = np.ones(len(packed), dtype=bool)
    np.not_equal(packed[1:] >> 2, packed[:-1] >> 2, out=first[1:])
    origin = (packed & 3).astype(np.int8)
    origin[:-1][~first[1:]] = FROM_BOTH  # a link that is there twice came first from the target
    return torch.from_numpy(packed[first] >> 2), torch.from_numpy(origin[first])


def drop_links(code: LinkCode, links: Tensor, origin: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
    """Leave out links, in whichever direction they are there.

    Args:
        code: How the links are numbered.
        links: Their numbers, sorted.
        origin: Their origins.
        hidden: Pairs to leave out, ``[2, Q]``.
    """
    codes = sorted_codes(code.encode(hidden, unordered=True))
    keep = torch.empty(links.numel(), dtype=torch.bool)
    for start in range(0, links.numel(), BLOCK):
        block = links[start : start + BLOCK]
        keep[start : start + BLOCK] = ~is_among(code.unordered(block), codes)
    return links[keep], origin[keep]


def write_edges(code: LinkCode, links: Tensor, origin: Tensor, nodes: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Write links as an edge list with local numbers, sorted by rows and then columns; both directions if undirected.

    Args:
        code: How the links are numbered.
        links: Their numbers, sorted.
        origin: Their origins.
        nodes: Global numbers of the graph's nodes at both ends, ascending.

    Returns:
        ``edge_index`` int64 ``[2, E]`` and ``edge_origin`` int8 ``[E]``.
    """
    local = [_local(ids, size) for ids, size in zip(nodes, (code.num_src, code.num_dst), strict=True)]
    count, width = links.numel(), max(nodes[1].numel(), 1)
    both = code.undirected
    packed = np.empty(count * (1 + both), dtype=np.int64)
    for start in range(0, count, BLOCK):
        here = slice(start, min(start + BLOCK, count))
        u, v = code.decode(links[here])
        u = u if local[0] is None else local[0][u]
        v = v if local[1] is None else local[1][v]
        mark = origin[here].long()
        packed[here] = ((u * width + v) << 2 | mark).numpy()
        if both:
            packed[count + here.start : count + here.stop] = ((v * width + u) << 2 | mark).numpy()
    if both:  # one direction alone is sorted already: local numbers rise with global ones
        packed.sort()
    edge_index = torch.empty(2, len(packed), dtype=torch.int64)
    edge_origin = torch.empty(len(packed), dtype=torch.int8)
    for start in range(0, len(packed), BLOCK):
        here = slice(start, min(start + BLOCK, len(packed)))
        block = torch.from_numpy(packed[here])
        edge_origin[here] = (block & 3).to(torch.int8)
        pair = block >> 2
        row = pair // width
        edge_index[0, here], edge_index[1, here] = row, pair - row * width
    return edge_index, edge_origin


def _local(ids: Tensor, size: int) -> Tensor | None:
    """Return the local number of each global one; ``None`` where they are the same."""
    if ids.numel() == 0 or int(ids[-1]) == ids.numel() - 1:
        return None
    local = torch.full((size,), -1, dtype=torch.int64)
    local[ids] = torch.arange(ids.numel())
    return local
