"""Every form in which PyG takes the edges, brought to one `Adjacency`, once for as long as the edges stay the same."""

from typing import Any

import torch
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.utils import is_sparse, is_torch_sparse_tensor

from graphsparse.ops import Adjacency
from graphsparse.ops.csr import as_csr
from graphsparse.ops.remember import remember


def to_adjacency(
    edge_index: Any,
    edge_weight: Tensor | None,
    size: tuple[int, int],
    *,
    flow: str = "source_to_target",
    sparse_tensor_values: bool = True,
) -> Adjacency:
    """Return the edges as an :class:`~graphsparse.ops.Adjacency`; the same one while the same tensors come in.

    Args:
        edge_index: ``[2, E]``, ``EdgeIndex``, ``SparseTensor``, torch sparse matrix (rows are destinations), or an
            ``Adjacency``, in which case ``edge_weight`` is in the order of its edge list.
        edge_weight: One weight per edge ``[E]``, with or without gradients; ``None`` to use what the form holds.
        size: Numbers of sources and destinations.
        flow: As in PyG's ``MessagePassing``.
        sparse_tensor_values: Whether the values of a ``SparseTensor`` count. PyG's SAGE and GIN ignore them.

    Raises:
        ValueError: If a matrix has another size than the features, comes with weights apart from its own, or with the
            flow ``"target_to_source"``.
    """
    backward = flow == "target_to_source"
    if isinstance(edge_index, Adjacency) or is_sparse(edge_index):
        if backward:
            refuse_matrix_backward()
        if edge_weight is not None and not isinstance(edge_index, Adjacency):
            refuse_weights_of_matrix()
        adj = edge_index if isinstance(edge_index, Adjacency) else _from_matrix(edge_index, sparse_tensor_values)
        if (adj.num_src, adj.num_dst) != size:
            have = f"{adj.num_src} sources and {adj.num_dst} destinations"
            raise ValueError(f"'edge_index' has {have}, but 'x' has {size[0]} and {size[1]}")
        return _with_weight(adj, edge_weight)
    if backward:
        size = (size[1], size[0])
    num_nodes: int | tuple[int, int] = size[0] if size[0] == size[1] else size
    adj = remember([edge_index], ("adjacency", size), lambda: Adjacency.from_edge_index(edge_index, None, num_nodes))
    adj = _with_weight(adj, edge_weight)
    return adj.t() if backward else adj


def _with_weight(adj: Adjacency, edge_weight: Tensor | None) -> Adjacency:
    if edge_weight is None:
        return adj
    flat = edge_weight if edge_weight.dim() == 1 else edge_weight.view(-1)
    if edge_weight.requires_grad:
        return adj.with_value(flat)
    return remember([edge_weight, adj], "weighted", lambda: adj.with_value(flat))


def refuse_weights_of_matrix() -> None:
    """Say that a matrix takes no weights besides its own values."""
    raise ValueError(
        "'edge_weight' needs 'edge_index' as [2, E] or Adjacency (got a matrix, which holds its own values)"
    )


def refuse_matrix_backward() -> None:
    """Say that a matrix, whose rows are destinations, takes no other flow."""
    raise ValueError("flow 'target_to_source' needs 'edge_index' as [2, E]; pass the transposed matrix instead")


def _from_matrix(matrix: Any, sparse_tensor_values: bool) -> Adjacency:
    """Convert the matrices that PyG calls ``adj_t``."""
    if not is_torch_sparse_tensor(matrix):
        row, col, value = matrix.coo()
        value = value if sparse_tensor_values else None
        if value is not None and value.requires_grad:
            return Adjacency.from_sparse_tensor(matrix)
        size = (int(matrix.size(0)), int(matrix.size(1)))
        held = [row, col] if value is None else [row, col, value]

        def convert() -> Adjacency:
            return Adjacency.from_sparse_tensor(matrix if value is not None else matrix.set_value(None, layout=None))

        return remember(held, ("matrix", size), convert)
    if matrix.requires_grad:
        return _from_torch(matrix)
    return remember([matrix], "matrix", lambda: _from_torch(matrix))


def _from_torch(matrix: Tensor) -> Adjacency:
    return Adjacency.from_torch_csr(matrix if matrix.layout == torch.sparse_csr else as_csr(matrix))


