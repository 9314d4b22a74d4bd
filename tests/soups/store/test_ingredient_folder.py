import json
import os

import pytest
import torch

from graphsparse.soups.store.ingredient_folder import (
    IngredientFolder,
    is_intact,
    read_json,
    sweep_store,
    write_json,
)

STATE = {"w": torch.arange(6.0).view(2, 3), "n": torch.tensor(3)}
META = {"index": 0, "val": 0.5}


@pytest.fixture
def folder(tmp_path):
    found = IngredientFolder(tmp_path, "abc")
    found.write_spec({"lr": 0.1})
    return found


def names(folder):
    return sorted(path.name for path in folder.path.iterdir())


def test_result_is_there_when_it_is_done(folder):
    folder.state.write_text("how far it is")
    folder.record_failure("once")
    assert not folder.is_done()
    folder.publish({**STATE, "part": STATE["w"][0]}, META)
    assert folder.is_done()
    assert names(folder) == ["DONE", "meta.json", "spec.json", "weights.pt"]
    assert folder.read_meta().keys() == {"index", "val", "weights"}
    found = folder.read_weights()
    assert all(torch.equal(found[name], value) for name, value in STATE.items())
    assert found["part"].untyped_storage().nbytes() == 12  # not all that it was cut from


@pytest.mark.parametrize("broken", ["weights.pt", "meta.json", "DONE"])
def test_nothing_counts_before_the_last_file(folder, monkeypatch, broken):
    import graphsparse.soups.store.ingredient_folder as module

    write = module.atomic_write

    def fail(path):
        if path.name == broken:
            raise OSError(28, "No space left on device")
        return write(path)

    monkeypatch.setattr(module, "atomic_write", fail)
    with pytest.raises(OSError, match="space"):
        folder.publish(STATE, META)
    assert not folder.is_done()
    assert not [name for name in names(folder) if name.startswith(".")]


def test_what_to_train_is_written_once(folder):
    before = folder.spec.stat()
    folder.write_spec({"lr": 0.1, "index": 3})  # the same ingredient under another number
    assert folder.spec.stat() == before
    for text in ("{", "", "[1]", '{"lr": 0.2}', "[" * 100_000, "\x00"):  # damaged, or edited
        folder.spec.write_text(text)
        folder.write_spec({"lr": 0.1})
        assert folder.read_spec() == {"lr": 0.1}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "Expecting value"),
        ("{", "Expecting property"),
        ("[1]", "no dictionary"),
        ('{"index": 0, "val": 0.5}', "it lacks 'weights'"),
        ('{"index": "0", "val": 0.5, "weights": "a"}', "'index' cannot be '0'"),
        ('{"index": 0, "val": NaN, "weights": "a"}', "'val' cannot be nan"),
        ('{"index": 0, "val": null, "weights": "a"}', "'val' cannot be None"),
        ("[" * 100_000, "recursion"),
        (None, "missing or damaged"),
    ],
)
def test_damaged_notes_are_named_with_the_remedy(folder, text, told):
    folder.publish(STATE, META)
    folder.meta.unlink()
    if text is not None:
        folder.meta.write_text(text)
    for read in (folder.read_meta, folder.read_weights):
        with pytest.raises(ValueError, match=r"meta\.json' .*delete .*DONE.* anew") as caught:
            read()
        assert told in str(caught.value)
    folder.meta.unlink(missing_ok=True)
    folder.meta.mkdir()
    with pytest.raises(ValueError, match=r"meta\.json' is a folder in the place of a file.*delete .*DONE"):
        folder.read_meta()


