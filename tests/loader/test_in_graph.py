import torch
from hypothesis import given
from sparse_reference import edge_lists

from graphsparse.loader.in_graph import InGraph


@given(edge_lists())
def test_edges_into_and_between_nodes(case):
    edge_index, (num_nodes, _), generator = case
    graph = InGraph(edge_index, num_nodes)
    edges = list(enumerate(map(tuple, edge_index.t().tolist())))
    value = torch.rand(len(edges), generator=generator)
    torch.testing.assert_close(graph.by_destination(value), value[graph.edge_id(torch.arange(len(edges)))])
    assert graph.degree().tolist() == [sum(dst == node for _, (_, dst) in edges) for node in range(num_nodes)]
    nodes = torch.randperm(num_nodes, generator=generator)[: num_nodes // 2 + 1]
    known = nodes.tolist()

    place, target = graph.into(nodes)
    found = [(e, known[t]) for e, t in zip(graph.edge_id(place).tolist(), target.tolist(), strict=True)]
    assert sorted(found) == [(e, dst) for e, (_, dst) in edges if dst in known]

    inner, place = graph.between(nodes)
    ends = [(e, (known[u], known[v])) for e, u, v in zip(graph.edge_id(place).tolist(), *inner.tolist(), strict=True)]
    assert sorted(ends) == [(e, (u, v)) for e, (u, v) in edges if u in known and v in known]


def test_numbers_hold_inside_the_block_only():
    graph = InGraph(torch.tensor([[0], [1]]), 3)
    try:
        with graph.numbered(torch.tensor([2, 0])) as position:
            assert position.tolist() == [1, -1, 0]
            raise KeyError
    except KeyError:
        pass
    with graph.numbered(torch.tensor([1])) as position:
        assert position.tolist() == [-1, 0, -1]
