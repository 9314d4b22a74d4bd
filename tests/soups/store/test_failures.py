import errno

import pytest
import torch

from graphsparse.soups.store.failures import StorageError, is_storage_error, is_transient, storage_error


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
def test_knows_a_store_that_cannot_be_written(tmp_path, number):
    assert is_storage_error(OSError(number, "no"), tmp_path)
    assert is_storage_error(OSError(number, "no", str(tmp_path / "a" / "state.pt")), tmp_path)


def test_a_file_elsewhere_is_not_the_store(tmp_path):
    closed = PermissionError(errno.EACCES, "no", str(tmp_path / "features.npy"))
    assert not is_storage_error(closed, tmp_path / "store")
    assert not is_storage_error(FileNotFoundError(errno.ENOENT, "no"), tmp_path)


def test_knows_what_torch_makes_of_a_full_disk(tmp_path):
    class Full:
        def write(self, content):
            raise OSError(errno.ENOSPC, "No space left on device")

        def flush(self):
            pass

    with pytest.raises((OSError, RuntimeError)) as caught:
        torch.save({"a": torch.zeros(10_000)}, Full())
    assert is_storage_error(caught.value, tmp_path)
    assert not is_storage_error(RuntimeError("mat1 and mat2 shapes cannot be multiplied"), tmp_path)


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
