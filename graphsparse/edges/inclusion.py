"""Draw edges with given probabilities."""

from collections.abc import Callable
from typing import Any

DESIGNS: dict[str, Callable[..., Any]] = {}
