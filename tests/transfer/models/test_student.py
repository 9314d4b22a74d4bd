import copy

import pytest
import torch
from torch_geometric.data import Data
from transfer_pairs import clear_pair, small_pair

from graphsparse.transfer.data.pair import SharedNodePair
from graphsparse.transfer.data.split import split_links
from graphsparse.transfer.models.link_model import sage_encoder
from graphsparse.transfer.models.link_training import LinkTraining
from graphsparse.transfer.models.student import MLPStudent
from graphsparse.transfer.models.teacher import LinkTeacher
from graphsparse.transfer.models.validation import link_auroc

SHORT = LinkTraining(epochs=10, lr=1e-2, eval_every=2)


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


def test_without_the_terms_of_the_teacher_it_is_the_plain_network_bit_for_bit(data, teacher):
    options = {"emb_weight": 0.0, "logit_weight": 0.0, "channels": 12}
    taught = student(**options).fit(*data, teacher, seed=3)
    plain = student(**options).fit(*data, seed=3)
    assert same(taught.model, plain.model)
    assert torch.equal(taught.score(data[1].test), plain.score(data[1].test))


@pytest.mark.parametrize("decoder", ["dot", "mlp"])
@pytest.mark.parametrize("place", ["intersection", "target"])
def test_the_teacher_stays_as_it_is(data, decoder, place):
    teacher = LinkTeacher(sage_encoder(12), decoder, training=SHORT).fit(*data)
    before, vectors = copy.deepcopy(teacher.model), teacher.embed(place).clone()
    fitted = student(logit_weight=0.5, distil_on=place).fit(*data, teacher)
    assert same(before, teacher.model)
    assert torch.equal(teacher.embed(place), vectors)
    assert all(p.grad is None for p in teacher.model.parameters())
    if decoder == "mlp":  # a copy, which learns on
        assert fitted.model.decoder.last.weight is not teacher.model.decoder.last.weight
        assert not torch.equal(fitted.model.decoder.last.weight, teacher.model.decoder.last.weight)


def test_a_linear_student_of_a_teacher_that_gives_features_learns_them_exactly(data):
    class Features(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(()))

        def forward(self, x, edge_index):
            return x * self.scale

    pair, split = data
    teacher = LinkTeacher(Features(), normalize=False, training=LinkTraining(epochs=1)).fit(pair, split)
    losses = []
    linear = student(
        num_layers=1,
        sup_weight=0.0,
        input_dropout=0.0,
        normalize=False,
        training=LinkTraining(epochs=800, lr=2e-2, eval_every=800, clip=None),
    )
    linear.fit(pair, split, teacher, log=lambda entry: losses.append(entry["loss"]))
    assert losses[-1] < 1e-6
    assert torch.allclose(linear.embed(), teacher.embed("target"), atol=1e-2)


def test_learns_more_with_a_teacher_than_without_and_serves_nodes_without_links():
    pair, split = clear_pair()
    training = LinkTraining(epochs=40, lr=1e-2)
    teacher = LinkTeacher(sage_encoder(16), training=training).fit(pair, split)
    fitted = student(training=training).fit(pair, split, teacher)
    graph = pair.graph("target", without=split)
    isolated = torch.bincount(graph.edge_index[0], minlength=pair.num_nodes) == 0
    cold = [pairs[:, isolated[pairs].any(0)] for pairs in (split.test, split.test_neg)]
    assert min(pairs.size(1) for pairs in cold) > 20
    assert link_auroc(*map(fitted.score, cold)) > 0.75
    assert torch.allclose(fitted.embed(pair.target.x[:5]), fitted.embed()[:5], atol=1e-6)


def test_no_edge_is_read_when_pairs_are_scored(data, teacher):
    pair, split = data
    fitted = student().fit(pair, split, teacher)
    found = fitted.score(split.test)
    fitted._vectors = None
    pair.target.edge_index, kept = pair.target.edge_index[:, :0], pair.target.edge_index
    try:
        assert torch.equal(fitted.score(split.test), found)
    finally:
        pair.target.edge_index = kept


def test_batches_learn_and_follow_from_the_seed(data, teacher):
    first, second = (student(batch_size=8, logit_weight=0.1).fit(*data, teacher, seed=2) for _ in range(2))
    assert torch.equal(first.embed(), second.embed())
    assert first.result.history[-1]["loss"] < first.result.history[0]["loss"]


def test_one_batch_of_everything_equals_the_whole(data, teacher):
    options = {"dropout": 0.0, "input_dropout": 0.0, "logit_weight": 0.3}
    whole = student(**options).fit(*data, teacher)
    part = student(batch_size=10_000, **options).fit(*data, teacher)
    assert torch.allclose(whole.embed(), part.embed(), atol=1e-4)


