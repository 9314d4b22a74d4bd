"""Source and target as overlapping windows of one graph, in three ways."""

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from graphsparse.datasets.graph_pair import GraphPair, both_directions, cut_graph, kept_at_random
from graphsparse.edges.undirected import undirected_edges
from graphsparse.ops.blocks import blocks
from graphsparse.ops.pairs import key_pairs

#: The source has the nodes of a time before the second number, the target those from the first one on.
_WINDOW = (0.3, 0.7)
#: Chance that the target of protocol A lacks a link between shared nodes.
DROP = 0.8
#: Nearest nodes that each node of the source of protocol B is joined to.
_NEIGHBORS = 8
#: Similarities held at a time, which a product of large matrices makes: larger blocks than those of other work.
_SIMILARITIES = 1 << 24


def window_pair(data: Data, protocol: str, *, seed: int = 0) -> GraphPair:
    r"""Give every node a random time :math:`\tau`, and cut source and target out by time.

    The times are :math:`0, 1/N, \dots, (N-1)/N` in random order. The source has the nodes with :math:`\tau < 0.7`, the
    target those with :math:`\tau \ge 0.3`, and those between are shared.

    * ``"A"``, the same relation: both are the graph cut to their nodes; in the target each link between shared nodes is
      dropped with probability 0.8. Links with an end that the source does not have may be held out.
    * ``"B"``, another relation: the target is the graph cut to its nodes, and any link may be held out. The source
      joins each of its nodes to the 8 that are nearest by the cosine of features.
    * ``"C"``, a derived relation: the target as in B. The source joins nodes that have a neighbour in common, by links
      that can never be held out, because one end is not in the target. Those of training links are added by
      :func:`coupling_source` when there is a split: computed from all links it would give those of the test away.
    """
    rng = np.random.default_rng(seed)
    source, target = _draw_windows(int(data.num_nodes), rng)
    size = source.numel()
    links = _links(data)
    attributes = {"x": data.get("x"), "y": data.get("y")}
    nodes = [mask.nonzero().view(-1) for mask in (source, target)]
    own = [links[:, mask[links].all(0)] for mask in (source, target)]
    if protocol == "A":
        shared = (source & target)[own[1]].all(0)
        keep = ~shared
        keep[shared] = kept_at_random(own[1][:, shared], size, DROP, rng)
        own[1] = own[1][:, keep]
    elif protocol == "B":
        if attributes["x"] is None:
            raise ValueError("protocol 'B' needs features 'x', which the graph does not have")
        own[0] = nodes[0][nearest_pairs(attributes["x"][nodes[0]], _NEIGHBORS)]
    else:
        own[0] = common_neighbor_pairs(links[:, ~target[links].all(0)], source)
    graphs = [cut_graph(ids, both_directions(pairs), attributes, {}) for ids, pairs in zip(nodes, own, strict=True)]
    return GraphPair(graphs[0], graphs[1], "target_only_end" if protocol == "A" else "all")


def coupling_source(data: Data, pair: GraphPair, train: Tensor) -> Data:
    """Return the source of protocol C that training links of the target, ``[2, P]`` in its numbers, take part in.

    It has the links between nodes that have a neighbour in common, by training links and by those with an end that is
    not in the target. Links that are held out were not looked at.
    """
    links = _links(data)
    target = torch.zeros(int(data.num_nodes), dtype=torch.bool)
    target[pair.target.key] = True
    source = torch.zeros_like(target)
    source[pair.source.key] = True
    known = torch.cat([links[:, ~target[links].all(0)], pair.target.key[train]], dim=1)
    attributes = {"x": data.get("x"), "y": data.get("y")}
    return cut_graph(pair.source.key, both_directions(common_neighbor_pairs(known, source)), attributes, {})


def _draw_windows(num_nodes: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Return which nodes are in the source and which in the target, bool ``[N]``."""
    time = torch.from_numpy(rng.permutation(num_nodes) / num_nodes)
    return time < _WINDOW[1], time >= _WINDOW[0]


def _links(data: Data) -> Tensor:
    """Return the undirected links of a graph, ``[2, P]``, sorted, the smaller end first."""
    return key_pairs(*undirected_edges(data.edge_index, int(data.num_nodes)))


def nearest_pairs(x: Tensor, num_neighbors: int) -> Tensor:
    """Return each node with those nearest to it by the cosine of their features, every pair once.

    All similarities are computed, some rows at a time: memory grows with the number of nodes, time with its square. Of
    equally near nodes any may be taken. A row of zeros is equally far from all, and is joined to none.

    Example:
        >>> nearest_pairs(torch.tensor([[1.0, 0.0], [2.0, 0.1], [0.0, 1.0]]), 1)
        tensor([[0, 1],
                [1, 2]])
    """
    size = x.size(0)
    unit = torch.nn.functional.normalize(x.float(), dim=1)
    k = min(num_neighbors, size - 1)
    if k < 1:
        return torch.empty(2, 0, dtype=torch.int64)
    found = []
    for rows in blocks(size, max(_SIMILARITIES // size, 1)):
        likeness = unit[rows] @ unit.t()
        own, start = torch.arange(likeness.size(0)), rows.start
        likeness[own, own + start] = -2.0
        value, index = likeness.topk(k, dim=1)
        near = value > 0
        found.append(torch.stack([(own + start).unsqueeze(1).expand_as(index)[near], index[near]]))
    return key_pairs(*undirected_edges(torch.cat(found, dim=1), size))


def common_neighbor_pairs(links: Tensor, among: Tensor) -> Tensor:
    """Return all pairs of marked nodes that have a neighbour in common, every pair once.

    The common neighbour may be any node. Time and memory grow with the sum of the squares of degrees.

    Example:
        >>> common_neighbor_pairs(torch.tensor([[0, 1, 2], [1, 2, 3]]), torch.ones(4, dtype=torch.bool))
        tensor([[0, 1],
                [2, 3]])
    """
    size = among.numel()
    centre, leaf = torch.cat([links, links.flip(0)], dim=1)
    keep = among[leaf]
    centre, leaf = centre[keep], leaf[keep]
    order = (centre * size + leaf).argsort()
    centre, leaf = centre[order], leaf[order]
    degree = torch.bincount(centre, minlength=size)
    # Entry i, at some place among the leaves of its centre, is joined to all leaves behind it.
    stop = degree.cumsum(0)[centre]
    position = torch.arange(leaf.numel())
    count = stop - position - 1
    first = position.repeat_interleave(count)
    offset = torch.arange(first.numel()) - (count.cumsum(0) - count).repeat_interleave(count)
    return key_pairs(*undirected_edges(torch.stack([leaf[first], leaf[first + 1 + offset]]), size))
