import numpy as np
import pytest
import torch

from graphsparse.datasets import words
from graphsparse.datasets.words import draw_words

LABEL = np.arange(3000) % 3


def draw(topic_share=0.3, per_node=6.0, **kwargs):
    return draw_words(LABEL, 3, 90, per_node, topic_share, np.random.default_rng(0), **kwargs)


def test_zeros_and_ones():
    x = draw()
    assert x.shape == (3000, 90)
    assert x.dtype == torch.float32
    assert x.unique().tolist() == [0.0, 1.0]
    assert x.sum(1).min() >= 1


@pytest.mark.parametrize("chunk", [1 << 18, 700])
def test_sparse_equals_dense(chunk, monkeypatch):
    monkeypatch.setattr(words, "_CHUNK", chunk)
    sparse = draw(sparse=True)
    assert sparse.layout == torch.sparse_csr
    torch.sparse_csr_tensor(
        sparse.crow_indices(), sparse.col_indices(), sparse.values(), sparse.shape, check_invariants=True
    )
    assert torch.equal(sparse.to_dense(), draw())


def test_each_class_has_words_of_its_own():
    used = torch.stack([draw(topic_share=1.0)[torch.from_numpy(label == LABEL)].sum(0) > 0 for label in range(3)])
    assert used.sum(0).max() == 1
    assert used.sum(1).tolist() == [30, 30, 30]


def test_without_topics_classes_use_words_alike():
    x = draw(topic_share=0.0)
    shares = torch.stack([x[torch.from_numpy(label == LABEL)].mean(0) for label in range(3)])
    assert (shares - shares.mean(0)).abs().max() < 0.06


def test_number_of_words():
    x = draw_words(LABEL, 3, 100_000, 6.0, 0.0, np.random.default_rng(0), sparse=True)
    assert x.values().numel() / 3000 == pytest.approx(6.0, rel=0.1)
    assert draw(per_node=1.0).sum(1).unique().tolist() == [1.0]
