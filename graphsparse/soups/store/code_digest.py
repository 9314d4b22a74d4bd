"""What the code of a function does, as a digest."""

import hashlib
import types
from typing import Any


def code_digest(function: types.FunctionType) -> str:
    """Return the hexadecimal digest of what a function does, of 8 bytes.

    Where it stands in its file, and its docstring, do not matter.

    Args:
        function: A function of Python.

    Example:
        >>> code_digest(lambda x: x + 1) == code_digest(lambda x: x + 1)
        True
        >>> code_digest(lambda x: x + 1) == code_digest(lambda x: x + 2)
        False
    """
    found = hashlib.blake2b(digest_size=8)
    _add_code(found, function.__code__, function.__doc__)
    return found.hexdigest()


def _add_code(found: Any, code: types.CodeType, doc: str | None = None) -> None:
    found.update(code.co_code)
    names = code.co_names, code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    found.update(f"{names} {len(code.co_consts)}".encode())
    for value in code.co_consts:
        if isinstance(value, types.CodeType):
            _add_code(found, value)
        else:
            text = _constant(None if isinstance(value, str) and value == doc else value)
            found.update(f"{text}\0".encode())  # 1 and 23 are not 12 and 3


def _constant(value: Any) -> str:
    """Write a constant; the order of a set follows from hashes, which differ between processes."""
    if isinstance(value, frozenset):
        return "{" + ", ".join(sorted(map(_constant, value))) + "}"
    return "[" + ", ".join(map(_constant, value)) + "]" if isinstance(value, tuple) else repr(value)
