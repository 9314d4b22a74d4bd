import pytest
import torch
from torch_geometric.nn import GCN, GraphSAGE
from transfer_pairs import clear_pair, small_pair

import graphsparse.transfer.models.teacher as module
from graphsparse.transfer.data.leak import assert_no_leak
from graphsparse.transfer.models.link_model import encode, sage_encoder
from graphsparse.transfer.models.link_training import LinkTraining
from graphsparse.transfer.models.teacher import LinkTeacher
from graphsparse.transfer.models.validation import link_auroc, link_average_precision
from graphsparse.typing import has_module

NEEDS = pytest.mark.skipif(not (has_module("torch_sparse") or has_module("pyg_lib")), reason="PyG's sampler needs it")
CHANCE = 0.65  # four standard errors of the area of random scores above its mean, for 72 links and 360 non-links
SHORT = LinkTraining(epochs=10, lr=1e-2, eval_every=2)


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


@pytest.mark.parametrize("scope", ["intersection", "enriched_target"])
@pytest.mark.parametrize("decoder", ["dot", "bilinear", "mlp", "concat"])
def test_every_scope_and_decoder_learns(clear, scope, decoder):
    pair, split = clear
    fitted = teacher(scope=scope, decoder=decoder, training=LinkTraining(epochs=60, lr=1e-2)).fit(pair, split)
    assert link_auroc(fitted.score(split.test), fitted.score(split.test_neg)) > CHANCE
    assert fitted.embed("intersection").shape == (int(pair.shared.sum()), 16)
    assert fitted.embed("target").shape == (pair.num_nodes, 16)


@pytest.mark.parametrize("sampler", ["graphsparse", pytest.param("pyg", marks=NEEDS)])
@pytest.mark.parametrize("mask", [0.0, 0.3])
def test_full_fan_out_equals_the_whole_graph(data, sampler, mask):
    pair, split = data
    whole = teacher(mask_supervision_ratio=mask).fit(pair, split)
    parts = teacher(mask_supervision_ratio=mask, num_neighbors=[-1, -1], batch_size=10_000, sampler=sampler)
    parts.fit(pair, split)
    assert torch.allclose(parts.score(split.test), whole.score(split.test), atol=1e-5)
    assert whole.result.best_epoch == parts.result.best_epoch


@pytest.mark.parametrize("sampler", ["graphsparse", pytest.param("pyg", marks=NEEDS)])
def test_small_batches_of_sampled_neighbours_learn_and_follow_from_the_seed(clear, sampler):
    pair, split = clear
    options = {"num_neighbors": [3, 2], "batch_size": 16, "sampler": sampler}
    first, second = (teacher(**options).fit(pair, split, seed=5) for _ in range(2))
    assert link_auroc(first.score(split.test), first.score(split.test_neg)) > CHANCE
    if sampler == "graphsparse":  # the compiled sampler of PyG has a generator of its own
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


def test_best_epoch_is_that_of_the_validation_pairs(data):
    pair, split = data
    fitted = teacher(training=LinkTraining(epochs=40, lr=5e-2, eval_every=1)).fit(pair, split)
    values = [entry["val"] for entry in fitted.result.history]
    assert fitted.result.val == max(values)
    assert values.index(max(values)) == fitted.result.best_epoch < 39
    now = link_average_precision(fitted.score(split.val), fitted.score(split.val_neg))
    assert now == pytest.approx(fitted.result.val)


@pytest.mark.parametrize("scope", ["intersection", "enriched_target"])
def test_no_held_out_link_is_in_any_graph(data, scope, monkeypatch):
    pair, split = data
    seen = []
    task = module.LinkTask
    monkeypatch.setattr(module, "LinkTask", lambda *args, **options: seen.append(args) or task(*args, **options))
    fitted = teacher(scope=scope).fit(pair, split)
    for graph in (*seen[0][:2], fitted.graph("target"), fitted.graph("intersection")):
        assert_no_leak(split, pair, graph=graph)
    validation = seen[0][2]
    assert validation.positive is split.val
    assert validation.negative is split.val_neg


class StopError(Exception):
    pass


