import dataclasses
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from ingredient_runs import (
    EPOCHS,
    DeadlyBatches,
    FailingBatches,
    Net,
    NotedBatches,
    assert_equal_states,
    leftovers,
    notes_of,
    train,
)
from ingredient_runs import weights as digests
from store_damage import epochs_begun, files_of, interrupt
from torch_geometric.nn import GCN
from torch_geometric.transforms import GCNNorm

import graphsparse.soups.workers.pools as pools
import graphsparse.soups.workers.supervise as supervise
from graphsparse.soups.store.failures import IngredientError, StorageError
from graphsparse.soups.store.ingredient_folder import IngredientFolder
from graphsparse.soups.store.store import IngredientStore
from graphsparse.testing import random_graph
from graphsparse.utils import files as atomic_module

pytestmark = pytest.mark.once

ROOT = Path(__file__).parents[3]


def with_notes(folder, **options):
    settings = {"num_parts": 3, "notes": folder / "notes", **options}
    return {"sampler": DeadlyBatches, "sampler_options": settings, "checkpoint_every": 1}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Ingredients trained in this process, one after the other, without anything going wrong."""
    folder = tmp_path_factory.mktemp("undisturbed")
    return train(folder / "store", 4, **with_notes(folder))


def test_shared_start_best_weights_and_different_results(undisturbed):
    assert len(undisturbed) == 4
    assert len(set(digests(undisturbed))) == 4
    assert len(list((undisturbed.path / "initial").iterdir())) == 1
    assert [undisturbed.meta(i)["epochs_run"] for i in range(4)] == [EPOCHS] * 4
    assert not leftovers(undisturbed.path)


def test_a_worker_killed_in_the_middle_of_an_epoch_changes_no_bit(tmp_path, undisturbed):
    """Two processes at once; one of them gets SIGKILL between two batches of its third epoch."""
    log = []
    marker = tmp_path / "killed"
    store = train(tmp_path / "store", 2, workers=2, threads=1, log=log.append, **with_notes(tmp_path, marker=marker))
    assert marker.exists()
    assert digests(store) == digests(undisturbed)[:2]
    assert_equal_states(store, IngredientStore(undisturbed.path, undisturbed.keys[:2]))
    again = [store.meta(i) for i in range(2) if store.meta(i)["attempts"] == 2]
    assert len(again) == 1
    assert again[0]["resumed"] is True
    assert sorted(entry["index"] for entry in log) == [0, 1]
    assert len({pid for pid, _ in notes_of(tmp_path / "notes")} - {os.getpid()}) == 3
    assert not leftovers(store.path)


SUPERVISOR = """
import sys, time
from pathlib import Path
from ingredient_runs import DeadlyBatches, train
store, notes, mine, other = sys.argv[1:]
Path(mine).touch()
while not Path(other).exists():
    time.sleep(0.01)
options = {"num_parts": 3, "notes": notes, "wait": 0.1}
print(len(train(store, 4, sampler=DeadlyBatches, sampler_options=options)))
"""


def python(code, *arguments):
    paths = [str(ROOT), str(ROOT / "tests" / "helpers")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, *map(str, arguments)]

    def hear_interruptions():
        """Undo what a shell does to its background jobs, which would be handed down to the new process."""
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=environment, preexec_fn=hear_interruptions, **pipes)


def test_two_supervisors_on_one_store_train_each_ingredient_once(tmp_path, undisturbed):
    """Two processes that begin at the same moment."""
    notes, ready = tmp_path / "notes", [tmp_path / "a", tmp_path / "b"]
    both = [python(SUPERVISOR, tmp_path / "store", notes, *names) for names in (ready, ready[::-1])]
    told = [process.communicate(timeout=120) for process in both]
    assert [out.strip() for out, _ in told] == ["4", "4"], told
    begun = notes_of(notes)
    store = IngredientStore(tmp_path / "store")
    assert sorted(seed for _, seed in begun) == sorted(store.meta(i)["spec"]["data_seed"] for i in range(4))
    assert {pid for pid, _ in begun} == {process.pid for process in both}  # both had a part in it
    assert digests(store) == digests(undisturbed)
    assert not leftovers(store.path)


SCRIPT = """
import sys, time
import torch
from graphsparse.soups import Workers, train_ingredients
from graphsparse.testing import random_graph
from graphsparse.training import Training
from torch_geometric.nn import GCN

