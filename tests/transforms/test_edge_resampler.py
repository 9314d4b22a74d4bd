import copy

import pytest
import torch
from torch_geometric import seed_everything
from torch_geometric.data import Data, HeteroData
from torch_geometric.nn import GCN

from graphsparse.edges import SPARSIFIERS, Sparsifier, sample_edge, sparsify_edge
from graphsparse.edges.cores import CORES
from graphsparse.edges.undirected import undirected_edges
from graphsparse.nn import accelerate
from graphsparse.testing import assert_undirected, random_graph
from graphsparse.training import NodeTask, Training, fit
from graphsparse.transforms import EdgeResampler

METHODS = {
    "random": "random",
    "dspar": "dspar",
    "dspar_published": "dspar_published",
    "a score": "jaccard",
    "k_neighbor": "k_neighbor",
    "uniform, reweighted": Sparsifier("random", design="pivotal", reweight=True),
    "poisson": Sparsifier("inverse_degree_sum", design="poisson"),
    "systematic": Sparsifier("inverse_degree_sum", design="systematic"),
}


def graph(num_nodes=60):
    data = random_graph(num_nodes)
    loops = torch.tensor([[3, 7], [3, 7]])
    data.edge_index = torch.cat([data.edge_index, loops], 1)
    data.edge_attr = torch.arange(data.num_edges).unsqueeze(1)
    return data


def num_kept(data, mask):
    return undirected_edges(data.edge_index[:, mask], data.num_nodes).num_edges


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first.keys())  # noqa: SIM118


@pytest.mark.parametrize("name", METHODS)
def test_an_epoch_follows_from_its_number_alone(name):
    data = graph()
    before = copy.deepcopy(data)
    one, other = (EdgeResampler(data, 0.4, METHODS[name], seed=5) for _ in range(2))
    for epoch in (0, 1, 2):
        one.epoch(epoch)
    torch.rand(1)
    assert same(one.epoch(1), other.epoch(1))
    assert torch.equal(one.mask(1), other.mask(1))
    assert not torch.equal(one.mask(1), one.mask(2))
    assert not torch.equal(one.mask(1), EdgeResampler(data, 0.4, METHODS[name], seed=6).mask(1))
    assert same(data, before)


@pytest.mark.parametrize("name", METHODS)
def test_a_draw_is_the_marked_part_of_the_graph(name):
    data = graph()
    resampler = EdgeResampler(data, 0.4, METHODS[name], seed=1)
    for epoch in range(3):
        mask, drawn = resampler.mask(epoch), resampler.epoch(epoch)
        assert torch.equal(drawn.edge_index, data.edge_index[:, mask])
        assert torch.equal(drawn.edge_attr, data.edge_attr[mask])
        assert drawn.x is data.x
        assert bool(mask[-2:].all())
        assert_undirected(drawn.edge_index)
        if name not in ("dspar_published", "poisson"):
            edges = undirected_edges(data.edge_index).num_edges
            assert num_kept(data, mask) == edges - int(0.4 * edges)


def test_first_epochs_are_what_one_call_returns():
    data = graph()
    assert torch.equal(
        EdgeResampler(data, 0.3, seed=9).mask(0), sparsify_edge(data.edge_index, 0.3, "random", seed=9)[1]
    )
    sampled = sample_edge(data.edge_index, 0.3, "dspar", seed=9)
    resampler = EdgeResampler(data, 0.3, "dspar", seed=9)
    assert torch.equal(resampler.epoch(0).edge_weight, sampled.edge_weight)
    assert torch.equal(resampler.mask(0), sampled.mask)
    assert torch.equal(resampler.probability(), sampled.probability)


