import threading
from types import SimpleNamespace

import pytest
from ingredient_runs import FailingBatches, train, weights

import graphsparse.soups.workers.here_backend as module
from graphsparse.soups.store.failures import IngredientError
from graphsparse.soups.store.ingredient_folder import IngredientFolder
from graphsparse.soups.store.lease import Lease
from graphsparse.soups.store.store import IngredientStore
from graphsparse.soups.workers.report import Report


@pytest.fixture(autouse=True)
def waits(monkeypatch):
    """Seconds that would have been waited."""
    found = []
    monkeypatch.setattr(module, "time", SimpleNamespace(sleep=found.append))
    return found


def failing(tmp_path, times, error=RuntimeError, **options):
    settings = {"error": error, "notes": tmp_path / "notes", "times": times}
    return train(tmp_path / "store", 1, sampler=FailingBatches, sampler_options=settings, **options)


def test_tries_again_and_waits_longer_each_time(tmp_path, waits):
    store = failing(tmp_path, 2)
    assert waits == [1.0, 2.0]
    assert store.meta(0)["attempts"] == 3


def test_gives_up_after_three_failures_and_shows_the_traceback(tmp_path, waits):
    with pytest.raises(IngredientError, match="RuntimeError: this sampler fails") as caught:
        failing(tmp_path, 10)
    assert (tmp_path / "notes").read_text().count("\n") == 3
    assert "1 of 1 ingredients failed" in str(caught.value)
    with pytest.raises(IngredientError, match="this sampler fails"):
        failing(tmp_path, 10)  # not tried again
    assert (tmp_path / "notes").read_text().count("\n") == 3
    next((tmp_path / "store").glob("ingredients/*/FAILED")).unlink()
    assert (tmp_path / "notes").write_text("failed\n" * 10)
    assert len(failing(tmp_path, 10)) == 1


@pytest.mark.parametrize("error", [ValueError, TypeError, FloatingPointError])
def test_does_not_try_again_what_will_not_change(tmp_path, waits, error):
    with pytest.raises(IngredientError, match=error.__name__):
        failing(tmp_path, 10, error)
    assert waits == []
    assert (tmp_path / "notes").read_text() == "failed\n"


def test_one_failure_costs_one_ingredient(tmp_path):
    settings = {"error": ValueError, "notes": tmp_path / "notes", "times": 1}
    with pytest.raises(IngredientError, match=r"1 of 3 ingredients failed \(index 0\)"):
        train(tmp_path / "store", 3, sampler=FailingBatches, sampler_options=settings)
    assert [IngredientStore(tmp_path / "store").meta(i)["index"] for i in range(2)] == [1, 2]


def test_waits_for_ingredients_of_others(tmp_path, monkeypatch):
    whole = train(tmp_path, 2)
    folder = IngredientFolder(tmp_path, whole.keys[0])
    folder.mark.unlink()
    lease = Lease.take(folder.path)
    looks = []

    def look(seconds):
        looks.append(seconds)
        if len(looks) == 3:  # the other one finishes
            folder.mark.write_text("")
            lease.release()

    monkeypatch.setattr(module, "time", SimpleNamespace(sleep=look))
    shown = []
    monkeypatch.setattr(Report, "running", lambda self, number: shown.append(number))
    assert weights(train(tmp_path, 2)) == weights(whole)
    assert shown[1:] == [1, 0] * 3  # while it waits, nothing is trained
    assert looks == [module.LOOK] * 3


def test_an_interruption_gives_the_lease_back(tmp_path, monkeypatch):
    def interrupt(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(FailingBatches, "__iter__", interrupt)
    with pytest.raises(KeyboardInterrupt):
        failing(tmp_path, 0)
    monkeypatch.undo()
    assert not list((tmp_path / "store").rglob("lease-*"))
    assert not [thread for thread in threading.enumerate() if thread.name == "lease"]
    assert len(failing(tmp_path, 0)) == 1
