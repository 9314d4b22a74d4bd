"""Graph neural networks that are small, cheap and easy to combine, on PyTorch Geometric."""

from graphsparse.typing import backends

__version__ = "0.1.0.dev0"

__all__ = ["__version__", "backends"]
