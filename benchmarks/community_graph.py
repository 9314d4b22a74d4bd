"""A synthetic graph of any size with what real graphs have: heavy-tailed degrees, and communities."""

import numpy as np
import torch

BLOCK = 1 << 22


def community_graph(num_nodes, num_edges, *, inner=0.45, outer=0.4, seed=0):
    """Return the undirected graph and the community of every node.

    A node has a heavy-tailed number of stubs. An edge starts at a stub drawn from all of them; it ends at a stub of the
    same inner community (share ``inner``), of the same outer community (share ``outer``), or at any. Inner communities
    have 40 to 400 nodes; outer ones are 3 to 300 of them; both sizes are heavy-tailed too. The number of a node says
    nothing about its communities.

    Everything happens in blocks: besides the result there are about 16 bytes per undirected edge.

    Args:
        num_nodes: Number of nodes.
        num_edges: Number of undirected edges, all different, without self-loops.
        inner: Share of edges within an inner community.
        outer: Share of edges within an outer one.
        seed: Equal seeds give equal graphs.

    Returns:
        ``edge_index`` ``[2, 2 * num_edges]`` int64, every edge and then every edge turned around, and the outer
        ``community`` ``[num_nodes]`` int64.
    """
    generator = np.random.default_rng(seed)
    stubs = _stubs(num_nodes, generator)
    levels = _communities(num_nodes, stubs, generator)
    name = generator.permutation(num_nodes)  # of a node; until here they lie community by community
    key = np.empty(0, dtype=np.int64)
    while len(key) < num_edges:
        # Some edges come twice, hubs of one community above all; a tenth more saves rounds.
        missing = int(1.1 * (num_edges - len(key))) + 100
        more = np.empty(len(key) + missing, dtype=np.int64)
        more[: len(key)] = key
        for start in range(len(key), len(more), BLOCK):
            part = more[start : start + BLOCK]
            part[:] = _draw(len(part), stubs, levels, (inner, outer), name, generator)
        key = _unique(more)
    key = key[np.sort(generator.choice(len(key), num_edges, replace=False, shuffle=False))]
    edge_index = torch.empty(2, 2 * num_edges, dtype=torch.int64)
    for start in range(0, num_edges, BLOCK):
        here = slice(start, min(start + BLOCK, num_edges))
        there = slice(num_edges + here.start, num_edges + here.stop)
        u, v = (torch.from_numpy(end) for end in np.divmod(key[here], num_nodes))
        edge_index[0, here], edge_index[1, here] = u, v
        edge_index[0, there], edge_index[1, there] = v, u
    named = torch.empty(num_nodes, dtype=torch.int64)
    named[torch.from_numpy(name)] = torch.from_numpy(levels[1][0]).long()
    return edge_index, named


def _stubs(num_nodes, generator):
    """Return the node of every stub; the number of stubs of a node has a Pareto tail with exponent 2."""
    number = 2 * generator.random(num_nodes) ** -0.5
    number = np.minimum(number, max(4.0, num_nodes**0.5)).astype(np.int64)
    return np.repeat(np.arange(num_nodes, dtype=np.int32), number)


def _communities(num_nodes, stubs, generator):
    """Return, for the inner and the outer level, the community of every node and where the stubs of each begin."""
    sizes = (40 * generator.random(num_nodes // 40 + 1) ** -0.7).clip(max=400).astype(np.int64)
    inner = np.minimum(sizes.cumsum(), num_nodes)
    inner = inner[: int(np.searchsorted(inner, num_nodes)) + 1]
    sizes = (3 * generator.random(len(inner) // 3 + 1) ** -0.7).clip(max=300).astype(np.int64)
    outer = inner[np.minimum(sizes.cumsum(), len(inner)) - 1]
    outer = outer[: int(np.searchsorted(outer, num_nodes)) + 1]
    levels = []
    for ends in (inner, outer):
        community = np.repeat(np.arange(len(ends), dtype=np.int32), np.diff(ends, prepend=0))
        levels.append((community, np.searchsorted(stubs, np.append(0, ends))))
    return levels


def _draw(number, stubs, levels, shares, name, generator):
    """Return edges as ``smaller * N + larger``; a self-loop becomes -1."""
    source = stubs[generator.integers(0, len(stubs), number)]
    low, high = np.zeros(number, dtype=np.int64), np.full(number, len(stubs))
    level = np.searchsorted(np.cumsum(shares), generator.random(number), side="right")
    for which, (community, first_stub) in enumerate(levels):
        here = np.flatnonzero(level == which)
        there = community[source[here]]
        low[here], high[here] = first_stub[there], first_stub[there + 1]
    target = stubs[low + (generator.random(number) * (high - low)).astype(np.int64)]
    source, target = name[source], name[target]
    key = np.minimum(source, target) * len(name) + np.maximum(source, target)
    key[source == target] = -1
    return key


def _unique(key):
    """Return the keys that are not negative, each once, in ascending order."""
    key.sort()
    new = np.empty(len(key), dtype=bool)
    new[:1], new[1:] = True, key[1:] != key[:-1]
    new &= key >= 0
    return key[new]
