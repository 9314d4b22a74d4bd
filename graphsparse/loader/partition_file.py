"""A partition of a graph that is computed once and kept in a file."""

import hashlib
from pathlib import Path

import torch
from torch import Tensor

from graphsparse.utils.atomic_write import atomic_write
from graphsparse.utils.fingerprint import graph_fingerprint
from graphsparse.utils.partition import partition_graph


def stored_partition(
    edge_index: Tensor,
    num_parts: int,
    num_nodes: int | None = None,
    *,
    method: str = "metis",
    node_weight: Tensor | None = None,
    seed: int = 0,
    save_dir: str | Path | None = None,
) -> Tensor:
    """Return what :func:`~graphsparse.utils.partition_graph` returns, from a file if it was computed before.

    The name of the file follows from the graph and all arguments, see :func:`partition_file`, so that a partition of
    another graph is never read. It holds the parts alone, 8 bytes per node, and is there whole or not at all.

    Args:
        edge_index: Edges ``[2, E]``.
        num_parts: Number of parts.
        num_nodes: Number of nodes; the largest index plus one when ``None``.
        method: ``metis`` or ``random``.
        node_weight: Weight of every node ``[N]``.
        seed: Seed of the partition.
        save_dir: Folder of the file, made when it is missing; nothing is kept when ``None``.

    Returns:
        Part of every node, int64 ``[N]``, on the device of ``edge_index``.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range, or the file is none of a partition; the message names it.
        OSError: If the folder cannot be written.

    Example:
        >>> import tempfile
        >>> edge_index = torch.tensor([[0, 1, 2, 3], [1, 0, 3, 2]])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     first, again = (stored_partition(edge_index, 2, save_dir=folder) for _ in range(2))
        >>> torch.equal(first, again)
        True
    """
    arguments = {"method": method, "node_weight": node_weight, "seed": seed}
    if save_dir is None:
        return partition_graph(edge_index, num_parts, num_nodes, **arguments)  # type: ignore[arg-type]
    path = Path(save_dir) / partition_file(edge_index, num_parts, num_nodes, **arguments)  # type: ignore[arg-type]
    if path.exists():
        return _read(path, num_parts).to(edge_index.device)
    part = partition_graph(edge_index, num_parts, num_nodes, **arguments)  # type: ignore[arg-type]
    with atomic_write(path) as temporary:
        torch.save(part.cpu(), temporary)
    return part


def partition_file(
    edge_index: Tensor,
    num_parts: int,
    num_nodes: int | None = None,
    *,
    method: str = "metis",
    node_weight: Tensor | None = None,
    seed: int = 0,
) -> str:
    """Return the name of the file that a partition is kept in.

    Args:
        edge_index: Edges ``[2, E]``.
        num_parts: Number of parts.
        num_nodes: Number of nodes; the largest index plus one when ``None``.
        method: ``metis`` or ``random``.
        node_weight: Weight of every node ``[N]``.
        seed: Seed of the partition.

    Example:
        >>> partition_file(torch.tensor([[0, 1], [1, 0]]), 2)
        'partition-2-2-c7eeb6b49f4d9d7a-2-metis-0.pt'
    """
    if node_weight is not None and not isinstance(node_weight, Tensor):
        raise TypeError(f"'node_weight' must be a dense tensor of shape [N] (got {type(node_weight).__name__})")
    name = f"partition-{graph_fingerprint(edge_index, num_nodes)}-{num_parts}-{method}-{seed}"
    if node_weight is not None:
        weight = node_weight.detach().cpu().contiguous()
        found = hashlib.blake2b(f"{weight.dtype} {list(weight.shape)}".encode(), digest_size=8)
        found.update(weight.view(-1).view(torch.uint8).numpy().data)
        name += f"-{found.hexdigest()}"
    return f"{name}.pt"


def _read(path: Path, num_parts: int) -> Tensor:
    try:
        part = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file may raise anything
        raise ValueError(f"{str(path)!r} cannot be read as a partition; delete it to compute it anew") from error
    num_nodes = int(path.name.split("-")[1])
    if not isinstance(part, Tensor) or part.dtype != torch.int64 or part.shape != (num_nodes,):
        raise ValueError(f"{str(path)!r} holds no partition of {num_nodes} nodes; delete it to compute it anew")
    if num_nodes and not (int(part.min()) >= 0 and int(part.max()) < num_parts):
        raise ValueError(f"{str(path)!r} holds other than {num_parts} parts; delete it to compute it anew")
    return part