def with_loops_of_matrix(adj: Adjacency, matrix: Any, fill: float, dtype: torch.dtype) -> Adjacency:
    """Return a square matrix with self-loops as PyG's ``gcn_norm`` adds them to matrices, unlike to edge lists.

    A ``SparseTensor`` gets ``fill`` in place of what is on its diagonal, a torch matrix has it added there.

    Args:
        adj: The matrix.
        matrix: What it was made of.
        fill: Value of the self-loops.
        dtype: Type of the values, where there are none.
    """

    def add_loops() -> Adjacency:
        (edge_index, value), num_nodes = adj.to_edge_index(), adj.num_src
        value = torch.ones(adj.num_edges, dtype=dtype, device=adj.device) if value is None else value
        nodes = torch.arange(num_nodes, device=adj.device)
        if not is_torch_sparse_tensor(matrix):
            off = edge_index[0] != edge_index[1]
            edge_index, value = edge_index[:, off], value[off]
        weight = torch.cat([value, value.new_full((num_nodes,), fill)])
        return Adjacency.from_edge_index(torch.cat([edge_index, nodes.expand(2, -1)], 1), weight, num_nodes)

    looped: Adjacency = adj.keep(("loops", is_torch_sparse_tensor(matrix), fill, dtype), add_loops)
    return looped


def to_edge_list(
    edge_index: Any, edge_weight: Tensor | None, size: Any = None, flow: str = "source_to_target"
) -> tuple[Any, Tensor | None, Any]:
    """Return an ``Adjacency`` as ``(edge_index, edge_weight, size)``; leave what PyG takes, but for int32 indices.

    Raises:
        ValueError: If it comes with the flow ``"target_to_source"``.
    """
    if not isinstance(edge_index, Adjacency):
        if (
            is_sparse(edge_index) and getattr(edge_index, "layout", None) == torch.sparse_csc
        ):  # PyG knows no messages of it
            edge_index = as_csr(edge_index)
        return _wide(edge_index), edge_weight, size
    if flow != "source_to_target":
        refuse_matrix_backward()
    adj = edge_index if edge_weight is None else edge_index.with_value(edge_weight)
    return *adj.to_edge_index(), (adj.num_src, adj.num_dst)


def _wide(edges: Any) -> Any:
    """Return edges in any form of PyG's with int64 indices: torch's gradients of gather and scatter need them."""
    if getattr(edges, "layout", None) == torch.sparse_csr and edges.crow_indices().dtype != torch.int64:
        rowptr, col = edges.crow_indices().long(), edges.col_indices().long()
        return torch.sparse_csr_tensor(rowptr, col, edges.values(), edges.shape, check_invariants=False)
    return edges if is_sparse(edges) else edges.long()


def end_nodes(
    edge_index: Any,
    source: Any,
    target: Any,
    size: tuple[int | None, int | None] | None,
    flow: str = "source_to_target",
) -> tuple[int, int]:
    """Return the numbers of sources and destinations; PyG takes as many of the latter where nothing tells.

    Args:
        edge_index: Edges; a matrix and an ``EdgeIndex`` may know their size.
        source: Features of the sources: the first of a pair, whatever the flow.
        target: Features of the destinations, or ``None``.
        size: Numbers of sources and destinations, where the edges do not know.
        flow: As in PyG's ``MessagePassing``.

    Raises:
        ValueError: If they contradict each other.
    """
    known: tuple[int | None, int | None]
    if isinstance(edge_index, Adjacency):
        known = (edge_index.num_src, edge_index.num_dst)
    elif is_sparse(edge_index):
        known = (int(edge_index.size(1)), int(edge_index.size(0)))
    elif isinstance(edge_index, EdgeIndex):
        known = edge_index.sparse_size() if flow == "source_to_target" else edge_index.sparse_size()[::-1]
    else:
        known = size or (None, None)
    for features, number, name in ((source, known[0], "sources"), (target, known[1], "destinations")):
        if features is not None and number is not None and features.size(0) != number:
            raise ValueError(f"'x' has {features.size(0)} {name}, but 'edge_index' or 'size' says {number}")
    num_src = source.size(0)
    if target is not None:
        return num_src, target.size(0)
    return num_src, num_src if known[1] is None else known[1]
