import numpy as np
from intersecting import bipartite_pair, random_pair

from graphsparse.transfer.data.pair import SharedNodePair
from graphsparse.transfer.data.pair_summary import summarize


def test_degrees_of_the_written_graphs():
    sources, target = random_pair(2)
    pair = SharedNodePair(sources, target)
    for name, found in pair.summary().items():
        graph = pair.graph(name)
        degree = np.bincount(graph.edge_index[0].numpy(), minlength=graph.num_nodes)
        assert found == {
            "num_nodes": graph.num_nodes,
            "num_links": graph.num_edges // 2,
            "mean_degree": degree.mean(),
            "median_degree": np.median(degree),
        }


def test_two_types_of_nodes():
    source, target = bipartite_pair()
    kind = ("query", "buys", "product")
    found = summarize(SharedNodePair(source, target).relation(kind), "target")
    links = len(set(map(tuple, target[kind].edge_index.t().tolist())))
    assert found["num_nodes"] == 75
    assert found["mean_degree"] == 2 * links / 75
