"""Models, functions and options in plain words, equal for equal ones in different processes."""

import argparse
import enum
import functools
import hashlib
import json
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from graphsparse.training.identity import digest

_LIBRARIES = ("torch", "torch_geometric", "graphsparse")
#: Attributes that every module has, and what they start as says nothing.
_OF_EVERY_MODULE = frozenset(vars(nn.Module()))
#: What its text says all about.
_PLAIN = str | bytes | int | float | complex | range | PurePath | torch.dtype | torch.device | torch.layout


def describe_model(model: nn.Module) -> dict[str, str]:
    """Describe the layers of a model, their options, the shapes of their weights and the code of those of a user.

    Args:
        model: The model.

    Returns:
        Texts by what they describe. That of code begins with ``code of``: it may differ between releases of Python.

    Example:
        >>> print(describe_model(nn.Dropout(0.25)))
        {"layer ''": 'torch.nn.modules.dropout.Dropout(inplace=False, p=0.25)'}
    """
    found: dict[str, str] = {}
    code: dict[str, str] = {}
    state = model.state_dict(keep_vars=True)
    for name, layer in model.named_modules():
        kind = type(layer)
        options = ", ".join(f"{key}={describe(value)}" for key, value in sorted(_options(layer).items()))
        found[f"layer {name!r}"] = f"{kind.__module__}.{kind.__qualname__}({options})"
        for parent in kind.__mro__:
            if not _is_library(parent.__module__):
                for key, value in vars(parent).items():
                    if isinstance(value, types.FunctionType):
                        code[f"code of {parent.__qualname__}.{key}"] = _code(value)
    for name, buffer in model.named_buffers():
        if name not in state:
            found[f"buffer {name!r}"] = describe(buffer)
    for name, value in state.items():
        frozen = "" if not isinstance(value, nn.Parameter) or value.requires_grad else " frozen"
        found[f"tensor {name!r}"] = f"{value.dtype} {list(value.shape)}{frozen}".removeprefix("torch.")
    return found | dict(sorted(code.items()))


def describe(value: Any, option: str | None = None) -> str:
    """Describe an option: plain values by themselves, arrays by a digest, functions by their name and code.

    Of anything else only the type is named, because its text may hold an address.

    Args:
        value: The option.
        option: Its name, if anything else is to be refused.

    Raises:
        TypeError: If there is a name, and the value, or one in it, is something else.

    Example:
        >>> describe({"b": [1, 2.5], "a": None})
        "{'a': None, 'b': [1, 2.5]}"
    """
    return _describe(value, option, ())


def _describe(value: Any, option: str | None, above: tuple[int, ...]) -> str:
    """Describe a value that is held by those of the ids ``above``."""
    if isinstance(value, np.number | np.bool_ | np.character):
        value = value.item()
    if isinstance(value, enum.Enum):
        return f"{_kind(value)}.{value.name}={_describe(value.value, option, above)}"
    if value is None or isinstance(value, _PLAIN):
        return repr(value)
    if isinstance(value, Tensor):
        return f"{value.dtype} {list(value.shape)} {digest([value])}".removeprefix("torch.")
    if isinstance(value, np.ndarray | np.generic) and not value.dtype.hasobject:
        return f"array {value.dtype} {list(value.shape)} {hashlib.blake2b(value.tobytes(), digest_size=8).hexdigest()}"
    if id(value) in above:
        return "..."
    above = (*above, id(value))
    held = _held(value)
    if held is not None:
        return f"{_kind(value)} {_describe(held, option, above)}"
    if isinstance(value, Mapping):
        items = sorted((_describe(key, option, above), _describe(entry, option, above)) for key, entry in value.items())
        return "{" + ", ".join(f"{key}: {entry}" for key, entry in items) + "}"
    if isinstance(value, Sequence):
        return "[" + ", ".join(_describe(entry, option, above) for entry in value) + "]"
    if isinstance(value, set | frozenset):
        return "{" + ", ".join(sorted(_describe(entry, option, above) for entry in value)) + "}"
    if callable(value):
        return _function(value, above)
    if option is not None:
        raise TypeError(
            f"'{option}' must be made of numbers, texts, arrays, tensors, dataclasses or functions, by whose content "
            f"ingredients are told apart (got {_kind(value)})"
        )
    return _kind(value)