def test_gives_up_after_three_failures_and_keeps_what_happened(folder):
    assert not folder.record_failure("first\nValueError: a")
    assert not folder.record_failure("second")
    assert len(folder.failures()) == 2
    assert not folder.is_given_up()
    assert folder.record_failure("third")
    assert folder.is_given_up()
    assert names(folder) == ["FAILED", "spec.json"]
    text = folder.given_up.read_text()
    assert [text.index(part) for part in ("attempt 1", "ValueError: a", "second", "attempt 3", "third")] == sorted(
        text.index(part) for part in ("attempt 1", "ValueError: a", "second", "attempt 3", "third")
    )
    folder.given_up.unlink()
    assert not folder.record_failure("counted anew")


def test_gives_up_at_once_what_will_not_change(folder):
    assert folder.record_failure("TypeError", lasting=True)
    assert folder.is_given_up()


@pytest.mark.parametrize("content", [b"", b"no weights", None])
def test_damaged_weights_are_named_with_the_remedy(folder, content):
    folder.publish(STATE, META)
    if content is None:
        folder.weights.unlink()
    else:
        folder.weights.write_bytes(content)
    with pytest.raises(ValueError, match="weights.pt'.*; delete .*DONE"):
        folder.read_weights()


def test_other_weights_are_noticed(folder, tmp_path):
    """One bit was flipped, or the file is that of another ingredient."""
    other = IngredientFolder(tmp_path, "other")
    folder.publish(STATE, META)
    other.publish({**STATE, "n": torch.tensor(4)}, META)
    content, part = folder.weights.read_bytes(), bytearray(STATE["w"].numpy().tobytes())
    assert content.count(part) == 1
    flipped = content.replace(part, bytes([part[0] ^ 1]) + part[1:])
    for wrong in (flipped, other.weights.read_bytes()):
        folder.weights.write_bytes(wrong)
        assert torch.load(folder.weights).keys() == STATE.keys()  # nothing else tells
        with pytest.raises(ValueError, match="weights.pt'.*; delete .*DONE"):
            folder.read_weights()
    folder.weights.write_bytes(content)
    assert folder.read_weights().keys() == STATE.keys()


def test_weights_that_run_code_are_not_read(folder):
    class Evil:
        def __reduce__(self):
            return os.system, ("true",)

    folder.publish(STATE, META)
    torch.save({"w": Evil()}, folder.weights)
    with pytest.raises(ValueError, match="cannot be read"):
        folder.read_weights()


def test_sweeps_what_a_kill_left(folder, tmp_path):
    for name in (".state.pt.x1", ".weights.pt.x2", ".meta.json.x3", ".other.x4"):
        (folder.path / name).write_text("half")
    folder.sweep()
    assert names(folder) == [".other.x4", "spec.json"]
    (tmp_path / ".graph.pt.x5").write_text("half")
    sweep_store(tmp_path)  # somebody may be writing it
    assert (tmp_path / ".graph.pt.x5").exists()
    os.utime(tmp_path / ".graph.pt.x5", (0, 0))
    os.utime(folder.path / ".other.x4", (0, 0))
    sweep_store(tmp_path)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["spec.json"]


def test_plain_values(tmp_path):
    write_json(tmp_path / "a.json", {"a": [1, None]})
    assert json.loads((tmp_path / "a.json").read_text()) == read_json(tmp_path / "a.json") == {"a": [1, None]}
    for text in ("", "{", "[1]"):
        (tmp_path / "a.json").write_text(text)
        with pytest.raises(ValueError, match="a.json' is .*damaged"):
            read_json(tmp_path / "a.json")
    with pytest.raises(ValueError, match="missing"):
        read_json(tmp_path / "b.json")


def test_a_file_is_looked_at_again_after_it_was_written_anew(tmp_path):
    path, looks = tmp_path / "a", []

    def look():
        looks.append(path.read_text())
        return looks[-1]

    path.write_text("good")
    assert is_intact(path, "good", look)
    assert is_intact(path, "good", look)
    assert looks == ["good"]
    path.write_text("damaged")
    assert not is_intact(path, "good", look)
    assert not is_intact(path, "good", look)
    assert looks == ["good", "damaged", "damaged"]
