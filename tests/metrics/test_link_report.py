import math

import pytest
import torch

from graphsparse.metrics import (
    COLD_BINS,
    auroc,
    average_precision,
    cold_bins,
    hits_at_k,
    link_report,
    mrr,
    recall_at_ratio,
)


def scored(num_pos=60, k=4, seed=0):
    """Scores with ties, pairs and degrees such that all bins have links and non-links."""
    generator = torch.Generator().manual_seed(seed)
    pos = torch.randint(12, (num_pos,), generator=generator) / 8
    neg = torch.randint(10, (num_pos, k), generator=generator) / 8
    degree = torch.randint(4, (40,), generator=generator)
    pairs = [torch.randint(40, (2, num), generator=generator) for num in (num_pos, num_pos * k)]
    return pos, neg, pairs, degree


def figures(pos, neg, **options):
    score, positive = torch.cat([pos, neg]), torch.arange(len(pos) + len(neg)) < len(pos)
    return {
        "links": len(pos),
        "non-links": len(neg),
        "auroc": auroc(score, positive),
        "average precision": pytest.approx(average_precision(score, positive), rel=1e-12),
        **{f"recall@{ratio:g}": recall_at_ratio(pos, neg, ratio, **options) for ratio in (0.8, 1, 1.25)},
        **{f"hits@{k}": hits_at_k(pos, neg, k) for k in (20, 50, 100)},
    }


@pytest.mark.parametrize("options", [{}, {"ties": "random", "seed": 3}, {"require_positive_logit": True}])
def test_equals_the_functions_one_by_one(options):
    pos, neg, pairs, degree = scored()
    flat = neg.flatten()
    expected = figures(pos, flat, **options)
    assert link_report(pos, flat, **options) == expected
    expected["mrr"] = mrr(pos, neg)
    assert link_report(pos, neg, **options) == expected
    pos_bin, neg_bin = (cold_bins(part, degree) for part in pairs)
    for number, name in enumerate(COLD_BINS):
        inside = pos_bin == number
        part = figures(pos[inside], flat[neg_bin == number], **options) | {"mrr": mrr(pos[inside], neg[inside])}
        assert min(part["links"], part["non-links"]) > 3
        expected |= {f"{key}, {name}": value for key, value in part.items()}
    assert link_report(pos, neg, *pairs, degree, **options) == expected


def test_a_bin_without_links_is_nan():
    pos, neg = torch.tensor([1.0]), torch.tensor([[0.0, 2.0]])
    report = link_report(pos, neg, torch.tensor([[0], [1]]), torch.tensor([[0, 2], [1, 2]]), torch.tensor([5, 5, 0]))
    assert report[f"auroc, {COLD_BINS[2]}"] == 1
    for name in COLD_BINS[:2]:
        assert report[f"links, {name}"] == 0
        assert all(math.isnan(report[f"{key}, {name}"]) for key in ("auroc", "average precision", "hits@50", "mrr"))
    assert report[f"non-links, {COLD_BINS[0]}"] == 1


def test_options():
    pos, neg, _, _ = scored()
    report = link_report(pos, neg, ratios=[0, 50], ks=[1])
    assert set(report) == {"links", "non-links", "auroc", "average precision", "recall@0", "recall@50", "hits@1", "mrr"}


def test_bad_input():
    pos, neg, pairs, degree = scored()
    with pytest.raises(ValueError, match="must be given together"):
        link_report(pos, neg, *pairs)
    with pytest.raises(ValueError, match=r"'neg_pairs' must be \[2, 240\], one pair per score .got \[2, 60\]"):
        link_report(pos, neg, pairs[0], pairs[0], degree)
    with pytest.raises(ValueError, match="'ties' must be one of"):
        link_report(pos, neg, ties="first")
    with pytest.raises(ValueError, match="'seed' must be between 0 and"):
        link_report(pos, neg, seed=-1)
    with pytest.raises(ValueError, match="'k' must be at least 1"):
        link_report(pos, neg, ks=[0])
    with pytest.raises(ValueError, match="'ratio' must be finite"):
        link_report(pos, neg, ratios=[-1])
    with pytest.raises(ValueError, match=r"'pos' must be \[P\] with P > 0"):
        link_report(pos[:0], neg[:0])
    with pytest.raises(ValueError, match="'neg' must be a vector"):
        link_report(pos, torch.tensor(1.0))
