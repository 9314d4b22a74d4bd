"""Pairs of graphs that share nodes, and what Python's sets say of them."""

import dataclasses
import itertools

import torch
from torch_geometric.data import Data


def random_pair(seed=0, *, num_keys=40, strings=False, num_sources=1, directed=False):
    """Return (sources, target): random graphs whose keys overlap, with repeated edges and self-loops."""
    generator = torch.Generator().manual_seed(seed)

    def graph(share, degree):
        keys = torch.randperm(num_keys, generator=generator)[: max(int(share * num_keys), 3)]
        size = keys.numel()
        edges = torch.randint(size, (2, int(degree * size)), generator=generator)
        key = [f"k{key}" for key in keys.tolist()] if strings else keys * 7 - 50
        return Data(x=torch.randn(size, 3, generator=generator), edge_index=edges, key=key, num_nodes=size)

    return [graph(0.7, 3.0) for _ in range(num_sources)], graph(0.6, 1.5)


def listed(key):
    return key.tolist() if torch.is_tensor(key) else list(key)


def key_links(graph, directed=False):
    """Return the links of a graph as a set of pairs of keys."""
    keys = listed(graph.key)
    pairs = {(keys[u], keys[v]) for u, v in graph.edge_index.t().tolist() if u != v}
    return pairs if directed else {(min(pair), max(pair)) for pair in pairs}


def expected(sources, target, directed=False):
    """Return for each derived graph its set of keys, and its links with their origins, by sets."""
    of_target = key_links(target, directed)
    of_source = set().union(*(key_links(source, directed) for source in sources))
    in_target = set(listed(target.key))
    in_source = set(itertools.chain.from_iterable(listed(source.key) for source in sources))
    shared = in_target & in_source

    def inside(links):
        return {(u, v) for u, v in links if u in shared and v in shared}

    def origins(target_links, source_links):
        return {
            link: (link in target_links) + 2 * (link in source_links) for link in sorted(target_links | source_links)
        }

    return {
        "target": (in_target, origins(of_target, set())),
        "intersection": (shared, origins(inside(of_target), set())),
        "enriched_intersection": (shared, origins(inside(of_target), inside(of_source))),
        "enriched_target": (in_target, origins(of_target, inside(of_source))),
        "union": (in_target | in_source, origins(of_target, of_source)),
        "source": (in_source, origins(set(), of_source)),
    }


def key_of_node(pair, key_names="key"):
    """Return the key of every global number."""
    key = dict(enumerate(listed(pair.target[key_names])))
    for source, ids in zip(pair.source, pair.nodes().source_ids, strict=True):
        for number, name in zip(ids.tolist(), listed(source[key_names]), strict=True):
            assert key.setdefault(number, name) == name
    assert sorted(key) == list(range(pair.num_union_nodes))
    return key


def plant(split, **parts):
    """Return a split with other parts."""
    return dataclasses.replace(split, **parts)
