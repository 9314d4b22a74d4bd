"""Scores that follow from a seed."""

import torch
from torch import Tensor

from graphsparse.edges.score import PairScore, edge_score_rule
from graphsparse.edges.undirected import UndirectedEdges
from graphsparse.ops.pairs import pair_keys
from graphsparse.utils.counter_random import GAMMA, mix64


@edge_score_rule("random")
def random(edges: UndirectedEdges, seed: int | None) -> PairScore:
    """An independent draw per edge, the same for the same seed in every edge list that holds the edge."""
    if seed is None:
        seed = int(torch.randint(2**62, ()))

    def score(u: Tensor, v: Tensor) -> Tensor:
        # A hash of the edge key: one draw per edge that needs no memory and no order.
        return mix64(pair_keys((u, v), edges.num_nodes, directed=True) + (seed + 1) * GAMMA % 2**63)

    return score
