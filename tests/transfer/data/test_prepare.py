import dataclasses

import pytest
import torch

from graphsparse.datasets import IntersectingGraphs
from graphsparse.transfer.data.leak import assert_no_leak
from graphsparse.transfer.data.prepare import prepare_pair


@pytest.mark.parametrize("protocol", ["A", "B", "C"])
def test_made_once_and_read_again(protocol, tmp_path):
    graphs = IntersectingGraphs("synthetic", protocol)
    first = prepare_pair(graphs, seed=2, folder=tmp_path)
    (file,) = tmp_path.iterdir()
    assert file.name == f"synthetic-{protocol}-seed-0-split-2.safetensors"
    written = file.stat().st_mtime_ns
    again = prepare_pair(graphs, seed=2, folder=tmp_path)
    assert file.stat().st_mtime_ns == written
    assert again.split.hash == first.split.hash == prepare_pair(graphs, seed=2).split.hash
    assert again.pair.fingerprint == first.pair.fingerprint
    for name in ("enriched_intersection", "enriched_target", "union"):
        assert_no_leak(first.split, first.pair, graph=first.pair.graph(name, without=first.split))
    assert prepare_pair(graphs, seed=3, folder=tmp_path).split.hash != first.split.hash
    assert len(list(tmp_path.iterdir())) == 2


def test_another_split_in_the_file_is_refused(tmp_path):
    graphs = IntersectingGraphs("synthetic", "A")
    prepare_pair(graphs, folder=tmp_path)
    with pytest.raises(ValueError, match="holds a split with .* and seed 0, not .*'num_neg': 2"):
        prepare_pair(graphs, folder=tmp_path, num_neg=2)
    (file,) = tmp_path.iterdir()
    other = prepare_pair(IntersectingGraphs("synthetic", "A", seed=1))
    other.split.save(file)
    with pytest.raises(ValueError, match="the split is of another pair"):
        prepare_pair(graphs, folder=tmp_path)
    with pytest.raises(TypeError, match="'graphs' must be IntersectingGraphs .got str"):
        prepare_pair("cora")


def test_the_source_of_protocol_c_grows_with_training_links_only():
    graphs = IntersectingGraphs("synthetic", "C")
    prepared = prepare_pair(graphs)
    pair, split = prepared.pair, prepared.split
    assert pair.source[0].num_edges > graphs.source.num_edges

    # take every held-out link away from the graph itself: the source is the same
    data = graphs._whole
    key = graphs.target.key[split.heldout]
    held = {frozenset(link) for link in key.t().tolist()}
    keep = torch.tensor([frozenset(link) not in held for link in data.edge_index.t().tolist()])
    poorer = data.clone()
    poorer.edge_index = data.edge_index[:, keep]
    assert poorer.num_edges == data.num_edges - 2 * len(held)
    graphs._whole = poorer
    assert torch.equal(graphs.source_given(split.train).edge_index, pair.source[0].edge_index)
    assert dataclasses.is_dataclass(prepared)


@pytest.mark.parametrize(("name", "sizes"), [("cora", (678, 678)), ("citeseer", (582, 583))])
def test_sizes_of_protocol_a(data_root, name, sizes):
    prepared = prepare_pair(IntersectingGraphs(name, "A", root=data_root))
    split, summary = prepared.split, prepared.pair.summary(without=prepared.split)
    assert (split.val.size(1), split.test.size(1)) == sizes
    enriched = {"cora": (771, 1110, 2987), "citeseer": (692, 983, 2547)}[name]
    found = [summary[graph]["num_links"] for graph in ("enriched_intersection", "enriched_target", "union")]
    assert tuple(found) == enriched


def test_sizes_of_protocol_b(data_root):
    split = prepare_pair(IntersectingGraphs("cora", "B", root=data_root)).split
    assert (split.train.size(1), split.val.size(1), split.test.size(1)) == (493, 986, 987)
