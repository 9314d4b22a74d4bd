"""The weights of an untrained ticket: a seed and a law in place of numbers."""

import zlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor

from graphsparse.nn.weight_laws import WEIGHT_LAWS, WeightLaw, check_mean_square, draw_weight
from graphsparse.tickets.mask_code import decode_masks, encode_masks
from graphsparse.utils.counter_random import check_seed

#: ``weights``: masked entry by entry; ``columns``: masked by whole columns; ``dense``: drawn, not masked; ``zero``: 0.
FrozenRole: TypeAlias = Literal["weights", "columns", "dense", "zero"]


@dataclass(frozen=True)
class FrozenTensor:
    """One tensor of a model that was never trained.

    Args:
        role: What is drawn and masked of it.
        shape: Its sizes.
        source: Name from which its weights are drawn: its own, or that of another layer it is folded with.
    """

    role: FrozenRole
    shape: tuple[int, ...]
    source: str

    def __post_init__(self) -> None:
        """Check what a file may say."""
        if self.role not in get_args(FrozenRole):
            raise ValueError(f"'role' must be one of {get_args(FrozenRole)} (got {self.role!r})")
        if not all(isinstance(size, int) and not isinstance(size, bool) and size >= 0 for size in self.shape):
            raise ValueError(f"'shape' must hold sizes (got {self.shape!r})")
        if not isinstance(self.source, str):
            raise TypeError(f"'source' must be a name (got {self.source!r})")

    @property
    def mask_shape(self) -> tuple[int, ...] | None:
        """Shape of what is stored of its mask, ``[columns]`` if it is masked by columns, ``None`` without a mask."""
        if self.role == "columns":
            return self.shape[-1:]
        return self.shape if self.role == "weights" else None


