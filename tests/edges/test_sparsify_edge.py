import subprocess
import sys
from collections import Counter

import networkx as nx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric import EdgeIndex

from graphsparse.edges import edge_score, sparsify_edge
from graphsparse.testing import assert_undirected, toy_edge_index

NAMES = ["teddy", "reverse_teddy", "degree", "inverse_degree_sum", "jaccard", "random"]
edge_lists = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=60)
sparsities = st.floats(0, 1, exclude_max=True)


def tensor(pairs):
    return torch.tensor(pairs, dtype=torch.long).reshape(-1, 2).t()


def undirected(edge_index):
    return {(min(u, v), max(u, v)) for u, v in edge_index.t().tolist() if u != v}


def slow_removed(edge_index, score, k):
    """The definition: the k first edges in the order (score, smaller end point, larger end point)."""
    best = {}
    for (u, v), s in zip(edge_index.t().tolist(), score.tolist(), strict=True):
        if u != v:
            best[min(u, v), max(u, v)] = s
    return {edge for _, edge in sorted((s, edge) for edge, s in best.items())[:k]}


@settings(max_examples=60)
@given(edge_lists, sparsities, st.sampled_from(NAMES))
def test_removes_exactly_the_first_edges(pairs, sparsity, name):
    edge_index = tensor(pairs)
    kept, mask = sparsify_edge(edge_index, sparsity, name, num_nodes=10, seed=1)
    edges = undirected(edge_index)
    k = int(sparsity * len(edges))
    removed = slow_removed(edge_index, edge_score(edge_index, name, num_nodes=10, seed=1), k)
    expected = [u == v or (min(u, v), max(u, v)) not in removed for u, v in pairs]
    assert mask.tolist() == expected
    assert torch.equal(kept, edge_index[:, mask])
    assert len(undirected(kept)) == len(edges) - k


@settings(max_examples=30)
@given(edge_lists, sparsities, st.sampled_from(NAMES))
def test_entries_of_an_edge_go_together_and_loops_stay(pairs, sparsity, name):
    edge_index = tensor(pairs)
    kept, mask = sparsify_edge(edge_index, sparsity, name, num_nodes=10, seed=1)
    dropped = undirected(edge_index[:, ~mask])
    assert not dropped & undirected(kept)
    count = Counter(u for u, v in pairs if u == v)
    assert Counter(u for u, v in kept.t().tolist() if u == v) == count


@settings(max_examples=30)
@given(edge_lists, st.tuples(sparsities, sparsities), st.sampled_from(NAMES))
def test_levels_are_nested(pairs, levels, name):
    edge_index = tensor(pairs)
    low, high = (sparsify_edge(edge_index, s, name, num_nodes=10, seed=1)[1] for s in sorted(levels))
    assert not (high & ~low).any()


@settings(max_examples=30)
@given(edge_lists, sparsities, st.sampled_from(NAMES), st.randoms(use_true_random=False))
def test_order_of_the_edges_does_not_matter(pairs, sparsity, name, random):
    edge_index = tensor(pairs)
    mask = sparsify_edge(edge_index, sparsity, name, num_nodes=10, seed=1)[1]
    order = list(range(len(pairs)))
    random.shuffle(order)
    permuted = sparsify_edge(edge_index[:, order], sparsity, name, num_nodes=10, seed=1)[1]
    assert torch.equal(permuted, mask[order])


@settings(max_examples=30)
@given(st.integers(0, 10**6), sparsities, st.permutations(range(12)))
def test_numbering_of_the_nodes_does_not_matter_without_ties(seed, sparsity, order):
    graph = nx.gnp_random_graph(12, 0.5, seed=seed)
    edge_index = tensor(list(graph.edges))
    score = edge_score(edge_index, num_nodes=12)
    if score.unique().numel() < score.numel():
        return  # ties follow the numbering, by definition
    mask = sparsify_edge(edge_index, sparsity, num_nodes=12)[1]
    assert torch.equal(sparsify_edge(torch.tensor(order)[edge_index], sparsity, num_nodes=12)[1], mask)


def test_toy_graph_at_the_levels_of_the_specification():
    edge_index = toy_edge_index()
    assert undirected(edge_index) - undirected(sparsify_edge(edge_index, 0.4)[0]) == {(0, 1), (0, 2)}
    assert undirected(edge_index) - undirected(sparsify_edge(edge_index, 0.2)[0]) == {(0, 1)}


@pytest.mark.parametrize("sparsity", [0.0, 0.01, 0.333, 0.5, 0.99])
def test_star_where_all_edges_tie(sparsity):
    edge_index = tensor(list(nx.star_graph(100).edges))
    mask = sparsify_edge(edge_index, sparsity)[1]
    k = int(sparsity * 100)
    assert mask.tolist() == [False] * k + [True] * (100 - k)


