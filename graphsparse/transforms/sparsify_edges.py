"""Edge sparsification as a PyG transform."""

from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data, HeteroData
from torch_geometric.data.datapipes import functional_transform
from torch_geometric.transforms import BaseTransform

from graphsparse.edges.mask import fix_num_nodes_, mask_store_, matrix_entries, with_entries
from graphsparse.edges.sparsify import edge_keep_mask
from graphsparse.ops.check import check_sparsity
from graphsparse.typing import EdgeScore

EdgeType = tuple[str, str, str]


@functional_transform("sparsify_edges")
class SparsifyEdges(BaseTransform):  # type: ignore[misc]
    r"""Removes the lowest-scoring undirected edges of a graph, with every attribute that belongs to them.

    Works on :class:`~torch_geometric.data.Data` and, edge type by edge type, on
    :class:`~torch_geometric.data.HeteroData`; on ``edge_index`` (tensor or :class:`~torch_geometric.EdgeIndex`) and on
    ``adj_t`` (torch CSR or ``SparseTensor``), whose values are kept. The input is not changed. See
    :func:`~graphsparse.edges.sparsify_edge` for what is removed. An edge type and its reverse lose the same edges.

    Args:
        sparsity: Fraction of undirected edges to remove, in ``[0, 1)``.
        score: Name of a score (see :func:`~graphsparse.edges.edge_score`) or a callable
            ``(edge_index, num_nodes) -> Tensor[E]``. For an edge type between two node types ``num_nodes`` is the sum
            of both.
        seed: Seed of the ``random`` score.
        edge_types: Edge types of a ``HeteroData`` to sparsify; all when ``None``.

    Raises:
        ValueError: If ``sparsity`` is outside ``[0, 1)``, or the graph holds no edges in a known form.

    Example:
        >>> from torch_geometric.data import Data
        >>> data = Data(edge_index=torch.tensor([[0, 0, 0, 3, 1], [1, 2, 3, 4, 2]]), num_nodes=5)
        >>> SparsifyEdges(0.4)(data)
        Data(edge_index=[2, 3], num_nodes=5)

    Source: Seo et al., arXiv 2402.01261, Section 4.
    """

    def __init__(
        self,
        sparsity: float,
        score: str | EdgeScore = "teddy",
        seed: int | None = None,
        *,
        edge_types: list[EdgeType] | None = None,
    ) -> None:
        self.sparsity = check_sparsity(sparsity)
        self.score = score
        self.seed = seed
        self.edge_types = edge_types

    def forward(self, data: Data | HeteroData) -> Data | HeteroData:
        """Return the sparsified graph; called with a shallow copy by ``BaseTransform.__call__``."""
        if not isinstance(data, HeteroData):
            self._sparsify(data._store, fix_num_nodes_(data._store), flip=False)
            return data
        num_nodes = {store._key: fix_num_nodes_(store) for store in data.node_stores}
        for edge_type in self.edge_types if self.edge_types is not None else data.edge_types:
            src, _, dst = edge_type
            size = num_nodes[src] if src == dst else (num_nodes[src], num_nodes[dst])
            self._sparsify(data[edge_type], size, flip=src > dst)
        return data

    def _mask(self, edge_index: Tensor, num_nodes: int | tuple[int, int], flip: bool) -> Tensor:
        # Ties are broken by node order; the order of an edge type and of its reverse must be the same one.
        if flip and isinstance(num_nodes, tuple):
            edge_index, num_nodes = edge_index.flip(0), num_nodes[::-1]
        return edge_keep_mask(edge_index, self.sparsity, self.score, num_nodes=num_nodes, seed=self.seed)

    def _sparsify(self, store: Any, num_nodes: int | tuple[int, int], flip: bool) -> None:
        if "edge_index" not in store and "adj_t" not in store:
            raise ValueError(f"'data' must hold 'edge_index' or 'adj_t' (got {list(store.keys())})")
        if "adj_t" in store:
            row, col, value = matrix_entries(store["adj_t"], "adj_t")
            mask = self._mask(torch.stack([col, row]), num_nodes, flip)
            kept = None if value is None else value[mask]
            store["adj_t"] = with_entries(store["adj_t"], row[mask], col[mask], kept)
        if "edge_index" in store:
            mask_store_(store, self._mask(store["edge_index"], num_nodes, flip))

    def __repr__(self) -> str:
        """Hold every argument: PyG compares the text to tell whether a stored data set is still the one asked for."""
        score = self.score
        if not isinstance(score, str):
            # The name of a function is stable between runs; its address is not.
            score = f"{getattr(score, '__module__', '')}.{getattr(score, '__qualname__', type(score).__qualname__)}"
        options = "" if self.edge_types is None else f", edge_types={self.edge_types}"
        return f"{self.__class__.__name__}(sparsity={self.sparsity}, score={score!r}, seed={self.seed}{options})"
