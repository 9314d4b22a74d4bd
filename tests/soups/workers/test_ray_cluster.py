"""Trainings on a real cluster of Ray with two machines of one core each; what a driver does is in the other file."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from ingredient_runs import EPOCHS, DeadlyBatches, FailingBatches, leftovers, train, weights
from store_damage import LimitedBatches, MeetingBatches, epochs_begun, files_of, interrupt
from torch_geometric.nn import GCN

from graphsparse.soups import Workers, merge, write_statistics
from graphsparse.soups.store.failures import IngredientError, StorageError
from graphsparse.soups.store.ingredient_folder import IngredientFolder
from graphsparse.soups.store.store import IngredientStore
from graphsparse.testing import random_graph

pytestmark = pytest.mark.once

ROOT = Path(__file__).parents[3]
BATCHES = {"num_parts": 3}
RAY = {"backend": "ray", "workers": None}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Weights of ingredients that were trained in this process."""
    store = tmp_path_factory.mktemp("undisturbed")
    return weights(train(store, 4, sampler=DeadlyBatches, sampler_options=BATCHES))


@pytest.fixture(scope="module")
def cluster():
    """A real cluster of two nodes, each with a store of objects and processes of its own."""
    pytest.importorskip("ray", reason="Ray is not installed")
    patch = pytest.MonkeyPatch()
    patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    patch.setenv("RAY_AUTH_MODE", "disabled")
    import ray
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
    found = Cluster(initialize_head=True, head_node_args=node)
    try:
        found.add_node(**{name: value for name, value in node.items() if name != "include_dashboard"})
        ray.init(address=found.address, log_to_driver=False, logging_level="ERROR")
        yield ray
    finally:
        ray.shutdown()
        found.shutdown()
        patch.undo()


@pytest.mark.slow
def test_two_nodes_and_a_killed_worker_give_the_same_bits(cluster, tmp_path):
    """One task kills its process in mid-epoch, and is started again on whichever node is free."""
    assert len([node for node in cluster.nodes() if node["Alive"]]) == 2
    whole = train(tmp_path / "here", 3, sampler=DeadlyBatches, sampler_options=BATCHES, checkpoint_every=1)
    options = {**BATCHES, "marker": tmp_path / "killed"}
    log = []
    store = train(
        tmp_path / "store",
        3,
        sampler=DeadlyBatches,
        sampler_options=options,
        backend="ray",
        workers=None,
        checkpoint_every=1,
        log=log.append,
    )
    assert (tmp_path / "killed").exists()
    assert weights(store) == weights(whole)
    assert sorted((store.meta(i)["resumed"], store.meta(i)["attempts"]) for i in range(3)) == [(False, 1)] * 2 + [
        (True, 2)
    ]
    assert sorted(entry["index"] for entry in log) == [0, 1, 2]
    assert not leftovers(store.path)
    assert cluster.is_initialized()  # the cluster of the user stays


@pytest.mark.parametrize("wish", [{"gpus": 0.5}, {"threads": 64}])
def test_refuses_at_once_what_no_machine_has(cluster, tmp_path, wish):
    told = f"{next(iter(wish))}={next(iter(wish.values()))} .*the largest has 0 GPUs and 1 cores"
    with pytest.raises(ValueError, match=f"'gpus' and 'threads' must be what a machine .*{told}"):
        train(tmp_path / "store", 1, backend="ray", workers=None, **wish)


def test_errors_come_back_with_their_traceback(cluster, tmp_path):
    options = {"error": KeyError, "notes": tmp_path / "notes"}
    with pytest.raises(IngredientError, match="KeyError: 'this sampler fails'"):
        train(
            tmp_path / "store",
            1,
            sampler=FailingBatches,
            sampler_options=options,
            backend="ray",
            workers=1,
        )
    assert (tmp_path / "notes").read_text() == "failed\n"


def test_a_deleted_mark_trains_that_ingredient_alone(cluster, tmp_path, undisturbed):
    options = {"sampler": DeadlyBatches, "sampler_options": {**BATCHES, "notes": tmp_path / "notes"}}
    store = train(tmp_path / "store", 3, **options)
    IngredientFolder(store.path, store.keys[1]).mark.unlink()
    (tmp_path / "notes").unlink()
    before = [files_of(store, i) for i in (0, 2)]
    again = train(tmp_path / "store", 3, **RAY, **options)
    assert epochs_begun(tmp_path / "notes") == {store.meta(1)["spec"]["data_seed"]: EPOCHS}
    assert str(os.getpid()) not in (tmp_path / "notes").read_text().split()
    assert [files_of(store, i) for i in (0, 2)] == before
    assert weights(again) == undisturbed[:3]
    assert not leftovers(store.path)


