"""Rewire a graph at random, keeping every degree: a control that takes the structure away and leaves the rest."""

import numpy as np
import torch


def rewire(edge_index, num_nodes, seed, rounds=20):
    """Swap ends of random pairs of undirected edges, again and again.

    In a round all edges are paired at random, and (a, b), (c, d) become (a, d), (c, b) wherever that gives no
    self-loop and no edge that is there or comes twice. So every degree stays as it is and the graph stays simple.

    Args:
        edge_index: Both directions of every edge, without self-loops, ``[2, E]``.
        num_nodes: Number of nodes.
        seed: Seed.
        rounds: Number of rounds; after a few every edge has been swapped several times.
    """
    draw = np.random.default_rng(seed)
    source, target = edge_index.numpy()
    keep = source < target
    u, v = source[keep].copy(), target[keep].copy()
    for _ in range(rounds):
        flip = draw.random(len(u)) < 0.5
        u[flip], v[flip] = v[flip], u[flip]
        order = draw.permutation(len(u))
        first, second = order[: len(u) // 2], order[len(u) // 2 : 2 * (len(u) // 2)]
        new = np.concatenate([_key(u[first], v[second], num_nodes), _key(u[second], v[first], num_nodes)])
        loops = np.concatenate([u[first] == v[second], u[second] == v[first]])
        known = np.isin(new, _key(u, v, num_nodes))
        _, place, count = np.unique(new, return_inverse=True, return_counts=True)
        bad = loops | known | (count[place] > 1)
        good = ~(bad[: len(first)] | bad[len(first) :])
        first, second = first[good], second[good]
        v[first], v[second] = v[second], v[first]
    both = np.stack([np.concatenate([u, v]), np.concatenate([v, u])])
    return torch.from_numpy(both)


def _key(a, b, num_nodes):
    return np.minimum(a, b) * num_nodes + np.maximum(a, b)
