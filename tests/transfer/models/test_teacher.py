import pytest
import torch
from torch_geometric.nn import GCN, GraphSAGE
from transfer_pairs import area, clear_pair, small_pair

import graphsparse.transfer.models.teacher as module
from graphsparse.training import link_training
from graphsparse.training.link_task import link_average_precision
from graphsparse.transfer import LinkTeacher, assert_no_leak, sage_encoder
from graphsparse.transfer.models.link_model import encode

CHANCE = 0.65  # four standard errors of the area of random scores above its mean, for 72 links and 360 non-links
SHORT = link_training(epochs=10, lr=1e-2, eval_every=2)


@pytest.fixture(scope="module")
def data():
    return small_pair()


@pytest.fixture(scope="module")
def clear():
    return clear_pair()


def teacher(**options):
    return LinkTeacher(sage_encoder(16, dropout=0.0), **{"training": SHORT, **options})


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.mark.parametrize("scope", [None, "intersection", "enriched_target", "target"])
def test_every_scope_learns(clear, scope):
    pair, split = clear
    fitted = teacher(scope=scope, training=link_training(epochs=60, lr=1e-2)).fit(pair, split)
    assert area(fitted, split) > CHANCE
    assert fitted.embed("intersection").shape == (int(pair.shared.sum()), 16)
    assert fitted.embed("target").shape == (pair.num_nodes, 16)
    if scope is None:
        asked = teacher(scope="intersection", training=link_training(epochs=60, lr=1e-2)).fit(pair, split)
        assert torch.equal(asked.score(split.test), fitted.score(split.test))


def test_vectors_are_those_of_the_model_on_the_two_graphs(data):
    pair, split = data
    fitted = teacher().fit(pair, split)
    for place in ("target", "intersection"):
        graph = pair.graph(f"enriched_{place}", without=split)
        assert torch.allclose(fitted.embed(place), encode(fitted.model, graph), atol=1e-6)
    h = fitted.embed("target")
    assert torch.allclose(fitted.score(split.test), (h[split.test[0]] * h[split.test[1]]).sum(1), atol=1e-6)


def test_full_fan_out_equals_the_whole_graph(data):
    pair, split = data
    whole = teacher().fit(pair, split)
    parts = teacher(num_neighbors=[-1, -1], batch_size=10_000).fit(pair, split)
    assert torch.allclose(parts.score(split.test), whole.score(split.test), atol=1e-5)
    assert whole.result.best_epoch == parts.result.best_epoch


def test_small_batches_of_sampled_neighbours_learn_and_follow_from_the_seed(clear):
    pair, split = clear
    options = {"num_neighbors": [3, 2], "batch_size": 16}
    first, second = (teacher(**options).fit(pair, split, seed=5) for _ in range(2))
    assert area(first, split) > CHANCE
    assert torch.equal(first.score(split.test), second.score(split.test))


def test_seed_decides_everything(data):
    pair, split = data
    torch.manual_seed(0)
    first = teacher(input_dropout=0.3).fit(pair, split, seed=1)
    torch.manual_seed(1)
    second = teacher(input_dropout=0.3).fit(pair, split, seed=1)
    other = teacher(input_dropout=0.3).fit(pair, split, seed=2)
    assert same(first.model, second.model)
    assert not same(first.model, other.model)
    of_training = teacher(input_dropout=0.3, training=link_training(epochs=10, lr=1e-2, eval_every=2, seed=2))
    assert same(of_training.fit(pair, split).model, other.model)


def test_best_epoch_is_that_of_the_validation_pairs(data):
    pair, split = data
    fitted = teacher(training=link_training(epochs=40, lr=5e-2, eval_every=1)).fit(pair, split)
    values = [entry["val"] for entry in fitted.result.history]
    assert fitted.result.val == max(values)
    assert values.index(max(values)) == fitted.result.best_epoch < 39
    now = link_average_precision(fitted.score(split.val), fitted.score(split.val_neg))
    assert now == pytest.approx(fitted.result.val)


@pytest.mark.parametrize("scope", ["intersection", "enriched_target"])
def test_no_held_out_link_is_in_any_graph_and_no_test_pair_in_the_task(data, scope, monkeypatch):
    pair, split = data
    seen = []
    derive = type(pair).graph
    monkeypatch.setattr(type(pair), "graph", lambda *args, **options: seen.append(derive(*args, **options)) or seen[-1])
    task = module.LinkTask
    made = []
    monkeypatch.setattr(module, "LinkTask", lambda *args, **options: made.append(args) or task(*args, **options))
    teacher(scope=scope).fit(pair, split)
    assert len(seen) == 2
    for graph in seen:
        assert_no_leak(split, pair, graph=graph)
    assert list(made[0][1]) == ["val"]
    assert made[0][1]["val"][0] is split.val
    assert made[0][1]["val"][1] is split.val_neg


class StopError(Exception):
    pass


