"""Cut a graph into parts of about equal size."""

import math

import numpy as np
import pymetis
import torch
from torch import Tensor

from graphsparse.edges.undirected import undirected_edges
from graphsparse.ops.check import check_count, check_edge_index, check_integer

# METIS counts weight in integers. Fractions are written in units of this share of the total: fine enough for 2.4M nodes
# to be told apart, and far from an overflow.
_TOTAL = 1 << 40


def partition_graph(
    edge_index: Tensor,
    num_parts: int,
    num_nodes: int | None = None,
    *,
    node_weight: Tensor | None = None,
    seed: int = 0,
) -> Tensor:
    r"""Assign every node to one of ``num_parts`` parts of about equal size with few edges between them.

    The graph is made undirected first; self-loops and duplicates do not count. Isolated nodes are dealt out like all
    others. As long as there are at least as many nodes as parts, no part is empty. The result depends on the graph, not
    on the order or the direction of its edges.

    Without weights parts are within a few percent of equal size, apart from very small ones; one call takes minutes at
    60M undirected edges. Where there are fewer than four nodes per part, or at most eight parts, METIS bisects
    recursively instead of cutting into all parts at once. Of a graph without edges parts differ by one node at most,
    and, with ``node_weight``, by the largest weight at most.

    Args:
        edge_index: Edges as ``[2, E]``, int64 or int32, in any order.
        num_parts: Number of parts. One part holds every node; more parts than nodes are refused.
        num_nodes: Number of nodes; the largest index plus one when ``None``.
        node_weight: Weight of every node, ``[N]``, integers or floats; parts get about equal sums. METIS balances sums
            of one weight, so validation nodes are spread by ``1 + w * val_mask``: the larger ``w``, the more even
            they lie and the less even are part sizes. Integers are used as they are; floats, and integers with a
            sum above :math:`2^{40}`, are rounded to :math:`2^{-40}` of their sum.
        seed: Two calls with the same seed return the same parts. Where METIS has few choices, on a small graph with
            many parts, so do two calls with different seeds.

    Returns:
        Part of every node, int64 ``[N]``, on the device of ``edge_index``.

    Raises:
        TypeError: If an argument has the wrong type, or ``node_weight`` is boolean.
        ValueError: If ``num_parts`` is below 1 or above the number of nodes, an index is out of range, or
            ``node_weight`` has the wrong shape, a negative or non-finite value, or no positive one.

    Example:
        >>> two_triangles = torch.tensor([[0, 1, 2, 3, 4, 5, 2], [1, 2, 0, 4, 5, 3, 3]])
        >>> part = partition_graph(two_triangles, 2)
        >>> bool((part[:3] == part[0]).all() and (part[3:] == part[3]).all() and part[0] != part[3])
        True

    Source: Karypis and Kumar, *A fast and high quality multilevel scheme for partitioning irregular graphs*, SIAM J.
    Sci. Comput. 20 (1998); clusters for training: Chiang et al., arXiv 1905.07953, Section 3.1.
    """
    num_parts, seed = check_integer(num_parts, "num_parts"), check_count(seed, "seed", least=0)
    if num_nodes is not None:
        num_nodes = check_integer(num_nodes, "num_nodes")
    num_nodes, _ = check_edge_index(edge_index, num_nodes)
    weight = None if node_weight is None else _integer_weight(node_weight, num_nodes)
    if num_parts < 1 or num_parts > num_nodes > 0:
        raise ValueError(f"'num_parts' must be between 1 and the number of nodes, {num_nodes} (got {num_parts})")
    if num_parts == 1 or num_nodes == 0:
        return torch.zeros(num_nodes, dtype=torch.int64, device=edge_index.device)
    part = _metis(edge_index, num_nodes, num_parts, weight, seed)
    if part is None:
        part = _deal_out(num_nodes, num_parts, weight, seed)
    return torch.from_numpy(part).to(edge_index.device)


def _integer_weight(weight: Tensor, num_nodes: int) -> np.ndarray:
    if not isinstance(weight, Tensor) or weight.layout != torch.strided:
        raise TypeError(f"'node_weight' must be a dense tensor of shape [N] (got {type(weight).__name__})")
    if weight.dtype == torch.bool or weight.is_complex():
        raise TypeError(
            f"'node_weight' must hold integers or floats (got {weight.dtype}); to spread the nodes of a mask "
            "use 1 + w * mask"
        )
    # METIS reads a longer array as if it were right and returns nonsense.
    if list(weight.shape) != [num_nodes]:
        raise ValueError(f"'node_weight' must have shape [{num_nodes}] (got {list(weight.shape)})")
    weight = weight.detach().cpu()
    exact = weight.to(torch.float64)
    total = float(exact.sum())
    if num_nodes and (not math.isfinite(total) or float(exact.min()) < 0 or total == 0):
        raise ValueError(
            "'node_weight' must be finite, not negative, and not all zero "
            f"(got values from {float(exact.min())} to {float(exact.max())})"
        )
    if weight.is_floating_point() or total > _TOTAL:
        weight = (exact / total * _TOTAL).round() if num_nodes else exact
    # The buffer of a tensor may be shared with the caller; METIS does not write to it.
    return weight.to(torch.int64).numpy()


def _metis(
    edge_index: Tensor, num_nodes: int, num_parts: int, weight: np.ndarray | None, seed: int
) -> np.ndarray | None:
    edges = undirected_edges(edge_index, num_nodes)
    if edges.num_edges == 0:
        return None  # there is nothing to cut, and only balance is left
    pointer, neighbour = (part.cpu().numpy() for part in edges.csr())
    del edges
    dtype = pymetis.zero_copy_dtype()
    # The k-way method leaves parts empty where parts are tiny.
    recursive = num_parts <= 8 or 4 * num_parts > num_nodes
    result = pymetis.part_graph(
        num_parts,
        pymetis.CSRAdjacency(
            pointer.astype(dtype, copy=False),
            neighbour.astype(dtype, copy=False),
        ),
        vweights=None if weight is None else np.ascontiguousarray(weight, dtype=dtype),
        recursive=recursive,
        # The C library takes 31 bits, and 0 for 1.
        options=pymetis.Options(seed=1 + seed % (2**31 - 2)),
    )
    part = np.array(result.vertex_part, dtype=np.int64)
    _fill_empty_parts_(part, num_parts)
    return part


def _fill_empty_parts_(part: np.ndarray, num_parts: int) -> None:
    """Move one node of a large part into every empty part."""
    size = np.bincount(part, minlength=num_parts)
    empty = np.flatnonzero(size == 0)
    if len(empty) == 0:
        return
    order = np.argsort(part, kind="stable")
    rank = np.empty_like(part)
    rank[order] = np.arange(len(part)) - np.repeat(size.cumsum() - size, size)
    # The nodes of highest rank in their part are those of the largest parts, and rank 0 stays behind.
    part[np.argsort(-rank, kind="stable")[: len(empty)]] = empty


def _deal_out(num_nodes: int, num_parts: int, weight: np.ndarray | None, seed: int) -> np.ndarray:
    """Give every part one node in each round, the heaviest first: no two parts differ by more than one weight."""
    order = np.random.default_rng(seed).permutation(num_nodes)
    if weight is not None:
        order = order[np.argsort(-weight[order], kind="stable")]
    part = np.empty(num_nodes, dtype=np.int64)
    part[order] = np.arange(num_nodes) % num_parts
    return part
