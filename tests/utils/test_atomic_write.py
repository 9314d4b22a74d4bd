import errno
import os
import shutil
from types import SimpleNamespace

import pytest
import torch

from graphsparse.utils.files import atomic_write, is_whole


def test_replaces_the_file_and_makes_its_folder(tmp_path):
    path = tmp_path / "deep" / "file"
    for text in ("one", "two"):
        with atomic_write(path) as temporary:
            temporary.write_text(text)
        assert path.read_text() == text
    assert list(path.parent.iterdir()) == [path]


def test_error_keeps_the_old_file_and_leaves_nothing_behind(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")

    def fail():
        with atomic_write(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_mode_follows_the_umask(tmp_path):
    old = os.umask(0o027)
    try:
        with atomic_write(tmp_path / "file"):
            pass
    finally:
        os.umask(old)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"), atomic_write(tmp_path / "file" / "inside"):
        pass


@pytest.mark.parametrize(("free", "number"), [(0, errno.ENOSPC), (1 << 30, errno.EIO)])
@pytest.mark.parametrize("told", ["unexpected pos 64 vs 0", "basic_ios::clear: iostream error", "shapes differ"])
def test_a_full_disk_is_called_so(tmp_path, monkeypatch, told, free, number):
    """Of a full disk torch's writer says no more than that its file is too short."""
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=free))
    other = told == "shapes differ"
    with pytest.raises(RuntimeError if other else OSError, match=told) as caught, atomic_write(tmp_path / "file"):
        raise RuntimeError(told)
    if not other:
        assert (caught.value.errno, caught.value.filename) == (number, str(tmp_path / "file"))
    assert list(tmp_path.iterdir()) == []


class Full:
    """A file on a full disk."""

    def write(self, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    def flush(self):
        pass


def test_knows_what_torch_makes_of_a_full_disk(tmp_path):
    with pytest.raises(OSError, match="file") as caught, atomic_write(tmp_path / "file"):
        torch.save({"a": torch.zeros(10_000)}, Full())
    assert caught.value.filename == str(tmp_path / "file")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_errors_of_writing_name_the_file(tmp_path, monkeypatch, number):
    def full(handle):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="file") as caught, atomic_write(tmp_path / "file"):
        pass
    assert (caught.value.errno, caught.value.filename) == (number, str(tmp_path / "file"))


def test_every_changed_byte_of_the_numbers_and_every_lost_end_is_seen(tmp_path):
    path = tmp_path / "a.pt"
    torch.save({"x": torch.arange(10)}, path)
    stored = path.read_bytes()
    assert is_whole(path)
    start = stored.index(torch.arange(10).numpy().tobytes())
    for place in range(start, start + 80, 7):
        changed = bytearray(stored)
        changed[place] ^= 16
        path.write_bytes(changed)
        assert torch.load(path)["x"].tolist() != list(range(10))  # which nobody else notices
        assert not is_whole(path)
    for length in (0, 10, len(stored) // 2, len(stored) - 30):
        path.write_bytes(stored[:length])
        assert not is_whole(path)


def test_what_is_no_file_of_torch_is_not_whole(tmp_path):
    assert not is_whole(tmp_path / "missing.pt")
    (tmp_path / "text.pt").write_text("no zip file")
    assert not is_whole(tmp_path / "text.pt")
    assert not is_whole(tmp_path)
