"""The links of target and sources under global numbers of nodes, and the edges of the graphs derived from them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphsparse.ops.blocks import blocks
from graphsparse.ops.check import check_edge_index
from graphsparse.ops.digest import digest
from graphsparse.ops.pairs import collect_keys, hide_pairs, key_blocks, key_pairs, pair_keys
from graphsparse.transfer.data.keys import NodeMatch

#: Origins of edges.
FROM_TARGET, FROM_SOURCE, FROM_BOTH = 1, 2, 3


@dataclass(frozen=True)
class Relation:
    """Links of the target and of all sources as sorted keys of global numbers, see :mod:`graphsparse.ops.pairs`.

    Attributes:
        match: The nodes.
        directed: Whether ``(u, v)`` and ``(v, u)`` are different links.
        target: Keys of the target's links.
        source: Keys of the links of any source.
    """

    match: NodeMatch
    directed: bool
    target: Tensor
    source: Tensor

    @cached_property
    def fingerprint(self) -> str:
        """A digest of the target's nodes and links; the sources do not matter."""
        num_nodes = self.match.num_target
        parts = [pair_keys((u, v), num_nodes, directed=True) for _, u, v in self._blocks(self.target)]
        keys = torch.cat([self.target[:0], *parts])
        return f"{num_nodes}-{keys.numel()}-{digest([{'nodes': num_nodes, 'directed': self.directed}, keys])}"

    def between_shared(self, keys: Tensor) -> Tensor:
        """Say of each link whether both its ends are shared nodes."""
        shared = self.match.in_source.clone()
        shared[self.match.num_target :] = False
        found = torch.empty(keys.numel(), dtype=torch.bool)
        for where, u, v in self._blocks(keys):
            found[where] = shared[u] & shared[v]
        return found

    def derive(self, graph: str, hidden: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return sorted keys ``[P]`` of a derived graph's links without hidden pairs ``[2, Q]``, and int8 origins."""
        target, source = self.target, self.source
        if graph in ("intersection", "enriched_intersection"):
            target = target[self.between_shared(target)]
        if graph in ("enriched_intersection", "enriched_target"):
            source = source[self.between_shared(source)]
        if graph in ("target", "intersection"):
            links, origin = target, torch.full((target.numel(),), FROM_TARGET, dtype=torch.int8)
        elif graph == "source":
            links, origin = source, torch.full((source.numel(),), FROM_SOURCE, dtype=torch.int8)
        else:
            links, origin = _merge(target, source)
        if hidden is None:
            return links, origin
        num_nodes = self.match.num_nodes
        unordered = pair_keys(key_pairs(links, num_nodes), num_nodes) if self.directed else links
        keep = hide_pairs(unordered, hidden, num_nodes)
        return links[keep], origin[keep]

    def edges(self, graph: str, hidden: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return ``edge_index`` of a derived graph with local numbers, sorted, and ``edge_origin``."""
        links, origin = self.derive(graph, hidden)
        nodes = self.match.nodes(graph)
        local = None  # where local numbers are the global ones
        if nodes.numel() and int(nodes[-1]) != nodes.numel() - 1:
            local = torch.full((self.match.num_nodes,), -1)
            local[nodes] = torch.arange(nodes.numel())
        count, width, ways = links.numel(), nodes.numel(), 1 if self.directed else 2
        packed = torch.empty(count * ways, dtype=torch.int64)
        for where, *ends in self._blocks(links):
            u, v = ends if local is None else (local[end] for end in ends)
            mark = origin[where].long()
            packed[where] = pair_keys((u, v), width, directed=True) << 2 | mark
            if not self.directed:
                packed[count:][where] = pair_keys((v, u), width, directed=True) << 2 | mark
        if not self.directed:  # one direction alone is sorted already: local numbers rise with global ones
            packed.numpy().sort()
        edge_index = torch.empty(2, packed.numel(), dtype=torch.int64)
        edge_origin = torch.empty(packed.numel(), dtype=torch.int8)
        for where in blocks(packed.numel()):
            edge_origin[where] = packed[where] & 3
            edge_index[:, where] = key_pairs(packed[where] >> 2, width)
        return edge_index, edge_origin

    def summary(self, graph: str, hidden: Tensor | None = None) -> dict[str, float]:
        """Return the numbers of nodes and links of a derived graph, and the mean and median degree."""
        links, _ = self.derive(graph, hidden)
        degree = torch.zeros(self.match.num_nodes, dtype=torch.int64)
        for _, *ends in self._blocks(links):
            for end in ends:
                degree += torch.bincount(end, minlength=degree.numel())
        found = degree[self.match.nodes(graph)].numpy()
        return {
            "num_nodes": len(found),
            "num_links": links.numel(),
            "mean_degree": float(found.mean()) if len(found) else 0.0,
            "median_degree": float(np.median(found)) if len(found) else 0.0,
        }

    def _blocks(self, keys: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
        return key_blocks(keys, self.match.num_nodes)


def read_relation(target: Tensor, sources: Sequence[Tensor], match: NodeMatch, directed: bool) -> Relation:
    """Read the links of all graphs from their edge lists."""
    check_edge_index(target, match.num_target, "target.edge_index")
    for edge_index, ids in zip(sources, match.source_ids, strict=True):
        check_edge_index(edge_index, ids.numel(), "source.edge_index")
    own = _links([target], [None], match.num_nodes, directed)
    return Relation(match, directed, own, _links(sources, match.source_ids, match.num_nodes, directed))


def _links(edges: Sequence[Tensor], ids: Sequence[Tensor | None], num_nodes: int, directed: bool) -> Tensor:
    """Return the keys of the links in some edge lists, given the global numbers of the nodes of each or ``None``."""

    def parts() -> Iterator[Tensor]:
        for edge_index, numbers in zip(edges, ids, strict=True):
            plain = edge_index.as_subclass(Tensor).detach()
            for where in blocks(plain.size(1)):
                pairs = plain[:, where].cpu().long()
                pairs = pairs if numbers is None else numbers[pairs]
                yield pair_keys(pairs, num_nodes, directed=directed)[pairs[0] != pairs[1]]

    return collect_keys(parts(), sum(edge_index.size(1) for edge_index in edges))


def read_pairs(pairs: Any, num_nodes: int, name: str) -> Tensor:
    """Return pairs of the target's nodes as int64 ``[2, P]`` on CPU, or say what is wrong with them."""
    check_edge_index(pairs, num_nodes, name)
    return pairs.as_subclass(Tensor).detach().to(device="cpu", dtype=torch.int64)  # type: ignore[no-any-return]


def _merge(target: Tensor, source: Tensor) -> tuple[Tensor, Tensor]:
    """Join two sorted sets of links. The origin travels in the lowest two bits of what is sorted."""
    packed = np.concatenate([target.numpy() << 2 | FROM_TARGET, source.numpy() << 2 | FROM_SOURCE])
    packed.sort()
    first = np.ones(len(packed), dtype=bool)
    np.not_equal(packed[1:] >> 2, packed[:-1] >> 2, out=first[1:])
    origin = (packed & 3).astype(np.int8)
    origin[:-1][~first[1:]] = FROM_BOTH  # a link that is there twice came first from the target
    return torch.from_numpy(packed[first] >> 2), torch.from_numpy(origin[first])
