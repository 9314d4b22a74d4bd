"""Pairs of graphs that share nodes, cut out of one graph."""

import torch
from torch_geometric.data import Data
from torch_geometric.utils import subgraph

from graphsparse.datasets import load
from graphsparse.metrics import auroc
from graphsparse.testing import random_graph
from graphsparse.transfer.data.pair import SharedNodePair
from graphsparse.transfer.data.split import split_links


def window_pair(data, seed=0, directed=False):
    """Protocol A: nodes get random times, source and target have those of overlapping windows, and links between
    shared nodes are mostly missing in the target."""
    generator = torch.Generator().manual_seed(seed)
    time = torch.rand(data.num_nodes, generator=generator)
    source, target = time < 0.7, time >= 0.3
    u, v = data.edge_index
    low, high = torch.minimum(u, v), torch.maximum(u, v)
    key, place = torch.unique(low * data.num_nodes + high, return_inverse=True)
    missing = (torch.rand(key.numel(), generator=generator) < 0.8)[place]
    both = source & target
    thin = data.edge_index[:, ~(both[u] & both[v] & missing)]
    if directed:
        thin = thin[:, thin[0] < thin[1]]
    graphs = []
    for mask, edges in ((source, data.edge_index), (target, thin)):
        inside, _ = subgraph(mask, edges, relabel_nodes=True, num_nodes=data.num_nodes)
        ids = mask.nonzero().view(-1)
        graphs.append(Data(x=data.x[ids], edge_index=inside, key=ids, num_nodes=ids.numel()))
    return SharedNodePair(*graphs, directed=directed)


def small_pair(seed=0, directed=False, num_nodes=150):
    """Return a pair of some hundred nodes, and a split of it."""
    pair = window_pair(random_graph(num_nodes), seed, directed)
    return pair, split_links(pair, seed=seed)


def clear_pair(num_nodes=300):
    """Return a pair whose links are all within a class that the features tell, and a split of it.

    Scores that know the classes have an area under the ROC curve of about 0.83: a third of all pairs are within one.
    """
    data = random_graph(num_nodes)
    data.edge_index = data.edge_index[:, data.y[data.edge_index[0]] == data.y[data.edge_index[1]]]
    data.x = data.x + 4 * torch.nn.functional.one_hot(data.y, data.x.size(1))
    pair = window_pair(data)
    return pair, split_links(pair)


def cora_pair(root, seed=0):
    """Return protocol A on Cora, and a split of it."""
    pair = window_pair(load("cora", root), seed)
    return pair, split_links(pair, seed=seed)


def area(scorer, split):
    """Return the area under the ROC curve of the test pairs."""
    links, rest = scorer.score(split.test), scorer.score(split.test_neg)
    return auroc(torch.cat([links, rest]), torch.arange(links.numel() + rest.numel()) < links.numel())
