"""Gram matrices in a store, in place of the graph that a merge would look at."""

import numpy as np
import pytest
import torch
from ingredient_runs import leftovers, train
from torch import nn
from torch_geometric.nn import GAT, GCN, GIN, GCNConv, GraphSAGE, Sequential
from torch_geometric.utils import to_dense_adj

from graphsparse.soups import IngredientError, IngredientStore, merge, write_statistics
from graphsparse.soups.store.ingredient_folder import IngredientFolder
from graphsparse.testing import random_graph
from graphsparse.utils.files import read_tensors

MODELS = {
    "GCN": lambda: GCN(8, 16, 2, 3, norm="batch_norm"),
    "SAGE": lambda: GraphSAGE(8, 16, 3, 3),
    "GIN": lambda: GIN(8, 16, 2, 3),
    "Sequential": lambda: Sequential("x, edge_index", [(GCNConv(8, 3), "x, edge_index -> x"), nn.ReLU()]),
}


def parts_of(folder, make_model=MODELS["GCN"], num=3, **options):
    return train(folder, num, sampler="own_part", make_model=make_model, epochs=3, **options)


def folders_of(store):
    return [IngredientFolder(store.path, key) for key in store.keys]


@pytest.mark.filterwarnings("ignore:init='independent'")
@pytest.mark.parametrize(("name", "halo"), [*((name, 0) for name in MODELS), ("GCN", 1)])
def test_a_merge_from_statistics_is_one_from_the_graph(name, halo, tmp_path):
    store = parts_of(tmp_path, MODELS[name], init="independent", sampler_options={"halo": halo}, tag="t")
    model = MODELS[name]()
    write_statistics(store, model, workers=0)
    expected = merge(store, model, random_graph(), method="gnnmerge")
    found = merge(store, model, method="gnnmerge")
    for key, value in expected.state_dict.items():
        torch.testing.assert_close(found.state_dict[key], value, rtol=1e-5, atol=1e-6)
    assert [entry["rows"] for entry in found.trace] == [60] * len(found.trace)


def test_equal_to_nine_digits_in_double_precision(tmp_path):
    """Beside rounding to float32 there is no difference; one network has fewer nodes than columns."""
    torch.set_default_dtype(torch.float64)
    try:
        make_model, data = MODELS["SAGE"], random_graph()
        data.x = data.x.double()
        store = parts_of(tmp_path, make_model, 4, data=data)
        write_statistics(store, make_model(), workers=0)
        expected = merge(store, make_model(), data, method="gnnmerge").state_dict
        found = merge(store, make_model(), method="gnnmerge").state_dict
        for key, value in expected.items():
            torch.testing.assert_close(found[key], value, rtol=1e-9, atol=1e-9)
    finally:
        torch.set_default_dtype(torch.float32)


def test_what_is_sent_is_the_gram_matrix_of_aggregated_inputs(tmp_path):
    """By numpy, on the dense matrix of a part with a halo, of which the ingredient answers for its own nodes alone."""
    data = random_graph()
    store = parts_of(tmp_path, lambda: GCN(8, 16, 2, 3), sampler_options={"halo": 1}, tag="t")
    write_statistics(store, GCN(8, 16, 2, 3), workers=0)
    for i, folder in enumerate(folders_of(store)):
        own, seen = store.parts()[i], store.parts(halo=True)[i]
        dense = to_dense_adj(data.edge_index, max_num_nodes=60)[0][seen][:, seen].double() + torch.eye(len(seen))
        scale = dense.sum(1).rsqrt()
        near = (scale.unsqueeze(1) * dense * scale).numpy()
        state = {name: value.double().numpy() for name, value in store[i].items()}
        first = near @ data.x[seen].double().numpy()
        hidden = np.maximum(first @ state["convs.0.lin.weight"].T + state["convs.0.bias"], 0)
        tensors, header = read_tensors(folder.statistics, "statistics file")
        assert header["rows"] == len(own)
        for number, inputs in enumerate([first, near @ hidden]):
            rows = np.hstack([inputs, np.ones((len(seen), 1))])[torch.isin(seen, own).numpy()]
            assert tensors[str(number)].dtype == torch.float64
            upper = (rows.T @ rows / len(own))[np.triu_indices(rows.shape[1])]
            np.testing.assert_allclose(tensors[str(number)].numpy(), upper, rtol=1e-4, atol=1e-5)


