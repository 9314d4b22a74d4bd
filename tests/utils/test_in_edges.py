import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphsparse.utils.in_edges import InEdges


def random_edges(num_nodes, num_edges, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(num_nodes, (2, num_edges), generator=generator)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 40), st.integers(0, 80), st.integers(1, 50), st.integers(1, 90), st.integers(0, 999))
def test_blocks_hold_every_edge_once(num_nodes, num_edges, max_nodes, max_edges, seed):
    edge_index = random_edges(num_nodes, num_edges, seed)
    edges = InEdges.sort(edge_index, num_nodes)
    found, covered = [], []
    for start, stop in edges.ranges(max_nodes, max_edges):
        block = edges.block(start, stop)
        assert stop - start == block.num_dst <= max_nodes
        assert block.source.numel() <= max_edges or block.num_dst == 1
        assert block.nodes[: block.num_dst].tolist() == list(range(start, stop))
        assert block.nodes.unique().numel() == block.nodes.numel()
        covered += range(start, stop)
        local = block.nodes[block.edge_index()]
        ids = torch.arange(num_edges)[edges.ids(block.edges)]
        assert torch.equal(edge_index[:, ids], local)
        found += ids.tolist()
        dense = torch.zeros(block.num_dst, block.nodes.numel())
        dense.index_put_((block.edge_index()[1], block.edge_index()[0]), torch.ones(ids.numel()), accumulate=True)
        assert torch.equal(block.csr(torch.ones(ids.numel())).to_dense(), dense)
    assert covered == list(range(num_nodes))
    assert sorted(found) == list(range(num_edges))


def test_few_edges_among_many_nodes_are_found_as_well():
    edge_index = random_edges(1000, 1000, 0)
    edges = InEdges.sort(edge_index, 1000)
    for start in range(0, 1000, 10):  # about 10 edges each, far fewer than nodes
        block = edges.block(start, start + 10)
        inside = (edge_index[1] >= start) & (edge_index[1] < start + 10)
        wanted = set(edge_index[0, inside].tolist()) | set(range(start, start + 10))
        assert set(block.nodes.tolist()) == wanted
        assert sorted(block.nodes[block.source].tolist()) == sorted(edge_index[0, inside].tolist())


def test_block_of_some_nodes_in_any_order():
    edge_index = random_edges(30, 100, 1)
    edges = InEdges.sort(edge_index, 30)
    nodes = torch.tensor([17, 3, 29])
    block = edges.block_of(nodes)
    assert torch.equal(block.nodes[:3], nodes)
    ids = torch.arange(100)[edges.ids(block.edges)]
    assert torch.equal(edge_index[:, ids], block.nodes[block.edge_index()])
    assert ids.numel() == torch.isin(edge_index[1], nodes).sum()


def test_sorted_edges_need_no_numbers():
    edge_index = torch.tensor([[1, 2, 0, 0], [0, 0, 1, 3]])
    assert InEdges.sort(edge_index, 4).edge_id is None
    assert InEdges.sort(edge_index.flip(1), 4).edge_id.tolist() == [3, 2, 1, 0]