@pytest.mark.slow  # the local pool has the same law in test_train_ingredients.py
def test_a_damaged_state_starts_that_ingredient_alone_from_scratch(cluster, tmp_path, undisturbed, monkeypatch):
    batches = {**BATCHES, "notes": tmp_path / "notes"}
    options = {"sampler": DeadlyBatches, "sampler_options": batches, "checkpoint_every": 1}
    store = train(tmp_path / "store", 3, **options)
    for index in (2, 1):
        interrupt(store, index, monkeypatch, **options)
    IngredientFolder(store.path, store.keys[1]).state.write_bytes(b"garbage" * 1000)
    (tmp_path / "notes").unlink()
    before = files_of(store, 0)
    with pytest.warns(UserWarning, match="ingredient 1 .*trained from scratch"):
        again = train(tmp_path / "store", 3, **RAY, **options)
    seeds = [again.meta(i)["spec"]["data_seed"] for i in range(3)]
    assert epochs_begun(tmp_path / "notes") == {seeds[1]: EPOCHS, seeds[2]: EPOCHS - 3}
    assert [again.meta(i)["resumed"] for i in range(3)] == [False, False, True]
    assert files_of(store, 0) == before
    assert weights(again) == undisturbed[:3]
    assert not leftovers(store.path)


def test_a_store_without_room_ends_the_call_and_loses_nothing(cluster, tmp_path):
    """A real limit of the process of a task on the size of files."""
    options = {
        "make_model": lambda: GCN(8, 8192, 2, 3),
        "epochs": 1,
        "checkpoint_every": 1,
        "sampler": LimitedBatches,
        "sampler_options": {**BATCHES, "limit": tmp_path / "limit"},
    }
    store = train(tmp_path / "store", 1, **options)
    before = files_of(store, 0)
    (tmp_path / "limit").touch()
    with pytest.raises(StorageError, match="'store' cannot be written .*MiB free.*same call goes on") as caught:
        train(tmp_path / "store", 2, backend="ray", workers=1, **options)
    assert caught.value.filename == str(tmp_path / "store")
    assert len(IngredientStore(tmp_path / "store")) == 1
    assert files_of(store, 0) == before
    assert [path.name for path in leftovers(store.path)] == ["state.pt"]  # of the start, when there was room
    (tmp_path / "limit").unlink()
    assert len(train(tmp_path / "store", 2, backend="ray", workers=1, **options)) == 2
    assert not leftovers(store.path)


SUPERVISOR = """
import sys
import ray
from ingredient_runs import train
from store_damage import MeetingBatches
address, store, notes, places = sys.argv[1:]
ray.init(address=address, log_to_driver=False, logging_level="ERROR")
options = {"num_parts": 3, "notes": notes, "places": places}
print(len(train(store, 4, sampler=MeetingBatches, sampler_options=options, backend="ray", workers=1)))
"""


def supervisor(*arguments):
    paths = [str(ROOT), str(ROOT / "tests" / "helpers")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", SUPERVISOR, *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=environment, **pipes)


@pytest.mark.slow  # the local pool has the same law in test_train_ingredients.py
def test_two_supervisors_on_two_machines_train_each_ingredient_once(cluster, tmp_path, undisturbed):
    """Each has one task at a time, and no first task goes on before a second has begun: that of the other one."""
    notes, places = str(tmp_path / "notes"), str(tmp_path / "places")
    Path(places).mkdir()
    other = supervisor(cluster.get_runtime_context().gcs_address, tmp_path / "store", notes, places)
    options = {**BATCHES, "notes": notes, "places": places}
    try:
        store = train(tmp_path / "store", 4, sampler=MeetingBatches, sampler_options=options, backend="ray", workers=1)
        told = other.communicate(timeout=180)
    finally:
        other.kill()
    assert told[0].strip() == "4", told
    assert store.keys == IngredientStore(store.path).keys
    assert weights(store) == undisturbed
    seeds = [store.meta(i)["spec"]["data_seed"] for i in range(4)]
    assert epochs_begun(notes) == dict.fromkeys(seeds, EPOCHS)
    assert [store.meta(i)["attempts"] for i in range(4)] == [1] * 4
    assert {place.read_text() for place in Path(places).iterdir()} == {node["NodeID"] for node in cluster.nodes()}
    assert not leftovers(store.path)


def test_parts_are_trained_and_summed_up_on_the_cluster(cluster, tmp_path):
    """What is merged of files alone is what is merged with the graph, of the same ingredients as here."""
    options = {"sampler": "own_part", "make_model": lambda: GCN(8, 16, 2, 3), "epochs": 2, "tag": "t"}
    store = train(tmp_path / "store", 3, **RAY, **options)
    assert weights(store) == weights(train(tmp_path / "here", 3, **options))
    model = GCN(8, 16, 2, 3)
    write_statistics(store, model, workers=Workers("ray"))
    expected = merge(store, model, random_graph(), method="gnnmerge").state_dict
    found = merge(store, model, method="gnnmerge").state_dict
    assert all(torch.allclose(found[name], value, atol=1e-6) for name, value in expected.items())
    assert not leftovers(store.path)