@pytest.mark.parametrize("options", [{}, {"num_neighbors": [3, 2], "batch_size": 20, "mask_supervision_ratio": 0.2}])
def test_killed_training_goes_on_bit_for_bit(data, tmp_path, options, monkeypatch):
    pair, split = data
    whole = teacher(input_dropout=0.3, **options).fit(pair, split)
    monkeypatch.setattr("graphsparse.training.checkpoint.SECONDS", 0)
    monkeypatch.setattr("graphsparse.training.checkpoint.TIMES", 0)

    def kill(entry):
        if entry["epoch"] == 5:
            raise StopError

    file = tmp_path / "teacher.pt"
    with pytest.raises(StopError):
        teacher(input_dropout=0.3, **options).fit(pair, split, checkpoint=file, log=kill)
    entries = []
    again = teacher(input_dropout=0.3, **options).fit(pair, split, checkpoint=file, log=entries.append)
    assert entries[0]["epoch"] == 5
    assert same(whole.model, again.model)
    with pytest.raises(ValueError, match="'checkpoint' .* belongs to another training: .*num_neg"):
        teacher(input_dropout=0.3, num_neg=2, **options).fit(pair, split, checkpoint=file)
    x = pair.union().x.clone()
    x[: pair.num_nodes][~pair.shared] += 1  # only what the validation pairs are scored with
    with pytest.raises(ValueError, match="'checkpoint' .* belongs to another training: .*target.x"):
        teacher(input_dropout=0.3, **options).fit(pair.with_x(x), split, checkpoint=file)


def test_source_weight_0_leaves_the_links_of_the_target(data):
    pair, split = data
    fitted = teacher(source_edge_weight=0.0).fit(pair, split)
    plain = encode(fitted.model, pair.intersection(without=split))
    assert torch.allclose(fitted.embed("intersection"), plain, atol=1e-6)
    full = encode(fitted.model, pair.enriched_intersection(without=split))
    assert not torch.allclose(full, plain, atol=1e-2)


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
    with pytest.raises(ValueError, match="needs an encoder that takes edge weights"):
        LinkTeacher(GraphSAGE(8, 16, 2), source_edge_weight=0.5, accelerate=False, training=SHORT).fit(pair, split)
    LinkTeacher(GCN(8, 16, 2), source_edge_weight=0.5, accelerate=False, training=SHORT).fit(pair, split)


def test_directed_links_need_a_decoder_that_tells_directions():
    pair, split = small_pair(directed=True)
    with pytest.raises(ValueError, match="'decoder' must be 'bilinear' or 'concat'"):
        teacher().fit(pair, split)
    fitted = teacher(decoder="bilinear").fit(pair, split)
    assert not torch.allclose(fitted.score(split.test), fitted.score(split.test.flip(0)), atol=1e-3)


def test_what_is_refused(data):
    pair, split = data
    with pytest.raises(RuntimeError, match="call 'fit"):
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
        ({"num_neg": 0}, "'num_neg'"),
        ({"mask_supervision_ratio": 1.5}, "'mask_supervision_ratio'"),
        ({"source_edge_weight": -1}, "'source_edge_weight'"),
        ({"sampler": "dgl"}, "'sampler'"),
        ({"decoder": "cosine"}, "'decoder'"),
    ):
        with pytest.raises(ValueError, match=message):
            teacher(**options)
    for options in ({"num_neg": 2.5}, {"batch_size": 1.5}, {"training": {"epochs": 3}}):
        with pytest.raises(TypeError, match=f"'{next(iter(options))}' must be"):
            teacher(**options)
    with pytest.raises(ValueError, match="'num_neighbors' must hold one fan-out per layer, 2 .got .5"):
        teacher(num_neighbors=[5]).fit(pair, split)
    with pytest.raises(TypeError, match="'x' must be torch.float32, as the weights are .got torch.float64"):
        teacher().fit(pair.with_x(pair.union().x.double()), split)


def test_chunks_change_no_score(data):
    pair, split = data
    whole, parts = (teacher(chunk_size=size).fit(pair, split) for size in (1 << 16, 7))
    assert torch.allclose(whole.score(split.test_neg), parts.score(split.test_neg), atol=1e-6)
