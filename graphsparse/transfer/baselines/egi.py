"""EGI: tell the surroundings of a node from those of another one by the vector of the node."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import Data

from graphsparse.loader.in_graph import InGraph, new_generator, start_of_order
from graphsparse.loader.neighbor import draw_into
from graphsparse.nn.features import constant_features
from graphsparse.ops.pairs import is_among, key_pairs, pair_keys
from graphsparse.transfer.baselines.pretraining import register_pretraining
from graphsparse.transfer.data.node_features import take_rows


@dataclass(frozen=True)
class EgoHop:
    """The links from one ring around some roots to the next.

    A node that is near several roots is there for each of them.
    """

    #: Place of the inner end in the ring before, and of the outer end in ``nodes``, ``[m]``.
    parent: Tensor
    child: Tensor
    #: Nodes of this ring, and which root each of them is near, ``[n]``.
    nodes: Tensor
    root: Tensor

    def to(self, device: torch.device) -> "EgoHop":
        """Return the same on a device."""
        return EgoHop(*(part.to(device) for part in (self.parent, self.child, self.nodes, self.root)))


def ego_rings(graph: InGraph, roots: Tensor, hops: int, fan_out: int, generator: torch.Generator) -> list[EgoHop]:
    """Draw the surroundings of some nodes, ring by ring: from each node up to ``fan_out`` links to nodes not met yet.

    Example:
        >>> path = InGraph(torch.tensor([[1, 0, 2, 1], [0, 1, 1, 2]]), num_nodes=3)
        >>> rings = ego_rings(path, torch.tensor([0]), 3, 5, torch.Generator())
        >>> [ring.nodes.tolist() for ring in rings]
        [[1], [2]]
    """
    nodes, root = roots.cpu(), torch.arange(roots.numel())
    met = pair_keys((root, nodes), graph.num_nodes, directed=True).sort().values
    rings = []
    for _ in range(hops):
        place, parent = draw_into(graph, nodes, fan_out, generator)
        key = pair_keys((root[parent], graph.source[place]), graph.num_nodes, directed=True)
        fresh = ~is_among(key, met)
        key, parent = key[fresh], parent[fresh]
        if key.numel() == 0:
            break
        ring, child = torch.unique(key, return_inverse=True)
        root, nodes = key_pairs(ring, graph.num_nodes)
        rings.append(EgoHop(parent, child, nodes, root))
        met = torch.cat([met, ring]).sort().values
    return rings


class EgoObjective(nn.Module):
    r"""Makes the links around a node more likely given its own vector than given that of another node.

    For a link from :math:`u` to :math:`v`, one step further from the root :math:`r`, a network scores
    :math:`D = d(h_r \| m_u \| x_v)` with a message :math:`m_u` that has come along from the root. With :math:`D'` for
    the same with the vectors of the roots permuted, the loss is

    .. math::
        \mathrm{mean}(\log(1 + e^{-D'}) + D' - \ln 2) - \mathrm{mean}(\ln 2 - \log(1 + e^{-D})).

    Args:
        encoder: Called as ``encoder(x, edge_index)``, with a CSR matrix of features if those of the graph are one.
        width: Width of the features.
        channels: Width of the vectors.
        graph: What is learned, with ``x`` and both directions of its links.
        seed: Seed of roots, links and permutations.
        num_roots: Roots of a step.
        fan_out: Links from each node.
        hops: Rings around a root: one more than the encoder has layers.

    Example:
        >>> from torch_geometric.nn import GIN
        >>> from graphsparse.testing import random_graph
        >>> bool(EgoObjective(GIN(8, 16, 2), 8, 16, random_graph(), 0)().isfinite())
        True

    Source: Zhu et al., *Transfer Learning of Graph Neural Networks with Ego-graph Information Maximization*, NeurIPS
    2021. The messages have layers of their own here, so that features may be of any width, and a node is in one ring.
    """

    def __init__(
        self,
        encoder: nn.Module,
        width: int,
        channels: int,
        graph: Data,
        seed: int,
        *,
        num_roots: int = 256,
        fan_out: int = 5,
        hops: int = 3,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.own = nn.ModuleList(nn.Linear(width, channels) for _ in range(hops))
        self.passed = nn.ModuleList(nn.Linear(channels, channels, bias=False) for _ in range(hops))
        # One layer on [h, m, x], which is linear: its three parts are applied to nodes, and not to links.
        self.of_root, self.of_message = (nn.Linear(channels, channels, bias=False) for _ in range(2))
        self.of_features, self.last = nn.Linear(width, channels), nn.Linear(channels, 1)
        self.num_roots, self.fan_out, self.hops = num_roots, fan_out, hops
        self._graph, self._edges = graph, InGraph(graph.edge_index.cpu(), graph.num_nodes)
        self._linked = self._edges.degree().nonzero().view(-1)  # a node without links has no surroundings
        if self._linked.numel() == 0:
            raise ValueError("the source has no link to learn from, besides what is held out")
        self._generator = new_generator(seed)
        self.generators = [self._generator]

    def forward(self) -> Tensor:
        """Draw roots and their surroundings, and return the loss."""
        graph = self._graph
        total = self._linked.numel()
        order = start_of_order(total, min(self.num_roots, total), self._generator)
        roots = self._linked[order]
        rings = ego_rings(self._edges, roots, self.hops, self.fan_out, self._generator)
        permuted = torch.randperm(roots.numel(), generator=self._generator)
        near, place = torch.unique(torch.cat([roots, *(ring.nodes for ring in rings)]), return_inverse=True)
        # A node that is near many roots is there once.
        x = constant_features(take_rows(graph.x, near), reuse=False)
        # Drawn on the CPU, where the seed gives the same, and learned where the graph is.
        device = graph.x.device
        roots, permuted, place = (part.to(device) for part in (roots, permuted, place))
        rings = [ring.to(device) for ring in rings]
        start, *places = place.split([roots.numel(), *(ring.nodes.numel() for ring in rings)])
        real_root = self.of_root(self.encoder(graph.x, graph.edge_index)[roots])
        features, message = self.of_features(x), self.own[0](x).relu()[start]
        real, false = [], []
        for own, passed, ring, at in zip(self.own, self.passed, rings, places, strict=False):
            root, child = ring.root[ring.child], ring.child
            rest = self.of_message(message)[ring.parent] + features[at][child]
            real.append(self._score(real_root[root] + rest))
            false.append(self._score(real_root[permuted][root] + rest))
            brought = torch.zeros(at.numel(), message.size(1)).to(message)
            count = torch.bincount(child, minlength=at.numel()).clamp(min=1)[:, None].to(message)
            brought = brought.index_add(0, child, passed(message)[ring.parent]) / count
            message = (own(x)[at] + brought).relu()
        positive = (math.log(2) - F.softplus(-torch.cat(real))).mean()
        drawn = torch.cat(false)
        negative = (F.softplus(-drawn) + drawn - math.log(2)).mean()
        return negative - positive

    def _score(self, hidden: Tensor) -> Tensor:
        score: Tensor = self.last(hidden.relu()).squeeze(1)
        return score


register_pretraining("egi", EgoObjective)