def test_ingredients_that_know_the_whole_graph_answer_for_all_of_it(tmp_path):
    store = train(tmp_path, 2, make_model=MODELS["SAGE"], epochs=2)
    write_statistics(store, MODELS["SAGE"](), workers=0)
    expected = merge(store, MODELS["SAGE"](), random_graph(), method="gnnmerge").state_dict
    found = merge(store, MODELS["SAGE"](), method="gnnmerge")
    assert found.trace[0]["rows"] == 120
    for key, value in expected.items():
        torch.testing.assert_close(found.state_dict[key], value, rtol=1e-5, atol=1e-6)


@pytest.mark.once
def test_is_written_once_by_any_worker(tmp_path):
    store = parts_of(tmp_path)
    write_statistics(store[:2], MODELS["GCN"](), workers=0)
    first = folders_of(store)[0].statistics
    before = first.stat().st_mtime_ns
    write_statistics(store, MODELS["GCN"](), workers=1)  # the third
    found = [contents(folder.statistics) for folder in folders_of(store)]
    assert first.stat().st_mtime_ns == before
    assert not leftovers(tmp_path)
    for folder in folders_of(store):
        folder.statistics.unlink()
    write_statistics(store, MODELS["GCN"](), workers=0)
    assert [contents(folder.statistics) for folder in folders_of(store)] == found


def contents(path):
    tensors, header = read_tensors(path, "statistics file")
    return header, {name: value.tolist() for name, value in tensors.items()}


def damage(path):
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


def of_other_weights(path):
    other = next(folder for folder in path.parent.parent.iterdir() if folder != path.parent)
    path.write_bytes((other / path.name).read_bytes())


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (damage, "is damaged or was edited"),
        (lambda path: path.write_bytes(b""), "is not a statistics file, or only a part"),
        (of_other_weights, "belongs to other weights"),
        (lambda path: path.unlink(), "no statistics file at"),
    ],
)
def test_damaged_statistics_are_refused_and_written_anew(change, told, tmp_path):
    store = parts_of(tmp_path)
    write_statistics(store, MODELS["GCN"](), workers=0)
    file = folders_of(store)[1].statistics
    whole = contents(file)
    change(file)
    with pytest.raises(ValueError, match=f"{told}.*write_statistics writes them anew"):
        merge(store, MODELS["GCN"](), method="gnnmerge")
    write_statistics(store, MODELS["GCN"](), workers=0)
    assert contents(file) == whole


def test_what_is_missing_is_said(tmp_path):
    store, model = parts_of(tmp_path), MODELS["GCN"]()
    with pytest.raises(ValueError, match="no statistics file at .*write_statistics"):
        merge(store, model, method="gnnmerge")
    with pytest.raises(ValueError, match="'data' must be a graph .*or 'states' a store that write_statistics"):
        merge([store[0]], model, method="gnnmerge")
    write_statistics(store, model, workers=0)
    with pytest.raises(ValueError, match="'responsibility' needs 'data'"):
        merge(store, model, method="gnnmerge", responsibility=torch.zeros(60, dtype=torch.long))


def test_refuses_what_has_no_gram_matrices(tmp_path):
    store = parts_of(tmp_path)
    with pytest.raises(TypeError, match="'store' must be an IngredientStore .*list"):
        write_statistics([store[0]], MODELS["GCN"]())
    with pytest.raises(ValueError, match="does not fit the model"):
        write_statistics(store, GCN(8, 16, 2, 3))
    attention = parts_of(tmp_path / "gat", lambda: GAT(8, 16, 2, 3), tag="t")
    with pytest.raises(ValueError, match="layer 'convs.0' .*is not linear in its weights"):
        write_statistics(attention, GAT(8, 16, 2, 3), workers=0)


def test_a_failure_of_one_costs_no_other(tmp_path, monkeypatch):
    store = parts_of(tmp_path)
    write = IngredientFolder.write_statistics

    def fail(self, tensors, header):
        if self.key == store.keys[1]:
            raise KeyError("no such thing")
        write(self, tensors, header)

    with monkeypatch.context() as patch:
        patch.setattr(IngredientFolder, "write_statistics", fail)
        with pytest.raises(IngredientError, match="1 of 3 ingredients failed .*index 1.*\n(.*\n)*.*no such thing"):
            write_statistics(store, MODELS["GCN"](), workers=0)
    folder = folders_of(store)[1]
    assert folder.is_done()  # the weights are as good as before
    folder.given_up.unlink()
    write_statistics(store, MODELS["GCN"](), workers=0)
    assert not leftovers(tmp_path)
    assert len(IngredientStore(tmp_path)) == 3
