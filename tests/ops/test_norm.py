import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sparse_reference import dense, edge_lists
from torch_geometric.nn.conv.gcn_conv import gcn_norm

from graphsparse.ops import Adjacency


@given(edge_lists(), st.booleans(), st.booleans(), st.booleans())
def test_gcn_norm_equals_pyg(graph, weighted, loops, improved):
    edge_index, (num_nodes, _), generator = graph
    weight = torch.rand(edge_index.size(1), generator=generator) if weighted else None
    expected, value = gcn_norm(edge_index, weight, num_nodes, improved, loops)
    adj = Adjacency.from_edge_index(edge_index, weight, num_nodes)
    ours, ours_value = adj.gcn_norm(loops, improved=improved).to_edge_index()
    assert torch.equal(ours, expected)
    torch.testing.assert_close(ours_value, value, rtol=5e-6, atol=1e-7)  # two sums of up to 24 weights, and their roots


@given(edge_lists(max_nodes=3), st.booleans(), st.booleans())
def test_gcn_norm_with_value_0_equals_deleting_the_edge(graph, improved, loops):
    """Few nodes and many edges, so that self-loops repeat and some of them are 0."""
    edge_index, (num_nodes, _), generator = graph
    weight = torch.rand(edge_index.size(1), generator=generator, dtype=torch.float64) + 0.1
    kept = torch.rand(edge_index.size(1), generator=generator) < 0.5
    weight = (weight * kept).requires_grad_()
    adj = Adjacency.from_edge_index(edge_index, weight, num_nodes)
    ours = adj.gcn_norm(loops, improved=improved)
    expected, value = gcn_norm(edge_index[:, kept], weight[kept], num_nodes, improved, loops)
    probe = torch.rand(num_nodes, num_nodes, generator=generator, dtype=torch.float64)
    ours_index, ours_value = ours.to_edge_index()
    there = kept
    if loops:
        there = torch.cat([kept[edge_index[0] != edge_index[1]], torch.ones(num_nodes, dtype=torch.bool)])
    assert torch.equal(ours_index[:, there], expected)
    torch.testing.assert_close(ours_value[there], value)
    if weight.numel() == 0:
        return
    # PyG gives the gradient of a self-loop to all its copies, although only the last one counts.
    counts = kept.clone()
    for edge in range(len(kept) if loops else 0):
        same = (edge_index == edge_index[:, edge : edge + 1]).all(0) & kept
        if edge_index[0, edge] == edge_index[1, edge] and same[edge + 1 :].any():
            counts[edge] = False
    expected, value = gcn_norm(edge_index[:, counts], weight[counts], num_nodes, improved, loops)
    totals = [(v * probe[tuple(e)]).sum() + 0 * weight.sum() for e, v in ((ours_index, ours_value), (expected, value))]
    got, wanted = (torch.autograd.grad(total, weight)[0] for total in totals)
    torch.testing.assert_close(got[kept], wanted[kept])
    if loops:
        assert (got[~counts & (edge_index[0] == edge_index[1])] == 0).all()


def test_gcn_norm_of_a_symmetric_graph_with_a_deleted_loop_stays_symmetric():
    edge_index = torch.tensor([[0, 1, 0], [1, 0, 0]])
    adj = Adjacency.from_edge_index(edge_index, torch.tensor([1.0, 1.0, 0.0]), symmetric=True).gcn_norm()
    assert adj.t() is adj
    torch.testing.assert_close(adj.value, torch.full((4,), 0.5))


def test_gcn_norm_keeps_the_last_of_several_self_loops():
    adj = Adjacency.from_edge_index(torch.tensor([[0, 1, 0, 0], [0, 0, 1, 0]]), torch.tensor([5.0, 1.0, 1.0, 3.0]))
    edge_index, value = adj.gcn_norm().to_edge_index()
    assert edge_index.tolist() == [[1, 0, 0, 1], [0, 1, 0, 1]]
    torch.testing.assert_close(value, torch.tensor([8**-0.5, 8**-0.5, 3 / 4, 1 / 2]))


@pytest.mark.parametrize("loops", [True, False])
def test_gradients_of_the_normalisations(loops):
    edge_index = torch.tensor([[0, 1, 2, 2, 1, 0, 3, 0], [1, 0, 1, 2, 2, 1, 1, 2]])
    weight = (torch.rand(8, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.5).requires_grad_()

    def ours(w):
        return Adjacency.from_edge_index(edge_index, w, 5).gcn_norm(loops).to_edge_index()[1]

    assert torch.autograd.gradcheck(ours, weight)
    assert torch.autograd.gradcheck(lambda w: Adjacency.from_edge_index(edge_index, w, 5).row_sum(), weight)
    theirs = gcn_norm(edge_index[:, :6], weight[:6], 3, False, True)[1]
    mine = Adjacency.from_edge_index(edge_index[:, :6], weight[:6]).gcn_norm().to_edge_index()[1]
    probe = torch.rand(theirs.numel(), dtype=torch.float64)
    expected, got = (torch.autograd.grad((v * probe).sum(), weight)[0] for v in (theirs, mine))
    torch.testing.assert_close(got, expected)


def test_gradients_at_degree_zero_are_finite():
    weight = torch.tensor([0.0, 1.0], requires_grad=True)
    adj = Adjacency.from_edge_index(torch.tensor([[0, 1], [1, 2]]), weight, 3)
    (grad,) = torch.autograd.grad(adj.gcn_norm(False).value.sum(), weight)
    assert grad.isfinite().all()


@given(edge_lists(bipartite=True), st.booleans())
def test_row_sum(graph, weighted):
    edge_index, size, generator = graph
    weight = torch.rand(edge_index.size(1), generator=generator) if weighted else None
    adj = Adjacency.from_edge_index(edge_index, weight, size)
    matrix = dense(edge_index, weight, size)
    torch.testing.assert_close(adj.row_sum().double(), matrix.sum(1), rtol=1e-5, atol=1e-6)
