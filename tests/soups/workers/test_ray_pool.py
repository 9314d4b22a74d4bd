import itertools
import os
from types import SimpleNamespace

import pytest
from ingredient_runs import train

import graphsparse.soups.workers.supervise as module
import graphsparse.typing
from graphsparse.soups.store.failures import IngredientError
from graphsparse.soups.workers.run_ingredient import LOST, STORAGE, Outcome

pytestmark = pytest.mark.once


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
        self.first = self.first or reference[3][2]
        if self.deaths and self.first == reference[3][2]:
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
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=itertools.count().__next__))
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


def test_lost_ingredients_are_handed_out_again_and_a_full_disk_ends_the_call(tmp_path, monkeypatch):
    assert len(with_fake(FakeRay(outcomes=[Outcome(LOST)]), monkeypatch, tmp_path / "a")) == 3
    fake = FakeRay(outcomes=[Outcome(STORAGE, "OSError: [Errno 28] No space left on device")])
    with pytest.raises(OSError, match="No space left on device"):
        with_fake(fake, monkeypatch, tmp_path / "b")
    assert fake.cancelled == [True, True]


def test_share_of_a_gpu_must_be_a_number(tmp_path, monkeypatch):
    with pytest.raises(TypeError, match="'gpus' must be a number"):
        with_fake(FakeRay(), monkeypatch, tmp_path, gpus=[0])
    with pytest.raises(ValueError, match=r"'gpus' must be a finite number of at least 0 \(got -1\)"):
        with_fake(FakeRay(), monkeypatch, tmp_path, gpus=-1)
