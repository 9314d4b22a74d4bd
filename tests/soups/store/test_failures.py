import errno
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from ingredient_runs import train, weights

import graphsparse.soups.store.failures as module
import graphsparse.utils.files as atomic_module
from graphsparse.soups.store.failures import StorageError, is_storage_error, is_transient, storage_error, writing
from graphsparse.soups.store.ingredient_folder import IngredientFolder, write_json
from graphsparse.training.checkpoint import Checkpoint

NUMBERS = [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EIO]


def with_free(monkeypatch, size):
    monkeypatch.setattr(module, "shutil", SimpleNamespace(disk_usage=lambda folder: SimpleNamespace(free=size)))


def caught(function, *arguments):
    try:
        function(*arguments)
    except OSError as error:
        return error
    raise AssertionError("nothing was raised")


@pytest.mark.parametrize("number", NUMBERS)
def test_a_file_of_the_store_that_cannot_be_written_is_an_error_of_the_store(tmp_path, number):
    store = tmp_path / "store"
    assert is_storage_error(OSError(number, "no", str(store / "a" / "state.pt")), store)
    assert is_storage_error(OSError(number, "no", os.fsencode(store / "a" / "state.pt")), store)
    assert is_storage_error(OSError(number, "no", store / "a" / "state.pt"), store)


@pytest.mark.parametrize("number", NUMBERS)
def test_a_file_elsewhere_is_not_the_store_whatever_is_wrong_with_it(tmp_path, number, monkeypatch):
    with_free(monkeypatch, 0)  # even if the store has no room either
    for name in ("cache.bin", "store-2/cache.bin", "store/../cache.bin"):
        assert not is_storage_error(OSError(number, "no", str(tmp_path / name)), tmp_path / "store")
    assert not is_storage_error(OSError(number, "no", str(tmp_path)), tmp_path / "store")


def test_a_store_may_be_named_by_a_link_or_from_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "store").mkdir()
    (tmp_path / "link").symlink_to("store")
    monkeypatch.chdir(tmp_path)
    for first, second in [("link", tmp_path / "store"), ("store", tmp_path / "link"), ("store", "link")]:
        assert is_storage_error(OSError(errno.ENOSPC, "no", f"{first}/graph.pt"), second)
    assert not is_storage_error(OSError(errno.ENOSPC, "no", "graph.pt"), "link")


@pytest.mark.parametrize(("free", "expected"), [(0, True), (2**19, True), (2**21, False), (2**40, False)])
def test_an_error_without_a_name_is_the_store_only_if_its_disk_is_full(tmp_path, monkeypatch, free, expected):
    with_free(monkeypatch, free)
    for error in (OSError(errno.ENOSPC, "no"), OSError(errno.ENOSPC, "no", 7)):
        assert is_storage_error(error, tmp_path) == expected
    assert not is_storage_error(PermissionError(errno.EPERM, "sched_setaffinity"), tmp_path)


@pytest.mark.parametrize("number", NUMBERS)
def test_what_writes_files_of_the_store_names_them(tmp_path, monkeypatch, number):
    """Errors of ``write`` and ``fsync`` name no file, and a quota cannot be seen from outside."""

    def full(handle):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(atomic_module.os, "fsync", full)
    errors = [
        caught(write_json, tmp_path / "meta.json", {}),
        caught(Checkpoint(tmp_path / "state.pt", 1, {}).write, {}),
    ]
    for error in errors:
        assert is_storage_error(error, tmp_path)
        assert not is_storage_error(error, tmp_path / "store")


def test_other_errors_of_files_are_not_of_the_store(tmp_path):
    assert not is_storage_error(FileNotFoundError(errno.ENOENT, "no", str(tmp_path / "graph.pt")), tmp_path)
    assert not is_storage_error(OSError("without a number"), tmp_path)


def test_whatever_keeps_a_block_from_writing_is_an_error_of_the_store(tmp_path):
    """Also above the store, where a folder may be missing that cannot be made."""
    for error in (
        OSError(errno.EACCES, "no", str(tmp_path)),
        OSError(errno.EDQUOT, "no"),
    ):
        with pytest.raises(StorageError, match="'store' cannot be written") as found, writing(tmp_path / "store"):
            raise error
        assert found.value.__cause__ is error
    for error in (ValueError("no"), RuntimeError("no"), OSError(errno.ENOENT, "no"), storage_error(tmp_path, "no")):
        with pytest.raises(type(error)) as found, writing(tmp_path / "store"):
            raise error
        assert found.value is error


