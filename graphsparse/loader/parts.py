"""Batches of induced subgraphs that together hold every node once: of clusters, and of random nodes."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.loader import ClusterData as PyGClusterData

from graphsparse.edges.attributes import attribute_kinds, warn_of
from graphsparse.loader.batches import Batches, check_graph, cut_out, prepared
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
    filename: str | None = None,
) -> Tensor:
    """Return what :func:`~graphsparse.utils.partition_graph` returns, from a file if it was computed before.

    The name of the file follows from the graph and all arguments, so that a partition of another graph is never read.
    It holds the parts alone, 8 bytes per node, and is there whole or not at all. ``filename``, without its suffix, is
    how the name begins.
    """
    path = None
    if save_dir is not None:
        weight = [] if node_weight is None else [digest([node_weight])]
        begin = Path("partition" if filename is None else filename).stem.replace("-", "_")
        name = "-".join([begin, graph_fingerprint(edge_index, num_nodes), str(num_parts), str(seed), *weight])
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

    Node numbers, such as ``edge_label_index``, speak of the whole graph and are in no cluster, and neither is what
    PyG's loader cannot cut, such as a list with an entry for each node; a warning says so.

    Args:
        data: The graph.
        num_parts: Number of clusters.
        recursive: Taken for PyG's sake and must be ``False``: whether METIS bisects follows from the numbers of nodes
            and parts, see :func:`~graphsparse.utils.partition_graph`.
        save_dir: Folder to keep the partition in; nothing is kept when ``None``.
        filename: How the name of the file below ``save_dir`` begins, without suffix; ``partition`` when ``None``.
        log: Taken for PyG's sake and without effect.
        keep_inter_cluster_edges: Let a single cluster, taken by its number, have the cut edges into it.
        sparse_format: ``"csr"`` or ``"csc"``: whether edges are sorted by source or by destination.
        seed: Seed of the partition.

    Raises:
        TypeError: If an argument has the wrong type, or the graph is no homogeneous ``Data``.
        ValueError: If an argument is out of range, the graph cannot be cut, or the file is damaged.
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
        self,
        data: Data,
        num_parts: int,
        recursive: bool = False,
        save_dir: str | Path | None = None,
        filename: str | None = None,
        log: bool = True,
        keep_inter_cluster_edges: bool = False,
        sparse_format: str = "csr",
        *,
        seed: int = 0,
    ) -> None:
        check_graph(data)
        check_count(num_parts, "num_parts")
        if recursive:
            raise ValueError("'recursive' must be False: whether METIS bisects follows from nodes and parts")
        if sparse_format not in ("csr", "csc"):
            raise ValueError(f"'sparse_format' must be 'csr' or 'csc' (got {sparse_format!r})")
        self._seed, self._save_dir, self._filename = seed, save_dir, filename
        super().__init__(
            _as_pyg_cuts_it(data),
            num_parts,
            log=False,
            keep_inter_cluster_edges=keep_inter_cluster_edges,
            sparse_format=sparse_format,
        )

    def _metis(self, edge_index: Tensor, num_nodes: int) -> Tensor:
        where: Any = {"save_dir": self._save_dir, "filename": self._filename}
        return stored_partition(edge_index, self.num_parts, num_nodes, seed=self._seed, **where)

    def _partition(self, edge_index: Tensor, cluster: Tensor) -> Any:
        """Give each cluster without an entry one that leads to no node: PyG's loader fails without, and drops it."""
        found = super()._partition(edge_index, cluster)
        bare = (found.indptr[found.partptr].diff() == 0).nonzero().view(-1)
        if bare.numel() == 0:
            return found
        if self.keep_inter_cluster_edges:
            raise ValueError(
                f"cluster {int(bare[0])} of {self.num_parts} has no edge, which PyG's ClusterLoader does not take with "
                "'keep_inter_cluster_edges': take fewer parts"
            )
        row, num_edges = found.partptr[bare + 1], edge_index.size(1)
        entry = torch.arange(num_edges, device=row.device)
        place = entry + torch.bucketize(entry, found.indptr[row], right=True)
        old, total = {"index": found.index, "edge_perm": found.edge_perm}, num_edges + bare.numel()
        for name, nothing in (("index", cluster.numel()), ("edge_perm", num_edges)):
            new = torch.full((total,), nothing, device=row.device)
            new[place] = old[name]
            setattr(found, name, new)
        more = torch.zeros_like(found.indptr)
        more[row] = 1
        found.indptr = found.indptr + more.cumsum(0)
        return found

    def _permute_data(self, data: Data, partition: Any) -> Data:
        """Let the entries that lead to no node have a row in what belongs to edges."""
        if partition.edge_perm.numel() > data.edge_index.size(1):
            kinds, _ = attribute_kinds(data._store)
            data = copy.copy(data)
            if partition.edge_perm.numel() == data.num_nodes:  # from here on PyG goes by the name alone
                doubt = "is in no cluster: PyG's loader would take it for what its name says"
                odd = [key for key, kind in kinds.items() if {"node": True, "edge": False}.get(kind) is ("edge" in key)]
                warn_of(dict.fromkeys(odd, doubt))
                for key in odd:
                    del data[key], kinds[key]
            for key in [key for key, kind in kinds.items() if kind in ("edge", "edges")]:
                dim = data.__cat_dim__(key, data[key])
                shape = list(data[key].shape)
                shape[dim] = 1
                data[key] = torch.cat([data[key], data[key].new_zeros(shape)], dim)
        return super()._permute_data(data, partition)


def _as_pyg_cuts_it(data: Data) -> Data:
    """Return a graph without what PyG's clusters would cut otherwise than its names say, or not at all."""
    data = prepared(data)
    kinds, _ = attribute_kinds(data._store)
    bare = copy.copy(data)
    bare.edge_index = None  # as in PyG's clusters, where nothing tells the number of edges but what belongs to them
    left_out = []
    for key, kind in kinds.items():
        if key == "edge_index":
            continue
        as_pyg = "node" if bare.is_node_attr(key) else "edge" if bare.is_edge_attr(key) else "other"
        if as_pyg != kind or (kind != "other" and not isinstance(data[key], Tensor)):
            left_out.append(key)
    for key in left_out:
        del data[key]
    warn_of(dict.fromkeys(left_out, "is in no cluster: PyG's loader would not cut it, or cut it wrongly"))
    return data


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
