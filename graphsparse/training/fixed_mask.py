"""Random weights that are zero from the first step to the last."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

from graphsparse.ops.check import check_sparsity
from graphsparse.ops.select import num_removed
from graphsparse.training.held_mask import HeldMask
from graphsparse.training.step_projection import Exclude, Scope, check_scope, smallest_masks


class FixedMask(HeldMask):
    r"""Keeps a random choice of weights at zero, from now on and after every step of an optimiser.

    :math:`\lfloor \mathrm{sparsity} \cdot D \rfloor` of the :math:`D` covered scalars are drawn uniformly without
    replacement. With one seed, those drawn at one sparsity are also drawn at every higher one.

    Args:
        optimizer: Any torch optimiser; its parameters are masked.
        sparsity: Fraction of the covered scalars to keep at zero, in ``[0, 1)``.
        scope: Draw from all scalars together (``"global"``) or the same fraction of every tensor (``"tensor"``).
        exclude: Says of a parameter whether it is left alone and not counted; by default scalars, biases and
            normalisation parameters.
        seed: Seed of the draw.

    Raises:
        TypeError: If ``optimizer`` or ``sparsity`` has the wrong type.
        ValueError: If an argument is out of range or nothing is left to mask.

    Example:
        >>> model = torch.nn.Linear(10, 10)
        >>> mask = FixedMask(torch.optim.Adam(model.parameters()), sparsity=0.6)
        >>> int((model.weight == 0).sum())
        60

    Source: the random baseline of Chen et al., arXiv 2102.06790, Section 4.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        sparsity: float,
        *,
        scope: Scope = "tensor",
        exclude: Exclude | None = None,
        seed: int = 0,
    ) -> None:
        check_sparsity(sparsity)
        check_scope(scope)

        def draw(parameters: Sequence[Parameter]) -> Sequence[Tensor]:
            # Initial weights are often drawn with the same seed; the same stream would tie the choice to their values.
            generator = torch.Generator().manual_seed((seed + 1) * 0x9E3779B97F4A7C15 % 2**63)
            draws = [torch.rand(p.shape, generator=generator, dtype=torch.float64) for p in parameters]
            return smallest_masks(draws, lambda num: num_removed(sparsity, num), scope)

        super().__init__(optimizer, draw, exclude=exclude)
