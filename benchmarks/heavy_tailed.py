"""A synthetic heavy-tailed graph of any size, by default that of ogbn-products."""

import torch

NUM_NODES, NUM_EDGES = 2_449_029, 61_859_140


def make_edges(scale=1.0, seed=0, *, num_nodes=NUM_NODES, num_edges=NUM_EDGES):
    """Return both directions of ``num_edges`` edges in random order, and the number of nodes, both times ``scale``.

    Edges may repeat, and a few are self-loops; node 0 has the most of them.
    """
    num_nodes, num_edges = int(num_nodes * scale), int(num_edges * scale)
    generator = torch.Generator().manual_seed(seed)
    edge_index = torch.empty(2, 2 * num_edges, dtype=torch.int64)
    for row in (0, 1):  # in parts: the whole of it in floating point would be the largest thing in memory
        for part in edge_index[row, :num_edges].split(1 << 22):
            part.copy_(torch.rand(part.numel(), generator=generator).pow_(3).mul_(num_nodes))
    edge_index[:, num_edges:] = edge_index[:, :num_edges].flip(0)
    order = torch.randperm(2 * num_edges, generator=generator)
    for row in (0, 1):
        edge_index[row] = edge_index[row][order]
    return edge_index, num_nodes
