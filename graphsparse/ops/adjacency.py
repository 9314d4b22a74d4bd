"""A graph as a sparse matrix in compressed rows, with everything that is derived from it once and kept."""

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch_geometric import EdgeIndex

from graphsparse.ops import norm
from graphsparse.ops.check import check_edge_index, check_edge_value, check_entries, check_integer, check_per_edge
from graphsparse.ops.csr import csr_tensor
from graphsparse.ops.pattern import Pattern, aligned, has_history, in_row_order, own_memory, version_of
from graphsparse.typing import optional_module

#: Rows and columns of all entries, their values, and the numbers of rows and columns.
Entries = tuple[Tensor, Tensor, Tensor | None, tuple[int, int]]


class Adjacency:
    r"""A graph as the sparse matrix :math:`\mathbf{A}` with :math:`A_{ij}` the value of the edge :math:`j \to i`.

    **Rows are destinations and columns are sources**, so that ``spmm(adj, x)`` brings the features of the sources to
    their destinations, as the convolutions of PyG do. For ``edge_index`` this means that ``edge_index[1]`` gives the
    rows and ``edge_index[0]`` the columns: the matrix is the *transpose* of ``to_scipy_sparse_matrix(edge_index)``,
    and the same as the ``adj_t`` of PyG's ``ToSparseTensor``.

    **Two orders.** ``rowptr``, ``col`` and ``value`` are in the order of the compressed rows. Whatever is handed over
    per edge (``edge_weight``, ``edge_mask``, the ``value`` of ``spmm``) is in the order of the edge list that the
    adjacency was made of, and so are its gradients. ``to_edge_index`` returns that list.

    Indices are int32 where they fit, which halves the memory that a product reads for them; :meth:`to_torch_csr` and
    :meth:`to_edge_index` give int64, which torch needs for right gradients elsewhere. Repeated edges are kept,
    and add up in a product. **An adjacency never changes**: what it holds are copies of what it was made of, and what
    is derived from it (transpose, normalisations) is computed at the first call and kept, unless the values need
    gradients. Its tensors must not be written to; :meth:`with_value` gives the same graph with other values.

    Build one with :meth:`from_edge_index`, :meth:`from_torch_csr` or :meth:`from_sparse_tensor`.

    Args:
        pattern: Where the entries are.
        value: Values of the entries in the order of the rows, ``[E]``; ``None`` means that all are 1.
        symmetric: Whether the matrix equals its transpose; ``None`` to find out when it is first asked for.

    Example:
        >>> adj = Adjacency.from_edge_index(torch.tensor([[0, 2, 1], [1, 1, 0]]), num_nodes=3)
        >>> adj
        Adjacency(num_dst=3, num_src=3, num_edges=3)
        >>> adj.rowptr, adj.col
        (tensor([0, 1, 3, 3], dtype=torch.int32), tensor([1, 0, 2], dtype=torch.int32))
        >>> adj.is_symmetric
        False
    """

    def __init__(self, pattern: Pattern, value: Tensor | None = None, symmetric: bool | None = None) -> None:
        if symmetric and pattern.num_rows != pattern.num_cols:
            raise ValueError(
                f"'symmetric' needs as many sources as destinations (got {pattern.num_cols} and {pattern.num_rows})"
            )
        if symmetric:
            pattern.symmetric = True
        self.pattern = pattern
        self._value, self._version = value, version_of(value)
        self._symmetric = symmetric
        self._cache: dict[Any, Any] = {}

    @classmethod
    def from_edge_index(
        cls,
        edge_index: Tensor,
        edge_weight: Tensor | None = None,
        num_nodes: int | tuple[int, int] | None = None,
        *,
        symmetric: bool | None = None,
    ) -> "Adjacency":
        """Build an adjacency from an edge list in any order.

        Besides the input and the result it holds about 16 bytes per edge.

        Args:
            edge_index: Edges as ``[2, E]``, sources first, int64 or int32. An ``EdgeIndex`` gives its size too, and is
                believed when it says that it is undirected.
            edge_weight: Values of the edges, floating point ``[E]``, with or without gradients.
            num_nodes: Number of nodes, or ``(num_src, num_dst)`` for a bipartite graph. Taken from the largest index
                when ``None``.
            symmetric: Asserts that the matrix, values included, equals its transpose, or that it does not. With
                ``None`` it is found out when needed, at the cost of one sort.

        Raises:
            TypeError: If a tensor has the wrong type.
            ValueError: If a shape is wrong, an index is out of range, or a bipartite graph is said to be symmetric.

        Example:
            >>> adj = Adjacency.from_edge_index(torch.tensor([[0, 1], [1, 0]]), torch.tensor([0.5, 0.5]))
            >>> adj.is_symmetric
            True
        """
        undirected = None
        if isinstance(edge_index, EdgeIndex):
            undirected = True if edge_index.is_undirected else None
            num_src, num_dst = edge_index.sparse_size()
            if num_nodes is None and num_src is not None and num_dst is not None:
                num_nodes = (num_src, num_dst)
            edge_index = edge_index.as_tensor()
        num_src, num_dst = check_edge_index(edge_index, num_nodes)
        if edge_weight is not None:
            check_edge_value(edge_weight, edge_index.size(1), edge_index.device, "edge_weight")
        return cls._build((edge_index[1], edge_index[0], edge_weight, (num_dst, num_src)), symmetric, undirected)

    @classmethod
    def from_torch_csr(cls, matrix: Tensor, *, symmetric: bool | None = None) -> "Adjacency":
        """Build an adjacency from a torch CSR matrix whose rows are destinations, as PyG's ``adj_t``.

        Args:
            matrix: Matrix ``[num_dst, num_src]``; repeated entries, and columns in any order, are allowed.
            symmetric: As in :meth:`from_edge_index`.

        Raises:
            TypeError: If it is no CSR matrix.
            ValueError: If an index is out of range.
        """
        if not isinstance(matrix, Tensor) or matrix.layout != torch.sparse_csr or matrix.dim() != 2:
            kind = getattr(matrix, "layout", type(matrix).__name__)
            raise TypeError(f"'matrix' must be a two-dimensional torch CSR tensor (got {kind})")
        rowptr, col = matrix.crow_indices(), matrix.col_indices()
        count = rowptr.diff()
        if int(rowptr[0]) != 0 or int(rowptr[-1]) != col.numel() or (count < 0).any():
            raise ValueError("the row offsets of 'matrix' must rise from 0 to its number of entries")
        row = torch.arange(matrix.size(0), device=col.device).repeat_interleave(count, output_size=col.numel())
        return cls._of_matrix(row, col, matrix.values(), matrix.shape, symmetric)

    @classmethod
    def from_sparse_tensor(cls, matrix: Any, *, symmetric: bool | None = None) -> "Adjacency":
        """Build an adjacency from a ``torch_sparse.SparseTensor`` whose rows are destinations, as PyG's ``adj_t``.

        Args:
            matrix: ``SparseTensor`` of size ``[num_dst, num_src]``.
            symmetric: As in :meth:`from_edge_index`.

        Raises:
            ImportError: If torch-sparse cannot be used.
            TypeError: If it is no ``SparseTensor``.
            ValueError: If an index is out of range.
        """
        if not isinstance(matrix, optional_module("torch_sparse").SparseTensor):
            raise TypeError(f"'matrix' must be a SparseTensor (got {type(matrix).__name__})")
        row, col, value = matrix.coo()
        return cls._of_matrix(row, col, value, matrix.sizes(), symmetric)

    @classmethod
    def _of_matrix(cls, row: Tensor, col: Tensor, value: Any, size: Sequence[int], symmetric: Any) -> "Adjacency":
        check_entries(row, col, (size[0], size[1]))
        return cls._build((row, col, value, (size[0], size[1])), symmetric)

    @classmethod
    def _build(cls, entries: Entries, symmetric: bool | None, symmetric_pattern: bool | None = None) -> "Adjacency":
        row, col, value, (num_rows, num_cols) = entries
        pattern = Pattern.build(row, col, num_rows, num_cols, symmetric_pattern)
        return cls(pattern, in_row_order(pattern, value), symmetric)

    @property
    def value(self) -> Tensor | None:
        """Values of the edges in the order of the rows, ``[E]``; ``None`` if all are 1.

        Raises:
            RuntimeError: If they have been written to.
        """
        if self._version != version_of(self._value):
            raise RuntimeError("the values of an Adjacency were changed in place; use 'with_value' to get another one")
        return self._value

    @property
    def rowptr(self) -> Tensor:
        """Where the edges into each destination start, ``[num_dst + 1]``."""
        return self.pattern.rowptr

    @property
    def col(self) -> Tensor:
        """Sources, ``[E]``, in the order of the rows."""
        return self.pattern.col

    @property
    def num_dst(self) -> int:
        """Number of destinations: rows."""
        return self.pattern.num_rows

    @property
    def num_src(self) -> int:
        """Number of sources: columns."""
        return self.pattern.num_cols

    @property
    def num_edges(self) -> int:
        """Number of edges, repeated ones counted each."""
        return self.pattern.num_entries

    @property
    def device(self) -> torch.device:
        """Device of the indices and values."""
        return self.pattern.col.device

    @property
    def is_symmetric(self) -> bool:
        """Whether the matrix, values included, equals its transpose.

        Found out exactly at the first call, unless it was asserted: linear where in- and out-degrees differ, else one
        sort. Values are compared bit for bit, those of a repeated edge in the order of its copies.
        """
        if self._symmetric is not None:
            return self._symmetric
        symmetric = self.pattern.is_symmetric()
        if symmetric and self.value is not None:
            value = self.value.detach()
            symmetric = torch.equal(value.index_select(0, self.pattern.transposed()[1]), value)
        if not has_history(self.value):
            self._symmetric = symmetric
        return symmetric

    def t(self) -> "Adjacency":
        """Return the transpose: every edge turned around. A symmetric adjacency returns itself.

        Example:
            >>> adj = Adjacency.from_edge_index(torch.tensor([[0, 0], [1, 2]]))
            >>> adj.t().to_edge_index()[0]
            tensor([[1, 2],
                    [0, 0]])
        """
        # Values that are being learned hardly ever stay symmetric, so comparing them would be wasted.
        if self._symmetric if has_history(self.value) else self.is_symmetric:
            return self
        back = self._cache.get("back")
        found: Adjacency = (back() if back else None) or self.keep(("t",), self._transpose)
        return found

    def _transpose(self) -> "Adjacency":
        pattern, order = self.pattern.transposed()
        value = None if self.value is None else self.value.index_select(0, order)
        result = Adjacency(pattern, value, self._symmetric)
        if not has_history(self.value):
            result._cache["back"] = weakref.ref(self)  # no cycle: large tensors should go when they are let go
        return result

    def row_sum(self, dtype: torch.dtype | None = None) -> Tensor:
        """Return the sum of the values of the edges into each destination, ``[num_dst]``: without values, the degree.

        Args:
            dtype: Type of the result when there are no values; torch's default if ``None``.
        """
        total: Tensor = self.keep(("sum", dtype), lambda: norm.row_sum(self.pattern, self.value, dtype))
        return total

    def gcn_norm(
        self, add_self_loops: bool = True, *, improved: bool = False, dtype: torch.dtype | None = None
    ) -> "Adjacency":
        r"""Return the symmetrically normalised adjacency of a GCN.

        .. math:: \mathbf{D}^{-1/2} (\mathbf{A} + \mathbf{I}) \mathbf{D}^{-1/2}, \quad
            D_{ii} = \sum_j (\mathbf{A} + \mathbf{I})_{ij}

        The result equals that of PyG's ``gcn_norm``, values and order of the edge list alike: nodes that have a
        self-loop keep its value, that of the last one if they have several, the others get one, and an edge into a node
        of degree 0 gets the value 0. A self-loop of value 0 is the same as none, as if it had been deleted before; PyG
        keeps it. The result is differentiable in the values; where PyG's gradient is NaN, at nodes of degree 0, it
        is 0.

        Args:
            add_self_loops: Whether to add the missing self-loops.
            improved: Gives added self-loops the value 2. As in PyG, this has no effect on a graph without values.
            dtype: Type of the result when there are no values; torch's default if ``None``.

        Raises:
            ValueError: If the graph is bipartite.

        Source: Kipf and Welling, "Semi-Supervised Classification with Graph Convolutional Networks", section 2.

        Example:
            >>> adj = Adjacency.from_edge_index(torch.tensor([[0, 1], [1, 0]]))
            >>> adj.gcn_norm().value
            tensor([0.5000, 0.5000, 0.5000, 0.5000])
        """
        if self.num_src != self.num_dst:
            raise ValueError(
                f"'gcn_norm' needs as many sources as destinations (got {self.num_src} and {self.num_dst})"
            )

        def normalise() -> Adjacency:
            pattern, value = self.pattern, self.value
            if add_self_loops:
                pattern, value = norm.with_loops(pattern, value, 2.0 if improved else 1.0)
            return Adjacency(pattern, norm.gcn_value(pattern, value, dtype), True if self._symmetric else None)

        normalised: Adjacency = self.keep(("gcn", add_self_loops, improved, dtype), normalise)
        return normalised

    def select(self, edge_mask: Tensor, *, symmetric: bool | None = None) -> "Adjacency":
        """Return the adjacency of the edges that a mask keeps, in linear time.

        The edge list of the result is ``edge_index[:, edge_mask]``.

        Args:
            edge_mask: Bool ``[E]`` in the order of the edge list, ``True`` where an edge is kept.
            symmetric: As in :meth:`from_edge_index`, for the result.

        Raises:
            TypeError: If the mask is no bool tensor.
            ValueError: If it has the wrong shape or device.

        Example:
            >>> adj = Adjacency.from_edge_index(torch.tensor([[0, 2, 1], [1, 1, 0]]))
            >>> adj.select(torch.tensor([False, True, True])).to_edge_index()[0]
            tensor([[2, 1],
                    [1, 0]])
        """
        if not isinstance(edge_mask, Tensor) or edge_mask.dtype != torch.bool:
            raise TypeError(
                f"'edge_mask' must be a bool tensor (got {getattr(edge_mask, 'dtype', type(edge_mask).__name__)})"
            )
        check_per_edge(edge_mask, self.num_edges, self.device, "edge_mask")
        value = self.value
        if value is not None:
            value = value[self.pattern.from_edges(edge_mask)]
        return Adjacency(self.pattern.select(edge_mask), value, symmetric)

    def rows(self, start: int, stop: int) -> "Adjacency":
        """Return the edges into the destinations ``start`` to ``stop - 1``, from all sources: a block of rows.

        Nothing is sorted, and the indices and values are those here; on a device they are copies where the block begins
        at a place from which kernels cannot read. Values carry their gradients. The edge list of the result is **in the
        order of the rows**: by destination, then by source.

        Args:
            start: First destination of the block, which becomes destination 0.
            stop: First destination after the block.

        Raises:
            TypeError: If a bound is no integer.
            ValueError: If not ``0 <= start <= stop <= num_dst``.

        Example:
            >>> adj = Adjacency.from_edge_index(torch.tensor([[2, 0, 1], [1, 1, 0]]))
            >>> adj.rows(1, 3).to_edge_index()[0]
            tensor([[0, 2],
                    [0, 0]])
        """
        start, stop = check_integer(start, "start"), check_integer(stop, "stop")
        if not 0 <= start <= stop <= self.num_dst:
            raise ValueError(f"'start' and 'stop' must be 0 <= start <= stop <= {self.num_dst} (got {start}, {stop})")
        pattern, entries = self.pattern.rows(start, stop)
        return Adjacency(pattern, None if self.value is None else aligned(self.value[entries]))

    def with_value(self, edge_weight: Tensor | None, *, symmetric: bool | None = None) -> "Adjacency":
        """Return the same graph with other values, which may need gradients; what is known of the graph is shared.

        Values that are learned are put in place anew for every step, as any other result of a computation.

        Args:
            edge_weight: Floating point ``[E]`` in the order of the edge list; ``None`` means that all are 1.
            symmetric: As in :meth:`from_edge_index`, for the result.

        Raises:
            TypeError: If the values are no floating point tensor.
            ValueError: If they have the wrong shape or device.
        """
        if edge_weight is None:
            return self if self.value is None else Adjacency(self.pattern, None, symmetric)
        check_edge_value(edge_weight, self.num_edges, self.device, "edge_weight")
        return Adjacency(self.pattern, in_row_order(self.pattern, edge_weight), symmetric)

    def to_edge_index(self) -> tuple[Tensor, Tensor | None]:
        """Return ``(edge_index, edge_weight)``, int64 and in the order in which the edges came.

        The weight is ``None`` where there are no values, and carries their gradients where there are.
        """
        row, col = self.pattern.to_edges(self.pattern.row()), self.pattern.to_edges(self.pattern.col)
        weight = None if self.value is None else self.pattern.to_edges(self.value)
        return torch.stack([col, row]).long(), weight

    def to_torch_csr(self) -> Tensor:
        """Return a torch CSR matrix ``[num_dst, num_src]``; its values share memory with the adjacency: don't write.

        Its indices are int64, as the gradients of PyG's layers are wrong or NaN for int32 (torch 2.13); they are kept.
        """
        pattern, value = self.pattern, self.value
        value = torch.ones(pattern.num_entries, device=pattern.col.device) if value is None else value.contiguous()
        return csr_tensor(*pattern.wide(), value, (pattern.num_rows, pattern.num_cols))

    def to(self, device: torch.device | str | int, *, non_blocking: bool = False) -> "Adjacency":
        """Return the adjacency on a device: itself when it is there already. A graph of PyG that holds it moves it.

        Args:
            device: Device.
            non_blocking: Whether not to wait for the copy, where the memory is pinned.
        """
        device = torch.empty(0, device=device).device  # "cuda" becomes "cuda:0", the way tensors report it
        if device == self.device:
            return self
        return self._map(lambda part: part.to(device, non_blocking=non_blocking))

    def cpu(self) -> "Adjacency":
        """Return the adjacency on the CPU."""
        return self.to("cpu")

    def cuda(self, device: torch.device | str | int | None = None, *, non_blocking: bool = False) -> "Adjacency":
        """Return the adjacency on a GPU, the current one if ``None``."""
        return self.to("cuda" if device is None else device, non_blocking=non_blocking)

    def pin_memory(self) -> "Adjacency":
        """Return the adjacency in memory from which it can be copied to a GPU without waiting."""
        return self._map(lambda part: part.pin_memory())

    def record_stream(self, stream: Any) -> None:
        """Mark the memory as used by a stream, as :meth:`torch.Tensor.record_stream` does."""
        for part in (self.rowptr, self.col, self.pattern.perm, self.value):
            if part is not None:
                part.record_stream(stream)

    def _map(self, function: Callable[[Tensor], Tensor]) -> "Adjacency":
        value = None if self.value is None else function(self.value)
        return Adjacency(self.pattern.map(function), value, self._symmetric)

    def keep(self, key: tuple[Any, ...], compute: Callable[[], Any]) -> Any:
        """Compute something once and keep it, unless the values carry gradients."""
        if has_history(self.value):
            return compute()
        if key not in self._cache:
            with torch.inference_mode(False):  # what is kept must serve in training, too
                self._cache[key] = compute()
        return self._cache[key]

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what can be derived, and the history of the values."""
        value = None if self.value is None else own_memory(self.value.detach())
        return {**self.__dict__, "_value": value, "_version": version_of(value), "_cache": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Count changes from here on."""
        vars(self).update(state, _version=version_of(state["_value"]))

    def __repr__(self) -> str:
        parts = [f"num_dst={self.num_dst}", f"num_src={self.num_src}", f"num_edges={self.num_edges}"]
        if self.value is not None:
            parts.append(f"value={self.value.dtype}")
        if self._symmetric is not None:
            parts.append(f"symmetric={self._symmetric}")
        if self.device.type != "cpu":
            parts.append(f"device={self.device}")
        return f"Adjacency({', '.join(parts)})"
