"""The links of one kind in a pair of graphs, under global numbers of nodes."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from graphsparse.ops.blocks import BLOCK
from graphsparse.ops.check import check_edge_index
from graphsparse.transfer.data.derived import derived_links, drop_links
from graphsparse.transfer.data.link_code import Edges, LinkCode
from graphsparse.transfer.data.pair_input import EdgeType, edges_of
from graphsparse.transfer.data.roles import NodeMatch


@dataclass(frozen=True)
class Relation:
    """Links of the target and of all sources.

    Attributes:
        code: How links are numbered.
        ends: The nodes at both ends.
        target: Sorted numbers of the target's links.
        source: Sorted numbers of the links of any source.
    """

    code: LinkCode
    ends: tuple[NodeMatch, NodeMatch]
    target: Tensor
    source: Tensor

    def derive(self, graph: str, hidden: Sequence[Tensor] = ()) -> tuple[Tensor, Tensor]:
        """Return the numbers and origins of a derived graph's links without hidden ones."""
        links, origin = derived_links(graph, self.code, self.target, self.source, self.ends)
        for pairs in hidden:
            links, origin = drop_links(self.code, links, origin, pairs)
        return links, origin

    def check_pairs(self, pairs: Any, name: str) -> Tensor:
        """Return pairs of the target's nodes as int64 ``[2, P]`` on CPU, or say what is wrong with them."""
        ends = self.ends
        check_edge_index(pairs, (ends[0].num_target, ends[1].num_target), name)
        return pairs.as_subclass(Tensor).detach().to(device="cpu", dtype=torch.int64)  # type: ignore[no-any-return]

    def digest(self) -> bytes:
        """Return a digest of the target's links and nodes; the sources do not matter."""
        src, dst = self.ends[0].num_target, self.ends[1].num_target
        found = hashlib.blake2b(f"{src} {dst} {self.code.square} {self.code.directed}".encode(), digest_size=8)
        for start in range(0, self.target.numel(), BLOCK):
            u, v = self.code.decode(self.target[start : start + BLOCK])
            found.update((u * dst + v).numpy().astype("<i8").tobytes())
        return found.digest()


def read_relation(
    edge_type: EdgeType, sources: Sequence[Any], target: Any, ends: tuple[NodeMatch, NodeMatch], directed: bool
) -> Relation:
    """Read the links of one kind from all graphs.

    Raises:
        TypeError: If edges are no integer tensor.
        ValueError: If edges have the wrong shape, or an index is out of range.
    """
    square = edge_type[0] == edge_type[2]
    code = LinkCode(ends[0].num_nodes, ends[1].num_nodes, square, square and directed)
    where = f" of type {edge_type}" if edge_type[1] else ""
    edges = edges_of(target, edge_type)
    size = (ends[0].num_target, ends[1].num_target)
    own: list[Edges] = [] if edges is None else [(edges, None, None)]
    target_links = code.links(own, [size] * len(own), [f"target.edge_index{where}"] * len(own))
    lists: list[Edges] = []
    sizes, names = [], []
    for i, graph in enumerate(sources):
        edges = edges_of(graph, edge_type)
        if edges is not None:
            src, dst = ends[0].source_ids[i], ends[1].source_ids[i]
            lists.append((edges, src, dst))
            sizes.append((src.numel(), dst.numel()))
            names.append(f"source.edge_index{where}")
    return Relation(code, ends, target_links, code.links(lists, sizes, names))