@pytest.mark.parametrize("options", [{}, {"num_neighbors": [3, 2], "batch_size": 20, "links_per_epoch": 50}])
def test_killed_training_goes_on_bit_for_bit(data, tmp_path, options):
    pair, split = data

    def run(pair=pair, input_dropout=0.3, num_layers=2, **fields):
        training = link_training(epochs=10, lr=1e-2, eval_every=2, **fields)
        encoder = sage_encoder(16, num_layers, dropout=0.0)
        return LinkTeacher(encoder, input_dropout=input_dropout, training=training, **options).fit(pair, split)

    def kill(entry):
        if entry["epoch"] == 5:
            raise StopError

    whole, saved = run(), {"checkpoint": tmp_path, "checkpoint_every": 1}
    with pytest.raises(StopError):
        run(**saved, log=kill)
    assert [path.name for path in tmp_path.iterdir()] == ["teacher.pt"]
    entries = []
    again = run(**saved, log=entries.append)
    assert entries[0]["epoch"] == 5
    assert same(whole.model, again.model)
    with pytest.raises(ValueError, match="'checkpoint' .* belongs to another training: 'tag' was .*input_dropout"):
        run(input_dropout=0.2, **saved)
    x = pair.union().x.clone()
    x[: pair.num_nodes][~pair.shared] += 1  # only what the validation pairs are scored with
    with pytest.raises(ValueError, match="'checkpoint' .* belongs to another training: .*data.x"):
        run(pair.with_x(x), **saved)


def test_source_weight_0_leaves_the_links_of_the_target(data):
    pair, split = data
    fitted = teacher(source_edge_weight=0.0).fit(pair, split)
    plain = encode(fitted.model, pair.intersection(without=split))
    assert torch.allclose(fitted.embed("intersection"), plain, atol=1e-6)
    full = encode(fitted.model, pair.enriched_intersection(without=split))
    assert not torch.allclose(full, plain, atol=1e-2)


def test_source_weight_counts_links_of_the_source_less_in_the_loss(data, monkeypatch):
    pair, split = data
    made = []
    task = module.LinkTask
    monkeypatch.setattr(module, "LinkTask", lambda *args, **options: made.append(task(*args, **options)) or made[-1])
    teacher(source_edge_weight=0.3).fit(pair, split)
    graph = pair.enriched_intersection(without=split)
    origin = graph.edge_origin[graph.edge_index[0] < graph.edge_index[1]]
    assert torch.equal(made[0].weight, torch.where(origin == 2, 0.3, 1.0))


def test_source_weight_in_batches_equals_the_whole_graph(data):
    pair, split = data
    whole = teacher(source_edge_weight=0.3).fit(pair, split)
    parts = teacher(source_edge_weight=0.3, num_neighbors=[-1, -1], batch_size=10_000).fit(pair, split)
    assert torch.allclose(parts.score(split.test), whole.score(split.test), atol=1e-5)


def test_modules_are_trained_in_place_and_weights_need_one_that_takes_them(data):
    pair, split = data
    encoder = GraphSAGE(8, 16, 2)
    before = encoder.convs[0].lin_l.weight.clone()
    LinkTeacher(encoder, training=SHORT).fit(pair, split)
    assert not torch.equal(encoder.convs[0].lin_l.weight, before)
    plain = link_training(epochs=2, fast=False)
    with pytest.raises(ValueError, match="'source_edge_weight' needs an encoder .* .got GraphSAGE"):
        LinkTeacher(GraphSAGE(8, 16, 2), source_edge_weight=0.5, training=plain).fit(pair, split)
    LinkTeacher(GCN(8, 16, 2), source_edge_weight=0.5, training=plain).fit(pair, split)


def test_links_with_a_direction_are_told_from_their_opposites():
    pair, split = small_pair(directed=True)
    fitted = teacher().fit(pair, split)
    h, weight = fitted.embed(), fitted.model.decoder.weight
    expected = ((h[split.test[0]] @ weight) * h[split.test[1]]).sum(1)
    assert torch.allclose(fitted.score(split.test), expected, atol=1e-5)
    assert not torch.allclose(fitted.score(split.test), fitted.score(split.test.flip(0)), atol=1e-3)


def test_what_is_refused(data):
    pair, split = data
    with pytest.raises(RuntimeError, match="this LinkTeacher has learned nothing yet: call 'fit"):
        teacher().score(split.test)
    with pytest.raises(ValueError, match="of another pair"):
        teacher().fit(pair, small_pair(1)[1])
    fitted = teacher().fit(pair, split)
    with pytest.raises(ValueError, match="no self-loops"):
        fitted.score(torch.tensor([[1], [1]]))
    with pytest.raises(ValueError, match="'where' must be one of"):
        fitted.embed("source")
    for options, message in (
        ({"scope": "union"}, "'scope'"),
        ({"source_edge_weight": -1}, "'source_edge_weight'"),
        ({"input_dropout": 1.5}, "'input_dropout'"),
    ):
        with pytest.raises(ValueError, match=message):
            teacher(**options)
    for options in ({"batch_size": 1.5}, {"training": {"epochs": 3}}):
        with pytest.raises(TypeError, match=f"'{next(iter(options))}' must be"):
            teacher(**options)
    with pytest.raises(ValueError, match="'links_per_epoch' must be at least 1"):
        teacher(links_per_epoch=0).fit(pair, split)
    with pytest.raises(ValueError, match="'num_neighbors' must hold one fan-out per layer, 2 .got .5"):
        teacher(num_neighbors=[5]).fit(pair, split)
    with pytest.raises(TypeError, match="x' must be torch.float32, as the weights are .got torch.float64"):
        teacher().fit(pair.with_x(pair.union().x.double()), split)
    x = pair.union().x.clone()
    x[0, 0] = torch.nan
    with pytest.raises(ValueError, match="x' holds NaN"):
        teacher().fit(pair.with_x(x), split)