def test_links_of_the_enriched_target(data):
    pair, split = data
    sizes = []
    for name in ("target", "enriched_target"):
        fitted = student(emb_weight=0.0, supervise_on=name).fit(pair, split)
        sizes.append(fitted.embed())
    assert not torch.equal(*sizes)


class StopError(Exception):
    pass


def test_killed_training_goes_on_bit_for_bit(data, teacher, tmp_path, monkeypatch):
    whole = student(batch_size=8, logit_weight=0.1).fit(*data, teacher)
    monkeypatch.setattr("graphsparse.training.checkpoint.SECONDS", 0)
    monkeypatch.setattr("graphsparse.training.checkpoint.TIMES", 0)

    def kill(entry):
        if entry["epoch"] == 5:
            raise StopError

    file = tmp_path / "student.pt"
    with pytest.raises(StopError):
        student(batch_size=8, logit_weight=0.1).fit(*data, teacher, checkpoint=file, log=kill)
    again = student(batch_size=8, logit_weight=0.1).fit(*data, teacher, checkpoint=file)
    assert torch.equal(whole.embed(), again.embed())
    other = LinkTeacher(sage_encoder(12), training=SHORT).fit(*data, seed=9)
    with pytest.raises(ValueError, match="belongs to another training: 'lesson.vectors'"):
        student(batch_size=8, logit_weight=0.1).fit(*data, other, checkpoint=file)


def test_another_source_is_another_training(data, teacher, tmp_path):
    pair, split = data
    source = pair.source[0].clone()
    source.edge_index = source.edge_index[:, : source.num_edges // 2]
    other = SharedNodePair(source, pair.target)
    assert other.fingerprint == pair.fingerprint
    options, file = {"emb_weight": 0.0, "supervise_on": "enriched_target"}, tmp_path / "student.pt"
    student(**options).fit(pair, split, checkpoint=file)
    with pytest.raises(ValueError, match="belongs to another training: 'links'"):
        student(**options).fit(other, split, checkpoint=file)
    with pytest.raises(ValueError, match="'teacher' was fitted on another source"):
        student().fit(other, split, teacher)


def test_what_is_refused(data, teacher):
    pair, split = data
    with pytest.raises(ValueError, match="'teacher' is missing"):
        student().fit(pair, split)
    with pytest.raises(RuntimeError, match="the teacher has learned nothing yet"):
        student().fit(pair, split, LinkTeacher())
    with pytest.raises(ValueError, match="'channels' must be 12"):
        student(channels=5).fit(pair, split, teacher)
    with pytest.raises(ValueError, match="another pair"):
        student().fit(*small_pair(1), teacher)
    again = split_links(pair, seed=7)
    with pytest.raises(ValueError, match="'teacher' was fitted on another pair or another split"):
        student().fit(pair, again, teacher)
    with pytest.raises(RuntimeError, match="the student has learned nothing yet"):
        student().score(split.test)
    for options, message in (
        ({"emb_weight": 0.0, "sup_weight": 0.0}, "are all 0"),
        ({"temperature": 0.0}, "'temperature'"),
        ({"distil_on": "union"}, "'distil_on'"),
        ({"supervise_on": "source"}, "'supervise_on'"),
        ({"dropout": 2.0}, "'dropout'"),
        ({"batch_size": 0}, "'batch_size'"),
        ({"channels": 0}, "'channels'"),
    ):
        with pytest.raises(ValueError, match=message):
            student(**options)
    for options in ({"num_layers": 1.5}, {"num_neg": 2.5}, {"batch_size": 1.5}, {"training": {"epochs": 3}}):
        with pytest.raises(TypeError, match=f"'{next(iter(options))}' must be"):
            student(**options)
    with pytest.raises(TypeError, match="'x' must be torch.float32"):
        student(emb_weight=0.0).fit(pair.with_x(pair.union().x.double()), split)


def test_without_a_link_in_the_target_there_is_nothing_to_learn_without_a_teacher():
    edges = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 4]])
    source = Data(x=torch.randn(6, 4), edge_index=edges, key=torch.arange(6))
    target = Data(x=torch.randn(10, 4), edge_index=torch.tensor([[0, 1, 2, 7], [6, 7, 8, 9]]), key=torch.arange(10))
    pair = SharedNodePair(source, target)
    split = split_links(pair, ratios=(0.0, 0.5, 0.5))
    with pytest.raises(ValueError, match="'split.train' leaves no link"):
        student(emb_weight=0.0).fit(pair, split)
    teacher = LinkTeacher(sage_encoder(8), training=SHORT).fit(pair, split)
    assert student(sup_weight=0.0).fit(pair, split, teacher).score(split.test).shape == (2,)
