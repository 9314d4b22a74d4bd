"""Sizes of derived graphs."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from graphsparse.ops.blocks import BLOCK
from graphsparse.transfer.data.relation import Relation


def summarize(relation: Relation, graph: str, hidden: Sequence[Tensor] = ()) -> dict[str, float]:
    """Return the numbers of nodes and links of a derived graph, and the mean and median degree.

    Args:
        relation: The links of target and sources.
        graph: Name of the derived graph.
        hidden: Pairs whose links are left out.
    """
    links, _ = relation.derive(graph, hidden)
    code, ends = relation.code, relation.ends
    degree = [torch.zeros(size, dtype=torch.int64) for size in (code.num_src, code.num_dst)]
    for start in range(0, links.numel(), BLOCK):
        for count, end in zip(degree, code.decode(links[start : start + BLOCK]), strict=True):
            count += torch.bincount(end, minlength=count.numel())
    nodes = [match.nodes(graph) for match in ends]
    if code.square:
        degree, nodes = [degree[0] + degree[1]], nodes[:1]
    found = torch.cat([count[ids] for count, ids in zip(degree, nodes, strict=True)]).numpy()
    return {
        "num_nodes": len(found),
        "num_links": links.numel(),
        "mean_degree": float(found.mean()) if len(found) else 0.0,
        "median_degree": float(np.median(found)) if len(found) else 0.0,
    }