def test_symmetric_input_gives_symmetric_output_of_exact_size():
    graph = nx.barabasi_albert_graph(500, 4, seed=0)
    edge_index = tensor([*graph.edges, *((v, u) for u, v in graph.edges)])
    for percent in range(0, 100, 7):
        kept = sparsify_edge(edge_index, percent / 100)[0]
        assert_undirected(kept)
        assert kept.size(1) == 2 * (graph.number_of_edges() - int(percent / 100 * graph.number_of_edges()))


def test_zero_sparsity_changes_nothing_and_input_is_kept():
    edge_index = toy_edge_index()
    before = edge_index.clone()
    kept, mask = sparsify_edge(edge_index, 0.0)
    assert mask.all()
    assert torch.equal(kept, before)
    sparsify_edge(edge_index, 0.8)
    assert torch.equal(edge_index, before)


def test_no_edges():
    kept, mask = sparsify_edge(torch.empty(2, 0, dtype=torch.long), 0.5)
    assert kept.shape == (2, 0)
    assert mask.shape == (0,)


def test_bipartite_nodes_of_equal_number_are_different():
    # 0-0 is an edge here, not a self-loop.
    edge_index = torch.tensor([[0, 0, 1, 2], [0, 1, 1, 1]])
    kept, mask = sparsify_edge(edge_index, 0.25, num_nodes=(3, 2))
    shifted = edge_index + torch.tensor([[0], [3]])
    assert torch.equal(mask, sparsify_edge(shifted, 0.25)[1])
    assert kept.size(1) == 3


def test_edge_index_class_keeps_its_metadata():
    edge_index = EdgeIndex(toy_edge_index(), sparse_size=(5, 5), sort_order="row", is_undirected=True)
    kept, mask = sparsify_edge(edge_index, 0.4)
    assert isinstance(kept, EdgeIndex)
    assert kept.is_undirected
    assert kept.sort_order == edge_index.sort_order
    assert kept.sparse_size() == (5, 5)
    kept.validate()
    assert torch.equal(kept.as_tensor(), edge_index.as_tensor()[:, mask])


@pytest.mark.parametrize("sparsity", [-0.1, 1.0, float("nan")])
def test_bad_sparsity_is_reported_before_any_work(sparsity):
    def score(edge_index, num_nodes):
        raise AssertionError("called")

    with pytest.raises(ValueError, match=r"'sparsity'.*\[0, 1\)"):
        sparsify_edge(toy_edge_index(), sparsity, score)


def test_bad_edges():
    with pytest.raises(ValueError, match=r"shape \[2, E\]"):
        sparsify_edge(toy_edge_index().t(), 0.5)
    with pytest.raises(ValueError, match="'num_nodes'"):
        sparsify_edge(toy_edge_index(), 0.5, num_nodes=3)
    with pytest.raises(TypeError, match=r"torch\.float32"):
        sparsify_edge(toy_edge_index().float(), 0.5)


@pytest.mark.cuda
@pytest.mark.parametrize("name", [name for name in NAMES if name != "jaccard"])
def test_cuda_agrees_with_cpu(name, device):
    graph = nx.barabasi_albert_graph(2_000, 4, seed=0)
    edge_index = tensor(list(graph.edges))
    on_gpu = sparsify_edge(edge_index.to(device), 0.37, name, seed=0)[1]
    assert torch.equal(on_gpu.cpu(), sparsify_edge(edge_index, 0.37, name, seed=0)[1])


SCALE = """
import resource, time, torch
from graphsparse.edges.sparsify import edge_keep_mask
torch.set_num_threads(1)
N, M = 2_449_029, 61_859_140
generator = torch.Generator().manual_seed(0)
edge_index = torch.empty(2, M, dtype=torch.int32)
for part in edge_index.view(-1).split(1 << 22):  # heavy-tailed end points
    part.copy_(torch.rand(part.numel(), generator=generator).pow_(3).mul_(N).int())
start = time.process_time()
mask = edge_keep_mask(edge_index, 0.5, num_nodes=N)
print(time.process_time() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, int(mask.sum()))
"""


@pytest.mark.slow
def test_sixty_two_million_edges_in_two_and_a_half_gigabytes():
    """Of which the list takes 0.5, its edges 0.5, and which edge each entry is 0.25."""
    out = subprocess.run([sys.executable, "-c", SCALE], capture_output=True, text=True, check=True).stdout.split()
    seconds, gigabytes = float(out[0]), float(out[1])
    assert gigabytes < 2.5
    assert seconds < 30
