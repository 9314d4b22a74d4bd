"""What a thing is called, and whether it is one of a library."""

import hashlib
from typing import Any

_LIBRARIES = ("torch", "torch_geometric", "graphsparse")


def name_of(thing: Any) -> str:
    """Return the full name of a function or class."""
    module = str(getattr(thing, "__module__", None) or type(thing).__module__)
    return f"{module}.{getattr(thing, '__qualname__', None) or type(thing).__qualname__}"


def kind_of(value: Any) -> str:
    """Return the full name of the class of a value."""
    return f"{type(value).__module__}.{type(value).__qualname__}"


def is_library(module: str) -> bool:
    """Say whether a module is that of Python's builtins, or one of PyTorch, PyG or this package."""
    return module.partition(".")[0] in (*_LIBRARIES, "builtins")


def hashed(text: str, size: int = 8) -> str:
    """Return the hexadecimal digest of a text, of ``size`` bytes."""
    return hashlib.blake2b(text.encode(), digest_size=size).hexdigest()