def _held(value: Any) -> Any:
    """Return what a value of a known class is made of, ``None`` for all others."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, slice):
        return [value.start, value.stop, value.step]
    if isinstance(value, Data):
        return value.to_dict()
    if isinstance(value, types.SimpleNamespace | argparse.Namespace):
        return vars(value)
    if is_dataclass(value) and not isinstance(value, type):
        return {entry.name: getattr(value, entry.name, None) for entry in fields(value)} | vars_of(value)
    return None


def describe_function(function: Callable[..., Any]) -> str:
    """Describe a function by its name and, unless it is one of a library, its code.

    Args:
        function: Any callable.

    Example:
        >>> describe_function(torch.nn.functional.relu)
        'torch.nn.functional.relu'
    """
    return _function(function, (id(function),))


def _function(function: Callable[..., Any], above: tuple[int, ...]) -> str:
    if isinstance(function, functools.partial):
        parts = [_describe(part, None, above) for part in (function.func, function.args, function.keywords)]
        return f"partial({', '.join(parts)})"
    function = getattr(function, "__func__", function)
    module = str(getattr(function, "__module__", None) or type(function).__module__)
    name = str(getattr(function, "__qualname__", None) or type(function).__qualname__)
    if not isinstance(function, types.FunctionType) or _is_library(module):
        is_bare = _is_library(module) or isinstance(function, type)
        return f"{module}.{name}" + ("" if is_bare else f" {_describe(vars_of(function), None, above)}")
    # What a closure holds belongs to the function as its code does.
    held = [_cell(cell) for cell in function.__closure__ or ()]
    extras = [function.__defaults__, function.__kwdefaults__, held]
    return f"{name} {_code(function)} {hashed(_describe(extras, None, above))}"


def vars_of(thing: Any) -> dict[str, Any]:
    """Return the attributes of an object, none where it has no place for them."""
    return dict(getattr(thing, "__dict__", {}))


def hashed(text: str, size: int = 8) -> str:
    """Return the hexadecimal digest of a text, of ``size`` bytes."""
    return hashlib.blake2b(text.encode(), digest_size=size).hexdigest()


def content_key(content: Mapping[str, Any]) -> str:
    """Return the name of an ingredient, which follows from all that its weights depend on.

    Args:
        content: Plain values.

    Example:
        >>> content_key({"lr": 0.1, "epochs": 2}) == content_key({"epochs": 2, "lr": 0.1})
        True
    """
    return hashed(json.dumps(content, sort_keys=True, allow_nan=False), 10)


def differences(saved: Mapping[str, Any], now: Mapping[str, Any], most: int = 3) -> str:
    """Name what differs between two descriptions, empty if nothing does.

    Args:
        saved: What was there before.
        now: What is there now.
        most: How many differences to name.
    """
    names = [*saved, *(name for name in now if name not in saved)]
    missing = object()
    found = [name for name in names if saved.get(name, missing) != now.get(name, missing)]
    told = [f"{name} was {saved.get(name, 'missing')} and is now {now.get(name, 'missing')}" for name in found[:most]]
    return "; ".join(told) + (f"; and {len(found) - most} more" if len(found) > most else "")


def _options(layer: nn.Module) -> dict[str, Any]:
    library = _is_library(type(layer).__module__)
    return {
        key: value
        for key, value in vars(layer).items()
        if key not in _OF_EVERY_MODULE and not (library and key.startswith("_")) and not isinstance(value, nn.Module)
    }


def _kind(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _is_library(module: str) -> bool:
    return module.partition(".")[0] in (*_LIBRARIES, "builtins")


def _cell(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not yet filled
        return None


def _code(function: types.FunctionType) -> str:
    found = hashlib.blake2b(digest_size=8)
    _add_code(found, function.__code__, function.__doc__)
    return found.hexdigest()


def _add_code(found: Any, code: types.CodeType, doc: str | None = None) -> None:
    """Add what a function does; where it stands in its file, and its docstring, do not matter."""
    found.update(code.co_code)
    found.update(repr((code.co_names, code.co_varnames[: code.co_argcount + code.co_kwonlyargcount])).encode())
    for value in code.co_consts:
        if isinstance(value, types.CodeType):
            _add_code(found, value)
        else:
            found.update(describe(None if isinstance(value, str) and value == doc else value).encode())
