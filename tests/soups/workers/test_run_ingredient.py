import os
import signal
import subprocess
import sys
import threading
import zipfile

import pytest
import torch
from ingredient_runs import FailingBatches, Net, NotedBatches, assert_equal_states, claim, leftovers, train, weights
from torch_geometric.nn import GCN

import graphsparse.soups.workers.elsewhere as elsewhere
import graphsparse.soups.workers.run_ingredient as module
from graphsparse.loader.parts import RandomNodeBatches
from graphsparse.nn import accelerate
from graphsparse.nn.linear import set_dropout
from graphsparse.soups.store.failures import storage_error
from graphsparse.soups.store.ingredient_folder import IngredientFolder
from graphsparse.soups.store.stored_graph import training_graph
from graphsparse.soups.workers.elsewhere import attempt_elsewhere, dump_recipe, main
from graphsparse.soups.workers.recipe import Recipe
from graphsparse.soups.workers.run_ingredient import (
    AGAIN,
    DONE,
    LASTING,
    LOST,
    STORAGE,
    Outcome,
    attempt,
)
from graphsparse.testing import random_graph
from graphsparse.training import fit

BATCHES = {"sampler": "random_node", "sampler_options": {"num_parts": 3}, "checkpoint_every": 1}


class Stop(BaseException):
    """Stands for a kill."""


@pytest.fixture
def stopped(tmp_path, monkeypatch):
    """A store with one ingredient that was stopped in the middle of its fourth epoch, and the ways to go on."""
    begun = [0]
    start = RandomNodeBatches.__iter__

    def stop(self):
        begun[0] += 1
        for batch in start(self):
            yield batch
            if begun[0] == 4:
                raise Stop

    monkeypatch.setattr(RandomNodeBatches, "__iter__", stop)
    with pytest.raises(Stop):
        train(tmp_path / "store", 1, **BATCHES)
    monkeypatch.undo()
    (path,) = (tmp_path / "store" / "ingredients").iterdir()
    return IngredientFolder(tmp_path / "store", path.name)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return train(tmp_path_factory.mktemp("undisturbed"), 1, **BATCHES)


def test_goes_on_where_it_was_stopped(stopped, undisturbed, monkeypatch):
    assert leftovers(stopped.store) == [stopped.state]
    seen = []
    monkeypatch.setattr(module, "fit", lambda *a: seen.append(torch.load(a[2].checkpoint)) or fit(*a))
    store = train(stopped.store, 1, **BATCHES)
    assert seen[0]["epochs_run"] == 3
    assert store.meta(0)["resumed"] is True
    assert_equal_states(store, undisturbed)
    assert not leftovers(stopped.store)


def flip_a_bit(path):
    with zipfile.ZipFile(path) as parts:
        largest = parts.read(max(parts.infolist(), key=lambda part: part.file_size))
    content = bytearray(path.read_bytes())
    content[content.index(largest) + len(largest) // 2] ^= 1
    path.write_bytes(content)


DAMAGE = {
    "empty": lambda path: path.write_bytes(b""),
    "garbage": lambda path: path.write_bytes(b"garbage" * 1000),
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:-1000]),
    "one bit": flip_a_bit,
    "something else": lambda path: torch.save({"a": torch.zeros(3)}, path),
    "another training": lambda path: fit(GCN(8, 16, 2, 3), random_graph(), epochs=2, checkpoint=path),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_state_starts_that_ingredient_from_scratch_and_says_so(stopped, undisturbed, damage):
    if damage is DAMAGE["another training"]:
        stopped.state.unlink()
    damage(stopped.state)
    with pytest.warns(UserWarning, match="ingredient 0 .*saved state .* trained from scratch"):
        store = train(stopped.store, 1, **BATCHES)
    assert_equal_states(store, undisturbed)
    assert store.meta(0)["resumed"] is False
    assert "from scratch" in store.meta(0)["notes"][0]
    assert not leftovers(stopped.store)


def test_is_one_fit_with_the_seeds_of_the_ingredient(tmp_path):
    """Written out by hand, with nothing of the store but the numbers it noted."""
    jitter = {"lr": [0.1, 0.02], "epochs": [3, 5], "dropout": [0.1, 0.7], "weight_decay": [0.0, 0.01]}
    data = random_graph()
    store = train(tmp_path, 3, jitter=jitter, sampler="random_node", sampler_options={"num_parts": 2})
    initial = torch.load(next((tmp_path / "initial").iterdir()))
    for i in range(3):
        spec = store.meta(i)["spec"]
        model = Net()
        model.load_state_dict(initial)
        set_dropout(model, spec["dropout"])
        loader = RandomNodeBatches(training_graph(data), num_parts=2, seed=spec["data_seed"])
        result = fit(
            accelerate(model),
            training_graph(data),
            epochs=spec["epochs"],
            lr=spec["lr"],
            weight_decay=spec["weight_decay"],
            loader=loader,
            seed=spec["dropout_seed"],
        )
        assert all(torch.equal(store[i][name], value) for name, value in result.state_dict.items())
        assert store.meta(i)["val"] == result.val == max(entry["val"] for entry in result.history)
        assert store.meta(i)["best_epoch"] == result.best_epoch
    assert len(set(weights(store))) == 3


