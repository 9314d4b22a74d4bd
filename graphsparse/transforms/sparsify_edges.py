"""Edge sparsification as a PyG transform."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Batch, Data, HeteroData
from torch_geometric.data.datapipes import functional_transform
from torch_geometric.data.storage import NodeStorage
from torch_geometric.transforms import BaseTransform

from graphsparse.edges.attributes import check_one_graph
from graphsparse.edges.mask import (
    edge_kinds,
    fix_num_nodes_,
    join_batch,
    mask_matrix,
    mask_store_,
    matrix_entries,
    split_batch,
    with_entries,
)
from graphsparse.edges.selector import check_size
from graphsparse.edges.sparsifier import Sparsifier, as_sparsifier
from graphsparse.edges.sparsify import EntryDrawer
from graphsparse.typing import EdgeScore

EdgeType = tuple[str, str, str]


@functional_transform("sparsify_edges")
class SparsifyEdges(BaseTransform):  # type: ignore[misc]
    r"""Removes the lowest-scoring undirected edges of a graph, with every attribute that belongs to them.

    Works on :class:`~torch_geometric.data.Data` and, edge type by edge type, on
    :class:`~torch_geometric.data.HeteroData`; on ``edge_index`` (tensor or :class:`~torch_geometric.EdgeIndex`) and on
    ``adj_t`` (torch CSR, CSC or COO, or ``SparseTensor``), whose values are kept. The input is not changed. See
    :func:`~graphsparse.edges.sparsify_edge` for what is removed. An edge type and its reverse lose the same edges. Each
    graph of a ``Batch`` loses its own share, as it would alone.

    What belongs to edges goes with them: in a ``Data`` what has an entry for each edge and ``edge`` in its name, or the
    name ``e_id`` or ``time``, but no links to be learned (``edge_label_index``, ``neg_edge_index``, ``split_edge``);
    beside ``adj_t`` in the order of its entries. What has as many entries but another name stays as it is, and a
    warning says so.

    Args:
        sparsity: Fraction of undirected edges to remove, in ``[0, 1)``. Instead of it ``threshold`` or
            ``num_neighbors`` may be given, and none where there is a core, which is then kept alone.
        score: Name of a score (see :func:`~graphsparse.edges.edge_score`) or of a sparsifier, a
            :class:`~graphsparse.edges.Sparsifier`, or a callable ``(edge_index, num_nodes) -> Tensor[E]``. For an edge
            type between two node types ``num_nodes`` is the sum of both.
        seed: Seed of what is drawn, the same for all edge types; ``None`` draws one from PyTorch's global generator.
        edge_types: Edge types of a ``HeteroData`` to sparsify; all when ``None``.
        threshold: Keep the edges whose score is not below it.
        num_neighbors: Under the local rule ``"rank"``, the number of edges that a node keeps.
        weight_attr: Name of the weights of the edges, which some scores use, and which a sparsifier that draws edges
            replaces by new ones, or makes (:func:`~graphsparse.edges.sample_edge`); without it, and without
            ``edge_index``, they are the values of ``adj_t``. ``edge_attr`` is never scaled.

    Raises:
        TypeError: If the graph is neither a ``Data`` nor a ``HeteroData``, or a hypergraph.
        ValueError: If ``sparsity`` is outside ``[0, 1)``, the graph holds no edges in a known form, a second copy of
            them or a bipartite graph as ``Data``, or a ``Batch`` was changed after it was joined.

    Example:
        >>> from torch_geometric.data import Data
        >>> data = Data(edge_index=torch.tensor([[0, 0, 0, 3, 1], [1, 2, 3, 4, 2]]), num_nodes=5)
        >>> SparsifyEdges(0.4)(data)
        Data(edge_index=[2, 3], num_nodes=5)

    Source: Seo et al., arXiv 2402.01261, Section 4.
    """

    def __init__(
        self,
        sparsity: float | None = None,
        score: str | EdgeScore | Sparsifier = "teddy",
        seed: int | None = None,
        *,
        edge_types: list[EdgeType] | None = None,
        threshold: float | None = None,
        num_neighbors: int | None = None,
        weight_attr: str = "edge_weight",
    ) -> None:
        self.method = as_sparsifier(score)
        check_size(self.method, sparsity, threshold, num_neighbors)
        self.sparsity = sparsity
        self.score = score
        self.seed = seed
        self.edge_types = edge_types
        self.threshold = threshold
        self.num_neighbors = num_neighbors
        self.weight_attr = weight_attr

    def forward(self, data: Data | HeteroData) -> Data | HeteroData:
        """Return the sparsified graph; called with a shallow copy by ``BaseTransform.__call__``."""
        if isinstance(data, Batch):
            joined: Data | HeteroData = join_batch(data, map(self.forward, split_batch(data)))
            return joined
        if not isinstance(data, HeteroData):
            if not isinstance(data, Data):
                raise TypeError(f"'data' must be a Data or a HeteroData (got {type(data).__name__})")
            check_one_graph(data)
            self._sparsify(data._store, None, flip=False)
            return data
        types = data.edge_types if self.edge_types is None else self.edge_types
        unknown = [edge_type for edge_type in types if edge_type not in data.edge_types]
        if unknown:
            raise ValueError(f"'edge_types' must be edge types of 'data', {data.edge_types} (got {unknown[0]!r})")
        num_nodes = {kind: fix_num_nodes_(data[kind]) for src, _, dst in types for kind in (src, dst)}
        start = torch.get_rng_state()
        for edge_type in types:
            if self.seed is None:  # a type and its reverse draw the same seed, if any, and lose the same edges
                torch.set_rng_state(start)
            src, _, dst = edge_type
            size = num_nodes[src] if src == dst else (num_nodes[src], num_nodes[dst])
            self._sparsify(data[edge_type], size, flip=src > dst)
        return data

    def _draw(
        self, store: Any, edge_index: Tensor, weight: Tensor | None, num_nodes: int | tuple[int, int], flip: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Return which entries stay, and the new weights of all, if they get any."""
        # Ties are broken by node order; the order of an edge type and of its reverse must be the same one.
        method = self.method
        if flip and isinstance(num_nodes, tuple):
            edge_index, num_nodes = edge_index.flip(0), num_nodes[::-1]
            method = replace(method, side="src" if method.side == "dst" else "dst")
        return EntryDrawer(
            edge_index,
            self.sparsity,
            method,
            num_nodes=num_nodes,
            seed=self.seed,
            threshold=self.threshold,
            num_neighbors=self.num_neighbors,
            edge_weight=weight if method.uses_weight else None,
            x=store.get("x") if isinstance(store, NodeStorage) else None,
        ).draw()

    def _sparsify(self, store: Any, num_nodes: int | tuple[int, int] | None, flip: bool) -> None:
        if "edge_index" not in store and "adj_t" not in store:
            name = "'data'" if store._key is None else f"'data[{store._key!r}]'"
            raise ValueError(f"{name} must hold 'edge_index' or 'adj_t' (got {list(store.keys())})")
        size = fix_num_nodes_(store) if num_nodes is None else num_nodes
        edge_kinds(store, "edge_index", "adj_t")  # what does not fit together is reported before any work
        matrix, weight = store.get("adj_t"), store.get(self.weight_attr)
        alone = "edge_index" not in store
        if matrix is not None:
            row, col, value = matrix_entries(matrix, "adj_t")
            own = weight if alone and weight is not None else value
            mask, new = self._draw(store, torch.stack([col, row]), own, size, flip)
            matrix = mask_matrix(matrix, mask)
            if new is not None:
                factor = new if own is None else new / own
                value = new if own is value else factor if value is None else value * factor
                matrix = with_entries(matrix, row[mask], col[mask], value[mask])
            if alone:
                mask_store_(store, mask)
                store["adj_t"] = matrix
                if new is not None and weight is not None:
                    store[self.weight_attr] = new[mask]
                return
            # What belongs to edges is in the order of 'edge_index' then.
            del store["adj_t"]
        mask, new = self._draw(store, store["edge_index"], weight, size, flip)
        mask_store_(store, mask, directed=self.method.directed)
        if new is not None:
            store[self.weight_attr] = new[mask]
        if matrix is not None:
            store["adj_t"] = matrix

    def __repr__(self) -> str:
        """Hold every argument: PyG compares the text to tell whether a stored data set is still the one asked for."""
        score = self.score
        if not isinstance(score, (str, Sparsifier)):
            # The name of a function is stable between runs; its address is not.
            score = f"{getattr(score, '__module__', '')}.{getattr(score, '__qualname__', type(score).__qualname__)}"
        text = f"sparsity={self.sparsity}, score={score!r}, seed={self.seed}"
        for name in ("edge_types", "threshold", "num_neighbors"):
            if getattr(self, name) is not None:
                text += f", {name}={getattr(self, name)}"
        weight = "" if self.weight_attr == "edge_weight" else f", weight_attr={self.weight_attr!r}"
        return f"{self.__class__.__name__}({text}{weight})"
