"""The formats in which others keep a sparse matrix: taken apart into entries, and put together from compressed rows."""

from typing import Any, TypeVar

import torch
from torch import Tensor
from torch_geometric import EdgeIndex

from graphsparse.ops.pattern import Pattern
from graphsparse.typing import optional_module

#: Rows and columns of all entries, their values, and the numbers of rows and columns.
Entries = tuple[Tensor, Tensor, Tensor | None, tuple[int, int]]
Self = TypeVar("Self", bound="Convertible")


class Convertible:
    """The conversions of an adjacency. Matrices of others have destinations as rows, as PyG's ``adj_t``."""

    pattern: Pattern
    value: Tensor | None

    @classmethod
    def _build(cls: type[Self], entries: Entries, symmetric: bool | None) -> Self:
        raise NotImplementedError

    @classmethod
    def from_torch_csr(cls: type[Self], matrix: Tensor, *, symmetric: bool | None = None) -> Self:
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
        return cls._build(_checked(row, col, matrix.values(), (matrix.size(0), matrix.size(1))), symmetric)

    @classmethod
    def from_sparse_tensor(cls: type[Self], matrix: Any, *, symmetric: bool | None = None) -> Self:
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
        return cls._build(_checked(row, col, value, (int(matrix.size(0)), int(matrix.size(1)))), symmetric)

    @classmethod
    def from_scipy(cls: type[Self], matrix: Any, *, symmetric: bool | None = None) -> Self:
        """Build an adjacency from a SciPy sparse matrix whose rows are destinations.

        Args:
            matrix: Matrix or array ``[num_dst, num_src]`` of any format; repeated entries stay apart.
            symmetric: As in :meth:`from_edge_index`.

        Raises:
            TypeError: If it is no two-dimensional sparse matrix.
            ValueError: If an index is out of range.
        """
        from scipy.sparse import issparse  # slow to import, and nothing else here needs it

        if not issparse(matrix) or matrix.ndim != 2:
            raise TypeError(f"'matrix' must be a two-dimensional SciPy sparse matrix (got {type(matrix).__name__})")
        coo = matrix.tocoo()
        row, col, value = (torch.from_numpy(part.copy()) for part in (coo.row, coo.col, coo.data))
        if not value.is_floating_point():
            value = value.to(torch.get_default_dtype())
        return cls._build(_checked(row, col, value, (int(matrix.shape[0]), int(matrix.shape[1]))), symmetric)

    def to_edge_index(self) -> tuple[Tensor, Tensor | None]:
        """Return ``(edge_index, edge_weight)``, int64 and in the order in which the edges came.

        The weight is ``None`` where there are no values, and carries their gradients where there are.
        """
        row, col = self.pattern.to_edges(self.pattern.row()), self.pattern.to_edges(self.pattern.col)
        weight = None if self.value is None else self.pattern.to_edges(self.value)
        return torch.stack([col, row]).long(), weight

    def to_pyg_edge_index(self) -> tuple[Any, Tensor | None]:
        """Return ``(edge_index, edge_weight)`` as :meth:`to_edge_index`, the former as PyG's ``EdgeIndex``.

        It carries the size, and what is known of its order and symmetry without looking.
        """
        edge_index, weight = self.to_edge_index()
        order = "col" if self.pattern.perm is None else None
        undirected = bool(self.pattern.symmetric)
        size = (self.pattern.num_cols, self.pattern.num_rows)
        return EdgeIndex(edge_index, sparse_size=size, sort_order=order, is_undirected=undirected), weight

    def to_torch_csr(self) -> Tensor:
        """Return a torch CSR matrix ``[num_dst, num_src]``; it shares memory with the adjacency."""
        pattern = self.pattern
        value = torch.ones(pattern.num_entries, device=pattern.col.device) if self.value is None else self.value
        size = (pattern.num_rows, pattern.num_cols)
        return torch.sparse_csr_tensor(pattern.rowptr, pattern.col, value, size, check_invariants=False)

    def to_sparse_tensor(self) -> Any:
        """Return a ``torch_sparse.SparseTensor`` of size ``[num_dst, num_src]``.

        Raises:
            ImportError: If torch-sparse cannot be used.
        """
        make = optional_module("torch_sparse").SparseTensor
        rowptr, col = self.pattern.wide()
        size = (self.pattern.num_rows, self.pattern.num_cols)
        return make(rowptr=rowptr, col=col, value=self.value, sparse_sizes=size, is_sorted=True, trust_data=True)

    def to_scipy(self) -> Any:
        """Return a SciPy CSR array ``[num_dst, num_src]``, without gradients."""
        from scipy.sparse import csr_array  # slow to import, and nothing else here needs it

        pattern = self.pattern
        value = torch.ones(pattern.num_entries) if self.value is None else self.value.detach().cpu()
        parts = (value.numpy(), pattern.col.cpu().numpy(), pattern.rowptr.cpu().numpy())
        return csr_array(parts, shape=(pattern.num_rows, pattern.num_cols), copy=True)


def _checked(row: Tensor, col: Tensor, value: Tensor | None, size: tuple[int, int]) -> Entries:
    """Refuse indices outside the matrix, which no format has checked for certain."""
    for index, bound, name in ((row, size[0], "row"), (col, size[1], "column")):
        low, high = index.aminmax() if index.numel() else (torch.tensor(0), torch.tensor(-1))
        if int(low) < 0 or int(high) >= bound:
            raise ValueError(f"a {name} of 'matrix' is outside [0, {bound}) (got {int(low)} to {int(high)})")
    return row, col, value, size
