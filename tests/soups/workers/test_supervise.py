import threading
import time

import pytest
from ingredient_runs import FailingBatches, claim, train, weights

import graphsparse.soups.workers.supervise as module
from graphsparse.soups.store.failures import IngredientError
from graphsparse.soups.store.ingredient_folder import IngredientFolder
from graphsparse.soups.store.store import IngredientStore
from graphsparse.soups.workers.run_ingredient import AGAIN, LOST, Outcome
from graphsparse.soups.workers.supervise import Report, supervise

META = {"val": 0.5, "train": 0.6, "best_epoch": 3, "epochs_run": 9, "seconds": 1.5, "attempts": 2, "notes": []}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(module, "BACK_OFF", 0.1)
    monkeypatch.setattr(module, "LOOK", 0.02)


def failing(tmp_path, times, error=RuntimeError, num=1, **options):
    settings = {"error": error, "notes": tmp_path / "notes", "times": times}
    return train(tmp_path / "store", num, sampler=FailingBatches, sampler_options=settings, **options)


def test_tries_again_and_waits_longer_each_time(tmp_path, monkeypatch):
    begun, start = [], FailingBatches.__iter__

    def noted(self):
        begun.append(time.monotonic())
        return start(self)

    monkeypatch.setattr(FailingBatches, "__iter__", noted)
    store = failing(tmp_path, 2)
    assert begun[1] - begun[0] >= 0.1
    assert begun[2] - begun[1] >= 0.2
    assert store.meta(0)["attempts"] == 3


def test_gives_up_after_three_failures_and_shows_the_traceback(tmp_path):
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
def test_does_not_try_again_what_will_not_change(tmp_path, error):
    with pytest.raises(IngredientError, match=error.__name__):
        failing(tmp_path, 10, error)
    assert (tmp_path / "notes").read_text() == "failed\n"


def test_one_failure_costs_one_ingredient(tmp_path):
    with pytest.raises(IngredientError, match=r"1 of 3 ingredients failed \(index 0\)"):
        failing(tmp_path, 1, ValueError, num=3)
    assert [IngredientStore(tmp_path / "store").meta(i)["index"] for i in range(2)] == [1, 2]


def test_waits_for_ingredients_of_others(tmp_path, monkeypatch):
    whole = train(tmp_path, 2)
    folder = IngredientFolder(tmp_path, whole.keys[0])
    folder.mark.unlink()
    claim(folder.path)
    shown = []
    monkeypatch.setattr(Report, "running", lambda self, number: shown.append(number))

    def finish():
        folder.mark.write_text("")
        (folder.path / "claim").unlink()

    other = threading.Timer(0.2, finish)
    other.start()
    assert weights(train(tmp_path, 2)) == weights(whole)
    other.join()
    assert set(shown) == {0}  # while it waits, nothing is trained


def test_an_interruption_gives_the_claim_back(tmp_path, monkeypatch):
    def interrupt(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(FailingBatches, "__iter__", interrupt)
    with pytest.raises(KeyboardInterrupt):
        failing(tmp_path, 0)
    monkeypatch.undo()
    assert not list((tmp_path / "store").rglob("claim"))
    assert not [thread for thread in threading.enumerate() if thread.name == "claims"]
    assert len(failing(tmp_path, 0)) == 1


class Orders:
    """A pool in which every attempt ends as it is told to."""

    size = 2

    def __init__(self, orders):
        self.orders, self.running, self.most, self.stopped = orders, [], 0, False

    def start(self, folder, token):
        self.running.append(folder)
        self.most = max(self.most, len(self.running))

    def poll(self, seconds):
        ended, self.running = self.running, []
        return [(folder.key, self.orders.pop(0)(folder)) for folder in ended]

    def stop(self):
        self.stopped = True


@pytest.fixture
def folders(tmp_path):
    found = [IngredientFolder(tmp_path, key) for key in ("a", "b", "c")]
    for folder in found:
        folder.write_spec({})
    return found


def finish(folder):
    folder.publish({}, {"index": 0, **META})
    return Outcome(0)


def test_starts_so_many_at_once_and_those_that_were_lost_again(folders):
    pool = Orders([finish, lambda folder: Outcome(LOST), finish, finish])
    with Report(folders) as report:
        supervise(pool, report)
        report.check()
    assert (pool.most, pool.stopped, pool.orders) == (2, True, [])
    assert not folders[0].failures() + folders[1].failures()


def test_a_failure_after_another_supervisor_took_over_is_not_noted(folders):
    def lose(folder):
        claim(folder.path, token="another")
        return Outcome(AGAIN, "its files were moved away")

    def other_ends():
        finish(folders[0])
        (folders[0].path / "claim").unlink()

    with Report(folders[:2]) as report:
        other = threading.Timer(0.2, other_ends)
        other.start()
        supervise(Orders([lose, finish]), report)
        other.join()
        report.check()
    assert folders[0].is_done()


def test_tells_of_each_ingredient_once(folders):
    folders[1].publish({}, {"index": 0, **META})
    log = []
    with Report(folders, log=log.append) as report:
        assert report.open == [folders[0], folders[2]]  # finished before
        assert not report.settle(folders[2])
        folders[2].publish({}, {"index": 0, **META})
        assert report.settle(folders[2])
        assert report.settle(folders[2])
        assert report.settle(folders[1])
        assert report.open == [folders[0]]
        report.check()
    assert log == [{"index": 2, **{name: META[name] for name in META if name != "notes"}}]


def test_warns_of_what_was_noted(folders):
    with Report(folders) as report:
        folders[0].publish({}, {"index": 0, **META, "notes": ["its saved state was damaged"]})
        with pytest.warns(UserWarning, match=r"ingredient 0 \(a\): its saved state was damaged"):
            report.settle(folders[0])


def test_error_names_ingredients_cause_and_remedy(folders):
    folders[0].record_failure("Traceback ...\nValueError: before this call", lasting=True)
    with Report(folders) as report:
        assert report.open == folders[1:]
        folders[2].record_failure("KeyError: now", lasting=True)
        assert report.settle(folders[2])
        with pytest.raises(IngredientError) as caught:
            report.check()
    text = str(caught.value)
    for part in ("2 of 3 ingredients failed (index 0, 2)", "happened to ingredient 0", "ValueError: before this call"):
        assert part in text
    assert str(folders[0].given_up) in text
    assert str(folders[2].given_up) in text


def test_bar_counts_done_running_and_failed(folders, capsys):
    folders[0].publish({}, {"index": 0, **META})
    with Report(folders, progress=True) as report:
        report.running(2)
        folders[1].publish({}, {"index": 0, **META})
        report.settle(folders[1])
        folders[2].record_failure("no", lasting=True)
        report.settle(folders[2])
        report.running(0)
    shown = capsys.readouterr().err
    assert "1/3" in shown
    assert "failed=0, running=2" in shown
    assert "2/3" in shown
    assert "failed=1, running=0" in shown
    with Report(folders, progress=False):
        pass
    assert capsys.readouterr().err == ""