def test_a_draw_stays_for_some_epochs():
    data = graph()
    each, third = EdgeResampler(data, 0.5, seed=2), EdgeResampler(data, 0.5, seed=2, every=3)
    for epoch in range(9):
        assert torch.equal(third.mask(epoch), each.mask(epoch // 3))
    first = third.epoch(0)
    first.x = None  # what is done to a draw is not done to the next epoch
    assert third.epoch(2).edge_index is first.edge_index
    assert third.epoch(2).x is data.x


@pytest.mark.parametrize("name", [name for name in METHODS if name != "k_neighbor"])
def test_coverage_is_that_of_the_draws(name):
    data = graph()
    resampler = EdgeResampler(data, 0.7, METHODS[name], seed=3)
    draws = 8
    chance, upper = resampler.probability(), data.edge_index[0] < data.edge_index[1]
    chance = chance[upper]
    expected = resampler.coverage((1, draws))
    assert expected[1] == pytest.approx(float(chance.mean()))
    assert expected[draws] == pytest.approx(float((1 - (1 - chance) ** draws).mean()))
    missed = (1 - chance) ** draws
    sd = float((missed * (1 - missed)).sum().sqrt()) / chance.numel()
    repeats = 4
    found = 0.0
    for repeat in range(repeats):
        masks = [resampler.mask(repeat * draws + i)[upper] for i in range(draws)]
        found += float(torch.stack(masks).any(0).double().mean()) / repeats
    # Edges of one draw of 'systematic' go together, which makes the spread of their number larger.
    assert abs(found - expected[draws]) < 5 * sd / repeats**0.5 * (4 if name == "systematic" else 1)
    assert resampler.coverage([3])[3] < resampler.coverage([4])[4] < 1 + 1e-12


@pytest.mark.parametrize("name", METHODS)
def test_saved_and_loaded_it_draws_the_same(name, tmp_path):
    data = graph()
    data.edge_weight = torch.rand(data.num_edges, generator=torch.Generator().manual_seed(0)) + 0.1
    resampler = EdgeResampler(data, 0.4, METHODS[name], seed=5, every=2)
    resampler.save(tmp_path / "a")
    loaded = EdgeResampler.load(tmp_path / "a", data)
    assert repr(loaded) == repr(resampler)
    for epoch in (0, 3, 10):
        assert same(loaded.epoch(epoch), resampler.epoch(epoch))
    if name != "k_neighbor":
        assert loaded.coverage() == resampler.coverage()


def test_files_of_other_graphs_and_functions_are_refused(tmp_path):
    data, path = graph(), tmp_path / "a"
    EdgeResampler(data, 0.4, "dspar").save(path)
    other = graph(61)
    with pytest.raises(ValueError, match="belongs to another graph"):
        EdgeResampler.load(path, other)
    weighted = data.clone()
    weighted.edge_weight = torch.ones(data.num_edges)
    with pytest.raises(ValueError, match="belongs to another graph"):
        EdgeResampler.load(path, weighted)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ValueError, match="edge resampler"):
        EdgeResampler.load(path, data)
    score = EdgeResampler(data, 0.4, lambda edge_index, _: edge_index.sum(0))
    with pytest.raises(TypeError, match="'score' must be a name to be saved"):
        score.save(path)


def test_weights_come_in_and_go_out():
    data = graph()
    weight = torch.rand(data.num_edges, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 0.1
    weight[:4] = 0  # removed
    data.edge_gain = weight
    resampler = EdgeResampler(data, 0.4, "dspar", weight_attr="edge_gain")
    drawn, mask, chance = resampler.epoch(3), resampler.mask(3), resampler.probability()
    assert not bool(mask[:4].any())
    assert float(chance[:4].sum()) == 0
    assert drawn.edge_gain.dtype == torch.float64
    assert torch.allclose(drawn.edge_gain, weight[mask] / chance[mask])
    random = EdgeResampler(data, 0.4)
    assert "edge_weight" not in random.epoch(0)


def test_core_stays(monkeypatch):
    def lowest(edges, score, *, edge_weight=None):
        return torch.arange(edges.num_edges) < 5

    monkeypatch.setitem(CORES, "lowest", lowest)
    data = graph()
    for design, reweights in (("top", False), ("pivotal", False), ("pivotal", True), ("replacement", True)):
        score = "inverse_degree_sum" if reweights else "random"
        resampler = EdgeResampler(data, 0.8, Sparsifier(score, core="lowest", design=design))
        key = undirected_edges(data.edge_index).key[:5]
        low, high = data.edge_index.sort(0).values
        sure = torch.isin(low * data.num_nodes + high, key) & (low != high)
        assert resampler.probability()[sure].tolist() == [1.0] * int(sure.sum())
        for epoch in range(5):
            assert bool(resampler.mask(epoch)[sure].all())
            if reweights:
                weight = torch.zeros(data.num_edges)
                weight[resampler.mask(epoch)] = resampler.epoch(epoch).edge_weight
                assert weight[sure].tolist() == [1.0] * int(sure.sum())


def train(data, resampler, epochs, accelerated=False, **options):
    seed_everything(3)
    model = GCN(8, 16, 2, 3, dropout=0.3)
    model = accelerate(model) if accelerated else model
    return fit(model, NodeTask(data, loader=resampler), Training(epochs=epochs, seed=1, **options)), model


@pytest.mark.parametrize("accelerated", [False, True])
def test_trains_on_the_draws_and_evaluates_on_the_whole_graph(accelerated):
    data = random_graph()
    result, model = train(data, EdgeResampler(data, 0.5, "dspar", seed=4), 6, accelerated)
    seen = []

    class Watched(EdgeResampler):
        def __iter__(self):
            for drawn in super().__iter__():
                seen.append(drawn)
                yield drawn

    watched = Watched(data, 0.5, "dspar", seed=4)
    again, _ = train(data, watched, 6, accelerated)
    assert [loss["loss"] for loss in again.history] == [loss["loss"] for loss in result.history]
    assert len(seen) == 6
    for epoch, drawn in enumerate(seen):
        assert same(drawn, EdgeResampler(data, 0.5, "dspar", seed=4).epoch(epoch))
    model.eval()
    with torch.no_grad():
        assert torch.allclose(model(data.x, data.edge_index), result.logits, atol=1e-6)
    fixed, _ = train(data, [seen[0]], 6, accelerated)
    assert fixed.history != result.history


@pytest.mark.parametrize("accelerated", [False, True])
def test_resumes_with_the_draw_that_comes_next(accelerated, tmp_path):
    data = random_graph()

    def stop(entry):
        if entry["epoch"] == 4:
            raise KeyboardInterrupt

    whole, _ = train(data, EdgeResampler(data, 0.5, seed=4), 9, accelerated)
    checkpoint = {"checkpoint": tmp_path / "a.pt", "checkpoint_every": 2}
    with pytest.raises(KeyboardInterrupt):
        train(data, EdgeResampler(data, 0.5, seed=4), 9, accelerated, log=stop, **checkpoint)
    resumed, _ = train(data, EdgeResampler(data, 0.5, seed=4), 9, accelerated, **checkpoint)
    assert resumed.history == whole.history
    assert all(torch.equal(resumed.state_dict[name], entry) for name, entry in whole.state_dict.items())
    assert torch.equal(resumed.logits, whole.logits)
    with pytest.raises(ValueError, match="EdgeResampler"):
        train(data, EdgeResampler(data, 0.5, seed=5), 9, accelerated, **checkpoint)
    with pytest.raises(ValueError, match="EdgeResampler"):
        train(data, EdgeResampler(data, 0.4, seed=4), 9, accelerated, **checkpoint)


def test_a_loop_that_tells_no_epoch_goes_on():
    resampler = EdgeResampler(graph(), 0.5)
    drawn = [next(iter(resampler)) for _ in range(3)]
    assert all(same(one, resampler.epoch(epoch)) for epoch, one in enumerate(drawn))
    resampler.set_epoch(1)
    assert same(next(iter(resampler)), drawn[1])
    assert len(resampler) == 1


def test_graph_without_edges():
    data = Data(x=torch.ones(3, 2), edge_index=torch.empty(2, 0, dtype=torch.int64))
    for name in ("random", "dspar", "dspar_published"):
        resampler = EdgeResampler(data, 0.5, name)
        assert resampler.epoch(0).edge_index.shape == (2, 0)
        assert resampler.probability().shape == (0,)
        assert resampler.coverage((2,)) == {2: 1.0}


def test_wrong_arguments():
    data = graph()
    with pytest.raises(TypeError, match="'data' must be a homogeneous Data"):
        EdgeResampler(HeteroData(), 0.5)
    with pytest.raises(ValueError, match="'data' must hold 'edge_index'"):
        EdgeResampler(Data(x=torch.ones(3, 2)), 0.5)
    with pytest.raises(ValueError, match="'sparsity'"):
        EdgeResampler(data, 1.0)
    with pytest.raises(ValueError, match="'every' must be at least 1"):
        EdgeResampler(data, 0.5, every=0)
    with pytest.raises(ValueError, match="'local' ranks edges"):
        EdgeResampler(data, 0.5, Sparsifier("jaccard", local="rank"))
    with pytest.raises(ValueError, match="'epoch' must be at least 0"):
        EdgeResampler(data, 0.5).epoch(-1)
    with pytest.raises(ValueError, match="'score' must be finite and not negative"):
        EdgeResampler(data, 0.5, lambda edge_index, _: -edge_index.sum(0))
    with pytest.raises(ValueError, match="not known where a local rule"):
        EdgeResampler(data, 0.5, SPARSIFIERS["k_neighbor"]).probability()
