r"""Random numbers that are a function of a seed, a name and a position: the same on every device and in every release.

PyTorch's generators promise neither. Here number :math:`i` of a stream is

.. math::
    w_i = \mathrm{mix}(k + (i + 1) \, \gamma) \gg 32, \qquad \gamma = \mathtt{9E3779B97F4A7C15}_{16}

with :math:`k` the first eight bytes of BLAKE2b of the seed and the name, and *mix* the finaliser of splitmix64. Only
integers are used, in wrapping 64-bit arithmetic; signs and uniforms are exact functions of :math:`w_i`, and normals
use only operations that IEEE 754 rounds correctly.
"""

import hashlib
from collections.abc import Callable

import torch
from torch import Tensor

from graphsparse.ops.blocks import CACHED, blocks
from graphsparse.ops.check import check_count, check_integer

#: The odd constant that splitmix64 adds per draw, 2^64 divided by the golden ratio, as a signed number.
GAMMA = -7046029254386353131
# Wichura, AS241 (Applied Statistics 37, 1988), PPND16: centre and middle region, highest power first.
_CENTRE = (
    (2509.0809287301226727, 33430.575583588128105, 67265.770927008700853, 45921.953931549871457),
    (13731.693765509461125, 1971.5909503065514427, 133.14166789178437745, 3.3871328727963666080),
    (5226.4952788528545610, 28729.085735721942674, 39307.895800092710610, 21213.794301586595867),
    (5394.1960214247511077, 687.18700749205790830, 42.313330701600911252, 1.0),
)
_TAIL = (
    (7.74545014278341407640e-4, 2.27238449892691845833e-2, 2.41780725177450611770e-1, 1.27045825245236838258),
    (3.64784832476320460504, 5.76949722146069140550, 4.63033784615654529590, 1.42343711074968357734),
    (1.05075007164441684324e-9, 5.47593808499534494600e-4, 1.51986665636164571966e-2, 1.48103976427480074590e-1),
    (6.89767334985100004550e-1, 1.67638483018380384940, 2.05319162663775882187, 1.0),
)
_LOG_TWO = 0.6931471805599453


def mix64(z: Tensor) -> Tensor:
    """Return the finaliser of splitmix64 of every int64 number: a bijection that looks random.

    Source: Steele, Lea and Flood, *Fast splittable pseudorandom number generators*, OOPSLA 2014.
    """
    # z ^ z >>> n, in memory of its own; the mask makes the shift one of unsigned numbers.
    z = (z >> 30).bitwise_and_(0x3FFFFFFFF).bitwise_xor_(z).mul_(-4658895280553007687)
    z = (z >> 27).bitwise_and_(0x1FFFFFFFFF).bitwise_xor_(z).mul_(-7723592293110705685)
    return (z >> 31).bitwise_and_(0x1FFFFFFFF).bitwise_xor_(z)


