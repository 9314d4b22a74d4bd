"""Batches of induced subgraphs that together hold every node once: of clusters, and of random nodes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.loader import ClusterData as PyGClusterData

from graphsparse.loader.batches import Batches, check_graph, cut_out
from graphsparse.loader.in_graph import InGraph
from graphsparse.ops.check import check_count
from graphsparse.ops.digest import digest, graph_fingerprint
from graphsparse.utils.files import atomic_write, read_torch
from graphsparse.utils.partition import partition_graph


def stored_partition(
    edge_index: Tensor,
    num_parts: int,
    num_nodes: int | None = None,
    *,
    node_weight: Tensor | None = None,
    seed: int = 0,
    save_dir: str | Path | None = None,
) -> Tensor:
    """Return what :func:`~graphsparse.utils.partition_graph` returns, from a file if it was computed before.

    The name of the file follows from the graph and all arguments, so that a partition of another graph is never read.
    It holds the parts alone, 8 bytes per node, and is there whole or not at all.
    """
    path = None
    if save_dir is not None:
        weight = [] if node_weight is None else [digest([node_weight])]
        name = "-".join(["partition", graph_fingerprint(edge_index, num_nodes), str(num_parts), str(seed), *weight])
        path = Path(save_dir) / f"{name}.pt"
        if path.exists():
            return _read(path, num_parts).to(edge_index.device)
    part = partition_graph(edge_index, num_parts, num_nodes, node_weight=node_weight, seed=seed)
    if path is not None:
        with atomic_write(path) as temporary:
            torch.save(part.cpu(), temporary)
    return part


def _read(path: Path, num_parts: int) -> Tensor:
    try:
        part = read_torch(path)
    except ValueError as error:
        raise ValueError(f"{error}; it is a partition: delete it to compute it anew") from None
    num_nodes = int(path.name.split("-")[1])
    if not isinstance(part, Tensor) or part.dtype != torch.int64 or part.shape != (num_nodes,):
        raise ValueError(f"{str(path)!r} holds no partition of {num_nodes} nodes; delete it to compute it anew")
    if num_nodes and not (int(part.min()) >= 0 and int(part.max()) < num_parts):
        raise ValueError(f"{str(path)!r} holds other than {num_parts} parts; delete it to compute it anew")
    return part


class ClusterBatches(Batches):
    r"""Batches of a few clusters each, with the edges inside them and between them.

    The graph is cut once, into ``num_parts`` parts. An epoch deals the parts out at random,
    ``parts_per_batch`` = :math:`q` at a time; a batch is the subgraph induced by its parts. It holds a share
    :math:`q / K` of the nodes, and of the cut edges a share :math:`q(q-1) / (K(K-1))`. Batches may have no training
    node; :func:`~graphsparse.training.fit` passes them over.

    Args:
        data: The graph.
        num_parts: Number of parts :math:`K`.
        parts_per_batch: Parts in a batch :math:`q`; fewer in the last one where they do not come out even.
        node_weight: Weight of every node ``[N]`` for the balance of the parts.
        partition_seed: Seed of the partition, which is apart from ``seed`` so that many trainings share one.
        save_dir: Folder to keep the partition in; one of another graph is never read.
        seed: Seed of the batches.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range, or the graph has no ``edge_index``.

    Example:
        >>> from graphsparse.testing import random_graph
        >>> loader = ClusterBatches(random_graph(), num_parts=6, parts_per_batch=2)
        >>> len(loader), sum(batch.num_nodes for batch in loader)
        (3, 60)

    Source: Chiang et al., *Cluster-GCN*, arXiv 1905.07953, Section 3.2 (stochastic multiple partitions).
    """

    def __init__(
        self,
        data: Data,
        *,
        num_parts: int = 32,
        parts_per_batch: int = 4,
        node_weight: Tensor | None = None,
        partition_seed: int = 0,
        save_dir: str | Path | None = None,
        seed: int = 0,
    ) -> None:
        check_graph(data)
        check_count(parts_per_batch, "parts_per_batch")
        super().__init__(data, seed)
        part = stored_partition(
            data.edge_index,
            num_parts,
            data.num_nodes,
            node_weight=node_weight,
            seed=partition_seed,
            save_dir=save_dir,
        ).cpu()
        if parts_per_batch > num_parts:
            raise ValueError(f"'parts_per_batch' must be at most 'num_parts', {num_parts} (got {parts_per_batch})")
        self.num_parts, self.batch_size = num_parts, parts_per_batch
        self._members = torch.split(part.argsort(stable=True), torch.bincount(part, minlength=num_parts).tolist())
        self._graph = InGraph(data.edge_index, data.num_nodes)

    def __iter__(self) -> Iterator[Data]:
        """Deal the parts out anew."""
        order = torch.randperm(self.num_parts, generator=self.generator)
        for parts in torch.split(order, self.batch_size):
            yield induced(self.data, self._graph, torch.cat([self._members[part] for part in parts.tolist()]))

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        return -(-self.num_parts // self.batch_size)


class ClusterData(PyGClusterData):  # type: ignore[misc]
    """A graph in the order of its clusters, for PyG's ``ClusterLoader``.

    What differs from :class:`torch_geometric.loader.ClusterData`:

    * the partition is that of :func:`~graphsparse.utils.partition_graph`, so no compiled package is needed. It is
      computed on the undirected graph; the edges of the clusters stay those of ``data``, directions, self-loops and
      repeated ones included;
    * the file below ``save_dir`` is named after the graph and all arguments of the partition. PyG names it after the
      number of parts alone and reads it for any other graph. It holds the parts only, so that it serves both sparse
      formats, and it is written whole or not at all;
    * nothing is printed.

    As in PyG, the cut edges between the clusters of one batch are kept by ``ClusterLoader``, and a single cluster taken
    by its number has none unless ``keep_inter_cluster_edges`` is set, in which case sources are numbered by their place
    in the whole order.

    Args:
        data: The graph.
        num_parts: Number of clusters.
        seed: Seed of the partition.
        save_dir: Folder to keep the partition in; nothing is kept when ``None``.
        **options: ``keep_inter_cluster_edges`` and ``sparse_format`` of PyG's class.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range, or the file is damaged.
        OSError: If the folder cannot be written.

    Example:
        >>> from torch_geometric.loader import ClusterLoader
        >>> from graphsparse.testing import random_graph
        >>> loader = ClusterLoader(ClusterData(random_graph(), 6), batch_size=2, shuffle=True)
        >>> sum(batch.num_nodes for batch in loader)
        60

    Source: Chiang et al., *Cluster-GCN*, arXiv 1905.07953.
    """

    def __init__(
        self, data: Data, num_parts: int, *, seed: int = 0, save_dir: str | Path | None = None, **options: Any
    ) -> None:
        check_graph(data)
        self._seed, self._save_dir = seed, save_dir
        super().__init__(data, num_parts, log=False, **options)

    def _metis(self, edge_index: Tensor, num_nodes: int) -> Tensor:
        return stored_partition(edge_index, self.num_parts, num_nodes, seed=self._seed, save_dir=self._save_dir)


class RandomNodeBatches(Batches):
    """Deals all nodes out at random into groups of about equal size, and gives the subgraph that each group induces.

    Of all edges a share of about ``1 / num_parts`` is seen in an epoch, another one each time.

    Args:
        data: The graph.
        num_parts: Number of batches; no more than there are nodes.
        seed: Seed of the batches.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range, or the graph has no ``edge_index``.

    Example:
        >>> from graphsparse.testing import random_graph
        >>> [batch.num_nodes for batch in RandomNodeBatches(random_graph(), num_parts=7)]
        [9, 9, 9, 9, 8, 8, 8]

    Source: the random partition that Chiang et al., arXiv 1905.07953, Table 2, compare clusters with.
    """

    def __init__(self, data: Data, *, num_parts: int = 4, seed: int = 0) -> None:
        check_graph(data)
        check_count(num_parts, "num_parts")
        if num_parts > data.num_nodes:
            raise ValueError(f"'num_parts' must be at most the number of nodes, {data.num_nodes} (got {num_parts})")
        super().__init__(data, seed)
        self.num_parts = num_parts
        self._graph = InGraph(data.edge_index, data.num_nodes)

    def __iter__(self) -> Iterator[Data]:
        """Deal the nodes out anew."""
        order = torch.randperm(self.data.num_nodes, generator=self.generator)
        for nodes in order.tensor_split(self.num_parts):
            yield induced(self.data, self._graph, nodes.sort().values)

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        return self.num_parts


def induced(data: Data, graph: InGraph, nodes: Tensor) -> Data:
    """Return the subgraph that some nodes induce."""
    edge_index, place = graph.between(nodes)
    return cut_out(data, nodes, edge_index, graph.edge_id(place))
