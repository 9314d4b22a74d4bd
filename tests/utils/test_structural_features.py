import networkx as nx
import numpy as np
import pytest
import torch

from graphsparse.testing import random_graph
from graphsparse.utils.structural_features import _random_matrix, structural_features


def _unit(x):
    length = np.linalg.norm(x, axis=1, keepdims=True)
    return np.divide(x, length, out=np.zeros_like(x), where=length > 0)


def test_equals_the_dense_formula():
    """FastRP with dense float64 matrices on a networkx graph."""
    graph = nx.gnp_random_graph(70, 0.05, seed=3)
    graph.add_nodes_from([70, 71])  # two isolated ones
    x = structural_features(torch.tensor(list(graph.edges)).t(), 72, dim=40, seed=7)
    adjacency = nx.to_numpy_array(graph, nodelist=range(72))
    transition = adjacency / np.maximum(adjacency.sum(1), 1)[:, None]
    third = transition @ transition @ transition @ _random_matrix(72, 40, seed=7).double().numpy()
    expected = _unit(_unit(third) + _unit(transition @ third))
    assert x.dtype == torch.float32
    np.testing.assert_allclose(x.numpy(), expected, atol=1e-5)


def test_the_random_matrix_has_the_distribution_of_the_paper():
    matrix = _random_matrix(70_000, 8, seed=0)  # more rows than are drawn at a time
    root = torch.tensor(3.0).sqrt()
    for value in (-root, root):
        share = (matrix - value).abs().lt(1e-6).double().mean(0)
        # five standard deviations of the share of 70,000 draws
        assert ((share - 1 / 6).abs() < 5 * (1 / 6 * 5 / 6 / 70_000) ** 0.5).all()
    assert sorted(matrix.unique().tolist()) == pytest.approx([-root.item(), 0.0, root.item()])


def test_dot_products_estimate_those_of_the_transition_matrix():
    graph = nx.connected_caveman_graph(4, 8)
    x = structural_features(torch.tensor(list(graph.edges)).t(), dim=8192)
    adjacency = nx.to_numpy_array(graph, nodelist=range(32))
    third = np.linalg.matrix_power(adjacency / adjacency.sum(1, keepdims=True), 3)
    fourth = (adjacency / adjacency.sum(1, keepdims=True)) @ third
    rows = _unit(_unit(third) + _unit(fourth))
    np.testing.assert_allclose((x @ x.t()).numpy(), rows @ rows.T, atol=0.08)


def test_order_direction_duplicates_and_loops_do_not_matter():
    edge_index = random_graph().edge_index
    x = structural_features(edge_index, 60, dim=16)
    one_way = edge_index[:, edge_index[0] < edge_index[1]].flip(1)
    loops = torch.arange(60).repeat(2, 1)
    noisy = torch.cat([one_way.flip(0), one_way[:, :5], loops], dim=1)
    assert torch.equal(structural_features(noisy, 60, dim=16), x)
    assert torch.equal(structural_features(edge_index.int(), 60, dim=16), x)


def test_equal_bits_for_equal_seeds_whatever_the_threads_and_no_trace_in_the_global_generator():
    edge_index = random_graph(500).edge_index
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    first = structural_features(edge_index, 500, seed=1)
    try:
        torch.set_num_threads(1)
        again = structural_features(edge_index, 500, seed=1)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(first, again)
    assert not torch.equal(first, structural_features(edge_index, 500, seed=2))
    assert torch.equal(torch.get_rng_state(), state)


def test_rows_have_length_one_and_isolated_nodes_are_zero():
    x = structural_features(torch.tensor([[0, 1], [1, 2]]), 5, dim=64)
    assert torch.allclose(x.norm(dim=1), torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0]))


def test_graphs_without_edges():
    nothing = torch.empty(2, 0, dtype=torch.int64)
    assert structural_features(nothing, dim=4).shape == (0, 4)
    assert torch.equal(structural_features(nothing, 3, dim=4), torch.zeros(3, 4))


@pytest.mark.parametrize("arguments", [{"dim": 0}, {"num_nodes": 2}])
def test_bad_arguments_are_named(arguments):
    with pytest.raises(ValueError, match=f"'{next(iter(arguments))}'"):
        structural_features(torch.tensor([[0, 1], [1, 2]]), **arguments)


def test_a_width_is_an_integer():
    with pytest.raises(TypeError, match="'dim' must be an integer"):
        structural_features(torch.tensor([[0, 1], [1, 2]]), dim=2.5)


def test_bad_edge_index_is_named():
    with pytest.raises(TypeError, match="edge_index"):
        structural_features(torch.rand(2, 3))
    with pytest.raises(TypeError, match="num_nodes"):
        structural_features(torch.tensor([[0], [1]]), (2, 2))
