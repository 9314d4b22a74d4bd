"""The dropout of a whole model, and a faster one."""

import numbers
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from graphsparse.ops.check import check_real
from graphsparse.ops.dropout import dropout


class FastDropout(nn.Dropout):
    """Dropout by :func:`graphsparse.ops.dropout`, whose draws are others than torch's.

    Example:
        >>> FastDropout(0.25)
        Dropout(p=0.25, inplace=False)
    """

    def _get_name(self) -> str:
        """Look like the layer it stands for."""
        return "Dropout"

    def forward(self, input: Tensor) -> Tensor:
        """Run the layer."""
        return super().forward(input) if self.inplace else dropout(input, self.p, self.training)


def set_dropout(model: nn.Module, probability: float) -> int:
    """Set every dropout of a model, in place: layers of torch, and the attribute by which layers of PyG know theirs.

    A dropout that a model calls with a number of its own is not seen.

    Args:
        model: Any model.
        probability: Chance of an entry to be dropped, in ``[0, 1)``.

    Returns:
        The number of places that were set.

    Raises:
        TypeError: If ``probability`` is not a number.
        ValueError: If it is outside ``[0, 1)``.

    Example:
        >>> from torch_geometric.nn import GAT
        >>> set_dropout(GAT(8, 16, 2, 3, heads=2, dropout=0.6), 0.0)
        3
    """
    probability = check_real(probability, "dropout")
    if not 0 <= probability < 1:
        raise ValueError(f"'dropout' must be in [0, 1) (got {probability!r})")
    found = 0
    for module in model.modules():
        if isinstance(module, _DropoutNd):
            module.p = probability
            found += 1
            continue
        fields = vars(module)
        held = fields.get("dropout")
        if _is_probability(held):
            fields["dropout"] = probability
            found += 1
        elif isinstance(held, (list, tuple)) and held and all(_is_probability(entry) for entry in held):
            fields["dropout"] = [probability] * len(held)
            found += len(held)
    return found


def _is_probability(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)
