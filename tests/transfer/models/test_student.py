import copy

import pytest
import torch
from torch_geometric.data import Data
from transfer_pairs import area, clear_pair, small_pair

import graphsparse.transfer.models.student as module
from graphsparse.metrics import auroc
from graphsparse.nn.link_decoders import DotDecoder
from graphsparse.training import link_training
from graphsparse.training.link_task import link_loss
from graphsparse.transfer import LinkTeacher, MLPStudent, SharedNodePair, sage_encoder, split_links
from graphsparse.transfer.models.link_model import LinkModel
from graphsparse.transfer.models.student import NodeMLP, StudentTask, encode_rows

SHORT = link_training(epochs=10, lr=1e-2, eval_every=2)


@pytest.fixture(scope="module")
def data():
    return small_pair()


@pytest.fixture(scope="module")
def teacher(data):
    return LinkTeacher(sage_encoder(12), training=SHORT).fit(*data)


def student(**options):
    return MLPStudent(16, **{"training": SHORT, **options})


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_loss_is_that_of_the_formula():
    generator = torch.Generator().manual_seed(0)
    x, taught, nodes = torch.randn(20, 6, generator=generator), torch.randn(4, 3, generator=generator), [2, 4, 9, 15]
    links = torch.tensor([[0, 1, 2, 3, 4], [5, 6, 7, 8, 19]])
    pairs = {"val": (torch.tensor([[10], [11]]), torch.tensor([[12], [13]]))}
    model = LinkModel(NodeMLP([6, 8, 3]), DotDecoder())
    graph = Data(x=x, edge_index=torch.cat([links, links.flip(0)], 1))
    for weight in (1.0, 2.5):
        task = StudentTask(graph, pairs, (torch.tensor(nodes), taught), weight)
        (batch,) = task.batches()
        f = model(x, torch.empty(2, 0))
        scores = (f[batch.pairs[0]] * f[batch.pairs[1]]).sum(1)
        emb = ((f[nodes] - taught) ** 2).sum() / (taught**2).sum()
        expected = link_loss(scores[:5], scores[5:]) + weight * emb
        assert torch.allclose(task.loss(model, batch, None), expected, atol=1e-5)
        assert torch.equal(batch.pairs[:, :5], links)
    alone = StudentTask(graph, pairs, None)
    (own,) = alone.batches()
    assert torch.equal(own.pairs, batch.pairs)  # a teacher changes no draw
    assert torch.allclose(alone.loss(model, own, None), link_loss(scores[:5], scores[5:]), atol=1e-5)


def test_without_the_term_of_the_teacher_it_is_the_plain_network_bit_for_bit(data, teacher):
    options = {"emb_weight": 0.0, "channels": 12}
    taught = student(**options).fit(*data, teacher, seed=3)
    plain = student(**options).fit(*data, seed=3)
    assert same(taught.model, plain.model)
    assert torch.equal(taught.score(data[1].test), plain.score(data[1].test))


@pytest.mark.parametrize("directed", [False, True])
def test_the_teacher_stays_as_it_is(directed):
    pair, split = small_pair(directed=directed)
    teacher = LinkTeacher(sage_encoder(12), training=SHORT).fit(pair, split)
    before, vectors = copy.deepcopy(teacher.model), teacher.embed("intersection").clone()
    scores = teacher.score(split.test)
    fitted = student().fit(pair, split, teacher)
    assert same(before, teacher.model)
    assert torch.equal(teacher.embed("intersection"), vectors)
    assert torch.equal(teacher.score(split.test), scores)
    assert all(p.grad is None for p in teacher.model.parameters())
    if directed:  # a copy of the decoder, which learns on
        assert not torch.equal(fitted.model.decoder.weight, teacher.model.decoder.weight)


def test_a_linear_student_of_a_teacher_that_gives_features_learns_them_exactly(data):
    class Features(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(()))

        def forward(self, x, edge_index):
            return x * self.scale

    pair, split = data
    teacher = LinkTeacher(Features(), training=link_training(epochs=1)).fit(pair, split)
    training = link_training(epochs=800, lr=2e-2, eval_every=800, optimizer=None)
    linear = student(num_layers=1, emb_weight=1e6, input_dropout=0.0, training=training).fit(pair, split, teacher)
    assert torch.allclose(linear.embed(), teacher.embed("target"), atol=1e-2)


def test_learns_more_with_a_teacher_than_without_and_serves_nodes_without_links():
    pair, split = clear_pair()
    training = link_training(epochs=40, lr=1e-2)
    teacher = LinkTeacher(sage_encoder(16), training=training).fit(pair, split)
    fitted = student(training=training).fit(pair, split, teacher)
    graph = pair.graph("target", without=split)
    isolated = torch.bincount(graph.edge_index[0], minlength=pair.num_nodes) == 0
    cold = [pairs[:, isolated[pairs].any(0)] for pairs in (split.test, split.test_neg)]
    assert min(pairs.size(1) for pairs in cold) > 20
    scores = [fitted.score(pairs) for pairs in cold]
    assert auroc(torch.cat(scores), torch.arange(sum(map(len, scores))) < len(scores[0])) > 0.75
    assert area(fitted, split) > area(student(training=training, emb_weight=0.0).fit(pair, split), split)
    assert torch.allclose(fitted.embed(pair.target.x[:5]), fitted.embed()[:5], atol=1e-6)


