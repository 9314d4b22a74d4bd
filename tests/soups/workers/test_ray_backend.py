import itertools
import os
from types import SimpleNamespace

import pytest
from ingredient_runs import FailingBatches, Net, train

import graphsparse.soups.workers.ray_backend as module
import graphsparse.typing
from graphsparse.soups.store.failures import IngredientError
from graphsparse.soups.store.ingredient_folder import IngredientFolder
from graphsparse.soups.store.lease import Lease
from graphsparse.soups.workers.job import Job, dump_job
from graphsparse.soups.workers.ray_backend import train_task

pytestmark = pytest.mark.once


@pytest.fixture
def open_store(tmp_path, monkeypatch):
    """A store whose one ingredient is not finished; nothing waits."""
    monkeypatch.setattr(
        module, "time", SimpleNamespace(sleep=lambda seconds: None, monotonic=itertools.count().__next__)
    )
    folder = IngredientFolder(tmp_path / "store", train(tmp_path / "store", 1).keys[0])
    folder.mark.unlink()
    return folder


def run(folder, job):
    return train_task(str(folder.store), folder.key, dump_job(job), 1)


def test_a_task_says_how_it_ended(open_store, tmp_path, monkeypatch):
    with Lease.take(open_store.path):
        assert run(open_store, Job(Net())) == ("busy", "")
    failing = Job(Net(), FailingBatches, {"error": RuntimeError, "notes": tmp_path / "notes"})
    for number in range(3):
        assert len(open_store.failures()) == number
        assert run(open_store, failing) == ("failed", "")
    assert open_store.is_given_up()
    open_store.given_up.unlink()

    def full(*arguments, **options):
        raise OSError(28, "No space left on device", str(open_store.state))

    with monkeypatch.context() as patch:
        patch.setattr("graphsparse.training.checkpoint.atomic_write", full)
        outcome, told = run(open_store, Job(Net()))
    assert outcome == "storage"
    assert "No space left" in told
    assert not open_store.failures()
    assert run(open_store, Job(Net())) == ("done", "")


class FakeRay:
    """Runs a task when it is waited for, and lets that of the first ingredient die as often as it is told to."""

    class exceptions:  # noqa: N801 - the name that Ray gives it
        class RayError(Exception):
            pass

    def __init__(self, deaths=0, outcomes=()):
        self.outcomes, self.options, self.most, self.open = list(outcomes), {}, 0, 0
        self.deaths, self.first, self.cancelled = deaths, None, []

    def nodes(self):
        return [
            {"Alive": True, "Resources": {"CPU": 4.0}},
            {"Alive": True, "Resources": {"CPU": 2.0, "GPU": 1.0}},
            {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}},
        ]

    def put(self, value):
        return value

    def remote(self, **options):
        self.options = options

        def wrap(function):
            class Task:
                @staticmethod
                def remote(*arguments):
                    self.open += 1
                    self.most = max(self.most, self.open)
                    return (len(self.cancelled), os.urandom(4), function, arguments)

            return Task

        return wrap

    def wait(self, references, num_returns, timeout):
        return references[:1], references[1:]

    def get(self, reference):
        self.open -= 1
        self.first = self.first or reference[3][1]
        if self.deaths and self.first == reference[3][1]:
            self.deaths -= 1
            raise self.exceptions.RayError("the worker died")
        if self.outcomes:
            return self.outcomes.pop(0)
        return reference[2](*reference[3])

    def cancel(self, reference, force):
        self.cancelled.append(force)

    def is_initialized(self):
        return True


def with_fake(fake, monkeypatch, store, **options):
    monkeypatch.setattr(graphsparse.typing, "_find", lambda name: fake)
    monkeypatch.setattr(
        module, "time", SimpleNamespace(sleep=lambda seconds: None, monotonic=itertools.count().__next__)
    )
    return train(store, 3, backend="ray", **{"workers": None, **options})


def test_asks_for_what_was_wished(tmp_path, monkeypatch):
    fake = FakeRay()
    store = with_fake(fake, monkeypatch, tmp_path, gpus=0, threads=1, workers=2)
    assert len(store) == 3
    assert fake.most == 2
    assert fake.options["num_cpus"] == 1
    assert fake.options["num_gpus"] == 0
    assert fake.options["max_retries"] == 0  # so that each attempt is counted


def test_a_process_that_died_too_often_costs_its_ingredient_alone(tmp_path, monkeypatch):
    with pytest.raises(IngredientError, match="1 of 3 ingredients failed.*\n.*\n.*the worker died"):
        with_fake(FakeRay(deaths=3), monkeypatch, tmp_path)
    assert len(list(tmp_path.rglob("DONE"))) == 2


def test_a_death_is_an_attempt(tmp_path, monkeypatch):
    store = with_fake(FakeRay(deaths=2), monkeypatch, tmp_path)
    assert [store.meta(i)["attempts"] for i in range(3)] == [3, 1, 1]


@pytest.mark.parametrize("wish", [{"gpus": 2.0}, {"threads": 5}, {"gpus": 1.0, "threads": 3}])
def test_a_task_must_fit_on_one_living_machine(tmp_path, monkeypatch, wish):
    with pytest.raises(ValueError, match="'gpus' and 'threads' .*the largest has 1 GPUs and 2 cores"):
        with_fake(FakeRay(), monkeypatch, tmp_path, **wish)


def test_busy_ingredients_are_asked_for_again_and_a_full_disk_ends_the_call(tmp_path, monkeypatch):
    assert len(with_fake(FakeRay(outcomes=[("busy", "")]), monkeypatch, tmp_path / "a")) == 3
    fake = FakeRay(outcomes=[("storage", "No space left on device")])
    with pytest.raises(OSError, match="No space left on device"):
        with_fake(fake, monkeypatch, tmp_path / "b")
    assert fake.cancelled == [True, True]


def test_share_of_a_gpu_must_be_a_number(tmp_path, monkeypatch):
    with pytest.raises(TypeError, match="'gpus' must be a number"):
        with_fake(FakeRay(), monkeypatch, tmp_path, gpus=[0])
    with pytest.raises(ValueError, match=r"'gpus' must be a finite number of at least 0 \(got -1\)"):
        with_fake(FakeRay(), monkeypatch, tmp_path, gpus=-1)