@pytest.fixture
def open_store(tmp_path):
    """A store whose one ingredient is not finished, and claimed by this process."""
    folder = IngredientFolder(tmp_path / "store", train(tmp_path / "store", 1).keys[0])
    folder.mark.unlink()
    folder.weights.unlink()
    claim(folder.path, token="mine")
    return folder


def run(folder, job):
    return attempt(folder.store, folder.key, job, "mine")


def test_publishes_nothing_after_another_took_over(open_store):
    for token in ("another", None):
        (open_store.path / "claim").unlink()
        if token is not None:
            claim(open_store.path, token=token)
        assert run(open_store, Recipe(Net)) == Outcome(LOST)
        assert not open_store.weights.exists()
    claim(open_store.path, token="mine")
    assert run(open_store, Recipe(Net)) == Outcome(DONE)
    assert open_store.is_done()


@pytest.mark.parametrize(("error", "code"), [(RuntimeError, AGAIN), (MemoryError, AGAIN), (KeyError, LASTING)])
def test_says_whether_trying_again_may_help(open_store, tmp_path, error, code):
    batches = {"error": error, "notes": tmp_path / "notes"}
    outcome = run(open_store, Recipe(Net, sampler=FailingBatches, sampler_options=batches))
    assert outcome.code == code
    assert outcome.told.startswith("Traceback")
    assert "this sampler fails" in outcome.told.splitlines()[-1]


def test_says_that_the_store_cannot_be_written(open_store, monkeypatch):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device", str(open_store.state))

    monkeypatch.setattr("graphsparse.training.checkpoint.atomic_write", full)
    outcome = run(open_store, Recipe(Net))
    assert outcome.code == STORAGE
    assert storage_error(open_store.store, outcome.told).errno == 28


def test_damaged_initial_weights_are_named(open_store):
    initial = next((open_store.store / "initial").iterdir())
    initial.write_bytes(b"nothing")
    assert f"{str(initial)!r} cannot be read" in run(open_store, Recipe(Net)).told
    torch.save(GCN(8, 16, 2, 3).state_dict(), initial)
    assert f"{str(initial)!r} does not hold the initial weights of this name" in run(open_store, Recipe(Net)).told


@pytest.fixture
def process(monkeypatch):
    """Put back what this process does when it is told to end, and watch over no parent."""
    before = signal.getsignal(signal.SIGTERM)
    leave_with = elsewhere._leave_with
    monkeypatch.setattr(elsewhere, "_leave_with", lambda parent: None)
    yield leave_with
    signal.signal(signal.SIGTERM, before)


@pytest.mark.once
def test_a_process_says_how_it_ended_by_its_code_and_what_it_wrote(open_store, tmp_path, capsys, process):
    failing = Recipe(Net, sampler=FailingBatches, sampler_options={"error": KeyError, "notes": tmp_path / "notes"})
    for job, code in [(failing, LASTING), (Recipe(Net), DONE)]:
        (tmp_path / "recipe.pkl").write_bytes(dump_recipe(job))
        arguments = [str(tmp_path / "recipe.pkl"), str(open_store.store), open_store.key, "mine", "1"]
        assert main([*arguments, str(os.getppid())]) == code
    assert "this sampler fails" in capsys.readouterr().err
    assert open_store.is_done()


@pytest.mark.once
def test_a_job_that_cannot_be_loaded_is_a_failure(open_store):
    outcome = attempt_elsewhere(b"nothing", str(open_store.store), open_store.key, "mine", 1)
    assert outcome.code == LASTING
    assert "UnpicklingError" in outcome.told


@pytest.mark.once
def test_ends_when_the_one_who_started_it_is_gone(monkeypatch, process):
    ended = threading.Event()
    monkeypatch.setattr(elsewhere.os, "kill", lambda pid, number: ended.set())
    gone = subprocess.Popen([sys.executable, "-S", "-c", ""])
    gone.wait()
    process(gone.pid)
    assert ended.wait(5)


def test_ends_in_order_when_it_is_told_to():
    with pytest.raises(SystemExit) as caught:
        elsewhere._leave(signal.SIGTERM, None)
    assert caught.value.code == 143


def test_meta_says_how_it_was_made(tmp_path):
    meta = train(tmp_path, 1, sampler=NotedBatches).meta(0)
    assert meta["versions"]["torch"] == torch.__version__
    assert (meta["epochs_run"], meta["attempts"], meta["device"], meta["notes"]) == (6, 1, "cpu", [])
    assert meta["seconds"] > 0
    assert meta["threads"] == torch.get_num_threads()