def test_says_what_may_help():
    assert is_transient(torch.OutOfMemoryError("CUDA out of memory"))
    assert is_transient(ConnectionResetError())
    for error in (TypeError(), KeyError(), FloatingPointError(), NotImplementedError(), ImportError()):
        assert not is_transient(error)


def test_error_names_store_cause_and_remedy(tmp_path):
    error = storage_error(tmp_path / "not" / "there", OSError(errno.ENOSPC, "No space left on device"))
    assert isinstance(error, StorageError)
    assert error.errno == errno.ENOSPC
    assert error.filename == str(tmp_path / "not" / "there")
    for part in ("'store' cannot be written", "No space left", "MiB free", "same call goes on"):
        assert part in str(error)
    assert storage_error(tmp_path, "a\nunexpected pos 64").errno == errno.EIO


def test_error_names_the_file_and_keeps_the_number_of_the_error(tmp_path):
    cause = OSError(errno.EDQUOT, "Disk quota exceeded", str(tmp_path / "state.pt"))
    traceback = f"Traceback (most recent call last):\n  ...\nOSError: {cause}\nbye\n"  # what a worker tells
    for error in (storage_error(tmp_path, cause), storage_error(tmp_path, traceback)):
        assert error.errno == errno.EDQUOT
        assert f"Disk quota exceeded: {str(tmp_path / 'state.pt')!r}" in str(error)


def test_error_without_a_text_says_so(tmp_path):
    assert "(no reason was given; " in str(storage_error(tmp_path, " \n"))
    assert "(RuntimeError; " in str(storage_error(tmp_path, RuntimeError()))


def test_free_space_may_be_unknown(tmp_path, monkeypatch):
    def closed(folder):
        raise PermissionError(errno.EACCES, "no", str(folder))

    monkeypatch.setattr(module, "shutil", SimpleNamespace(disk_usage=closed))
    assert "free space unknown" in str(storage_error(tmp_path, "no"))
    assert not is_storage_error(OSError(errno.ENOSPC, "no"), tmp_path)


NOBODY = 65534


@contextmanager
def without_rights():
    """Let the system refuse what it would refuse to an ordinary user, as rights to a folder do not bind root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def may_enter(folder):
    with without_rights():
        return os.access(folder, os.R_OK | os.X_OK, effective_ids=True)


@contextmanager
def closed(folder):
    """Take away the right to write to a folder and all below it."""
    folders = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
    for path in folders:
        path.chmod(0o555)
    try:
        with without_rights():
            yield
    finally:
        for path in folders:
            path.chmod(0o755)


@pytest.fixture
def folder(tmp_path):
    """A folder that others may enter, which is not so for those of pytest."""
    if os.geteuid() != 0:
        yield tmp_path
        return
    places = [place for place in (tempfile.gettempdir(), "/tmp", "/var/tmp") if may_enter(place)]
    assert places, "only root may enter the folders of temporary files"
    with tempfile.TemporaryDirectory(dir=places[0]) as found:
        Path(found).chmod(0o755)
        yield Path(found)


def files(folder):
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.once
@pytest.mark.parametrize("name", ["", "store", "missing/parent/store"])
def test_a_new_store_in_a_folder_without_the_right_to_write(folder, name):
    with closed(folder), pytest.raises(StorageError, match="'store' cannot be written .*Permission denied") as found:
        train(folder / name, 1, epochs=1)
    assert found.value.errno == errno.EACCES
    assert found.value.filename == str(folder / name)
    assert not list(folder.iterdir())
    assert len(train(folder / name, 1, epochs=1)) == 1


@pytest.mark.once
@pytest.mark.parametrize("lost", ["mark", "folder"])
def test_a_half_finished_store_without_the_right_to_write_loses_nothing(folder, lost):
    store = train(folder / "store", 2, epochs=2)
    whole, last = weights(store), IngredientFolder(store.path, store.keys[1])
    for path in [last.mark] if lost == "mark" else last.path.iterdir():
        path.unlink()
    if lost == "folder":
        last.path.rmdir()
    before = files(folder)
    with closed(folder / "store"):
        with pytest.raises(StorageError, match="'store' cannot be written .*Permission denied") as found:
            train(folder / "store", 2, epochs=2)
        assert weights(train(folder / "store", 1, epochs=2)) == whole[:1]  # what is finished can be had
    assert found.value.errno == errno.EACCES
    assert files(folder) == before
    assert weights(train(folder / "store", 2, epochs=2)) == whole
