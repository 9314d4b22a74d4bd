"""Source and target as overlapping windows of one graph, in three ways."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from graphsparse.datasets.graph_pair import GraphPair, both_directions, cut_graph, kept_at_random
from graphsparse.datasets.similar_nodes import common_neighbor_pairs, nearest_pairs
from graphsparse.edges.undirected import undirected_edges
from graphsparse.ops.check import check_share


def window_pair(
    data: Data,
    protocol: str,
    *,
    seed: int = 0,
    window: Sequence[float] = (0.3, 0.7),
    drop: float = 0.8,
    num_neighbors: int = 8,
) -> GraphPair:
    r"""Give every node a random time :math:`\tau`, and cut source and target out by time.

    The times are :math:`0, 1/N, \dots, (N-1)/N` in random order. With a window :math:`(a, b)` the source has the nodes
    with :math:`\tau < b`, the target those with :math:`\tau \ge a`, and those between are shared.

    * ``"A"``, the same relation: both are the graph cut to their nodes; in the target each link between shared nodes is
      dropped with probability ``drop``. Links with an end that the source does not have may be held out.
    * ``"B"``, another relation: the target is the graph cut to its nodes, and any link may be held out. The source
      joins each of its nodes to the ``num_neighbors`` that are nearest by the cosine of features.
    * ``"C"``, a derived relation: the target as in B. The source joins nodes that have a neighbour in common, by links
      that can never be held out, because one end is not in the target. Those of training links are added by
      :func:`coupling_source` when there is a split: computed from all links it would give those of the test away.

    Args:
        data: An undirected graph.
        protocol: ``"A"``, ``"B"`` or ``"C"``.
        seed: Draws times, and what is dropped.
        window: The window :math:`(a, b)`.
        drop: See A.
        num_neighbors: See B.

    Raises:
        ValueError: If an argument is out of range, or features are missing that B needs.

    Example:
        >>> from graphsparse.datasets import load
        >>> pair = window_pair(load("synthetic"), "A")
        >>> pair.source.num_nodes, pair.target.num_nodes, pair.hold_out
        (1400, 1400, 'target_only_end')
    """
    if protocol not in ("A", "B", "C"):
        raise ValueError(f"'protocol' must be 'A', 'B' or 'C' (got {protocol!r})")
    rng = np.random.default_rng(seed)
    source, target = draw_windows(int(data.num_nodes), window, rng)
    size = source.numel()
    links = _links(data)
    attributes = {"x": data.get("x"), "y": data.get("y")}
    nodes = [mask.nonzero().view(-1) for mask in (source, target)]
    own = [links[:, mask[links].all(0)] for mask in (source, target)]
    if protocol == "A":
        shared = (source & target)[own[1]].all(0)
        keep = ~shared
        keep[shared] = kept_at_random(own[1][:, shared], size, check_share(drop, "drop"), rng)
        own[1] = own[1][:, keep]
    elif protocol == "B":
        if attributes["x"] is None:
            raise ValueError("protocol 'B' needs features 'x', which the graph does not have")
        own[0] = nodes[0][nearest_pairs(attributes["x"][nodes[0]], num_neighbors)]
    else:
        own[0] = common_neighbor_pairs(links[:, ~target[links].all(0)], source)
    graphs = [cut_graph(ids, both_directions(pairs), attributes, {}) for ids, pairs in zip(nodes, own, strict=True)]
    return GraphPair(graphs[0], graphs[1], "target_only_end" if protocol == "A" else "all")


def coupling_source(data: Data, pair: GraphPair, train: Tensor) -> Data:
    """Return the source of protocol C that training links of the target take part in.

    Args:
        data: The graph that the pair was cut out of.
        pair: Its pair of protocol C.
        train: Training links in the target's numbers, ``[2, P]``.

    Returns:
        The source with the links between nodes that have a neighbour in common, by training links and by those with an
        end that is not in the target. Links that are held out were not looked at.
    """
    links = _links(data)
    target = torch.zeros(int(data.num_nodes), dtype=torch.bool)
    target[pair.target.key] = True
    source = torch.zeros_like(target)
    source[pair.source.key] = True
    known = torch.cat([links[:, ~target[links].all(0)], pair.target.key[train]], dim=1)
    attributes = {"x": data.get("x"), "y": data.get("y")}
    return cut_graph(pair.source.key, both_directions(common_neighbor_pairs(known, source)), attributes, {})


def draw_windows(num_nodes: int, window: Sequence[float], rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Return which nodes are in the source and which in the target, bool ``[N]``."""
    if not isinstance(window, Iterable):
        raise TypeError(f"'window' must be (a, b) with a below b (got {window!r} of type {type(window).__name__})")
    ends = [check_share(end, "window") for end in window]
    if len(ends) != 2 or ends[0] >= ends[1]:
        raise ValueError(f"'window' must be (a, b) with a below b (got {window!r})")
    time = torch.from_numpy(rng.permutation(num_nodes) / num_nodes)
    return time < ends[1], time >= ends[0]


def _links(data: Data) -> Tensor:
    """Return the undirected links of a graph, ``[2, P]``, sorted, the smaller end first."""
    key, size = undirected_edges(data.edge_index, int(data.num_nodes))
    return torch.stack([key // max(size, 1), key % max(size, 1)])
