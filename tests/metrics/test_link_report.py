import math
import sys
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ogb.linkproppred import Evaluator
from sklearn.metrics import average_precision_score, roc_auc_score

from graphsparse.metrics import link_report
from graphsparse.ops.blocks import blocks

HITS, MRR = Evaluator("ogbl-collab"), Evaluator("ogbl-citation2")
BINS = ("an end of degree 0", "degrees 1 to 3", "degrees above 3")
LEVELS = st.integers(-3, 3)
POS, NEG = st.lists(LEVELS, min_size=1, max_size=25), st.lists(LEVELS, min_size=1, max_size=25)


def slow_recall(pos, neg, size):
    """One list of all candidates, sorted with non-links before links of the same score."""
    ranked = [(score, False) for score in neg] + [(score, True) for score in pos]
    ranked.sort(key=lambda entry: (-entry[0], entry[1]))
    return sum(link for _, link in ranked[:size]) / len(pos)


def figures(pos, neg, ks=(20, 50, 100)):
    """Every figure by the library that everybody uses, or by its definition."""
    score, positive = torch.cat([pos, neg]), torch.arange(len(pos) + len(neg)) < len(pos)
    found = {
        "links": len(pos),
        "non-links": len(neg),
        "auroc": pytest.approx(roc_auc_score(positive, score), rel=1e-12, abs=1e-14),
        "average precision": pytest.approx(average_precision_score(positive, score), rel=1e-12),
    }
    for name, above, below in (("recall@0.8", 4, 5), ("recall@1", 1, 1), ("recall@1.25", 5, 4)):
        found[name] = slow_recall(pos.tolist(), neg.tolist(), len(pos) * above // below)
    for k in ks:
        HITS.K = k
        found[f"hits@{k}"] = HITS.eval({"y_pred_pos": pos, "y_pred_neg": neg})[f"hits@{k}"]
    return found


def own(pos, neg, ks=(20, 50, 100)):
    """Figures of links among non-links of their own."""
    ranks = MRR.eval({"y_pred_pos": pos, "y_pred_neg": neg})["mrr_list"].double()
    hits = {f"own hits@{k}": float((1 / ranks < k + 0.1).double().mean()) for k in ks}
    return {"mrr": pytest.approx(float(ranks.mean()), rel=1e-6), **hits}


def scored(num_pos=60, k=4, seed=0):
    """Scores with ties, pairs and degrees such that all bins have links and non-links."""
    generator = torch.Generator().manual_seed(seed)
    pos = torch.randint(12, (num_pos,), generator=generator) / 8
    neg = torch.randint(10, (num_pos, k), generator=generator) / 8
    degree = torch.randint(4, (40,), generator=generator)
    pairs = [torch.randint(40, (2, num), generator=generator) for num in (num_pos, num_pos * k)]
    return pos, neg, pairs, degree


@settings(max_examples=150, deadline=None)
@given(POS, NEG, st.integers(1, 25))
def test_equals_scikit_learn_ogb_and_a_sorted_list(pos, neg, k):
    pos, neg = torch.tensor(pos).float(), torch.tensor(neg).float()
    assert link_report(pos, neg, ks=[k]) == figures(pos, neg, [k])


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 12), st.integers(1, 9), st.integers(0, 999))
def test_ranks_among_own_non_links_equal_the_evaluator_of_ogb(num, k, seed):
    generator = torch.Generator().manual_seed(seed)
    pos = torch.randint(4, (num,), generator=generator).float()
    neg = torch.randint(4, (num, k), generator=generator).float()
    report, theirs = link_report(pos, neg, ks=[1, 3, 10]), MRR.eval({"y_pred_pos": pos, "y_pred_neg": neg})
    assert report["mrr"] == pytest.approx(float(theirs["mrr_list"].mean()), rel=1e-6)
    for rank in (1, 3, 10):
        assert report[f"own hits@{rank}"] == pytest.approx(float(theirs[f"hits@{rank}_list"].mean()), rel=1e-6)


def test_many_scores():
    generator = torch.Generator().manual_seed(0)
    pos, neg = torch.randn(5000, generator=generator) + 1, torch.randn(20_000, generator=generator)
    assert link_report(pos, neg) == figures(pos, neg)
    random = link_report(torch.rand(20_000, generator=generator), torch.rand(60_000, generator=generator))
    for name, ratio in (("recall@0.8", 0.8), ("recall@1", 1.0), ("recall@1.25", 1.25)):
        assert random[name] == pytest.approx(ratio / 4, abs=0.015)


def test_hand_values():
    pos, neg = torch.tensor([3.0, 2.0, 0.5, -1.0]), torch.tensor([2.0, 1.0, 0.0, -2.0])
    report = link_report(pos, neg, ks=[1])
    assert report["recall@1"] == 2 / 4  # 3, 2, 2, 1
    assert link_report(pos[1:], neg)["recall@0.8"] == 1 / 3  # 2, and the non-link with 2 before it
    assert report["recall@1.25"] == 3 / 4  # and 0.5
    assert report["hits@1"] == 1 / 4  # an equal score is no hit
    assert link_report(torch.ones(3), torch.empty(0), ks=[1])["links"] == 3
    assert link_report(torch.tensor([2.0]), torch.tensor([[1.0, 3.0, 3.0]]))["mrr"] == pytest.approx(1 / 3)
    assert link_report(torch.tensor([2.0]), torch.tensor([[2.0, 2.0]]))["mrr"] == 1 / 2  # between first and third


