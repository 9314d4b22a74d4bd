"""Source and target by years: of papers, of citations, of joint work."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from graphsparse.datasets.graph_pair import GraphPair, cut_graph, kept_at_random
from graphsparse.datasets.window_pair import DROP
from graphsparse.ops.pairs import is_among, key_pairs, pair_keys, unique_keys


def paper_year_pair(data: Data, low: int, high: int, *, seed: int = 0) -> GraphPair:
    """Split a citation graph by the years of papers: the protocol of ogbl-citation2.

    The source has all papers up to the year ``high``, the target all from ``low`` on, so those between are shared. In
    the target, a pair of shared papers loses its citations with probability 0.8; the source keeps them. Papers
    without any citation are left out. Links with a paper after ``high`` may be held out: these, and only these, are
    links with an end that the source does not have.

    Source: the released code of Zheng et al., arXiv 2302.14189, in which papers of the year ``high`` were shared and
    held out alike.
    """
    year, edges = _node_year(data), data.edge_index
    rng = np.random.default_rng(seed)
    edges = edges[:, edges[0] != edges[1]]
    linked = torch.zeros(year.numel(), dtype=torch.bool)
    linked[edges] = True
    source, target = linked & (year <= high), linked & (year >= low)
    source_edges, target_edges = (edges[:, mask[edges].all(0)] for mask in (source, target))
    shared = (year[target_edges] <= high).all(0)
    keep = ~shared
    keep[shared] = kept_at_random(target_edges[:, shared], year.numel(), DROP, rng)
    attributes = _attributes(data, year)
    graphs = (
        cut_graph(source.nonzero().view(-1), source_edges, attributes, {}),
        cut_graph(target.nonzero().view(-1), target_edges[:, keep], attributes, {}),
    )
    return GraphPair(*graphs, "target_only_end")


def citation_year_pair(data: Data, year: int) -> GraphPair:
    """Split a citation graph by the years of citations: those up to a year are the source, later ones the target.

    A citation is as old as the paper that cites. Both graphs have the papers that their citations join. Shared are
    papers that were there and are still cited; those that cite, in the target, are new. Links with an end that the
    source does not have may be held out.
    """
    node_year, edges = _node_year(data), data.edge_index
    early = node_year[edges[0]] <= year
    graphs = [
        _joined(edges[:, part], node_year.numel(), _attributes(data, node_year), {}, year) for part in (early, ~early)
    ]
    return GraphPair(graphs[0], graphs[1], "target_only_end")


def edge_year_pair(data: Data, low: int, high: int) -> GraphPair:
    """Split a graph by the years of its edges: the protocol of ogbl-collab.

    The source has the edges up to the year ``high``, the target those from ``low`` on; both have the nodes that their
    edges join. Links of the target that have no edge up to ``high`` there may be held out, whichever nodes they join.

    Source: the released code of Zheng et al., arXiv 2302.14189, in which edges of the year ``high`` were in the source
    and held out alike, and both directions of a link were split apart.
    """
    edge_year = data.get("edge_year")
    if edge_year is None or edge_year.numel() != data.edge_index.size(1):
        raise ValueError("'data' must hold the year of every edge in 'edge_year'")
    year = edge_year.view(-1).long()
    size = int(data.num_nodes)
    edges = data.edge_index
    inside = edges[0] != edges[1]
    graphs = []
    for part in (inside & (year <= high), inside & (year >= low)):
        attributes = {"x": data.get("x")}
        graphs.append(_joined(edges[:, part], size, attributes, {"edge_year": year[part]}, low))
    source, target = graphs
    links, years = target.edge_index, target.edge_year
    key = pair_keys(links, target.num_nodes)
    early, late = unique_keys(key[years <= high]), unique_keys(key[years > high])
    return GraphPair(source, target, key_pairs(late[~is_among(late, early)], target.num_nodes))


def _joined(
    edges: Tensor, size: int, attributes: dict[str, Any], edge_attributes: dict[str, Tensor], year: int
) -> Data:
    """Return edges and the nodes that they join."""
    if edges.size(1) == 0:
        raise ValueError(f"there are no edges on one side of the year {year}")
    joined = torch.zeros(size, dtype=torch.bool)
    joined[edges] = True
    return cut_graph(joined.nonzero().view(-1), edges, attributes, edge_attributes)


def _attributes(data: Data, year: Tensor) -> dict[str, Any]:
    return {"x": data.get("x"), "y": data.get("y"), "node_year": year}


def _node_year(data: Data) -> Tensor:
    year = data.get("node_year")
    if year is None or year.numel() != data.num_nodes:
        raise ValueError("'data' must hold the year of every node in 'node_year'")
    return year.view(-1).long()  # type: ignore[no-any-return]
