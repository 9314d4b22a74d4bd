import contextlib
import io

import ogb_link_sets
import ogb_sets
import pytest
import torch

from graphsparse.datasets import IntersectingGraphs
from graphsparse.transfer.data.leak import assert_no_leak
from graphsparse.transfer.data.pair import SharedNodePair
from graphsparse.transfer.data.prepare import prepare_pair


def check(graphs, tmp_path):
    """The sizes are those of the joined pair; a split obeys all rules and comes back from its file."""
    prepared = prepare_pair(graphs, folder=tmp_path, num_neg=2)
    pair, split = prepared.pair, prepared.split
    if not graphs.source_needs_split:
        assert graphs.summary() == pair.summary()
    for name in ("target", "source", "enriched_intersection", "enriched_target", "union"):
        assert_no_leak(split, pair, graph=pair.graph(name, without=split))
    assert prepare_pair(graphs, folder=tmp_path, num_neg=2).split.hash == split.hash
    return pair, split


@pytest.mark.parametrize("protocol", ["A", "B", "C"])
@pytest.mark.parametrize("name", ["cora", "citeseer"])
def test_windows_of_real_graphs(data_root, name, protocol, tmp_path):
    graphs = IntersectingGraphs(name, protocol, root=data_root, seed=1)
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(out):
        pair, split = check(graphs, tmp_path)
        graphs.summary()
    assert out.getvalue() == ""
    if protocol == "A":
        assert not pair.shared[split.queries].all(0).any()


@pytest.mark.parametrize("name", ["cora-coauthor-citation", "freebase-mam-mdm", "freebase-mam-mwm"])
def test_relations_of_real_graphs(data_root, name, tmp_path):
    graphs = IntersectingGraphs(name, root=data_root)
    pair, split = check(graphs, tmp_path)
    assert pair.shared.all()
    # neither links nor non-links that are asked for are seen in the source
    source = pair.graph("source", without=split)
    seen = set(map(tuple, source.edge_index.t().tolist()))
    assert not seen & set(map(tuple, split.queries.t().tolist()))


def test_citation2(tmp_path):
    arrays = ogb_link_sets.write_citation2(tmp_path / "ogb")
    before = ogb_sets.snapshot(tmp_path / "ogb")
    graphs = IntersectingGraphs("ogbl-citation2", root=tmp_path / "ogb", download=False)
    assert ogb_sets.snapshot(tmp_path / "ogb") == before
    year = torch.from_numpy(arrays["node_year"][:, 0])
    assert torch.equal(graphs.target.node_year, year[graphs.target.key])
    assert int(graphs.source.node_year.max()) == 2016
    assert int(graphs.target.node_year.min()) == 2014
    pair, split = check(graphs, tmp_path)
    late = (graphs.target.node_year > 2016)[split.heldout].any(0)
    assert late.all()
    links = {tuple(sorted(edge)) for edge in arrays["edge"].tolist()}
    held = graphs.target.key[split.heldout].t().tolist()
    assert {tuple(sorted(link)) for link in held} <= links
    directed = prepare_pair(graphs, directed=True)
    assert_no_leak(directed.split, directed.pair, graph=directed.pair.union(without=directed.split))
    arcs = {tuple(edge) for edge in arrays["edge"].tolist()}
    assert {tuple(arc) for arc in graphs.target.key[directed.split.test].t().tolist()} <= arcs
    assert torch.equal(pair.shared, graphs.target.node_year <= 2016)


def test_collab(tmp_path):
    arrays = ogb_link_sets.write_collab(tmp_path / "ogb")
    graphs = IntersectingGraphs("ogbl-collab", root=tmp_path / "ogb", download=False)
    assert int(graphs.source.edge_year.max()) == 2016
    assert int(graphs.target.edge_year.min()) == 2015
    _, split = check(graphs, tmp_path)
    assert split.options["hold_out"] == "given"
    years = {}
    for edge, (year,) in zip(arrays["edge"].tolist(), arrays["edge_year"].tolist(), strict=True):
        years.setdefault(tuple(sorted(edge)), []).append(year)
    for link in graphs.target.key[split.heldout].t().tolist():
        assert {year for year in years[tuple(sorted(link))] if year >= 2015} == {2017}


def test_arxiv_by_years(data_root, tmp_path):
    graphs = IntersectingGraphs("ogbn-arxiv-structure", root=data_root)
    pair = SharedNodePair(graphs.source, graphs.target)
    sizes = graphs.summary()
    assert pair.summary() == sizes
    # the citations, in either direction, that the official graph has up to 2018 and later: 1,166,243 in all
    assert graphs.source.num_edges + graphs.target.num_edges == 1_166_243
    assert sizes["union"]["num_nodes"] == 169_343
    assert int(graphs.target.node_year[graphs.target.edge_index[0]].min()) == 2019
    assert int(graphs.source.node_year[graphs.source.edge_index[0]].max()) == 2018
    area = graphs.target.x[:, :40]
    assert torch.equal(area.argmax(1), graphs.target.y)
    assert torch.equal(area.sum(1), torch.ones(len(area)))
    assert torch.allclose(graphs.target.x[:, 40] * 10 + 2010, graphs.target.node_year.float())
    # the target is what is new, and sparse without what the source knows of the papers they share
    assert sizes["intersection"]["mean_degree"] < 0.1 * sizes["enriched_intersection"]["mean_degree"]


@pytest.mark.slow
def test_large_pairs(data_root, tmp_path):
    for name, protocol in (
        ("ogbn-arxiv-structure", "citation_years"),
        ("ogbn-arxiv-structure", "paper_years"),
        ("acm-psp-pap", None),
        ("dblp-apcpa-apa", None),
    ):
        check(IntersectingGraphs(name, protocol, root=data_root), tmp_path)


def test_names_and_arguments(tmp_path):
    assert "cora" in IntersectingGraphs.names()
    assert repr(IntersectingGraphs("Synthetic", seed=3)) == "IntersectingGraphs('synthetic', 'A', seed=3)"
    with pytest.raises(ValueError, match="there is no pair of graphs 'coar'; did you mean 'cora'"):
        IntersectingGraphs("coar")
    with pytest.raises(ValueError, match="'protocol' must be one of .*'A', 'B', 'C'.* for 'cora' .got 'D'"):
        IntersectingGraphs("cora", "D")
    with pytest.raises(TypeError, match="'seed' must be an integer"):
        IntersectingGraphs("synthetic", seed=0.5)
    with pytest.raises(TypeError, match="'name' must be the name of a pair of graphs .got int"):
        IntersectingGraphs(3)
    with pytest.raises(FileNotFoundError, match="ogbl-collab: no folder"):
        IntersectingGraphs("ogbl-collab", root=tmp_path, download=False)


def test_seeds():
    one, again, other = (IntersectingGraphs("synthetic", seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one.target.edge_index, again.target.edge_index)
    assert not torch.equal(one.target.key, other.target.key)