class CounterRandom:
    """A stream of random numbers that belongs to a seed and a name.

    Every method draws from the start of the stream and changes nothing: two calls return the same numbers, and the
    first entries of a longer draw are those of a shorter one. Different names give unrelated streams.

    Args:
        seed: Any integer between 0 and :math:`2^{63} - 1`.
        name: Name of the stream, such as the name of a tensor.
    """

    def __init__(self, seed: int, name: str) -> None:
        check_seed(seed)
        if not isinstance(name, str):
            raise TypeError(f"'name' must be a string (got {type(name).__name__})")
        text = int(seed).to_bytes(8, "little") + name.encode()
        #: State of splitmix64 before the first draw. Not `ops.digest`: tickets that hold a seed in place of weights,
        #: and every published figure of a random split, follow from these bits.
        self.key = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little", signed=True)

    def words(self, num: int, *, device: torch.device | str | None = None) -> Tensor:
        """Return the first ``num`` words of 32 bits, as int64 ``[num]``."""
        return self._fill(num, torch.int64, device, lambda words: words)

    def signs(self, num: int, *, device: torch.device | str | None = None) -> Tensor:
        """Return ``num`` times -1 or 1, as float32: the highest bit of every word, 1 where it is not set."""
        return self._fill(num, torch.float32, device, lambda words: 1 - 2 * (words >> 31))

    def uniform(self, num: int, *, device: torch.device | str | None = None) -> Tensor:
        r"""Return ``num`` multiples of :math:`2^{-24}` in ``[0, 1)``, as float32: the highest 24 bits of every word."""
        return self._fill(num, torch.float32, device, lambda words: (words >> 8).to(torch.float32) * 2.0**-24)

    def normal(self, num: int, *, device: torch.device | str | None = None) -> Tensor:
        r"""Return ``num`` standard normal numbers, as float32.

        They are :math:`\Phi^{-1}((w + 1/2) \, 2^{-32})`, hence between -6.4 and 6.4, by the rational approximation
        AS241 in float64. It needs a logarithm, which libraries round differently; here it is a series, so that the
        whole consists of sums, products, quotients and square roots, the same on every device.
        """
        return self._fill(num, torch.float32, device, _inverse_normal)

    def exponential(self, num: int, *, device: torch.device | str | None = None) -> Tensor:
        r"""Return ``num`` standard exponential numbers, :math:`-\log((w + 1/2) \, 2^{-32})`, as float64."""
        return self._fill(num, torch.float64, device, lambda words: -_log((words.to(torch.float64) + 0.5) * 2.0**-32))

    def _fill(
        self, num: int, dtype: torch.dtype, device: torch.device | str | None, law: Callable[[Tensor], Tensor]
    ) -> Tensor:
        num = check_count(num, "num", least=0)
        out = torch.empty(num, dtype=dtype, device=device)
        steps = torch.arange(1, min(CACHED, num) + 1, device=device) * GAMMA
        for where in blocks(num, CACHED):
            block = out[where]
            offset = (self.key + where.start * GAMMA + 2**63) % 2**64 - 2**63
            block.copy_(law(mix64(steps[: block.numel()] + offset) >> 32 & 0xFFFFFFFF))
        return out


def check_seed(seed: int) -> int:
    """Return a seed, an integer of 63 bits, or raise an error."""
    seed = check_integer(seed, "seed")
    if not 0 <= seed < 2**63:
        raise ValueError(f"'seed' must be between 0 and 2**63 - 1 (got {seed})")
    return seed


def _horner(x: Tensor, rows: tuple[tuple[float, ...], ...]) -> Tensor:
    value = torch.zeros_like(x)
    for coefficient in (*rows[0], *rows[1]):
        # Two roundings, on every device: a product and a sum in one operation would round once where it can.
        value = value.mul_(x).add_(coefficient)
    return value


def _log(x: Tensor) -> Tensor:
    """Logarithm of positive float64 numbers: exponent times log 2, and a series for the mantissa."""
    mantissa, exponent = torch.frexp(x)  # mantissa in [0.5, 1)
    small = mantissa < 0.7071067811865476
    mantissa = torch.where(small, mantissa * 2, mantissa)
    exponent = exponent.to(torch.float64) - small.to(torch.float64)
    ratio = (mantissa - 1) / (mantissa + 1)  # at most 0.1716, so that ten terms leave an error below 1e-16
    square = ratio * ratio
    series = torch.zeros_like(ratio)
    for odd in range(21, 0, -2):
        series = series.mul_(square).add_(1 / odd)
    return exponent * _LOG_TWO + ratio * series * 2


def _inverse_normal(words: Tensor) -> Tensor:
    lower = (words.to(torch.float64) + 0.5) * 2.0**-32
    q = lower - 0.5
    r = 0.180625 - q * q
    centre = _horner(r, _CENTRE[:2]) * q / _horner(r, _CENTRE[2:])
    # At most 4.8 for words of 32 bits, so that the outer region of AS241, from 5 on, is never reached.
    r = torch.sqrt(-_log(torch.minimum(lower, 1 - lower))) - 1.6
    tail = _horner(r, _TAIL[:2]) / _horner(r, _TAIL[2:])
    return torch.where(q.abs() <= 0.425, centre, torch.where(q < 0, -tail, tail))