def test_no_edge_is_read_when_nodes_are_encoded(data, teacher):
    pair, split = data
    fitted = student().fit(pair, split, teacher)
    shuffled = pair.target.x[torch.randperm(pair.num_nodes, generator=torch.Generator().manual_seed(0))]
    order = torch.randperm(pair.num_nodes, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(fitted.embed(shuffled), fitted.embed()[order], atol=1e-6)


def test_rows_are_encoded_in_blocks(monkeypatch):
    model, graph = LinkModel(NodeMLP([6, 8, 3]), DotDecoder(), input_dropout=0.5).train(), Data(x=torch.randn(20, 6))
    whole = encode_rows(model, graph)
    monkeypatch.setattr(module, "_ROWS", 3)
    assert torch.allclose(encode_rows(model, graph), whole, atol=1e-6)
    assert model.training


def test_links_of_the_enriched_target_and_only_so_many(data):
    pair, split = data
    options = ({}, {"supervise_on": "enriched_target"}, {"links_per_epoch": 10}, {"links_per_epoch": 10**6})
    first, *others, last = [student(emb_weight=0.0, **given).fit(pair, split).embed() for given in options]
    assert not any(torch.equal(first, other) for other in others)
    assert torch.equal(first, last)


class StopError(Exception):
    pass


def test_killed_training_goes_on_bit_for_bit(data, teacher, tmp_path):
    def run(teacher=teacher, **fields):
        training = link_training(epochs=10, lr=1e-2, eval_every=2, **fields)
        return student(links_per_epoch=20, training=training).fit(*data, teacher)

    def kill(entry):
        if entry["epoch"] == 5:
            raise StopError

    whole, saved = run(), {"checkpoint": tmp_path, "checkpoint_every": 1}
    with pytest.raises(StopError):
        run(**saved, log=kill)
    assert [path.name for path in tmp_path.iterdir()] == ["student.pt"]
    assert torch.equal(whole.embed(), run(**saved).embed())
    other = LinkTeacher(sage_encoder(12), training=SHORT).fit(*data, seed=9)
    with pytest.raises(ValueError, match="belongs to another training: 'lesson.vectors'"):
        run(other, **saved)


def test_another_source_is_another_training(data, teacher, tmp_path):
    pair, split = data
    source = pair.source[0].clone()
    source.edge_index = source.edge_index[:, : source.num_edges // 2]
    other = SharedNodePair(source, pair.target)
    assert other.fingerprint == pair.fingerprint
    training = link_training(epochs=4, checkpoint=tmp_path)
    options = {"emb_weight": 0.0, "supervise_on": "enriched_target", "training": training}
    student(**options).fit(pair, split)
    with pytest.raises(ValueError, match="belongs to another training: 'data.edge_index'"):
        student(**options).fit(other, split)
    with pytest.raises(ValueError, match="'teacher' was fitted on another source"):
        student().fit(other, split, teacher)


def test_what_is_refused(data, teacher):
    pair, split = data
    with pytest.raises(ValueError, match="'teacher' is missing"):
        student().fit(pair, split)
    with pytest.raises(RuntimeError, match="this LinkTeacher has learned nothing yet"):
        student().fit(pair, split, LinkTeacher())
    with pytest.raises(ValueError, match="'channels' must be 12"):
        student(channels=5).fit(pair, split, teacher)
    with pytest.raises(ValueError, match="'teacher' was fitted on another target"):
        student().fit(*small_pair(1), teacher)
    with pytest.raises(ValueError, match="of another pair"):
        student(emb_weight=0.0).fit(pair, small_pair(1)[1])
    with pytest.raises(ValueError, match="'teacher' was fitted on another split"):
        student().fit(pair, split_links(pair, seed=7), teacher)
    with pytest.raises(RuntimeError, match="this MLPStudent has learned nothing yet"):
        student().score(split.test)
    for options, message in (
        ({"supervise_on": "source"}, "'supervise_on'"),
        ({"dropout": 2.0}, "'dropout'"),
        ({"emb_weight": -1.0}, "'emb_weight'"),
        ({"channels": 0}, "'channels'"),
    ):
        with pytest.raises(ValueError, match=message):
            student(**options)
    for options in ({"num_layers": 1.5}, {"training": {"epochs": 3}}):
        with pytest.raises(TypeError, match=f"'{next(iter(options))}' must be"):
            student(**options)
    with pytest.raises(TypeError, match="x' must be torch.float32"):
        student(emb_weight=0.0).fit(pair.with_x(pair.union().x.double()), split)


def test_without_a_link_in_the_target_there_is_nothing_to_learn_without_a_teacher():
    edges = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 4]])
    source = Data(x=torch.randn(6, 4), edge_index=edges, key=torch.arange(6))
    target = Data(x=torch.randn(10, 4), edge_index=torch.tensor([[0, 1, 2, 7], [6, 7, 8, 9]]), key=torch.arange(10))
    pair = SharedNodePair(source, target)
    split = split_links(pair, ratios=(0.0, 0.5, 0.5))
    with pytest.raises(ValueError, match="the training graph has no link to learn from"):
        student(emb_weight=0.0).fit(pair, split)
    teacher = LinkTeacher(sage_encoder(8), training=SHORT).fit(pair, split)
    assert student().fit(pair, split, teacher).score(split.test).shape == (2,)
