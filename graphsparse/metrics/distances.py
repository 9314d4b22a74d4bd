"""Numbers of steps between nodes: a breadth-first search from 64 nodes at once, one bit each."""

import numpy as np
import torch
from torch import Tensor

from graphsparse.ops import Adjacency, spmm
from graphsparse.ops.blocks import CACHED, blocks, blocks_by_size
from graphsparse.ops.pattern import Pattern

#: Sources that share a word.
_WORD = 64
#: The search looks at the neighbours of the nodes reached last when these have less than one in so many of all entries,
#: and otherwise at all entries: it sorts what it finds, which takes about so many times as long an entry.
_SPARSE = 16
_LARGEST = {torch.int16: 2**15 - 1}


def hop_distances(rowptr: Tensor, col: Tensor, sources: Tensor) -> Tensor:
    r"""Return the least number of steps from each of some nodes to every node, ``[N, S]``; -1 where there is no way.

    On CPU a node holds a word with a bit for each source that has reached it; a step joins the words of the neighbours
    with *or*. A step looks at all edges or, where that is less, at those of the nodes that were reached last. Other
    devices multiply by the matrix. It holds 2 bytes for each number, 4 where a way is longer than 32,767 steps.

    Args:
        rowptr: Where the neighbours of each node start, ``[N + 1]``.
        col: Neighbours ``[2M]``, both directions of every edge.
        sources: Distinct nodes ``[S]``.
    """
    search = _by_bits if col.device.type == "cpu" else _by_products
    parts = [search(rowptr, col, sources[word]) for word in blocks(max(sources.numel(), 1), _WORD)]
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


def _start(num_nodes: int, sources: Tensor) -> Tensor:
    distance = torch.full((num_nodes, sources.numel()), -1, dtype=torch.int16, device=sources.device)
    distance[sources, torch.arange(sources.numel(), device=sources.device)] = 0
    return distance


def _wide_enough(distance: Tensor, step: int) -> Tensor:
    return distance if step < _LARGEST.get(distance.dtype, step + 1) else distance.int()


def _by_bits(rowptr: Tensor, col: Tensor, sources: Tensor) -> Tensor:
    degree = rowptr.diff().long()
    distance = _start(degree.numel(), sources)
    reached = torch.zeros(degree.numel(), dtype=torch.int64)
    nodes, word = sources, torch.ones(sources.numel(), dtype=torch.int64) << torch.arange(sources.numel())
    reached[nodes] = word
    newest = reached.clone()
    rows = degree.nonzero().squeeze(1)
    parts = blocks_by_size(degree[rows])
    step = 0
    while nodes.numel():
        step += 1
        if int(degree[nodes].sum()) * _SPARSE < col.numel():
            target, found = _from_few(rowptr, col, degree, nodes, word)
        else:
            target, found = rows, _from_all(rowptr, col, rows, parts, newest)
        found &= ~reached[target]
        newest[nodes] = 0
        new = found.nonzero().squeeze(1)
        nodes, word = target[new], found[new]
        newest[nodes] = word
        reached[nodes] |= word
        distance = _wide_enough(distance, step)
        for where in blocks(nodes.numel(), CACHED):
            byte = word[where].numpy().view(np.uint8).reshape(-1, _WORD // 8)
            bits = torch.from_numpy(np.unpackbits(byte, axis=1, count=sources.numel(), bitorder="little"))
            # What is reached now was at -1.
            distance.index_add_(0, nodes[where], bits.to(distance.dtype).mul_(step + 1))
    return distance


def _from_all(rowptr: Tensor, col: Tensor, rows: Tensor, parts: list[slice], newest: Tensor) -> Tensor:
    """Return for each row with neighbours the newest words of these, joined."""
    found = torch.empty(rows.numel(), dtype=torch.int64)
    start = rowptr[rows].long()
    for part in parts:
        first = int(start[part.start])
        last = int(start[part.stop]) if part.stop < rows.numel() else col.numel()
        words = newest.index_select(0, col[first:last]).numpy()
        np.bitwise_or.reduceat(words, (start[part] - first).numpy(), out=found[part].numpy())
    return found


def _from_few(rowptr: Tensor, col: Tensor, degree: Tensor, nodes: Tensor, word: Tensor) -> tuple[Tensor, Tensor]:
    """Return the neighbours of some nodes, and the words of those next to each, joined."""
    count = degree[nodes]
    entry = torch.repeat_interleave(rowptr[nodes].long() - (count.cumsum(0) - count), count)
    target = col[entry.add_(torch.arange(entry.numel()))].long()
    order = torch.from_numpy(np.argsort(target.numpy()))
    target, size = torch.unique_consecutive(target[order], return_counts=True)
    words = torch.repeat_interleave(word, count)[order]
    if not target.numel():
        return target, words
    return target, torch.from_numpy(np.bitwise_or.reduceat(words.numpy(), (size.cumsum(0) - size).numpy()))


def _by_products(rowptr: Tensor, col: Tensor, sources: Tensor) -> Tensor:
    num_nodes = rowptr.numel() - 1
    adj = Adjacency(Pattern(rowptr, col, num_nodes))
    distance = _start(num_nodes, sources)
    newest = distance == 0
    step = 0
    while newest.any():
        step += 1
        newest = (spmm(adj, newest.float()) > 0) & (distance < 0)
        distance = _wide_enough(distance, step).masked_fill_(newest, step)
    return distance
