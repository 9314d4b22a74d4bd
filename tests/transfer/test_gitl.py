import statistics

import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.utils import to_undirected
from transfer_pairs import clear_pair, cora_pair, small_pair

from graphsparse.transfer.baselines import BASELINES, BaselineOptions
from graphsparse.transfer.data.leak import assert_no_leak
from graphsparse.transfer.data.pair import SharedNodePair
from graphsparse.transfer.data.split import split_links
from graphsparse.transfer.gitl import GITL
from graphsparse.transfer.models.link_model import sage_encoder
from graphsparse.transfer.models.link_training import LinkTraining
from graphsparse.transfer.models.student import MLPStudent
from graphsparse.transfer.models.teacher import LinkTeacher
from graphsparse.transfer.models.validation import link_auroc, link_average_precision
from graphsparse.transfer.propagation.edge_propagation import EdgeLabelPropagation
from graphsparse.transfer.propagation.xmc import XMCPropagation
from graphsparse.transfer.release_preset import release_preset

SHORT = LinkTraining(epochs=10, lr=1e-2, eval_every=2)


@pytest.fixture(scope="module")
def data():
    return small_pair()


def chain(training=SHORT, **options):
    stages = {"teacher": LinkTeacher(sage_encoder(12), training=training), "student": MLPStudent(16, training=training)}
    return GITL(**{**stages, **options})


@pytest.mark.parametrize(
    "propagation", [True, False, XMCPropagation(), [EdgeLabelPropagation(), XMCPropagation(alpha=0.85)]]
)
@pytest.mark.parametrize("leave_out", [None, "teacher", "student"])
def test_every_stage_may_be_left_out(data, propagation, leave_out):
    pair, split = data
    options = {"propagation": propagation}
    if leave_out == "teacher":
        options |= {"teacher": False, "student": MLPStudent(16, emb_weight=0.0, training=SHORT)}
    elif leave_out == "student":
        options["student"] = False
    fitted = chain(**options).fit(pair, split)
    last = fitted.teacher if leave_out == "student" else fitted.student
    scores = fitted.score(split.test)
    assert scores.shape == (split.test.size(1),)
    if fitted.weight == 0:
        assert torch.equal(scores, last.score(split.test))
    now = link_average_precision(fitted.score(split.val), fitted.score(split.val_neg))
    assert now >= last.result.val - 1e-6


def test_predicts_links_and_follows_from_the_seed():
    pair, split = clear_pair()
    first, second, other = (chain(LinkTraining(epochs=30, lr=1e-2)).fit(pair, split, seed=seed) for seed in (4, 4, 5))
    assert link_auroc(first.score(split.test), first.score(split.test_neg)) > 0.75
    assert torch.equal(first.score(split.test), second.score(split.test))
    assert not torch.equal(first.score(split.test), other.score(split.test))


@pytest.mark.cuda
def test_graphs_on_a_gpu():
    pair, split = clear_pair()
    there = SharedNodePair(*(graph.to("cuda") for graph in (pair.source[0], pair.target)))
    kinds = {"propagation": (EdgeLabelPropagation(), XMCPropagation()), "guard": True}
    fitted = chain(LinkTraining(epochs=30, lr=1e-2), **kinds).fit(there, split)
    assert fitted.teacher.embed().is_cuda
    assert fitted.student.embed().is_cuda
    assert link_auroc(fitted.score(split.test), fitted.score(split.test_neg)) > 0.75


def test_no_query_influences_another(data):
    pair, split = data
    fitted = chain(propagation=EdgeLabelPropagation(lam=0.3)).fit(pair, split)
    assert_no_leak(split, pair, score=fitted.score)


def test_summary_says_what_was_chosen(data):
    fitted = chain().fit(*data)
    lines = fitted.summary().splitlines()
    pair, split = data
    assert f"{pair.num_nodes} target nodes, {int(pair.shared.sum())} shared nodes" in lines[0]
    assert lines[1] == (
        f"  teacher: {fitted.teacher.result.val:.4f}, epoch {fitted.teacher.result.best_epoch + 1} of 10"
    )
    assert lines[-1].startswith(f"    weight {fitted.weight:g} of 0: ")
    assert fitted.validation["EdgeLabelPropagation 0"] == pytest.approx(fitted.student.result.val)
    assert "propagation: none" in chain(propagation=False).fit(pair, split).summary()


