"""The published ways to search an untrained ticket, as arguments."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler

from graphsparse.nn import SupermaskLaw

Preset: TypeAlias = Literal["ugt", "edge_popup", "edge_popup_original", "multicoated"]


@dataclass(frozen=True)
class MaskSearch:
    """How a mask is searched.

    Args:
        supermask: Arguments of :class:`~graphsparse.nn.Supermask`.
        optimizer: ``"adamw"``, or ``"sgd"`` with momentum 0.9 and a cosine schedule.
        epochs: Number of epochs.
        lr: Learning rate.
        weight_decay: Weight decay of the scores.
    """

    supermask: Mapping[str, Any] = field(default_factory=dict)
    optimizer: Literal["adamw", "sgd"] = "adamw"
    epochs: int = 400
    lr: float = 0.01
    weight_decay: float = 0.0

    def make_optimizer(self, model: nn.Module) -> tuple[Optimizer, LRScheduler | None]:
        """Return the optimiser of everything that a model trains, and its schedule."""
        if self.optimizer == "adamw":
            return AdamW(model.parameters(), lr=self.lr, weight_decay=self.weight_decay, fused=True), None
        sgd = SGD(model.parameters(), lr=self.lr, momentum=0.9, weight_decay=self.weight_decay)
        return sgd, CosineAnnealingLR(sgd, self.epochs)


#: ``ugt``: Huang et al., arXiv 2211.15335. ``edge_popup``: the baseline of its figures, which differs in the threshold
#: per tensor and the missing ramp alone. ``edge_popup_original``: Ramanujan et al., arXiv 1911.13299. ``multicoated``:
#: Yan et al., arXiv 2312.03236.
PRESETS: Mapping[str, MaskSearch] = {
    "ugt": MaskSearch({"scope": "global", "transform": "identity", "law": "kaiming_uniform", "ramp": "linear"}),
    "edge_popup": MaskSearch({"scope": "layer", "transform": "identity", "law": "kaiming_uniform", "ramp": None}),
    "edge_popup_original": MaskSearch(
        {
            "scope": "layer",
            "transform": "abs",
            "law": SupermaskLaw("signed_constant", scores="edge_popup"),
            "ramp": None,
        },
        optimizer="sgd",
        epochs=100,
        lr=0.1,
        weight_decay=1e-4,
    ),
    "multicoated": MaskSearch(
        {
            "scope": "global",
            "transform": "abs",
            "law": SupermaskLaw("signed_constant", scaled=True),
            "coats": 3,
            "ramp": "linear",
        }
    ),
}


def mask_search(
    preset: str,
    supermask: Mapping[str, Any],
    *,
    epochs: int | None,
    lr: float | None,
    weight_decay: float | None,
) -> MaskSearch:
    """Return a preset with some arguments replaced.

    Args:
        preset: Name of a preset.
        supermask: Arguments of :class:`~graphsparse.nn.Supermask` that differ from it.
        epochs: Number of epochs; ``None`` for that of the preset, as for the following two.
        lr: Learning rate.
        weight_decay: Weight decay of the scores.

    Raises:
        ValueError: If the preset is unknown.

    Example:
        >>> mask_search("ugt", {"transform": "abs"}, epochs=None, lr=0.005, weight_decay=None).lr
        0.005
    """
    if preset not in PRESETS:
        raise ValueError(f"'preset' must be one of {sorted(PRESETS)} (got {preset!r})")
    known = PRESETS[preset]
    return MaskSearch(
        {**known.supermask, **supermask},
        known.optimizer,
        known.epochs if epochs is None else epochs,
        known.lr if lr is None else lr,
        known.weight_decay if weight_decay is None else weight_decay,
    )
