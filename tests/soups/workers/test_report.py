import pytest

from graphsparse.soups.store.failures import IngredientError
from graphsparse.soups.store.ingredient_folder import IngredientFolder
from graphsparse.soups.workers.report import Report

META = {"val": 0.5, "train": 0.6, "best_epoch": 3, "epochs_run": 9, "seconds": 1.5, "attempts": 2, "notes": []}


@pytest.fixture
def folders(tmp_path):
    found = [IngredientFolder(tmp_path, key) for key in ("a", "b", "c")]
    for folder in found:
        folder.write_spec({})
    return found


def test_tells_of_each_ingredient_once(folders):
    folders[1].publish({}, META)
    log = []
    with Report(folders, log=log.append) as report:
        assert report.open == [folders[0], folders[2]]  # finished before
        assert not report.settle(folders[2])
        folders[2].publish({}, META)
        assert report.settle(folders[2])
        assert report.settle(folders[2])
        assert report.settle(folders[1])
        assert report.open == [folders[0]]
        report.check()
    assert log == [{"index": 2, **{name: META[name] for name in META if name != "notes"}}]


def test_warns_of_what_was_noted(folders):
    with Report(folders) as report:
        folders[0].publish({}, {**META, "notes": ["its saved state was damaged"]})
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
    folders[0].publish({}, META)
    with Report(folders, progress=True) as report:
        report.running(2)
        folders[1].publish({}, META)
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
