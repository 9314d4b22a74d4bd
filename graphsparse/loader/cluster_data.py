"""PyG's `ClusterData` without a compiled package, and with a file that belongs to one graph only."""

from pathlib import Path
from typing import Any

from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.loader import ClusterData as PyGClusterData

from graphsparse.loader.batches import check_graph
from graphsparse.loader.partition_file import stored_partition


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
        method: ``metis`` or ``random``.
        node_weight: Weight of every node ``[N]``; clusters get about equal sums.
        seed: Seed of the partition.
        save_dir: Folder to keep the partition in; nothing is kept when ``None``.
        keep_inter_cluster_edges: Whether a single cluster keeps the edges to other clusters.
        sparse_format: ``"csr"`` or ``"csc"``: whether edges are sorted by source or by destination.

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
        self,
        data: Data,
        num_parts: int,
        *,
        method: str = "metis",
        node_weight: Tensor | None = None,
        seed: int = 0,
        save_dir: str | Path | None = None,
        keep_inter_cluster_edges: bool = False,
        sparse_format: str = "csr",
    ) -> None:
        check_graph(data)
        if sparse_format not in ("csr", "csc"):
            raise ValueError(f"'sparse_format' must be 'csr' or 'csc' (got {sparse_format!r})")
        self._arguments: dict[str, Any] = {
            "method": method,
            "node_weight": node_weight,
            "seed": seed,
            "save_dir": save_dir,
        }
        super().__init__(
            data,
            num_parts,
            log=False,
            keep_inter_cluster_edges=keep_inter_cluster_edges,
            sparse_format=sparse_format,
        )

    def _metis(self, edge_index: Tensor, num_nodes: int) -> Tensor:
        return stored_partition(edge_index, self.num_parts, num_nodes, **self._arguments)