def test_every_bin_by_itself():
    pos, neg, pairs, degree = scored()
    flat = neg.flatten()
    expected = figures(pos, flat) | own(pos, neg)
    assert link_report(pos, neg) == expected
    ends = [degree[part] for part in pairs]
    pos_bin, neg_bin = (torch.where((u * v) == 0, 0, torch.where(u + v <= 3, 1, 2)) for u, v in ends)
    for number, name in enumerate(BINS):
        inside = pos_bin == number
        part = figures(pos[inside], flat[neg_bin == number]) | own(pos[inside], neg[inside])
        assert min(part["links"], part["non-links"]) > 3
        expected |= {f"{key}, {name}": value for key, value in part.items()}
    assert link_report(pos, neg, *pairs, degree) == expected
    assert link_report(pos, neg, pairs[0].int(), pairs[1].int(), degree.int()) == expected


def test_directed_links_have_two_degrees():
    pairs, out, into = torch.tensor([[0, 1], [1, 0]]), torch.tensor([2, 0]), torch.tensor([3, 1])
    report = link_report(torch.ones(2), torch.zeros(2), pairs, pairs, (out, into))
    assert [report[f"links, {name}"] for name in BINS] == [1, 1, 0]


def test_a_bin_without_links_is_nan():
    pos, neg = torch.tensor([1.0]), torch.tensor([[0.0, 2.0]])
    report = link_report(pos, neg, torch.tensor([[0], [1]]), torch.tensor([[0, 2], [1, 2]]), torch.tensor([5, 5, 0]))
    assert report[f"auroc, {BINS[2]}"] == 1
    for name in BINS[:2]:
        assert report[f"links, {name}"] == 0
        assert all(math.isnan(report[f"{key}, {name}"]) for key in ("auroc", "average precision", "hits@50", "mrr"))
    assert report[f"non-links, {BINS[0]}"] == 1


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16, torch.int32])
def test_types_and_blocks(dtype, monkeypatch):
    pos, neg, pairs, degree = scored()
    pos, neg = (16 * pos).to(dtype), (16 * neg).to(dtype)
    before = pos.clone()
    whole = link_report(pos, neg, *pairs, degree)
    wide = link_report(pos.double(), neg.double(), *pairs, degree)
    assert whole == pytest.approx(wide, rel=1e-12)
    module = sys.modules[link_report.__module__]
    monkeypatch.setattr(module, "blocks", partial(blocks, step=3))
    monkeypatch.setattr(module, "row_blocks", lambda rows, width: blocks(rows, 7))
    assert link_report(pos, neg, *pairs, degree) == whole
    assert torch.equal(pos, before)  # only copies are sorted


def test_infinities_and_signed_zeros():
    report = link_report(torch.tensor([math.inf, -0.0]), torch.tensor([0.0, -math.inf]))
    assert report["auroc"] == (1 + 1 + 0.5 + 1) / 4


def test_bad_input():
    pos, neg, pairs, degree = scored()
    with pytest.raises(ValueError, match="must be given together"):
        link_report(pos, neg, *pairs)
    with pytest.raises(ValueError, match=r"'neg_pairs' must be \[2, 240\], one pair per score .got \[2, 60\]"):
        link_report(pos, neg, pairs[0], pairs[0], degree)
    with pytest.raises(ValueError, match="'pos_pairs' holds the index"):
        link_report(pos, neg, *pairs, degree[:3])
    with pytest.raises(TypeError, match="'degree' must be an integer tensor .got torch.float32"):
        link_report(pos, neg, *pairs, degree.float())
    with pytest.raises(ValueError, match=r"'degree' must be \[N\]"):
        link_report(pos, neg, *pairs, degree[:, None])
    with pytest.raises(ValueError, match="'ks' must be at least 1"):
        link_report(pos, neg, ks=[0])
    for wrong in ((pos[:0], neg[:0]), (pos, torch.tensor(1.0)), (pos, neg[:5]), (neg, neg)):
        with pytest.raises(ValueError, match=r"'pos' must be \[P\] with P > 0, 'neg' \[N\] or \[P, k\]"):
            link_report(*wrong)
    with pytest.raises(TypeError, match="'pos' must be a real-valued tensor .got list"):
        link_report([1.0], neg)
    with pytest.raises(TypeError, match="'neg' must be a real-valued tensor .got torch.bool"):
        link_report(pos, pos > 0)
    with pytest.raises(TypeError, match="must have the same type .got torch.float32 and torch.float64"):
        link_report(pos, neg.double())
    with pytest.raises(ValueError, match="'neg' must not hold NaN"):
        link_report(pos, torch.tensor([math.nan]))
