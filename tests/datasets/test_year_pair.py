import pytest
import torch
from torch_geometric.data import Data

from graphsparse.datasets.year_pair import citation_year_pair, edge_year_pair, paper_year_pair


def papers(seed=0, size=200):
    generator = torch.Generator().manual_seed(seed)
    edges = torch.randint(size, (2, 900), generator=generator)
    year = torch.randint(2010, 2020, (size, 1), generator=generator)
    return Data(x=torch.randn(size, 3), edge_index=edges, node_year=year, num_nodes=size)


def arcs(graph):
    return sorted(map(tuple, graph.key[graph.edge_index].t().tolist()))


def test_years_of_papers():
    data = papers()
    year = data.node_year.view(-1).tolist()
    pair = paper_year_pair(data, 2014, 2016, seed=3)
    source, target = set(pair.source.key.tolist()), set(pair.target.key.tolist())
    assert all(year[u] <= 2016 for u in source)
    assert all(year[u] >= 2014 for u in target)
    assert {u for u in source if year[u] >= 2014} == {u for u in target if year[u] <= 2016}
    own = [(u, v) for u, v in data.edge_index.t().tolist() if u != v]
    linked = {u for arc in own for u in arc}
    assert source == {u for u in linked if year[u] <= 2016}
    assert arcs(pair.source) == sorted(arc for arc in own if source.issuperset(arc))
    before = [arc for arc in own if target.issuperset(arc)]
    between = [arc for arc in before if year[arc[0]] <= 2016 and year[arc[1]] <= 2016]
    found = arcs(pair.target)
    assert [arc for arc in found if arc not in set(between)] == sorted(set_minus(before, between))
    kept = sum(arc in set(between) for arc in found) / len(between)
    assert abs(kept - 0.2) < 5 * (0.16 / len(between)) ** 0.5
    assert pair.hold_out == "target_only_end"
    # what may be held out is what has a paper that the source does not have
    late = (pair.target.node_year > 2016)[pair.target.edge_index].any(0)
    new = ~torch.isin(pair.target.key, pair.source.key)[pair.target.edge_index].all(0)
    assert torch.equal(late, new)
    assert torch.equal(pair.target.x, data.x[pair.target.key])


def set_minus(arcs_of_all, some):
    return [arc for arc in arcs_of_all if arc not in set(some)]


def test_years_of_citations():
    data = papers()
    year = data.node_year.view(-1).tolist()
    pair = citation_year_pair(data, 2016)
    own = data.edge_index.t().tolist()
    assert arcs(pair.source) == sorted((u, v) for u, v in own if year[u] <= 2016)
    assert arcs(pair.target) == sorted((u, v) for u, v in own if year[u] > 2016)
    for graph in (pair.source, pair.target):
        assert set(graph.edge_index.flatten().tolist()) == set(range(graph.num_nodes))
    with pytest.raises(ValueError, match="no edges on one side of the year 2030"):
        citation_year_pair(data, 2030)


def joint_work(seed=0):
    generator = torch.Generator().manual_seed(seed)
    once = torch.randint(60, (2, 300), generator=generator)
    once = torch.cat([once, once[:, :100]], dim=1)  # again in another year
    year = torch.randint(2010, 2018, (400, 1), generator=generator)
    return Data(
        edge_index=torch.cat([once, once.flip(0)], dim=1), edge_year=torch.cat([year, year]), x=torch.randn(60, 2)
    )


def test_years_of_edges():
    data = joint_work()
    pair = edge_year_pair(data, 2015, 2016)
    own = [(u, v, y) for (u, v), y in zip(data.edge_index.t().tolist(), data.edge_year.view(-1).tolist(), strict=True)]
    own = [(u, v, y) for u, v, y in own if u != v]
    for graph, wanted in (
        (pair.source, [arc for arc in own if arc[2] <= 2016]),
        (pair.target, [arc for arc in own if arc[2] >= 2015]),
    ):
        ends = graph.key[graph.edge_index].t().tolist()
        found = [(u, v, y) for (u, v), y in zip(ends, graph.edge_year.tolist(), strict=True)]
        assert sorted(found) == sorted(wanted)
        assert set(graph.key.tolist()) == {u for arc in wanted for u in arc[:2]}
    in_target = {}
    for u, v, y in own:
        if y >= 2015:
            in_target.setdefault((min(u, v), max(u, v)), set()).add(y)
    free = {link for link, years in in_target.items() if min(years) > 2016}
    assert free
    assert {tuple(link) for link in pair.target.key[pair.hold_out].t().tolist()} == free


def test_missing_years():
    data = papers()
    with pytest.raises(ValueError, match="year of every edge in 'edge_year'"):
        edge_year_pair(data, 2014, 2016)
    del data.node_year
    with pytest.raises(ValueError, match="year of every node in 'node_year'"):
        citation_year_pair(data, 2016)
