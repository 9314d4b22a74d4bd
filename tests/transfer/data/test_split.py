import json

import pytest
import torch
from intersecting import plant, random_pair
from safetensors.torch import load_file, save_file

from graphsparse.transfer.data.link_split import split_links
from graphsparse.transfer.data.pair import SharedNodePair
from graphsparse.transfer.data.split import PARTS, LinkSplit


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
    with pytest.raises(FileNotFoundError, match="no split at"):
        LinkSplit.load(file)
    split.save(file)
    whole = file.read_bytes()
    file.write_bytes(whole[:-20])
    with pytest.raises(ValueError, match="not a split, or only a part of one"):
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
    with pytest.raises(ValueError, match="not a split of version 1"):
        LinkSplit.load(file)


def test_small_integers_in_the_file(split, tmp_path):
    split.save(tmp_path / "split")
    assert {tensor.dtype for tensor in load_file(tmp_path / "split").values()} == {torch.int32}
    assert json.loads(split._header())["seed"] == 4


def test_an_interrupted_write_leaves_the_old_file(split, tmp_path, monkeypatch):
    import graphsparse.transfer.data.split as module

    split.save(tmp_path / "split")
    before = (tmp_path / "split").read_bytes()

    def fail(*args):
        raise OSError("disc full")

    monkeypatch.setattr(module, "save_file", fail)
    with pytest.raises(OSError, match="disc full"):
        plant(split, seed=9).save(tmp_path / "split")
    assert [path.name for path in tmp_path.iterdir()] == ["split"]
    assert (tmp_path / "split").read_bytes() == before


def test_views(split):
    assert split.heldout.size(1) == split.val.size(1) + split.test.size(1)
    assert split.queries.size(1) == 3 * split.heldout.size(1)
    assert split.edge_type is None
    assert split.num_neg == 2
    assert split.hash in repr(split)
