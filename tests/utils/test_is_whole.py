import torch

from graphsparse.utils.is_whole import is_whole


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
