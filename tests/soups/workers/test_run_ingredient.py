import zipfile

import pytest
import torch
from ingredient_runs import Net, NotedBatches, assert_equal_states, leftovers, train, weights
from torch_geometric.nn import GCN

import graphsparse.soups.workers.run_ingredient as module
from graphsparse.loader import RandomNodeBatches
from graphsparse.nn import accelerate
from graphsparse.nn.dropout import set_dropout
from graphsparse.soups.store.ingredient_folder import IngredientFolder
from graphsparse.soups.store.lease import Lease
from graphsparse.soups.store.stored_graph import training_graph
from graphsparse.soups.workers.job import Job
from graphsparse.soups.workers.run_ingredient import BUSY, DONE, run_ingredient
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
    monkeypatch.setattr(module, "fit", lambda *a, **k: seen.append(torch.load(k["checkpoint"])) or fit(*a, **k))
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


def test_leaves_alone_what_another_process_works_on(tmp_path):
    store = train(tmp_path, 1)
    folder = IngredientFolder(tmp_path, store.keys[0])
    folder.mark.unlink()
    with Lease.take(folder.path):
        assert run_ingredient(tmp_path, folder.key, Job(Net())) == BUSY
    assert not folder.is_done()
    folder.mark.write_text("")
    assert run_ingredient(tmp_path, folder.key, Job(Net())) == DONE


def test_publishes_nothing_after_another_took_over(tmp_path, monkeypatch):
    store = train(tmp_path, 1)
    folder = IngredientFolder(tmp_path, store.keys[0])
    folder.mark.unlink()
    folder.weights.unlink()
    monkeypatch.setattr(Lease, "is_mine", lambda self: False)
    assert run_ingredient(tmp_path, folder.key, Job(accelerate(Net()))) == BUSY
    assert not folder.weights.exists()


def test_damaged_initial_weights_are_named(tmp_path):
    store = train(tmp_path, 1)
    folder = IngredientFolder(tmp_path, store.keys[0])
    folder.mark.unlink()
    initial = next((tmp_path / "initial").iterdir())
    initial.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="cannot be read as initial weights"):
        run_ingredient(tmp_path, folder.key, Job(Net()))
    torch.save(GCN(8, 16, 2, 3).state_dict(), initial)
    with pytest.raises(ValueError, match="does not hold the initial weights of this name"):
        run_ingredient(tmp_path, folder.key, Job(Net()))


def test_meta_says_how_it_was_made(tmp_path):
    meta = train(tmp_path, 1, sampler=NotedBatches).meta(0)
    assert meta["versions"]["torch"] == torch.__version__
    assert meta["peak_memory_bytes"] > 2**20
    assert (meta["epochs_run"], meta["attempts"], meta["device"], meta["notes"]) == (6, 1, "cpu", [])
    assert meta["seconds"] > 0
    assert meta["threads"] == torch.get_num_threads()
