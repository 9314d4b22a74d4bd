import os

from graphsparse.soups.store.checked_file import is_intact


def test_looks_once_until_the_file_is_written_anew(tmp_path):
    file = tmp_path / "file"
    looks = []
    look = lambda: looks.append(1) or file.read_text()  # noqa: E731
    file.write_text("whole")
    assert [is_intact(file, "whole", look) for _ in range(3)] == [True] * 3
    assert len(looks) == 1
    assert not is_intact(file, "other", look)
    file.write_text("whale")
    os.utime(file, (0, 0))  # clocks of file systems are slow
    assert [is_intact(file, "whole", look) for _ in range(2)] == [False] * 2
