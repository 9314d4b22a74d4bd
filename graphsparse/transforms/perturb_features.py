"""Noise in the place of features, to measure how much a model can bear."""

import math
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.data.datapipes import functional_transform
from torch_geometric.transforms import BaseTransform

from graphsparse.ops.check import check_real
from graphsparse.ops.select import smallest_k_mask
from graphsparse.utils.counter_random import GAMMA, CounterRandom, check_seed, mix64

#: Scalars of noise drawn at once.
_BLOCK = 1 << 20


def check_budget(eps: float) -> float:
    """Return a budget, a fraction in ``[0, 1]``, as a float."""
    eps = check_real(eps, "eps", "a number in [0, 1]")
    if not 0 <= eps <= 1:  # also refuses NaN
        raise ValueError(f"'eps' must be in [0, 1] (got {eps!r})")
    return eps


@functional_transform("perturb_features")
class PerturbFeatures(BaseTransform):  # type: ignore[misc]
    r"""Replaces the features of some nodes by noise, never those of training nodes.

    Among the validation nodes, the test nodes, and the nodes of no mask, separately,
    :math:`\lfloor \varepsilon n \rfloor` of the :math:`n` nodes are chosen at random, and their rows replaced by

    .. math::
        x_i = b_i / \textstyle\sum_f b_{if}, \qquad b_{if} \sim \mathrm{Bernoulli}(1/2),

    a row of zeros where every :math:`b_{if}` is 0. A row of noise sums to 1, as rows do after PyG's
    ``NormalizeFeatures``: apply that first, features on another scale are hit harder or less hard. A node that is in
    several masks counts where it comes first: training (also of one split of several), validation, test.

    *Poisoning* is this before training: the model trains and predicts with noise around its training nodes. *Evasion*
    is this on the graph that a trained model predicts on, and nowhere else. The input is not changed, so that one graph
    serves both.

    The nodes chosen for one ``eps`` are also chosen for every larger one, with the same noise. Equal seeds give equal
    results, on every device.

    Args:
        eps: Fraction of the nodes, in ``[0, 1]``.
        seed: Seed of the choice and of the noise.

    Raises:
        TypeError: If an argument has the wrong type, the graph is no ``Data``, or ``x`` not dense and floating point.
        ValueError: If ``eps`` or ``seed`` is out of range, or the graph has no ``x`` ``[N, F]`` or no ``train_mask``.

    Example:
        >>> mask = torch.tensor([True, False, False])
        >>> data = Data(x=torch.ones(3, 4) / 4, train_mask=mask, test_mask=~mask)
        >>> PerturbFeatures(0.5, seed=2)(data).x
        tensor([[0.2500, 0.2500, 0.2500, 0.2500],
                [0.3333, 0.3333, 0.0000, 0.3333],
                [0.2500, 0.2500, 0.2500, 0.2500]])

    Source: the released code of Huang et al., arXiv 2211.15335.
    """

    def __init__(self, eps: float, seed: int = 0) -> None:
        self.eps = check_budget(eps)
        self.seed = check_seed(seed)

    def forward(self, data: Data) -> Data:
        """Return the perturbed graph; called with a shallow copy by ``BaseTransform.__call__``."""
        x, groups = _checked(data)
        place = CounterRandom(self.seed, "nodes").words(x.size(0), device=x.device)
        chosen = []
        for group in groups:
            node = group.nonzero().squeeze(1)
            chosen.append(node[smallest_k_mask(place[node], math.floor(self.eps * node.numel()))])
        x = x.clone()
        step = max(1, _BLOCK // max(x.size(1), 1))
        for node in torch.split(torch.cat(chosen), step):
            x[node] = self._noise(node, x.size(1)).to(x.dtype)
        data.x = x
        return data

    def _noise(self, node: Tensor, width: int) -> Tensor:
        """Return the noise of the given nodes: a function of seed, node and column, whatever else is perturbed."""
        num_words = -(-width // 32)
        stream = CounterRandom(self.seed, "features")
        word = node.unsqueeze(1) * num_words + torch.arange(1, num_words + 1, device=node.device)
        bits = mix64(word * GAMMA + stream.key).unsqueeze(2) >> torch.arange(32, 64, device=node.device)
        noise = (bits & 1).flatten(1)[:, :width].to(torch.float64)
        return noise / noise.sum(1, keepdim=True).clamp_(min=1)

    def __repr__(self) -> str:
        """Hold every argument: PyG compares the text to tell whether a stored data set is still the one asked for."""
        return f"{self.__class__.__name__}(eps={self.eps}, seed={self.seed})"


def _checked(data: Any) -> tuple[Tensor, list[Tensor]]:
    """Return the features, and the validation, the test and the other nodes that are not for training."""
    if not isinstance(data, Data):
        raise TypeError(f"'data' must be a homogeneous Data (got {type(data).__name__})")
    x = data.get("x")
    if x is None:
        raise ValueError("'data.x' is missing")
    if not isinstance(x, Tensor) or x.layout != torch.strided or not x.is_floating_point():
        kind = f"{x.dtype}, layout {x.layout}" if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(
            f"'data.x' must be a dense floating point tensor (got {kind}): perturb it before it is made sparse"
        )
    if x.dim() != 2:
        raise ValueError(f"'data.x' must be [N, F] (got {list(x.shape)})")
    if data.get("train_mask") is None:
        raise ValueError("'data.train_mask' is missing: nobody would know which nodes to spare")
    free = torch.ones(x.size(0), dtype=torch.bool, device=x.device)
    groups = []
    for key in ("train_mask", "val_mask", "test_mask"):
        mask = data.get(key)
        if mask is None:
            continue
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
            raise TypeError(f"'data.{key}' must be a bool tensor (got {getattr(mask, 'dtype', type(mask).__name__)})")
        if mask.dim() not in (1, 2) or mask.size(0) != x.size(0):
            raise ValueError(f"'data.{key}' must be [{x.size(0)}] (got {list(mask.shape)})")
        mask = mask.any(1) if mask.dim() == 2 else mask
        groups.append(mask & free)
        free = free & ~mask
    return x, [*groups[1:], free]
