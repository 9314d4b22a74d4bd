"""The part of a graph that is an ingredient's own: which nodes it answers for, and what it sees besides."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.utils import k_hop_subgraph

from graphsparse.loader.batches import check_graph
from graphsparse.loader.parts import stored_partition
from graphsparse.ops.check import check_count
from graphsparse.training.check import has_label
from graphsparse.training.node_task import hide_test


@dataclass(frozen=True)
class OwnParts:
    """How a graph is cut into parts, of which each ingredient has one; options of the sampler ``own_part``.

    Args:
        num_parts: Number of parts of METIS.
        halo: Over how many hops an ingredient sees neighbours of its part: their features, and the edges among all that
            it sees, but never their labels.
        seed: Seed of the partition.
    """

    num_parts: int
    halo: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("num_parts", 1), ("halo", 0), ("seed", 0)):
            object.__setattr__(self, name, check_count(getattr(self, name), name, least))

    def partition(self, graph: Data, store: Path) -> Tensor:
        """Return the part of every node ``[N]``, which is computed once and kept in the store."""
        where = store / "partitions"
        return stored_partition(graph.edge_index, self.num_parts, graph.num_nodes, seed=self.seed, save_dir=where)

    def seen(self, graph: Data, own: Tensor) -> Tensor:
        """Return all nodes that an ingredient sees, sorted, of which some are its own."""
        found: Tensor = k_hop_subgraph(own, self.halo, graph.edge_index, num_nodes=graph.num_nodes)[0]
        return found

    def graph(self, graph: Data, store: Path, part: int) -> Data:
        """Return what the ingredient of a part is trained on; all labels in it are those of its own nodes."""
        own = (self.partition(graph, store) == part).nonzero().squeeze(1)
        seen = self.seen(graph, own)
        found = graph.subgraph(seen)
        is_own = torch.isin(seen, own)
        found.train_mask, found.val_mask = found.train_mask & is_own, found.val_mask & is_own
        hidden: Data = hide_test(found)
        return hidden

    def check(self, graph: Data, store: Path) -> None:
        """Refuse a graph that cannot be cut, and a part with nothing to learn from or to be judged on."""
        check_graph(graph)
        part = self.partition(graph, store)
        for name in ("train_mask", "val_mask"):
            num = torch.bincount(part[graph[name] & has_label(graph.y, "multiclass")], minlength=self.num_parts)
            if not num.all():
                raise ValueError(
                    f"part {int(num.argmin())} of 'num_parts'={self.num_parts} has no node with a label in "
                    f"'data.{name}': take fewer parts"
                )
