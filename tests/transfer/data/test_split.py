import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from intersecting import plant, random_pair
from safetensors.torch import load_file, save_file
from torch_geometric.data import Data

from graphsparse.transfer.data.leak import assert_no_leak
from graphsparse.transfer.data.pair import SharedNodePair
from graphsparse.transfer.data.split import PARTS, LinkSplit, split_links
from graphsparse.utils import files


def as_set(pairs):
    found = set(map(tuple, pairs.t().tolist()))
    assert len(found) == pairs.size(1)
    return found


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 10**6), st.booleans(), st.sampled_from(["target_only_end", "all"]))
def test_what_a_split_promises(graph_seed, seed, directed, hold_out):
    sources, target = random_pair(graph_seed, num_keys=60)
    pair = SharedNodePair(sources, target, directed=directed)
    split = split_links(pair, seed=seed, hold_out=hold_out, num_neg=3)
    train, val, test = as_set(split.train), as_set(split.val), as_set(split.test)
    links = as_set(pair.target_links())
    assert train | val | test == links
    assert len(train) + len(val) + len(test) == len(links)
    shared = pair.shared.tolist()
    fixed = {(u, v) for u, v in links if shared[u] and shared[v]} if hold_out == "target_only_end" else set()
    assert fixed <= train
    unordered = {frozenset(pair) for pair in links - fixed}
    assert len({frozenset(pair) for pair in train - fixed}) == int(0.2 * len(unordered) + 1e-9)
    # both directions in one part
    parts = [{frozenset(pair) for pair in part} for part in (train, val, test)]
    assert sum(map(len, parts)) == len(set.union(*parts))
    for positives, negatives in ((split.val, split.val_neg), (split.test, split.test_neg)):
        assert negatives.size(1) == 3 * positives.size(1)
        for u, v in as_set(negatives):
            assert u != v
            assert (u, v) not in links
            assert (v, u) not in links
            assert directed or u < v
            assert hold_out == "all" or not (shared[u] and shared[v])
    assert not as_set(split.val_neg) & as_set(split.test_neg)
    assert_no_leak(split, pair)


def test_seeds_and_the_order_of_edges():
    sources, target = random_pair(1)
    pair = SharedNodePair(sources, target)
    turned = target.clone()
    turned.edge_index = turned.edge_index.flip(0, 1)
    state = torch.get_rng_state()
    hashes = [split_links(p, seed=s).hash for p, s in ((pair, 0), (pair, 0), (SharedNodePair(sources, turned), 0))]
    assert len(set(hashes)) == 1
    assert len({split_links(pair, seed=seed).hash for seed in range(5)}) == 5
    assert torch.equal(torch.get_rng_state(), state)


def test_given_pairs_are_held_out():
    sources, target = random_pair(1, num_keys=80)
    pair = SharedNodePair(sources, target)
    late = pair.target_links()[:, ::3]
    split = split_links(pair, (0.1, 0.5, 0.4), hold_out=late.flip(0), num_neg=1)
    assert as_set(split.heldout) < as_set(late)
    assert split.options["hold_out"] == "given"
    assert_no_leak(split, pair)
    with pytest.raises(ValueError, match="'hold_out' holds 1 pairs that are no link of the target, such as .0, 0."):
        split_links(pair, hold_out=torch.tensor([[0], [0]]))


def test_shares():
    size = 101
    path = torch.stack([torch.arange(size - 1), torch.arange(1, size)])
    target = Data(edge_index=path, key=torch.arange(size), num_nodes=size)
    pair = SharedNodePair(target, target)
    for ratios, sizes in (
        ((0.29, 0.31, 0.4), [29, 31, 40]),
        ((0.0, 0.5, 0.5), [0, 50, 50]),
        ((0.6, 0.4, 0.0), [60, 40, 0]),
        ((0.7, 0.0, 0.3), [70, 0, 30]),
    ):
        split = split_links(pair, ratios, hold_out="all", num_neg=1)
        assert [split.train.size(1), split.val.size(1), split.test.size(1)] == sizes
        assert [split.val_neg.size(1), split.test_neg.size(1)] == sizes[1:]


def test_every_link_is_as_likely_in_each_part():
    size = 41
    path = torch.stack([torch.arange(size - 1), torch.arange(1, size)])
    pair = SharedNodePair(*[Data(edge_index=path, key=torch.arange(size), num_nodes=size)] * 2)
    count = torch.zeros(size)
    for seed in range(400):
        count[split_links(pair, hold_out="all", num_neg=0, seed=seed).test[0]] += 1
    spread = (400 * 0.4 * 0.6) ** 0.5
    assert ((count[:-1] - 160).abs() < 5 * spread).all()


@pytest.mark.parametrize(
    ("error", "match", "options"),
    [
        (TypeError, "'ratios' must be three numbers", {"ratios": "abc"}),
        (ValueError, "'ratios' must be three shares with the sum 1", {"ratios": (0.5, 0.4)}),
        (ValueError, "'ratios' must be three shares with the sum 1", {"ratios": (0.5, 0.4, 0.2)}),
        (ValueError, "'ratios' must be three shares with the sum 1", {"ratios": (1.2, -0.1, -0.1)}),
        (ValueError, "'ratios' must hold something out", {"ratios": (1, 0, 0)}),
        (TypeError, "'seed' must be an integer", {"seed": 0.5}),
        (TypeError, "'num_neg' must be an integer", {"num_neg": 1.5}),
        (ValueError, "'num_neg' must be at least 0", {"num_neg": -1}),
        (ValueError, "'hold_out' must be one of", {"hold_out": "some"}),
        (ValueError, "2640 different non-links are needed|different non-links are needed", {"num_neg": 200}),
    ],
)
def test_bad_arguments(error, match, options):
    sources, target = random_pair(1)
    with pytest.raises(error, match=match):
        split_links(SharedNodePair(sources, target), **options)


