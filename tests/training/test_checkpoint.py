from collections import Counter, OrderedDict

import pytest
import torch

from graphsparse.training import checkpoint as module
from graphsparse.training.checkpoint import Checkpoint

IDENTITY = {"'seed'": 0, "'lr'": 0.1, "'patience'": None}


def test_what_was_written_last_is_read(tmp_path):
    path = tmp_path / "folder" / "a.pt"
    assert Checkpoint(path, None, IDENTITY).load() is None
    for epoch in (1, 2):
        Checkpoint(path, None, IDENTITY).write({"epoch": epoch, "x": torch.full((2,), epoch)})
        saved = Checkpoint(str(path), 3, dict(IDENTITY)).load()
        assert saved["epoch"] == epoch
        assert saved["x"].tolist() == [epoch, epoch]
    assert [file.name for file in path.parent.iterdir()] == ["a.pt"]


def test_everything_that_differs_is_told(tmp_path):
    Checkpoint(tmp_path / "a.pt", None, IDENTITY).write({})
    other = {"'seed'": 1, "'lr'": 0.1, "'epochs'": 3}
    with pytest.raises(ValueError, match="belongs to another training") as error:
        Checkpoint(tmp_path / "a.pt", None, other).load()
    for part in (
        "'seed' was 0 and is now 1",
        "'patience' was None and is now missing",
        "'epochs' was missing and is now 3",
    ):
        assert part in str(error.value)
    assert "'lr'" not in str(error.value)
    with pytest.raises(ValueError, match=r"and is now a; .*; and 7 more\."):
        Checkpoint(tmp_path / "a.pt", None, {f"{i}": "a" for i in range(7)} | {"'seed'": "a"}).load()


@pytest.mark.parametrize("content", [b"", b"no checkpoint", None, "tensor", "dict"])
def test_a_file_that_is_no_checkpoint_is_refused_and_left_alone(content, tmp_path):
    path = tmp_path / "a.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is None:  # half a checkpoint
        Checkpoint(path, None, IDENTITY).write({"x": torch.ones(1000)})
        path.write_bytes(path.read_bytes()[:2000])
    else:
        torch.save(torch.ones(2) if content == "tensor" else {"model": {}}, path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="'checkpoint' .*a.pt' (cannot be read|is no checkpoint)"):
        Checkpoint(path, None, IDENTITY).load()
    assert path.read_bytes() == before


def test_a_changed_bit_is_noticed(tmp_path):
    path = tmp_path / "a.pt"
    Checkpoint(path, None, IDENTITY).write({"x": torch.zeros(1000)})
    stored = bytearray(path.read_bytes())
    place = stored.index(bytes(4000)) + 2000
    stored[place] ^= 1
    path.write_bytes(stored)
    with pytest.raises(ValueError, match="is damaged"):
        Checkpoint(path, None, IDENTITY).load()


class Unsafe:
    pass


def test_what_could_not_be_read_again_is_never_written(tmp_path):
    file = Checkpoint(tmp_path / "a.pt", None, IDENTITY)
    file.write({"epoch": 1})
    with pytest.raises(TypeError, match="'checkpoint' cannot hold the state .*Unsafe"):
        file.write({"scheduler": {"x": Unsafe()}})
    assert file.load()["epoch"] == 1  # the last good one is still there
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.pt"]
    file.write({"fine": [Counter([1, 1]), OrderedDict(a=(1, 2.5, None, True)), torch.ones(2, dtype=torch.bfloat16)]})


def test_a_failing_save_leaves_the_last_one(tmp_path, monkeypatch):
    file = Checkpoint(tmp_path / "a.pt", None, IDENTITY)
    file.write({"epoch": 1})

    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="no space left"):
        file.write({"epoch": 2})
    assert file.load()["epoch"] == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.pt"]


def test_every_so_many_epochs(tmp_path):
    file = Checkpoint(tmp_path / "a.pt", 3, IDENTITY)
    assert [epoch for epoch in range(1, 10) if file.due(epoch)] == [3, 6, 9]


def test_by_the_clock(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    file = Checkpoint(tmp_path / "a.pt", None, IDENTITY)
    due = []
    for _ in range(25):
        now[0] += 1
        due.append(file.due(1))
    assert due == [False] * 9 + [True] * 16  # from 10 seconds on
    save = torch.save

    def slow(*arguments):
        now[0] += 3
        save(*arguments)

    monkeypatch.setattr(torch, "save", slow)
    file.write({})
    assert not file.due(1)
    now[0] += 59
    assert not file.due(1)
    now[0] += 1  # a save of 3 seconds once a minute: a twentieth
    assert file.due(1)
