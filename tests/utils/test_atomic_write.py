import errno
import os
import shutil
from types import SimpleNamespace

import pytest

from graphsparse.utils.atomic_write import atomic_write


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


@pytest.mark.parametrize(
    ("told", "free", "full"),
    [
        ("unexpected pos 22016 vs 21904", 0, True),
        ("unexpected pos 64 vs 0", 1 << 30, False),
        ("shapes differ", 0, False),
    ],
)
def test_a_full_disk_is_called_so(tmp_path, monkeypatch, told, free, full):
    """Of a full disk torch's writer says no more than that its file is too short."""
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=free))
    with pytest.raises(OSError if full else RuntimeError) as caught, atomic_write(tmp_path / "file"):
        raise RuntimeError(told)
    assert getattr(caught.value, "errno", None) == (errno.ENOSPC if full else None)
    assert list(tmp_path.iterdir()) == []
