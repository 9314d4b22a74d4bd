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
from graphsparse.transfer import gitl as module
from graphsparse.transfer.propagation.step import PropagationStep

SHORT = link_training(epochs=10, lr=1e-2, eval_every=2)
RULES = ("cosine", "pagerank", "resource_allocation", "preferential_attachment")


@pytest.fixture(scope="module")
def data():
    return small_pair()


def gitl(*names, training=SHORT, **options):
    stages = {"teacher": LinkTeacher(sage_encoder(12), training=training), "student": MLPStudent(16, training=training)}
    return GITL(names or None, **{**stages, **options})


def on_validation(scorer, split):
    return link_average_precision(scorer.score(split.val), scorer.score(split.val_neg))


def blocks_pair(num=200, size=10, noise=0, share=0.8, seed=0):
    """The target's links are within blocks; the source has ``noise`` links between any two nodes. Features are none of
    both."""
    generator = torch.Generator().manual_seed(seed)
    key, block = torch.arange(num), torch.arange(num) % (num // size)
    u, v = (block[:, None] == block[None, :]).nonzero().t()
    kept = (u < v) & (torch.rand(u.numel(), generator=generator) < share)
    any_two = torch.randint(num, (2, noise), generator=generator)
    graphs = [
        Data(edge_index=to_undirected(edges), num_nodes=num, key=key, x=torch.rand(num, 4, generator=generator))
        for edges in (any_two[:, any_two[0] != any_two[1]], torch.stack([u[kept], v[kept]]))
    ]
    pair = SharedNodePair(*graphs)
    return pair, split_links(pair, (0.6, 0.2, 0.2), hold_out="all")


def mixed_pair(num=300):
    """Links are within blocks, which the target's links tell, and between similar features, in equal shares."""
    generator = torch.Generator().manual_seed(0)
    x = torch.nn.functional.normalize(torch.randn(num, 3, generator=generator))
    block = torch.arange(num) % (num // 10)
    near = (x @ x.t() > 0.97) & (torch.rand(num, num, generator=generator) < 0.5)
    same = (block[:, None] == block[None, :]) & (torch.rand(num, num, generator=generator) < 0.5)
    edges = (near | same).triu(1).nonzero().t()
    graph = Data(x=x, edge_index=to_undirected(edges), key=torch.arange(num), num_nodes=num)
    pair = SharedNodePair(graph, graph)
    return pair, split_links(pair, (0.4, 0.3, 0.3), hold_out="all")


@pytest.mark.parametrize(
    "names", [(), RULES, ("teacher", "pagerank"), ("student", "mlp_target+edge_labels", "mlp_target")]
)
@pytest.mark.parametrize("make", [small_pair, clear_pair, blocks_pair, mixed_pair])
def test_never_below_the_best_candidate_on_validation(make, names):
    pair, split = make()
    fitted = gitl(*names, settings=BaselineOptions(hidden=8, student_hidden=8, student_training=SHORT)).fit(pair, split)
    own = {name: on_validation(fitted.fitted[name], split) for name in names or GITL.CANDIDATES}
    for name, value in own.items():
        assert fitted.validation[name] == pytest.approx(value, abs=1e-6)
    assert fitted.validation["GITL"] == pytest.approx(on_validation(fitted, split), abs=1e-6)
    assert on_validation(fitted, split) >= max(own.values()) - 1e-6
    if len(fitted.kept) == 1:
        assert torch.equal(fitted.score(split.test), fitted.fitted[max(own, key=own.__getitem__)].score(split.test))


def test_rules_that_say_different_things_are_added_up():
    pair, split = mixed_pair()
    fitted = gitl(*RULES).fit(pair, split)
    assert {"cosine", "pagerank"} <= set(fitted.kept)
    best = max(link_average_precision(*map(fitted.fitted[n].score, (split.test, split.test_neg))) for n in RULES)
    assert link_average_precision(fitted.score(split.test), fitted.score(split.test_neg)) > best + 0.02
    alone = gitl(*RULES, combine=False).fit(pair, split)
    (kept,) = alone.kept
    assert "combination" not in alone.validation
    assert torch.equal(alone.score(split.test), fitted.fitted[kept].score(split.test))


def test_what_looks_better_by_chance_is_left():
    """Links between any two nodes: what is fitted to few pairs beats every rule on them, and is not taken."""
    left, seeds = 0, range(6)
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        edges = torch.randint(60, (2, 150), generator=generator)
        edges = to_undirected(edges[:, edges[0] != edges[1]])
        graph = Data(x=torch.randn(60, 8, generator=generator), edge_index=edges, key=torch.arange(60), num_nodes=60)
        pair = SharedNodePair(graph, graph)
        split = split_links(pair, (0.4, 0.2, 0.4), seed, hold_out="all")
        fitted = gitl(*RULES).fit(pair, split, seed=seed)
        found = fitted.validation
        assert found["combination"] > max(found[name] for name in RULES)
        left += len(fitted.kept) == 1
    assert left >= 4


def test_with_few_links_to_validate_the_best_candidate_is_taken(data):
    pair = data[0]
    split = split_links(pair, (0.8, 0.04, 0.16))
    assert split.val.size(1) < 10
    fitted = gitl(*RULES).fit(pair, split)
    assert len(fitted.kept) == 1
    assert "combination" not in fitted.validation


def test_a_misleading_source_does_no_harm():
    """The source adds ten times as many links, between any two nodes."""
    pair, split = blocks_pair(noise=7200)
    for names in (GITL.PUBLISHED, ("xmc_enriched",), ("pagerank_enriched",)):
        assert area(gitl(*names, combine=False).fit(pair, split), split) < 0.8
    assert area(gitl().fit(pair, split), split) > 0.9


def test_the_published_chain_by_hand(data):
    pair, split = data
    lam = EdgeLabelPropagation(lam=0.3)
    chain = gitl(*GITL.PUBLISHED, combine=False, propagation=lam).fit(pair, split, seed=3)
    teacher = LinkTeacher(sage_encoder(12), training=SHORT).fit(pair, split, seed=3)
    student = MLPStudent(16, training=SHORT).fit(pair, split, teacher, seed=3)
    step = PropagationStep(lam, student.score).fit(pair, split, link_average_precision, 3)
    assert chain.validation["student+edge_labels_enriched"] == pytest.approx(max(step.tried.values()), abs=1e-5)
    assert torch.equal(chain.score(split.test), (step if step.weight else student).score(split.test))
    assert torch.equal(chain.student.score(split.test), student.score(split.test))
    along = PropagationStep(lam, student.score, "target").fit(pair, split, link_average_precision, 3)
    other = gitl("student+edge_labels", combine=False, propagation=lam).fit(pair, split, seed=3)
    assert torch.equal(other.score(split.test), along.score(split.test))


def test_only_what_is_asked_for_is_fitted(data):
    assert list(gitl(*RULES).fit(*data).fitted) == [*RULES]
    plain = MLPStudent(16, emb_weight=0.0, training=SHORT)
    assert list(gitl("student", student=plain).fit(*data).fitted) == ["student"]
    assert list(gitl("student").fit(*data).fitted) == ["teacher", "student"]


def test_pagerank_is_left_out_where_it_takes_long(data, monkeypatch):
    monkeypatch.setattr(module, "_MOST_STEPS", 10)
    with pytest.warns(UserWarning, match="PageRank would take long here and is left out; 'candidates' may name it"):
        fitted = gitl().fit(*data)
    assert set(GITL.CANDIDATES) - set(fitted.fitted) == {"pagerank", "pagerank_enriched"}
    assert "pagerank" in gitl(*RULES).fit(*data).fitted


def test_predicts_links_and_follows_from_the_seed():
    pair, split = clear_pair()
    first, second, other = (gitl().fit(pair, split, seed=seed) for seed in (4, 4, 5))
    assert area(first, split) > 0.75
    assert torch.equal(first.score(split.test), second.score(split.test))
    assert not torch.equal(first.student.score(split.test), other.student.score(split.test))
    given = gitl(training=link_training(epochs=10, lr=1e-2, eval_every=2, seed=4)).fit(pair, split)
    assert torch.equal(given.score(split.test), first.score(split.test))


@pytest.mark.cuda
def test_graphs_on_a_gpu(device):
    pair, split = clear_pair()
    there = SharedNodePair(*(graph.to(device) for graph in (pair.source[0], pair.target)))
    fitted = gitl(training=link_training(epochs=12, lr=2e-2, eval_every=4)).fit(there, split)
    assert fitted.teacher.embed().device == device
    assert fitted.student.embed().device == device
    assert area(fitted, split) > 0.75


def test_no_query_influences_another():
    pair, split = mixed_pair()
    fitted = gitl().fit(pair, split)
    assert len(fitted.kept) > 2
    assert_no_leak(split, pair, score=fitted.score)


def test_summary_says_what_each_has_and_what_was_taken():
    pair, split = mixed_pair()
    fitted = gitl().fit(pair, split)
    lines = fitted.summary().splitlines()
    assert f"{pair.num_nodes} target nodes, {int(pair.shared.sum())} shared nodes" in lines[0]
    result = fitted.teacher.result
    assert lines[1] == f"  {result.val:.4f}  teacher, epoch {result.best_epoch + 1} of 10"
    names = [*GITL.CANDIDATES, "combination", "combination, cross-fitted"]
    for name, line in zip(names, lines[1:-1], strict=True):
        assert line.startswith(f"  {fitted.validation[name]:.4f}  {name}")
    assert lines[-1] == "taken: " + " + ".join(f"{weight:.2f} {name}" for name, weight in fitted.kept.items())
    assert gitl("cosine").fit(pair, split).summary().splitlines()[-1] == "taken: cosine"


def test_checkpoints_of_all_trainings(data, tmp_path):
    def run(**fields):
        return gitl(training=link_training(epochs=10, lr=1e-2, eval_every=2, **fields)).fit(*data)

    whole = run(checkpoint=tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["student.pt", "teacher.pt"]
    entries = []
    again = run(checkpoint=tmp_path, log=entries.append)
    assert entries == []
    assert torch.equal(whole.score(data[1].test), again.score(data[1].test))
    assert torch.equal(whole.score(data[1].test), run().score(data[1].test))
    assert [result.val for result in whole.results] == [whole.teacher.result.val, whole.student.result.val]


def test_the_metric_decides(data):
    def lowest(links, non_links):
        return -link_average_precision(links, non_links)

    pair, split = data
    high, low = (gitl(*RULES, combine=False, metric=metric).fit(pair, split) for metric in (None, lowest))
    values = {name: high.validation[name] for name in RULES}
    assert [*high.kept] == [max(values, key=values.__getitem__)]
    assert [*low.kept] == [min(values, key=values.__getitem__)]


def test_links_with_a_direction():
    pair, split = small_pair(directed=True)
    fitted = gitl("student", "student+edge_labels", "xmc_enriched", "pagerank_enriched").fit(pair, split)
    for name in ("student", "xmc_enriched"):
        rule = fitted.fitted[name]
        assert not torch.equal(rule.score(split.test), rule.score(split.test.flip(0)))
    assert not torch.equal(fitted.score(split.test), fitted.score(split.test.flip(0)))


def test_what_is_refused(data):
    pair, split = data
    with pytest.raises(ValueError, match="of another pair"):
        gitl().fit(pair, small_pair(1)[1])
    for ask in (lambda one: one.score(split.test), lambda one: one.summary(), lambda one: one.kept):
        with pytest.raises(RuntimeError, match="this GITL has learned nothing yet"):
            ask(gitl())
    with pytest.raises(ValueError, match="'split' must hold links and non-links to validate"):
        gitl("cosine").fit(pair, split_links(pair, (0.5, 0.0, 0.5)))
    fitted = gitl("cosine").fit(pair, split)
    with pytest.raises(ValueError, match="no self-loops"):
        fitted.score(torch.tensor([[3], [3]]))
    with pytest.raises(ValueError, match="'pairs'"):
        fitted.score(torch.tensor([[3], [pair.num_nodes]]))
    for wrong in ("cosines", "cosine+pagerank", "xmc+", "+edge_labels"):
        with pytest.raises(ValueError, match="'candidates' must hold names out of teacher, student, .*got '"):
            GITL(("cosine", wrong))
    for wrong in ((), ("cosine", "cosine")):
        with pytest.raises(ValueError, match="at least one name, and none twice"):
            GITL(wrong)
    with pytest.raises(TypeError, match="'candidates' must hold names .got FeatureCosine"):
        GITL((BASELINES["cosine"].make(BaselineOptions()),))
    with pytest.raises(TypeError, match="'teacher' must be of type LinkTeacher"):
        GITL(teacher=sage_encoder(3))
    with pytest.raises(TypeError, match="'combine' must be of type bool"):
        GITL(combine="no")
    with pytest.raises(TypeError, match="'propagation' must be of type EdgeLabelPropagation"):
        GITL(propagation=XMCPropagation())


@pytest.mark.slow  # benchmarks/gitl.py measures it
@pytest.mark.bands
def test_on_cora_the_shared_nodes_help(data_root):
    """Cora with random windows, average precision in percent; margins are about half of the gains.

    Seeds differ by two points at most.
    """
    pair, split = cora_pair(data_root, 0)
    fitted = {
        name: BASELINES[name](pair, split, 0, BaselineOptions.small())
        for name in ("mlp_target", "mlp_enriched", "gnn_target", "gnn_enriched", "cosine")
    }
    fitted["GITL"] = GITL.small().fit(pair, split, seed=0)
    fitted["student"] = fitted["GITL"].student
    found = {
        name: 100 * link_average_precision(scorer.score(split.test), scorer.score(split.test_neg))
        for name, scorer in fitted.items()
    }
    print({name: round(value, 1) for name, value in found.items()})
    assert found["student"] > found["mlp_target"] + 10
    assert found["student"] > found["gnn_target"] + 15
    assert found["gnn_enriched"] > found["gnn_target"] + 5
    assert found["student"] > found["mlp_enriched"]
    assert found["GITL"] > max(found["student"], found["cosine"]) + 6