def test_nothing_to_hold_out():
    _, target = random_pair(1)
    with pytest.raises(ValueError, match="no link of the target has an end that only the target has"):
        split_links(SharedNodePair(target, target))
    one = Data(edge_index=torch.tensor([[0], [1]]), key=torch.arange(9), num_nodes=9)
    with pytest.raises(ValueError, match="1 links may be held out: too few, none would be left for validation"):
        split_links(SharedNodePair(one, one), hold_out="all")
    with pytest.raises(TypeError, match="'pair' must be a SharedNodePair, or a Data .*got int"):
        split_links(0)


@pytest.fixture
def pair():
    sources, target = random_pair(3)
    return SharedNodePair(sources, target)


@pytest.fixture
def split(pair):
    return split_links(pair, seed=4, num_neg=2)


def test_round_trip(pair, split, tmp_path):
    file = tmp_path / "new" / "split.safetensors"
    split.save(file)
    found = LinkSplit.load(file, pair)
    assert found.hash == split.hash
    assert (found.seed, found.fingerprint, found.options) == (4, pair.fingerprint, split.options)
    for name in PARTS:
        assert torch.equal(getattr(found, name), getattr(split, name))
        assert getattr(found, name).dtype == torch.int64
    assert [path.name for path in file.parent.iterdir()] == ["split.safetensors"]


def test_the_hash_tells_splits_apart(pair, split):
    same = split_links(pair, seed=4, num_neg=2)
    assert same.hash == split.hash
    others = [
        split_links(pair, seed=5, num_neg=2),
        split_links(pair, seed=4, num_neg=1),
        plant(split, val=split.test, test=split.val),
        plant(split, val_neg=split.val_neg.flip(1)),
        plant(split, seed=7),
    ]
    assert len({split.hash, *(other.hash for other in others)}) == 6


def test_another_pair_is_refused(pair, split, tmp_path):
    sources, target = random_pair(8)
    other = SharedNodePair(sources, target)
    with pytest.raises(ValueError, match="the split is of another pair"):
        split.check(other)
    split.save(tmp_path / "split")
    with pytest.raises(ValueError, match="the split is of another pair"):
        LinkSplit.load(tmp_path / "split", other)
    with pytest.raises(ValueError, match="the split is of another pair"):
        other.enriched_target(without=split)


def test_other_sources_for_the_same_target(pair, split):
    source, target = pair.source[0], pair.target
    fewer = source.subgraph(torch.arange(source.num_nodes // 2))
    fewer.key = source.key[: fewer.num_nodes]
    split.check(SharedNodePair(fewer, target))
    # where every node is shared, no held-out pair has an end of its own any more
    with pytest.raises(ValueError, match="between shared nodes"):
        split.check(SharedNodePair(target, target))


def test_damaged_files(split, tmp_path):
    file = tmp_path / "split"
    with pytest.raises(FileNotFoundError, match="no link split at"):
        LinkSplit.load(file)
    split.save(file)
    whole = file.read_bytes()
    file.write_bytes(whole[:-20])
    with pytest.raises(ValueError, match="not a link split, or only a part of one"):
        LinkSplit.load(file)
    file.write_bytes(whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:])
    with pytest.raises(ValueError, match="damaged or was edited"):
        LinkSplit.load(file)
    edited = whole.replace(b'\\"seed\\":4', b'\\"seed\\":5')
    assert edited != whole
    file.write_bytes(edited)
    with pytest.raises(ValueError, match="damaged or was edited"):
        LinkSplit.load(file)
    save_file({"a": torch.ones(1)}, file)
    with pytest.raises(ValueError, match="is a safetensors file, but not a link split"):
        LinkSplit.load(file)


def test_older_files_are_refused_by_their_version(split, tmp_path):
    metadata = {
        "format": "graphsparse-link-split",
        "version": "1",
        "header": json.dumps(split._header()),
        "sha256": "0",
    }
    save_file({name: getattr(split, name).contiguous() for name in PARTS}, tmp_path / "split", metadata)
    with pytest.raises(
        ValueError, match="is a link split of version 1, and only version 4 is read: 'split_links' with"
    ):
        LinkSplit.load(tmp_path / "split")


def test_small_integers_in_the_file(split, tmp_path):
    split.save(tmp_path / "split")
    assert {tensor.dtype for tensor in load_file(tmp_path / "split").values()} == {torch.int32}


def test_an_interrupted_write_leaves_the_old_file(split, tmp_path, monkeypatch):
    split.save(tmp_path / "split")
    before = (tmp_path / "split").read_bytes()

    def fail(*args):
        raise OSError("disc full")

    monkeypatch.setattr(files, "save_file", fail)
    with pytest.raises(OSError, match="disc full"):
        plant(split, seed=9).save(tmp_path / "split")
    assert [path.name for path in tmp_path.iterdir()] == ["split"]
    assert (tmp_path / "split").read_bytes() == before


def test_views(split):
    assert split.heldout.size(1) == split.val.size(1) + split.test.size(1)
    assert split.queries.size(1) == 3 * split.heldout.size(1)
    assert split.num_neg == 2
    assert split.hash in repr(split)
