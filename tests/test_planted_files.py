"""Nothing that is read runs code: payloads are planted in every file of whatever can be loaded."""

import copy
import os
import shutil
import warnings

import numpy as np
import ogb_sets
import planted
import pytest
import torch
from torch_geometric.nn import GCN
from transfer_pairs import small_pair

from graphsparse.datasets import IntersectingGraphs, load, load_ogb
from graphsparse.loader.parts import stored_partition
from graphsparse.soups import IngredientStore, train_ingredients
from graphsparse.testing import random_graph
from graphsparse.tickets import Ticket
from graphsparse.training import NodeTask, Training, fit
from graphsparse.transfer import BASELINES, LinkPredictor, LinkSplit

pytestmark = [pytest.mark.once, pytest.mark.filterwarnings("ignore:Environment variable TORCH_FORCE")]


@pytest.fixture
def plant(tmp_path, monkeypatch):
    """Plant payloads in each of some files, one after the other, read, and see that it was not run."""
    # The switch that many programs set to read old files again must not reach ours.
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    marker = tmp_path / "harm"

    def check(files, read, ignored=False):
        assert files
        for file in files:
            whole = file.read_bytes()
            for content in planted.contents(marker, file.name):
                file.unlink()  # which may be a link to the real one
                file.write_bytes(content)
                told = _told(read)
                if told is not None:
                    assert not ignored, told
                    assert str(file) in told, told
                    # no advice to read it all the same
                    assert not [word for word in ("weights_only", "allow_pickle", "add_safe_globals") if word in told]
                assert not marker.exists(), f"{file} was run"
            file.write_bytes(whole)
        read()

    return check


