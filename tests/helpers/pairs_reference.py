"""Line graphs and propagation over pairs, built outright with networkx and dense matrices."""

import networkx as nx
import numpy as np
import torch
from hypothesis import strategies as st


@st.composite
def pair_sets(draw, max_nodes=8):
    """Distinct undirected pairs in any order and direction, and the number of nodes."""
    num_nodes = draw(st.integers(2, max_nodes))
    every = [(u, v) for u in range(num_nodes) for v in range(u + 1, num_nodes)]
    chosen = draw(st.lists(st.sampled_from(every), unique=True, max_size=12))
    turned = [pair[::-1] if draw(st.booleans()) else pair for pair in chosen]
    return torch.tensor(turned, dtype=torch.int64).view(-1, 2).t().contiguous(), num_nodes


def some_pairs(num_nodes=30, num_pairs=80, seed=0):
    """Distinct undirected pairs in a random order."""
    generator = torch.Generator().manual_seed(seed)
    every = torch.combinations(torch.arange(num_nodes)).t()
    pairs = every[:, torch.randperm(every.size(1), generator=generator)[:num_pairs]]
    return torch.where(torch.rand(num_pairs, generator=generator) < 0.5, pairs, pairs.flip(0))


def line_matrix(pairs):
    """Return the adjacency of the line graph with self-loops, in the order of the pairs, from networkx."""
    pairs = [tuple(sorted(pair)) for pair in pairs.t().tolist()]
    graph = nx.Graph()
    graph.add_edges_from(pairs)
    line = nx.relabel_nodes(nx.line_graph(graph), lambda pair: tuple(sorted(pair)))
    return nx.to_numpy_array(line, nodelist=pairs) + np.eye(len(pairs)) if pairs else np.zeros((0, 0))


def line_operator(pairs, norm, weight=None):
    """Return the normalised operator as a dense matrix."""
    weight = np.ones(pairs.size(1)) if weight is None else weight.double().numpy()
    matrix = line_matrix(pairs) * weight[None, :]
    degree = matrix.sum(1)
    if norm == "row":
        return matrix / degree[:, None]
    return matrix / np.sqrt(degree[:, None] * degree[None, :])


def propagated(pairs, start, seed, *, rounds, alpha, norm, bounds, weight=None):
    """Run the recurrence with the dense operator, in double precision."""
    operator = line_operator(pairs, norm, weight)
    values, seed = start.double().numpy(), seed.double().numpy()
    for _ in range(rounds):
        values = np.clip(alpha * operator @ values + (1 - alpha) * seed, *bounds)
    return values


def read_out(pairs, values, queries, weight=None):
    """Return the weighted mean of values of the pairs at the ends of each query, pair by pair; None where none is."""
    weight = [1.0] * pairs.size(1) if weight is None else weight.tolist()
    result = []
    for query in queries.t().tolist():
        found = [
            (weight[i], values[i])
            for i, pair in enumerate(pairs.t().tolist())
            for end in query
            if end in pair and sorted(pair) != sorted(query)
        ]
        total = sum(w for w, _ in found)
        result.append(sum(w * value for w, value in found) / total if found else None)
    return result