def test_checkpoints_of_all_stages(data, tmp_path):
    whole = chain().fit(*data, checkpoint=tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["student.pt", "teacher.pt"]
    entries = []
    again = chain().fit(*data, checkpoint=tmp_path, log=entries.append)
    assert entries == []
    assert torch.equal(whole.score(data[1].test), again.score(data[1].test))


def test_guard_keeps_what_is_better_on_validation(data, tmp_path):
    """With the teacher's weights that the student is given, it learns nothing of links, and with none it is alone."""
    pair, split = clear_pair()
    training = LinkTraining(epochs=30, lr=1e-2)
    useless = MLPStudent(16, emb_weight=1e-9, sup_weight=0.0, training=training)
    guarded = chain(training, student=useless, guard=True, propagation=False).fit(pair, split, checkpoint=tmp_path)
    assert guarded.kept == "student alone"
    assert guarded.validation["student alone"] > guarded.validation["student"] + 0.1
    plain = MLPStudent(16, channels=12, emb_weight=0.0, training=training).fit(pair, split)
    assert torch.equal(guarded.score(split.test), plain.score(split.test))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["student.pt", "student_alone.pt", "teacher.pt"]
    assert guarded.summary().splitlines()[3].endswith(", kept")

    # The same network twice: level, so the student with the teacher stays.
    pair, split = data
    equal = MLPStudent(16, emb_weight=1e-12, decoder="dot", training=SHORT)
    level = chain(student=equal, guard=True).fit(pair, split)
    assert level.validation["student"] == level.validation["student alone"]
    assert level.kept == "student"
    unguarded = chain().fit(pair, split)
    assert unguarded.kept == "student"
    assert "alone" not in unguarded.summary()
    assert chain(student=False).fit(pair, split).kept == "teacher"


def test_guard_leaves_the_links_of_a_misleading_source_out_of_the_propagation():
    """The target's links are within blocks; the source adds ten times as many between any two nodes."""
    generator = torch.Generator().manual_seed(0)
    key, block = torch.arange(200), torch.arange(200) % 20
    u, v = (block[:, None] == block[None, :]).nonzero().t()
    kept = (u < v) & (torch.rand(u.numel(), generator=generator) < 0.8)
    noise = torch.randint(200, (2, 7200), generator=generator)
    graphs = [
        Data(edge_index=to_undirected(edges), num_nodes=200, key=key, x=torch.rand(200, 4, generator=generator))
        for edges in (noise[:, noise[0] != noise[1]], torch.stack([u[kept], v[kept]]))
    ]
    pair = SharedNodePair(*graphs)
    split = split_links(pair, (0.6, 0.2, 0.2), hold_out="all")
    kinds = {"propagation": (EdgeLabelPropagation(), XMCPropagation())}
    free, guarded = (chain(guard=guard, **kinds).fit(pair, split) for guard in (False, True))
    names = ["EdgeLabelPropagation", "XMCPropagation"]
    assert list(free.steps) == names
    assert list(guarded.steps) == [*names, *(f"{name}, target alone" for name in names)]
    step = guarded.steps["XMCPropagation, target alone"]
    assert guarded.propagation is step.propagation is not guarded.steps["XMCPropagation"].propagation
    assert guarded.weight == step.weight > 0
    assert link_auroc(free.score(split.test), free.score(split.test_neg)) < 0.8
    assert link_auroc(guarded.score(split.test), guarded.score(split.test_neg)) > 0.9
    assert f"  {step.propagation!r}, target alone, kept" in guarded.summary().splitlines()


def test_what_is_refused(data):
    pair, split = data
    with pytest.raises(ValueError, match="of another pair"):
        chain().fit(pair, small_pair(1)[1])
    with pytest.raises(RuntimeError, match="nothing has been learned yet"):
        chain().score(split.test)
    with pytest.raises(RuntimeError, match="nothing has been learned yet"):
        chain().summary()
    fitted = chain(propagation=False).fit(pair, split)
    with pytest.raises(ValueError, match="no self-loops"):
        fitted.score(torch.tensor([[3], [3]]))
    with pytest.raises(ValueError, match="'pairs'"):
        fitted.score(torch.tensor([[3], [pair.num_nodes]]))
    with pytest.raises(ValueError, match="there is nothing that scores"):
        GITL(teacher=False, student=False)
    with pytest.raises(ValueError, match="'teacher' is False, but 'student' has a weight"):
        GITL(teacher=False)
    for options in ({"student": False}, {"teacher": False, "student": MLPStudent(emb_weight=0.0)}):
        with pytest.raises(ValueError, match="'guard' is True, but there is no 'student'"):
            GITL(**options, guard=True)
    with pytest.raises(ValueError, match="'grid' must hold 0"):
        GITL(grid=(0.1, 1.0))
    with pytest.raises(TypeError, match="'teacher' must be True, False or LinkTeacher"):
        GITL(teacher=sage_encoder(3))
    for wrong in ("elp", [EdgeLabelPropagation(), None]):
        with pytest.raises(TypeError, match="'propagation' must be True, False, EdgeLabelPropagation or XMCProp"):
            GITL(propagation=wrong)
    with pytest.raises(ValueError, match="'propagation' must not be transductive"):
        GITL(propagation=release_preset())
    with pytest.raises(ValueError, match="'propagation' must hold each kind once"):
        GITL(propagation=[XMCPropagation(), XMCPropagation(alpha=0.85)])
    with pytest.raises(ValueError, match="'grid' must be"):
        GITL(grid=(0, 3))
    for options, message in (
        ({"grid": ("0", 1)}, "'grid' must be a number"),
        ({"grid": 0.5}, "'grid' must hold numbers .got 0.5 of type float"),
        ({"guard": "no"}, "'guard' must be True or False .got 'no'"),
    ):
        with pytest.raises(TypeError, match=message):
            GITL(**options)
    assert GITL(propagation=XMCPropagation(), grid=(3, 0)).grid == [0, 3]


@pytest.mark.parametrize("order", [1, -1])
def test_the_better_propagation_is_taken(order):
    pair, split = clear_pair()
    both = [EdgeLabelPropagation(), XMCPropagation()][::order]
    fitted = chain(propagation=both).fit(pair, split)
    alone = {type(one).__name__: chain(propagation=one).fit(pair, split) for one in both}
    now = {name: one.validation[f"{name} {one.weight:g}"] for name, one in alone.items()}
    best = max(now, key=now.__getitem__)
    assert len(set(now.values())) == 2
    assert type(fitted.propagation).__name__ == best
    assert fitted.weight == alone[best].weight > 0
    assert torch.equal(fitted.score(split.test), alone[best].score(split.test))
    lines = fitted.summary().splitlines()
    assert [type(one).__name__ in line for one, line in zip(both, lines[3::2], strict=True)] == [True, True]
    assert [line.endswith(", kept") for line in lines[3::2]] == [type(one).__name__ == best for one in both]


def test_links_with_a_direction():
    pair, split = small_pair(directed=True)
    teacher = LinkTeacher(sage_encoder(12), decoder="bilinear", training=SHORT)
    options = {"teacher": teacher, "student": False}
    with pytest.raises(ValueError, match=r"'propagation' must be XMCPropagation\(directed=True\)"):
        GITL(**options, propagation=XMCPropagation()).fit(pair, split)
    with pytest.raises(ValueError, match=r"'propagation' must be XMCPropagation\(directed=False\)"):
        GITL(**options, propagation=XMCPropagation(directed=True)).fit(*small_pair())
    propagation = XMCPropagation(directed=True)
    GITL(**options, propagation=propagation).fit(pair, split)
    assert not torch.equal(propagation.score(split.test), propagation.score(split.test.flip(0)))


@pytest.mark.bands
def test_on_cora_the_shared_nodes_help(data_root):
    """Cora with random windows, mean of 2 seeds, average precision in percent; margins are about half of the gains."""
    found = {name: [] for name in ("student", "mlp_target", "mlp_enriched", "gnn_target", "gnn_enriched")}
    for seed in range(2):
        pair, split = cora_pair(data_root, seed)
        options = BaselineOptions.small()
        for name, row in found.items():
            if name == "student":
                scorer = GITL.small(propagation=False).fit(pair, split, seed=seed)
            else:
                scorer = BASELINES[name](pair, split, seed, options)
            row.append(100 * link_average_precision(scorer.score(split.test), scorer.score(split.test_neg)))
    mean = {name: statistics.fmean(row) for name, row in found.items()}
    print({name: [round(value, 1) for value in row] for name, row in found.items()})
    assert mean["student"] > mean["mlp_target"] + 10
    assert mean["student"] > mean["gnn_target"] + 15
    assert mean["gnn_enriched"] > mean["gnn_target"] + 5
    assert mean["student"] > mean["mlp_enriched"]
