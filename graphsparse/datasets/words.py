"""Sparse bag-of-words features that tell something about the class of a node."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

#: Nodes whose words are drawn at a time, so that temporaries stay small. Changing it changes every graph.
_CHUNK = 1 << 18


def draw_words(
    label: npt.NDArray[np.int64],
    num_classes: int,
    num_words: int,
    per_node: float,
    topic_share: float,
    rng: np.random.Generator,
    *,
    sparse: bool = False,
) -> Tensor:
    """Draw the words of every node; no matrix of probabilities is ever made.

    A node draws ``1 + Poisson(per_node - 1)`` words. Each comes with probability ``topic_share`` from the
    ``num_words // num_classes`` words of its class, which belong to no other class, otherwise from all words. Both
    follow Zipf's law: the r-th word is drawn in proportion to ``1 / r``, in orders that have nothing to do with each
    other.

    Args:
        label: Class of each node, ``[N]``.
        num_classes: Number of classes.
        num_words: Number of words ``F``, at least ``num_classes``.
        per_node: Mean number of draws per node, at least 1.
        topic_share: Probability of a draw from the words of the class.
        rng: Source of all draws.
        sparse: Return a torch CSR tensor.

    Returns:
        ``[N, F]`` float32: 1 where the node drew the word at least once, else 0.

    Example:
        >>> x = draw_words(np.arange(6) % 2, 2, 20, 4.0, 0.5, np.random.default_rng(0))
        >>> x.shape, bool((x.sum(1) > 0).all())
        (torch.Size([6, 20]), True)
    """
    num = len(label)
    own = num_words // num_classes
    vocabulary, topics = rng.permutation(num_words), rng.permutation(num_words)
    zipf_all, zipf_own = _zipf(num_words), _zipf(own)
    x = torch.empty(0) if sparse else torch.zeros(num, num_words)
    columns, counts = [], np.zeros(num + 1, dtype=np.int64)
    for start in range(0, num, _CHUNK):
        part = label[start : start + _CHUNK]
        node = np.repeat(np.arange(len(part)), 1 + rng.poisson(per_node - 1.0, len(part)))
        topical = rng.random(len(node)) < topic_share
        draw = rng.random(len(node))
        word = np.where(
            topical,
            topics[part[node] * own + np.searchsorted(zipf_own, draw)],
            vocabulary[np.searchsorted(zipf_all, draw)],
        )
        key = node * num_words + word
        key.sort()
        node, word = np.divmod(key[np.diff(key, prepend=-1) > 0], num_words)
        if sparse:
            columns.append(torch.from_numpy(word))
            counts[start + 1 : start + 1 + len(part)] = np.bincount(node, minlength=len(part))
        else:
            x[torch.from_numpy(start + node), torch.from_numpy(word)] = 1.0
    if not sparse:
        return x
    column = torch.cat(columns)
    row_pointer, values = torch.from_numpy(counts.cumsum()), torch.ones(len(column))
    return torch.sparse_csr_tensor(row_pointer, column, values, (num, num_words), check_invariants=False)


def _zipf(num: int) -> npt.NDArray[np.float64]:
    """Return the cumulative probabilities of Zipf's law; the last one is exactly 1."""
    total = (1.0 / np.arange(1, num + 1)).cumsum()
    cumulative: npt.NDArray[np.float64] = total / total[-1]
    return cumulative
