import torch
from torch_geometric.data import Data

from graphsparse.transfer.models.decoders import DotDecoder
from graphsparse.transfer.models.link_model import LinkModel
from graphsparse.transfer.models.student import NodeMLP
from graphsparse.transfer.models.student_task import Lesson, StudentTask, encode_nodes
from graphsparse.transfer.models.validation import Validation

X = torch.randn(20, 6, generator=torch.Generator().manual_seed(0))
LINKS = torch.tensor([[0, 1, 2, 3, 4], [5, 6, 7, 8, 19]])
VALID = Validation(torch.tensor([[10], [11]]), torch.tensor([[12], [13]]))
NODES = torch.tensor([2, 4, 9, 15])
LESSON = Lesson(
    NODES, torch.randn(4, 3, generator=torch.Generator().manual_seed(1)), torch.tensor([[0], [2]]), DotDecoder()
)


def task(weights=(1.0, 1.0, 1.0), lesson=LESSON, **options):
    return StudentTask(Data(x=X), LINKS, VALID, lesson, weights=weights, temperature=1.0, seed=0, **options)


def model():
    torch.manual_seed(0)
    return LinkModel(NodeMLP([6, 8, 3]), DotDecoder())


def test_terms_are_those_of_the_formula():
    student = model()
    (batch,) = task().batches()
    f = student(X, torch.empty(2, 0))
    h = LESSON.vectors
    scores = (f[batch.pairs[0]] * f[batch.pairs[1]]).sum(1)
    sup = torch.log1p(torch.exp(-scores[:5])).mean() + torch.log1p(torch.exp(scores[5:])).mean()
    emb = ((f[NODES] - h) ** 2).mean() / (h**2).mean()
    said = (f[NODES[batch.taught[0]]] * f[NODES[batch.taught[1]]]).sum(1)
    told = (h[batch.taught[0]] * h[batch.taught[1]]).sum(1).sigmoid()
    logit = -(told * said.sigmoid().log() + (1 - told) * (1 - said.sigmoid()).log()).mean()
    for weights, expected in (
        ((2.0, 0.0, 0.0), 2 * emb),
        ((0.0, 3.0, 0.0), 3 * logit),
        ((0.0, 0.0, 4.0), 4 * sup),
        ((2.0, 3.0, 4.0), 2 * emb + 3 * logit + 4 * sup),
    ):
        asked = task(weights)
        (own,) = asked.batches()
        assert torch.allclose(asked.loss(student, own, 0), expected, atol=1e-5)


def test_so_many_links_an_epoch_drawn_anew():
    asked = task(links_per_epoch=2)
    epochs = [batch for _ in range(8) for batch in asked.batches()]
    every = set(map(tuple, LINKS.t().tolist()))
    drawn = [frozenset(map(tuple, batch.pairs[:, :2].t().tolist())) for batch in epochs]
    assert all(len(links) == batch.num_links == 2 for links, batch in zip(drawn, epochs, strict=True))
    assert all(batch.pairs.size(1) == 2 + 3 * 2 for batch in epochs)
    assert set().union(*drawn) == every
    assert len(set(drawn)) > 1


def test_no_gradient_reaches_the_teacher():
    vectors = torch.randn(4, 3, requires_grad=True)
    asked = task(lesson=Lesson(NODES, vectors, LESSON.links, DotDecoder()))
    (batch,) = asked.batches()
    asked.loss(model(), batch, 0).backward()
    assert vectors.grad is None


def test_a_term_without_weight_changes_no_draw_of_the_others():
    with_all, alone = task(), task((0.0, 0.0, 1.0), lesson=None)
    for _ in range(3):
        ((a,), (b,)) = list(with_all.batches()), list(alone.batches())
        assert torch.equal(a.pairs, b.pairs)


def test_batches_deal_out_everything_once():
    whole, parts = task(), task(batch_size=2)
    (expected,) = whole.batches()
    batches = list(parts.batches())
    assert len(batches) == 3

    def as_list(pairs):
        return sorted(map(tuple, pairs.t().tolist()))

    links = torch.cat([b.pairs[:, : b.num_links] for b in batches], 1)
    rest = torch.cat([b.pairs[:, b.num_links :] for b in batches], 1)
    assert as_list(links) == as_list(LINKS)
    assert as_list(rest) == as_list(expected.pairs[:, 5:])
    assert torch.cat([b.nodes for b in batches]).sort().values.tolist() == [0, 1, 2, 3]
    assert as_list(torch.cat([b.taught for b in batches], 1)) == as_list(expected.taught)


def test_one_batch_of_everything_has_the_loss_of_the_whole():
    student = model()
    whole, part = task(), task(batch_size=100)
    (a,), (b,) = list(whole.batches()), list(part.batches())
    assert torch.allclose(whole.loss(student, a, 0), part.loss(student, b, 0), atol=1e-5)


def test_rows_are_encoded_in_blocks():
    student = model().train()
    student.input_dropout = 0.5
    assert torch.allclose(encode_nodes(student, X, rows=3), encode_nodes(student, X), atol=1e-6)
    assert student.training
