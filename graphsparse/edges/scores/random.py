"""Scores that follow from a seed."""

import torch
from torch import Tensor

from graphsparse.edges.score import edge_score_rule
from graphsparse.edges.undirected import UndirectedEdges
from graphsparse.ops.blocks import CACHED, blocks
from graphsparse.utils.counter_random import GAMMA, mix64


@edge_score_rule("random", directed=True)
def random(edges: UndirectedEdges, seed: int | None) -> Tensor:
    """An independent draw per edge, the same for the same seed in every edge list that holds the edge."""
    if seed is None:
        seed = int(torch.randint(2**62, ()))
    score = torch.empty_like(edges.key)
    for where in blocks(edges.num_edges, CACHED):
        score[where] = mix64(edges.key[where] + (seed + 1) * GAMMA % 2**63)  # a hash of the key: no state, no order
    return score