def _told(read):
    """Return what an error says, with all that it came from; ``None`` if there is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read()
    except (ValueError, FileNotFoundError) as error:
        return "\n".join(f"{type(each).__name__}: {each}" for each in _with_causes(error))
    return None


def _with_causes(error):
    """Yield an error and all that a traceback would show before it."""
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def test_the_payloads_are_dangerous(tmp_path):
    assert planted.runs(tmp_path)


SETS = {
    "citeseer": "planetoid/CiteSeer/raw",
    "texas": "webkb/texas/raw",
    "cora_ml": "citation_full/cora_ml/raw",
    "minesweeper": "heterophilous/minesweeper/raw",
    "airports-brazil": "airports/brazil/raw",
}


@pytest.mark.parametrize("name", SETS)
def test_raw_files_of_pyg(name, data_root, tmp_path, plant):
    shutil.copytree(data_root / SETS[name], tmp_path / SETS[name], copy_function=shutil.copyfile)
    plant(sorted((tmp_path / SETS[name]).iterdir()), lambda: load(name, tmp_path))


def test_raw_files_of_structures_and_pairs(data_root, tmp_path, plant):
    small = {"edge_index": [[0, 1], [1, 2]], "y": [0, 2, 1], "split": [0, 1, 2]}
    arxiv = tmp_path / "ogb" / "ogbn_arxiv" / "ogbn_arxiv.npz"
    arxiv.parent.mkdir(parents=True)
    np.savez(arxiv, **{key: np.array(value) for key, value in small.items()})
    plant([arxiv], lambda: load("ogbn-arxiv-structure", tmp_path))
    pair = tmp_path / "multirel" / "heco_acm.npz"
    pair.parent.mkdir()
    two = np.array([[0, 1], [1, 2]])
    np.savez(pair, num_nodes=np.array(3), edges_psp=two, edges_pap=two)
    plant([pair], lambda: IntersectingGraphs("acm-psp-pap", root=tmp_path))


SPLIT = {"train": np.array([0, 2]), "valid": np.array([1]), "test": np.array([3])}


def _graph(nodes):
    return {
        "edge_index": np.array([[0, 1], [1, 0]]),
        "num_nodes": nodes,
        "node_feat": np.ones((nodes, 2), dtype=np.float32),
        "edge_feat": None,
    }


def _ogb_set(kind, folder):
    """Write a small set of OGB, with its split as text and as a pickle."""
    if kind == "ogbn":
        ogb_sets.write_arxiv(folder)
        return lambda: load_ogb("ogbn-arxiv", folder)
    labels = np.array([[0], [1], [1], [0]])
    if kind == "ogbg":
        graphs = [_graph(2 + k) for k in range(4)]
        meta = ogb_sets.save_with_ogb(folder, "ogbg-molbace", graphs, labels, SPLIT, split_name="random")
        return lambda: load_ogb("ogbg-molbace", meta_dict=meta)[0].get_idx_split()
    part = {"edge": np.array([[0, 1]]), "edge_neg": np.array([[2, 3]])}
    split = {"train": part, "valid": part, "test": part}
    meta = ogb_sets.save_with_ogb(folder, "ogbl-ddi", [_graph(4)], None, split, task=("link prediction", "hits@20"))
    return lambda: load_ogb("ogbl-ddi", meta_dict=meta)


@pytest.mark.parametrize("kind", ["ogbn", "ogbg", "ogbl"])
def test_raw_files_of_ogb(kind, tmp_path, plant):
    folder = tmp_path / "ogb"
    folder.mkdir()
    read = _ogb_set(kind, folder)
    read()
    files = [file for file in folder.rglob("*") if file.is_file() and {"raw", "split"} & set(file.parts)]
    plant(files, read)


@pytest.mark.parametrize("kind", ["ogbn", "ogbg", "ogbl", "texas"])
def test_files_of_the_cache_and_beside_the_raw_ones(kind, data_root, tmp_path, monkeypatch, plant):
    """What PyG and OGB would read of their own from before is not looked at, and our own file is made anew."""
    monkeypatch.setenv("GRAPHSPARSE_CACHE", str(tmp_path / "cache"))
    if kind == "texas":
        shutil.copytree(data_root / SETS[kind], tmp_path / SETS[kind], copy_function=shutil.copyfile)
        read, folders = lambda: load("texas", tmp_path), [tmp_path / "webkb" / "texas"]
    else:
        (tmp_path / "ogb").mkdir()
        read = _ogb_set(kind, tmp_path / "ogb")
        folders = [file.parent for file in (tmp_path / "ogb").rglob("raw")]
    read()
    (file,) = (tmp_path / "cache" / "datasets").iterdir()
    own = ["data.pt", "geometric_data_processed.pt", "pre_transform.pt", "pre_filter.pt"]
    notes = [folder / "processed" / name for folder in [*folders, file.with_suffix("")] for name in own]
    for note in notes:
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_bytes(b"")
    plant([file, *notes], read, ignored=True)


def _train(store):
    return train_ingredients(
        *(_model, random_graph(), 1, store),
        training=Training(epochs=2),
        sampler="cluster",
        sampler_options={"num_parts": 4, "parts_per_batch": 2},
        workers=0,
    )


def _model():
    return GCN(8, 4, 2, 3)


def test_a_store(tmp_path, plant):
    store = tmp_path / "store"
    _train(store)
    folder = next((store / "ingredients").iterdir())

    def opened():
        found = IngredientStore(store)
        found.check_graph(random_graph())
        return found[0], found.meta(0)

    plant([folder / "meta.json", folder / "weights.pt", folder / "spec.json", store / "store.json"], opened)
    plant([folder / "DONE"], opened, ignored=True)
    plant([folder / "spec.json", store / "graph.pt", next((store / "initial").iterdir())], lambda: _train(store))
    (file,) = store.glob("**/partition-*.pt")
    edges = random_graph().edge_index
    name = file.name.split("-")
    plant([file], lambda: stored_partition(edges, int(name[4]), 60, seed=int(name[5][:-3]), save_dir=file.parent))


@pytest.mark.parametrize("name", ["state.pt", "claim", "failure-1.txt", "graph.pt", "initial"])
def test_a_store_that_is_open(name, tmp_path, plant):
    """Files that count while an ingredient is trained; what is damaged is made anew, or is told as its failure."""
    store = tmp_path / "store"
    _train(store)
    folder = next((store / "ingredients").iterdir())
    file = {"graph.pt": store / name, "initial": next((store / "initial").iterdir())}.get(name, folder / name)
    if not file.exists():
        file.write_bytes(b"")

    def again():
        for gone in ("DONE", "meta.json", "weights.pt"):
            (folder / gone).unlink(missing_ok=True)
        if name == "claim" and file.exists():  # of a process that gave no sign of life for long
            os.utime(file, (1, 1))
        return _train(store)

    content = file.read_bytes()

    def read():
        again()
        file.write_bytes(content)

    plant([file], read, ignored=True)


def test_a_checkpoint(tmp_path, plant):
    path = tmp_path / "checkpoint.pt"
    task, training = NodeTask(random_graph()), Training(epochs=2, checkpoint=path)
    torch.manual_seed(0)
    start = _model()

    def resume():
        fit(copy.deepcopy(start), task, training)

    resume()
    plant([path], resume)


def test_a_ticket_a_split_and_a_predictor(tmp_path, plant):
    path = tmp_path / "ticket.safetensors"
    Ticket(_model().state_dict(), {}, None, None, {}, {}).save(path)
    plant([path], lambda: Ticket.load(path))
    pair, split = small_pair()
    split.save(tmp_path / "split.safetensors")
    plant([tmp_path / "split.safetensors"], lambda: LinkSplit.load(tmp_path / "split.safetensors", pair))
    BASELINES["common_neighbors"](pair, split).save(tmp_path / "fitted.safetensors")
    plant([tmp_path / "fitted.safetensors"], lambda: LinkPredictor.load(tmp_path / "fitted.safetensors", pair))