@dataclass(frozen=True)
class FrozenWeights:
    r"""Everything that the frozen weights of a model depend on.

    The weights are what :func:`~graphsparse.nn.weight_laws.draw_weight` returns for the seed and the names, in the type
    of the model, times the mask or the number of coats: bit for bit those that the search had, on every device.

    Args:
        seed: Seed of all weights.
        law: Law of all weights.
        mean_square: By whose root masked tensors are divided; 1 for no scale.
        dtype: Type of the tensors.
        tensors: What each tensor is, by its name.
        same: Further names, each with the name in ``tensors`` of the tensor that it stands for, mask included.

    Raises:
        TypeError: If a part has the wrong type.
        ValueError: If the law is unknown or a name stands for one that is missing.

    Example:
        >>> frozen = FrozenWeights(0, "signed_constant", tensors={"weight": FrozenTensor("weights", (1, 2), "weight")})
        >>> frozen.state({"weight": torch.tensor([[True, False]])})
        {'weight': tensor([[1., 0.]])}
    """

    seed: int
    law: WeightLaw
    mean_square: float = 1.0
    dtype: torch.dtype = torch.float32
    tensors: Mapping[str, FrozenTensor] = field(default_factory=dict)
    same: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check that the parts make sense."""
        check_seed(self.seed)
        if self.law not in WEIGHT_LAWS:
            raise ValueError(f"'law' must be one of {WEIGHT_LAWS} (got {self.law!r})")
        check_mean_square(self.mean_square)
        if not isinstance(self.dtype, torch.dtype) or not self.dtype.is_floating_point:
            raise TypeError(f"'dtype' must be a floating point type (got {self.dtype!r})")
        for name, other in self.same.items():
            if other not in self.tensors or name in self.tensors:
                raise ValueError(f"'same' says that {name!r} is {other!r}, and 'tensors' must hold the latter only")

    def names(self) -> list[str]:
        """Return the names of all frozen tensors, further ones included."""
        return [*self.tensors, *self.same]

    def masked(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of what is stored of every mask, by the first name of its tensor."""
        shapes = {name: entry.mask_shape for name, entry in self.tensors.items()}
        return {name: shape for name, shape in shapes.items() if shape is not None}

    def draw(self, name: str, *, device: torch.device | str | None = None) -> Tensor:
        """Return the weights of one tensor before the mask.

        Args:
            name: One of :meth:`names`.
            device: Where to draw; the numbers do not depend on it.

        Raises:
            KeyError: If there is no such tensor.

        Example:
            >>> frozen = FrozenWeights(0, "signed_constant", tensors={"bias": FrozenTensor("zero", (2,), "bias")})
            >>> frozen.draw("bias")
            tensor([0., 0.])
        """
        entry = self.tensors[self.same.get(name, name)]
        if entry.role == "zero":
            return torch.zeros(entry.shape, dtype=self.dtype, device=device)
        square = 1.0 if entry.role == "dense" else self.mean_square
        drawn = draw_weight(entry.shape, self.law, seed=self.seed, name=entry.source, mean_square=square, device=device)
        return drawn.to(self.dtype)

    @torch.no_grad()
    def state(self, masks: Mapping[str, Tensor], *, device: torch.device | str | None = None) -> dict[str, Tensor]:
        """Return the masked weights of all tensors, by all their names.

        Args:
            masks: Masks or numbers of coats of the masked tensors, of their shape or ``[columns]``.
            device: Where the weights shall be.

        Returns:
            New tensors. Names that stand for one tensor get the same one.

        Raises:
            KeyError: If a mask is missing.

        Example:
            >>> table = FrozenTensor("columns", (2, 2), "table")
            >>> frozen = FrozenWeights(0, "signed_constant", tensors={"table": table})
            >>> frozen.state({"table": torch.tensor([2, 0], dtype=torch.uint8)})["table"].tolist()
            [[2.0, 0.0], [2.0, 0.0]]
        """
        state: dict[str, Tensor] = {}
        # Layers that are folded draw once.
        uses = Counter((entry.source, entry.shape) for entry in self.tensors.values())
        shared: dict[tuple[str, tuple[int, ...]], Tensor] = {}
        for name, entry in self.tensors.items():
            key = (entry.source, entry.shape)
            if entry.mask_shape is None:
                state[name] = self.draw(name, device=device)
                continue
            drawn = shared[key] if key in shared else self.draw(name, device=device)
            if uses[key] > 1:
                shared[key] = drawn
            # The product that the search computes, so that even the signs of zeros are the same.
            state[name] = drawn * masks[name].to(drawn.device).view(torch.uint8)
        return state | {name: state[first] for name, first in self.same.items()}

    def check(self, state_dict: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return :meth:`state`, or refuse a state dict whose frozen tensors hold something else.

        Args:
            state_dict: Tensors of the model under their names.
            masks: As for :meth:`state`.

        Raises:
            KeyError: If a tensor or a mask is missing.
            ValueError: If a tensor is not what seed, law and mask say.

        Example:
            >>> frozen = FrozenWeights(0, "signed_constant", tensors={"bias": FrozenTensor("zero", (2,), "bias")})
            >>> frozen.check({"bias": torch.ones(2)}, {})
            Traceback (most recent call last):
            ValueError: 'state_dict' holds other weights in 'bias' than those of the seed under its mask
        """
        state = self.state(masks)
        for name, tensor in state.items():
            got = state_dict[name].detach().cpu()
            if got.dtype != tensor.dtype or not torch.equal(got, tensor):
                raise ValueError(f"'state_dict' holds other weights in {name!r} than those of the seed under its mask")
        return state

    def to_json(self) -> dict[str, Any]:
        """Return all of it in values that JSON can hold.

        Example:
            >>> frozen = FrozenWeights(0, "signed_constant", tensors={"a": FrozenTensor("weights", (1, 2), "a")})
            >>> frozen.to_json()["tensors"]
            {'a': ['weights', [1, 2]]}
        """
        tensors: dict[str, Any] = {}
        for name, entry in self.tensors.items():
            source = [entry.source] if entry.source != name else []
            tensors[name] = [entry.role, list(entry.shape), *source]
        return {
            "seed": int(self.seed),
            "law": self.law,
            "mean_square": self.mean_square,
            "dtype": str(self.dtype).removeprefix("torch."),
            "tensors": tensors | dict(self.same),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "FrozenWeights":
        """Return what :meth:`to_json` wrote.

        Raises:
            ValueError: If it is something else.

        Example:
            >>> FrozenWeights.from_json(FrozenWeights(7, "kaiming_normal").to_json()).seed
            7
        """
        try:
            tensors = {
                name: FrozenTensor(entry[0], tuple(entry[1]), *(entry[2:] or [name]))
                for name, entry in value["tensors"].items()
                if not isinstance(entry, str)
            }
            same = {name: entry for name, entry in value["tensors"].items() if isinstance(entry, str)}
            dtype = getattr(torch, value["dtype"])
            return cls(value["seed"], value["law"], value["mean_square"], dtype, tensors, same)
        except (AttributeError, IndexError, KeyError, TypeError) as error:
            raise ValueError(f"not a description of frozen weights: {error!r}") from error


def digest(state: Mapping[str, Tensor]) -> int:
    """Return the CRC-32 of the bits of all tensors, in the order of their names.

    Example:
        >>> digest({"weight": torch.zeros(1)})
        558161692
    """
    value = 0
    for name in sorted(state):
        bits = state[name].detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        value = zlib.crc32(bits.numpy().data, value)
    return value


def pack(
    frozen: FrozenWeights, state_dict: Mapping[str, Tensor], masks: Mapping[str, Tensor]
) -> tuple[Tensor, dict[str, Any]]:
    """Return what a file holds of frozen tensors: the code of their masks, and a description for JSON.

    Args:
        frozen: What the tensors depend on.
        state_dict: The tensors under their names. They are not stored, but compared with what will be read.
        masks: Masks, or numbers of coats, of the shapes of the tensors.

    Returns:
        uint8 bytes of :func:`~graphsparse.tickets.mask_code.encode_masks`, and a dictionary.

    Raises:
        ValueError: If a tensor is not what seed, law and mask say.

    Example:
        >>> frozen = FrozenWeights(0, "signed_constant", tensors={"weight": FrozenTensor("weights", (1, 2), "weight")})
        >>> mask = {"weight": torch.tensor([[True, False]])}
        >>> code, description = pack(frozen, frozen.state(mask), mask)
        >>> unpack(code, description)[1]
        {'weight': tensor([[1., 0.]])}
    """
    stored = {}
    for name, shape in frozen.masked().items():
        mask = masks[name].detach().cpu()
        # All rows of a mask by columns are the same; if these aren't, the comparison with the weights will tell.
        stored[name] = mask.reshape(-1, *shape)[0] if mask.shape != shape else mask
    state = frozen.check(state_dict, stored)
    code = torch.frombuffer(bytearray(encode_masks(list(stored.values()))), dtype=torch.uint8)
    return code, {**frozen.to_json(), "crc": digest(state)}


def unpack(code: Tensor, description: Mapping[str, Any]) -> tuple[FrozenWeights, dict[str, Tensor], dict[str, Tensor]]:
    """Return what :func:`pack` got: frozen weights, state dict and masks.

    Raises:
        ValueError: If the parts do not fit, or the weights that are drawn now are not those of the file.
    """
    frozen = FrozenWeights.from_json(description)
    shapes = frozen.masked()
    masks = dict(zip(shapes, decode_masks(code.numpy().tobytes(), list(shapes.values())), strict=True))
    state = frozen.state(masks)
    if digest(state) != description.get("crc"):
        raise ValueError("the weights that this release draws from the seed are not those of the ticket")
    masks |= {name: masks[first] for name, first in frozen.same.items() if first in masks}
    return frozen, state, {name: mask.expand(state[name].shape) for name, mask in masks.items()}
