import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.utils import to_undirected
from transfer_pairs import area, clear_pair, cora_pair, small_pair

from graphsparse.training import link_training
from graphsparse.training.link_task import link_average_precision
from graphsparse.transfer import (
    BASELINES,
    GITL,
    BaselineOptions,
    EdgeLabelPropagation,
    LinkTeacher,
    MLPStudent,
    SharedNodePair,
    XMCPropagation,
    assert_no_leak,
    sage_encoder,
    split_links,
)

SHORT = link_training(epochs=10, lr=1e-2, eval_every=2)


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
    first, second, other = (chain(link_training(epochs=30, lr=1e-2)).fit(pair, split, seed=seed) for seed in (4, 4, 5))
    assert area(first, split) > 0.75
    assert torch.equal(first.score(split.test), second.score(split.test))
    assert not torch.equal(first.score(split.test), other.score(split.test))


@pytest.mark.cuda
def test_graphs_on_a_gpu(device):
    pair, split = clear_pair()
    there = SharedNodePair(*(graph.to(device) for graph in (pair.source[0], pair.target)))
    kinds = {"propagation": (EdgeLabelPropagation(), XMCPropagation()), "guard": True}
    fitted = chain(link_training(epochs=12, lr=2e-2, eval_every=4), **kinds).fit(there, split)
    assert fitted.teacher.embed().device == device
    assert fitted.student.embed().device == device
    assert area(fitted, split) > 0.75


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
    def run(**fields):
        return chain(link_training(epochs=10, lr=1e-2, eval_every=2, **fields), guard=True).fit(*data)

    whole = run(checkpoint=tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["student.pt", "student_alone.pt", "teacher.pt"]
    entries = []
    again = run(checkpoint=tmp_path, log=entries.append)
    assert entries == []
    assert torch.equal(whole.score(data[1].test), again.score(data[1].test))
    assert torch.equal(whole.score(data[1].test), run().score(data[1].test))


def test_seed_of_the_training_where_none_is_given(data):
    first, second = (
        chain(link_training(epochs=10, lr=1e-2, eval_every=2, seed=seed)).fit(*data, seed=given).score(data[1].test)
        for seed, given in ((3, None), (0, 3))
    )
    assert torch.equal(first, second)


def test_guard_keeps_what_is_better_on_validation(data):
    """A teacher whose vectors outweigh all links is no use, and with hardly any weight it changes nothing."""
    pair, split = clear_pair()
    training = link_training(epochs=30, lr=1e-2)
    useless = LinkTeacher(sage_encoder(12), training=link_training(epochs=1, lr=1e-6))
    loud = MLPStudent(16, emb_weight=1e6, training=training)
    guarded = GITL(teacher=useless, student=loud, guard=True, propagation=False).fit(pair, split)
    assert guarded.kept == "student alone"
    assert guarded.validation["student alone"] > guarded.validation["student"] + 0.1
    plain = MLPStudent(16, channels=12, emb_weight=0.0, training=training).fit(pair, split)
    assert torch.equal(guarded.score(split.test), plain.score(split.test))
    assert guarded.summary().splitlines()[3].endswith(", kept")

    # The same network twice: level, so the student with the teacher stays.
    pair, split = data
    equal = MLPStudent(16, emb_weight=1e-12, training=SHORT)
    level = chain(student=equal, guard=True).fit(pair, split)
    assert level.validation["student"] == level.validation["student alone"]
    assert level.kept == "student"
    unguarded = chain().fit(pair, split)
    assert unguarded.kept == "student"
    assert "alone" not in unguarded.summary()
    assert chain(student=False).fit(pair, split).kept == "teacher"


def test_guard_needs_no_student(data):
    pair, split = data
    guarded = chain(student=False, guard=True).fit(pair, split)
    assert list(guarded.stages) == ["teacher", "teacher alone"]
    gnn = BASELINES["gnn_target"](pair, split, 0, BaselineOptions(hidden=12, training=SHORT))
    assert torch.equal(guarded.stages["teacher alone"].score(split.test), gnn.score(split.test))
    best = max(guarded.stages, key=guarded.validation.__getitem__)
    assert guarded.kept == best


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
    assert area(free, split) < 0.8
    assert area(guarded, split) > 0.9
    assert guarded.steps["XMCPropagation"].graph == "enriched_target"
    assert f"  {step.propagation!r}, target alone, kept" in guarded.summary().splitlines()


def test_what_is_refused(data):
    pair, split = data
    with pytest.raises(ValueError, match="of another pair"):
        chain().fit(pair, small_pair(1)[1])
    for ask in (lambda gitl: gitl.score(split.test), lambda gitl: gitl.summary()):
        with pytest.raises(RuntimeError, match="this GITL has learned nothing yet"):
            ask(chain())
    fitted = chain(propagation=False).fit(pair, split)
    with pytest.raises(ValueError, match="no self-loops"):
        fitted.score(torch.tensor([[3], [3]]))
    with pytest.raises(ValueError, match="'pairs'"):
        fitted.score(torch.tensor([[3], [pair.num_nodes]]))
    with pytest.raises(ValueError, match="there is nothing that scores"):
        GITL(teacher=False, student=False)
    with pytest.raises(ValueError, match="'teacher' is False, but 'student' has a weight"):
        GITL(teacher=False)
    with pytest.raises(TypeError, match="'teacher' must be True, False or LinkTeacher"):
        GITL(teacher=sage_encoder(3))
    for wrong in ("elp", [EdgeLabelPropagation(), None]):
        with pytest.raises(TypeError, match="'propagation' must be True, False, EdgeLabelPropagation or XMCProp"):
            GITL(propagation=wrong)
    with pytest.raises(ValueError, match="'propagation' must hold each kind once"):
        GITL(propagation=[XMCPropagation(), XMCPropagation(alpha=0.85)])
    with pytest.raises(TypeError, match="'guard' must be True or False .got 'no'"):
        GITL(guard="no")


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
    fitted = chain(propagation=(EdgeLabelPropagation(), XMCPropagation())).fit(pair, split)
    step = fitted.steps["XMCPropagation"]
    assert step.propagation.directed
    assert not torch.equal(step.propagation.score(split.test), step.propagation.score(split.test.flip(0)))
    assert not torch.equal(fitted.score(split.test), fitted.score(split.test.flip(0)))


@pytest.mark.bands
def test_on_cora_the_shared_nodes_help(data_root):
    """Cora with random windows, average precision in percent; margins are about half of the gains.

    Seeds differ by two points at most.
    """
    pair, split = cora_pair(data_root, 0)
    fitted = {
        name: BASELINES[name](pair, split, 0, BaselineOptions.small())
        for name in ("mlp_target", "mlp_enriched", "gnn_target", "gnn_enriched")
    }
    fitted["student"] = GITL.small(propagation=False).fit(pair, split, seed=0)
    found = {
        name: 100 * link_average_precision(scorer.score(split.test), scorer.score(split.test_neg))
        for name, scorer in fitted.items()
    }
    print({name: round(value, 1) for name, value in found.items()})
    assert found["student"] > found["mlp_target"] + 10
    assert found["student"] > found["gnn_target"] + 15
    assert found["gnn_enriched"] > found["gnn_target"] + 5
    assert found["student"] > found["mlp_enriched"]