class Slow(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.gcn = GCN(8, 16, 2, 3, dropout=0.5)

    def forward(self, x, edge_index):
        time.sleep(wait)
        return self.gcn(x, edge_index)

wait = float(sys.argv[2])
store = train_ingredients(
    lambda: Slow(), random_graph(), 1, sys.argv[1], training=Training(epochs=8), tag="first",
    inference=lambda model, data: model(data.x, data.edge_index), workers=Workers(sys.argv[3], checkpoint_every=1),
)
print(store.meta(0)["weights"], store.meta(0)["resumed"])
"""


def is_alive(pid):
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def start_script(store):
    """Start a script that trains, and return it with its worker when there is something to go on from."""
    process = python(SCRIPT, store, 0.4, "local")
    end = time.monotonic() + 120
    while not list(store.glob("ingredients/*/state.pt")) and time.monotonic() < end and process.poll() is None:
        time.sleep(0.02)
    (claim,) = store.glob("ingredients/*/claim")
    assert json.loads(claim.read_text())["pid"] == process.pid
    (worker,) = map(int, Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split())
    assert is_alive(worker)
    return process, worker


def finish_script(store, other, monkeypatch, capsys):
    """Run the script here on the store and on an empty one, and return the weights and whether they were resumed."""
    told = []
    for path in (store, other):
        monkeypatch.setattr(sys, "argv", ["-c", str(path), "0.0", "here"])
        exec(SCRIPT, {"__name__": "__main__"})
        told.append(capsys.readouterr().out.split())
    return told


def test_a_script_without_main_guard_is_interrupted_and_goes_on(tmp_path, monkeypatch, capsys):
    """Model and inference are a class and a lambda of the script itself; Ctrl-C ends it and its worker in order."""
    store = tmp_path / "store"
    process, worker = start_script(store)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "KeyboardInterrupt" in told
    assert not is_alive(worker)
    (folder,) = (store / "ingredients").iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["spec.json", "state.pt"]  # no claim, no half file
    # The call goes on, and ends where a call that nobody disturbed ends.
    first, second = finish_script(store, tmp_path / "other", monkeypatch, capsys)
    assert first[0] == second[0]
    assert (first[1], second[1]) == ("True", "False")


def test_a_killed_supervisor_takes_its_worker_along_and_another_takes_over_at_once(tmp_path, monkeypatch, capsys):
    """SIGKILL, of which nobody hears: the claim stays behind, and so does the worker for a second."""
    store = tmp_path / "store"
    process, worker = start_script(store)
    process.kill()
    process.communicate(timeout=60)
    assert list(store.glob("ingredients/*/claim"))
    begin = time.monotonic()
    first, second = finish_script(store, tmp_path / "other", monkeypatch, capsys)
    assert time.monotonic() - begin < 60  # not the time after which a machine counts as lost
    assert first[0] == second[0]
    assert first[1] == "True"
    end = time.monotonic() + 30
    while is_alive(worker) and time.monotonic() < end:
        time.sleep(0.05)
    assert not is_alive(worker)
    assert IngredientStore(store).meta(0)["weights"] == first[0]


def test_a_deleted_mark_trains_that_ingredient_alone(tmp_path, undisturbed):
    store = train(tmp_path / "store", 3, **with_notes(tmp_path))
    IngredientFolder(store.path, store.keys[1]).mark.unlink()
    (tmp_path / "notes").unlink()
    log = []
    again = train(tmp_path / "store", 3, log=log.append, **with_notes(tmp_path))
    assert [seed for _, seed in notes_of(tmp_path / "notes")] == [store.meta(1)["spec"]["data_seed"]]
    assert [entry["index"] for entry in log] == [1]
    assert digests(again) == digests(undisturbed)[:3]


def test_a_process_trains_the_ingredient_without_a_mark_and_no_other(tmp_path, undisturbed):
    store = train(tmp_path / "store", 3, **with_notes(tmp_path))
    IngredientFolder(store.path, store.keys[1]).mark.unlink()
    (tmp_path / "notes").unlink()
    before = [files_of(store, i) for i in (0, 2)]
    again = train(tmp_path / "store", 3, workers=2, threads=1, **with_notes(tmp_path))
    ((pid, seed),) = notes_of(tmp_path / "notes")
    assert pid != os.getpid()
    assert seed == store.meta(1)["spec"]["data_seed"]
    assert [files_of(store, i) for i in (0, 2)] == before
    assert digests(again) == digests(undisturbed)[:3]


def test_of_several_processes_only_that_with_a_damaged_state_starts_from_scratch(tmp_path, undisturbed, monkeypatch):
    """The first ingredient is finished; two others were killed, and the state of one of them is damaged."""
    store = train(tmp_path / "store", 3, **with_notes(tmp_path))
    for index in (2, 1):
        interrupt(store, index, monkeypatch, **with_notes(tmp_path))
    IngredientFolder(store.path, store.keys[1]).state.write_bytes(b"garbage" * 1000)
    (tmp_path / "notes").unlink()
    before = files_of(store, 0)
    with pytest.warns(UserWarning, match="ingredient 1 .*trained from scratch") as told:
        again = train(tmp_path / "store", 3, workers=2, threads=1, **with_notes(tmp_path))
    assert len([warning for warning in told if "from scratch" in str(warning.message)]) == 1
    seeds = [again.meta(i)["spec"]["data_seed"] for i in range(3)]
    assert epochs_begun(tmp_path / "notes") == {seeds[1]: EPOCHS, seeds[2]: EPOCHS - 3}
    assert len({pid for pid, _ in notes_of(tmp_path / "notes")} - {os.getpid()}) == 2
    assert [again.meta(i)["resumed"] for i in range(3)] == [False, False, True]
    assert files_of(store, 0) == before
    assert digests(again) == digests(undisturbed)[:3]
    assert not leftovers(store.path)


def test_more_ingredients_add_to_those_that_are_there(tmp_path, undisturbed):
    train(tmp_path / "store", 2, **with_notes(tmp_path))
    (tmp_path / "notes").unlink()
    store = train(tmp_path / "store", 4, **with_notes(tmp_path))
    assert len(notes_of(tmp_path / "notes")) == 2
    assert digests(store) == digests(undisturbed)
    assert train(tmp_path / "store", 3, **with_notes(tmp_path)).keys == store.keys[:3]


class FailingWrites:
    """Raises an error in place of the write with a certain number, and in all that follow."""

    def __init__(self, monkeypatch, first, number):
        self.count, self.first, self.number = 0, first, number
        self.make = atomic_module.tempfile.mkstemp
        monkeypatch.setattr(atomic_module.tempfile, "mkstemp", self.mkstemp)

    def mkstemp(self, **options):
        self.count += 1
        if self.count > self.first:
            raise OSError(self.number, os.strerror(self.number), str(options["dir"] / options["prefix"]))
        return self.make(**options)


@pytest.mark.parametrize("number", [28, 30])
def test_a_disk_that_gets_full_or_read_only_at_any_write_loses_nothing(tmp_path, monkeypatch, number):
    """At each write in turn; afterwards the same call ends as if nothing had happened."""
    options = {"epochs": 2, "checkpoint_every": 1}
    whole = digests(train(tmp_path / "whole", 2, **options))
    for first in range(100):
        store = tmp_path / str(first)
        with monkeypatch.context() as patch:
            writes = FailingWrites(patch, first, number)
            done, told = None, None
            try:
                done = train(store, 2, **options)
            except StorageError as error:
                told = error
        if done is None:
            assert told.errno == number
            assert "'store' cannot be written" in str(told)
            assert os.strerror(number) in str(told)
        assert (writes.count <= first) == (done is not None)
        half = [path for path in store.rglob("*") if path.name.startswith((".", "claim", "failure-", "FAILED"))]
        assert not half
        for mark in store.rglob("DONE"):  # what counts as finished is finished
            assert IngredientFolder(store, mark.parent.name).read_weights()
        if done is not None:
            break
        assert digests(train(store, 2, **options)) == whole
    assert first >= 10  # graph, weights, and of both ingredients specification, states, result
    assert digests(done) == whole


def test_a_worker_that_may_not_write_more_bytes_says_so(tmp_path, monkeypatch):
    """A real limit on the size of files, in a real process: torch raises an error of its own kind then."""
    popen = subprocess.Popen

    def limited(*arguments, **options):
        def limit():
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))

        return popen(*arguments, preexec_fn=limit, **options)

    make_model = lambda: GCN(8, 256, 2, 3)  # noqa: E731
    monkeypatch.setattr(pools.subprocess, "Popen", limited)
    with pytest.raises(StorageError, match="'store' cannot be written .*MiB free"):
        train(tmp_path, 1, workers=1, make_model=make_model)
    monkeypatch.undo()
    (folder,) = (tmp_path / "ingredients").iterdir()
    assert [path.name for path in folder.iterdir()] == ["spec.json"]
    assert len(train(tmp_path, 1, make_model=make_model)) == 1


def full(text):
    return OSError(28, "No space left on device", "/elsewhere/cache.bin")


def test_a_full_disk_of_the_users_own_is_a_failure_that_names_its_file(tmp_path, monkeypatch):
    monkeypatch.setattr(supervise, "BACK_OFF", 0)
    options = {"sampler": FailingBatches, "sampler_options": {"error": full, "notes": tmp_path / "notes", "times": 3}}
    with pytest.raises(IngredientError, match="No space left on device: '/elsewhere/cache.bin'") as caught:
        train(tmp_path / "store", 2, **options)
    assert "'store' cannot be written" not in str(caught.value)
    assert len(IngredientStore(tmp_path / "store")) == 1  # the other one, as by then there was room


def test_a_finished_store_needs_no_right_to_write(tmp_path, monkeypatch, undisturbed):
    def closed(*arguments, **options):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(atomic_module.tempfile, "mkstemp", closed)
    options = {**with_notes(undisturbed.path.parent), "workers": 2}
    assert train(undisturbed.path, 4, **options).keys == undisturbed.keys


def test_test_labels_change_nothing(tmp_path):
    data = random_graph()
    first = train(tmp_path / "a", 2, data=data)
    data.y[data.test_mask] = (data.y[data.test_mask] + 1) % 3
    assert train(tmp_path / "a", 2, data=data).keys == first.keys
    content = torch.load(tmp_path / "a" / "graph.pt", weights_only=True)
    assert "test_mask" not in content
    assert (content["y"][data.test_mask] == -1).all()


def test_another_graph_or_model_is_refused(tmp_path):
    train(tmp_path, 1, epochs=1)
    with pytest.raises(ValueError, match="belongs to another graph: data.x"):
        train(tmp_path, 1, epochs=1, data=random_graph(seed=1))
    with pytest.raises(ValueError, match="belongs to another model"):
        train(tmp_path, 1, epochs=1, make_model=lambda: Net(hidden=4))
    with pytest.raises(ValueError, match="another start"):
        train(tmp_path, 1, epochs=1, seed=1)
    assert len(IngredientStore(tmp_path)) == 1


def test_independent_starts_warn(tmp_path):
    with pytest.warns(UserWarning, match="init='independent'.*different basins"):
        store = train(tmp_path, 3, init="independent", epochs=1)
    assert len({store.meta(i)["spec"]["initial"] for i in range(3)}) == 3
    assert len(list((tmp_path / "initial").iterdir())) == 3


@pytest.mark.parametrize("sampler", ["full", "cluster", "neighbor", "random_node"])
@pytest.mark.parametrize("inference", ["full", "layerwise"])
def test_every_sampler_and_inference(tmp_path, sampler, inference):
    options = {"cluster": {"num_parts": 4, "parts_per_batch": 2}, "neighbor": {"num_neighbors": [3, 3]}}
    options = {"sampler": sampler, "sampler_options": options.get(sampler), "inference": inference, "epochs": 15}
    make_model = Net if inference == "full" else lambda: GCN(8, 16, 2, 3, norm="batch_norm")
    store = train(tmp_path, 1, make_model=make_model, **options)
    assert store.scores[0] > 0.5
    assert (tmp_path / "partitions").exists() == (sampler == "cluster")


@pytest.mark.parametrize(
    ("sampler", "options"),
    [
        ("saint_rw", {"roots": 10, "coverage": 5}),
        ("fastgcn", {"batch_size": 8, "layer_size": 20}),
        ("ladies", {"batch_size": 8, "layer_size": 20}),
    ],
)
@pytest.mark.parametrize("inference", ["full", "layerwise"])
def test_every_sampler_that_weights_edges(tmp_path, sampler, options, inference):
    data, make_model = GCNNorm()(random_graph()), lambda: GCN(8, 16, 2, 3, normalize=False)
    options = {"sampler": sampler, "sampler_options": options, "inference": inference, "epochs": 15}
    store = train(tmp_path, 1, data=data, make_model=make_model, **options)
    assert store.scores[0] > 0.5


def test_a_model_that_cannot_travel_is_trained_here(tmp_path):
    def make_model():
        model = Net()
        model.lock = threading.Lock()
        return model

    options = {"make_model": make_model, "fast": False, "tag": "with a lock"}
    with pytest.raises(TypeError, match="cannot be sent to another process .*workers=0"):
        train(tmp_path, 1, workers=1, **options)
    assert len(train(tmp_path, 2, workers=0, **options)) == 2


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num": 0}, ValueError, "'num' must be at least 1"),
        ({"num": 2.0}, TypeError, "'num' must be an integer"),
        ({"sampler": lambda data, seed: [data]}, TypeError, "'sampler' must be told from others .*give 'tag'"),
        ({"data": 3}, TypeError, "'data' must be a torch_geometric Data"),
        ({"make_model": lambda: GCN(8, 16, 2, 2)}, ValueError, "2 classes"),
        ({"make_model": lambda: GCN(9, 16, 2, 3)}, RuntimeError, "shapes"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(tmp_path, options, error, message):
    with pytest.raises(error, match=message):
        train(tmp_path / "store", **{"num": 2, **options})
    assert not (tmp_path / "store").exists()


def test_masks_are_needed(tmp_path):
    data = random_graph()
    data.val_mask = None
    with pytest.raises(ValueError, match="'data.val_mask' is missing"):
        train(tmp_path / "store", data=data)


def test_the_store_must_be_a_folder():
    for wrong in (3, None):
        with pytest.raises(TypeError, match="'store' must be the folder of a store"):
            train(wrong)


def test_a_damaged_note_of_what_to_train_is_written_anew(tmp_path):
    whole = train(tmp_path, 2)
    before = [whole.meta(i) for i in range(2)]
    for key in whole.keys:
        IngredientFolder(tmp_path, key).spec.write_text("{")
    IngredientFolder(tmp_path, whole.keys[1]).mark.unlink()
    again = train(tmp_path, 2)
    assert [again.meta(i)["spec"] for i in range(2)] == [meta["spec"] for meta in before]
    assert digests(again) == digests(whole)


def test_a_worker_that_fails_shows_its_traceback(tmp_path, monkeypatch):
    """A real process, an error that the parent could not see coming, and a folder with a trap in it."""
    (tmp_path / "graphsparse.py").write_text("raise ImportError('the wrong one')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    options = {"sampler": FailingBatches, "sampler_options": {"error": KeyError, "notes": tmp_path / "notes"}}
    with pytest.raises(IngredientError, match="KeyError: 'this sampler fails'"):
        train(tmp_path / "store", 1, workers=1, **options)
    assert (tmp_path / "notes").read_text() == "failed\n"


@dataclasses.dataclass
class PartsSampler:
    """A sampler of a user whose options are in the object that its method is bound to."""

    num_parts: float

    def make(self, data, seed=0):
        return NotedBatches(data, seed=seed, num_parts=self.num_parts)


class RateNet(Net):
    def __init__(self, rate):
        super().__init__(dropout=0.0)
        self.sampler = PartsSampler(rate)

    def forward(self, x, edge_index):
        return torch.nn.functional.dropout(super().forward(x, edge_index), self.sampler.num_parts, self.training)


def test_another_object_behind_a_method_is_trained_anew(tmp_path):
    """Never answered with what another object was trained with."""
    first, second = (train(tmp_path, 1, sampler=PartsSampler(num).make) for num in (2, 6))
    assert first.keys != second.keys
    assert digests(first) != digests(second)
    assert train(tmp_path, 1, sampler=PartsSampler(6).make).keys == second.keys
    assert digests(train(tmp_path / "new", 1, sampler=PartsSampler(6).make)) == digests(second)


def test_another_object_in_a_model_is_another_model(tmp_path):
    train(tmp_path, 1, make_model=lambda: RateNet(0.1))
    with pytest.raises(ValueError, match="belongs to another model: layer '' was .*num_parts': 0.1.* is now .*': 0.9"):
        train(tmp_path, 1, make_model=lambda: RateNet(0.9))


def test_a_changed_function_needs_another_tag(tmp_path):
    """Without a tag it is refused, with the same one what is there is found, with another one it is trained."""

    def batches(num_parts):
        return lambda data, seed: NotedBatches(data, seed=seed, num_parts=num_parts)

    first = train(tmp_path, 1, sampler=batches(2), tag="2 parts")
    assert train(tmp_path, 1, sampler=batches(6), tag="2 parts").keys == first.keys
    second = train(tmp_path, 1, sampler=batches(6), tag="6 parts")
    assert first.keys != second.keys
    assert digests(first) != digests(second)
    assert second.meta(0)["spec"]["tag"] == "6 parts"


def rmsprop(parameters, lr, weight_decay):
    return torch.optim.RMSprop(parameters, lr, weight_decay=weight_decay)


def test_patience_and_an_optimiser_of_ones_own(tmp_path):
    options = {"optimizer": rmsprop, "patience": 2, "epochs": 60}
    store = train(tmp_path, 1, **options)
    assert store.meta(0)["epochs_run"] < 60
    assert store.meta(0)["spec"]["optimizer"].endswith(".rmsprop")
