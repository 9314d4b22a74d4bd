"""Dropout that draws few random bits."""

import torch
import torch.nn.functional as F
from torch import Tensor

from graphsparse.ops.blocks import BLOCK
from graphsparse.ops.traced import is_traced

#: Elements from which on drawing blocks costs less than the calls that it takes.
_WORTH_IT = 4096


def dropout(x: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
    r"""Set entries to zero at random and scale the others, as :func:`torch.nn.functional.dropout` does.

    .. math:: y_i = \frac{m_i}{1 - p} x_i, \qquad m_i \sim \mathrm{Bernoulli}(1 - p)

    On processors that are not Intel's, torch draws a random number in double precision for each entry, and branches on
    it. Here an entry takes 8 random bits where these give :math:`p` exactly, as they do 0.5 and 0.75, and 16
    otherwise, so that :math:`p` is met to 1 in 131,072; what is left is scaled by the share that is met, and keeps its
    mean. The draws are others than torch's under the same seed. One thread of an AMD EPYC, torch 2.13, milliseconds for
    forward and backward (``benchmarks/dropout.py``, freed memory kept, other work on the machine):

    ============== ===== ======= ====
    entries        p     torch's this
    ============== ===== ======= ====
    2,708 x 64     0.5   6.3     0.8
    2,708 x 64     0.1   1.4     0.6
    19,717 x 64    0.5   33      7
    19,717 x 64    0.1   22      8
    169,343 x 256  0.5   1,109   153
    169,343 x 256  0.1   627     197
    ============== ===== ======= ====

    What is not on CPU, is small, compiled or transformed goes to torch.

    Args:
        x: Floating point numbers of any shape.
        p: Chance of an entry to be set to zero.
        training: Whether to do anything at all.

    Returns:
        A tensor like ``x``; gradients flow to the entries that are kept.

    Raises:
        ValueError: If ``p`` is not between 0 and 1.

    Example:
        >>> out = dropout(torch.ones(100, 100), 0.5)
        >>> out.unique()
        tensor([0., 2.])
    """
    if not training or not 0 < p < 1 or not _is_for_blocks(x):
        return F.dropout(x, p, training)
    bits = 8 if (256 * p).is_integer() else 16
    dropped = round(p * 2**bits)
    if not 0 < dropped < 2**bits:
        return F.dropout(x, p, training)
    factor = torch.empty_like(x.detach(), memory_format=torch.contiguous_format)
    for part in torch.split(factor.view(-1), BLOCK):
        torch.ge(_draw(part.numel(), bits), dropped - 2 ** (bits - 1), out=part)
        part.mul_(2**bits / (2**bits - dropped))
    return x * factor


def _draw(number: int, bits: int) -> Tensor:
    """Draw integers of all values with a sign, 8 bits or 16 each, uniformly."""
    blocks = torch.empty(-(-number * bits // 64), dtype=torch.int64).random_(-(2**63), None)
    return blocks.view(torch.int8 if bits == 8 else torch.int16)[:number]


def _is_for_blocks(x: Tensor) -> bool:
    if x.device.type != "cpu" or not x.is_floating_point() or x.numel() < _WORTH_IT:
        return False
    return type(x) in (Tensor, torch.nn.Parameter) and not is_traced()
