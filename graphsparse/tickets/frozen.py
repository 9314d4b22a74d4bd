"""The weights of an untrained ticket: a seed and a law in place of numbers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias, cast

import torch
from torch import Tensor

from graphsparse.nn import Supermask
from graphsparse.nn.weight_laws import WeightLaw, draw_weight
from graphsparse.ops.digest import digest

#: ``weights``: masked entry by entry; ``columns``: masked by whole columns; ``dense``: drawn, not masked; ``zero``: 0.
FrozenRole: TypeAlias = Literal["weights", "columns", "dense", "zero"]


class FrozenTensor(NamedTuple):
    """One tensor of a model that was never trained.

    Args:
        role: What is drawn and masked of it.
        shape: Its sizes.
    """

    role: FrozenRole
    shape: tuple[int, ...]

    @property
    def masked(self) -> bool:
        """Whether a mask belongs to it."""
        return self.role in ("weights", "columns")


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
    """

    seed: int
    law: WeightLaw
    mean_square: float = 1.0
    dtype: torch.dtype = torch.float32
    tensors: Mapping[str, FrozenTensor] = field(default_factory=dict)
    same: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, supermask: Supermask) -> "FrozenWeights":
        """Return what the frozen weights of a supermask depend on."""
        entries = supermask.frozen_tensors()
        tensors: dict[str, FrozenTensor] = {}
        same: dict[str, str] = {}
        for entry in entries:
            first, *more = entry.names
            role = cast(FrozenRole, entry.role)
            tensors[first] = FrozenTensor(role, tuple(entry.parameter.shape))
            same |= dict.fromkeys(more, first)
        dtype = entries[0].parameter.dtype
        return cls(supermask.seed, supermask.law, supermask.mean_square, dtype, tensors, same)

    def names(self) -> list[str]:
        """Return the names of all frozen tensors, further ones included."""
        return [*self.tensors, *self.same]

    def entry(self, name: str) -> FrozenTensor:
        """Return what one of :meth:`names` is."""
        return self.tensors[self.same.get(name, name)]

    def stored_masks(self, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return each mask once, and one row of a mask by columns, all of whose rows are the same."""
        stored = {name: masks[name] for name, entry in self.tensors.items() if entry.masked}
        return {k: m.reshape(-1, m.shape[-1])[0] if self.entry(k).role == "columns" else m for k, m in stored.items()}

    def all_masks(self, stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the masks of all names in the shapes of their tensors from :meth:`stored_masks`."""
        names = [name for name in self.names() if self.entry(name).masked]
        return {name: stored[self.same.get(name, name)].expand(self.entry(name).shape) for name in names}

    @torch.no_grad()
    def state(self, masks: Mapping[str, Tensor], device: torch.device | str | None = None) -> dict[str, Tensor]:
        """Draw the weights of all tensors and mask them; names that stand for one tensor get the same one."""
        state: dict[str, Tensor] = {}
        for name, entry in self.tensors.items():
            if entry.role == "zero":
                state[name] = torch.zeros(entry.shape, dtype=self.dtype, device=device)
                continue
            options: dict[str, Any] = {
                "name": name,
                "mean_square": self.mean_square if entry.masked else 1.0,
                "device": device,
            }
            weight = draw_weight(entry.shape, self.law, seed=self.seed, **options).to(self.dtype)
            # The product that the search computes, so that even the signs of zeros are the same.
            state[name] = weight * masks[name].to(weight.device).view(torch.uint8) if entry.masked else weight
        return state | {name: state[first] for name, first in self.same.items()}

    def check(self, state_dict: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> str:
        """Refuse a state dict whose frozen tensors are not what seed and masks say; return a digest of these."""
        state = self.state(self.stored_masks(masks))
        for name, tensor in state.items():
            got = state_dict[name].detach().cpu()
            if got.dtype != tensor.dtype or not torch.equal(got, tensor):
                raise ValueError(
                    f"'state_dict' holds other weights in {name!r} than those of the seed under its mask, as after a "
                    "change of type (Supermask.redraw() brings them back)"
                )
        return _digest(state)

    def redraw(self, masks: Mapping[str, Tensor], expected: str) -> dict[str, Tensor]:
        """Return :meth:`state`, or refuse it if its digest is another than that of the file."""
        state = self.state(masks)
        if _digest(state) != expected:
            raise ValueError("the weights that this release draws from the seed are not those of the ticket")
        return state

    def to_json(self) -> dict[str, Any]:
        """Return all of it in values that JSON can hold."""
        tensors = {name: [entry.role, list(entry.shape)] for name, entry in self.tensors.items()}
        return {
            "seed": int(self.seed),
            "law": self.law,
            "mean_square": self.mean_square,
            "dtype": str(self.dtype).removeprefix("torch."),
            "tensors": tensors,
            "same": dict(self.same),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "FrozenWeights":
        """Return what :meth:`to_json` wrote."""
        tensors = {name: FrozenTensor(role, tuple(shape)) for name, (role, shape) in value["tensors"].items()}
        dtype = getattr(torch, value["dtype"])
        if not isinstance(dtype, torch.dtype):
            raise ValueError(f"{value['dtype']!r} is no type of numbers")
        return cls(value["seed"], value["law"], value["mean_square"], dtype, tensors, value["same"])


def _digest(state: Mapping[str, Tensor]) -> str:
    return digest(part for name in sorted(state) for part in (name, state[name]))
