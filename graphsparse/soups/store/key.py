"""By what an ingredient is known again: options, names of functions, first weights and graph."""

import functools
import json
import re
import types
import weakref
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import torch_geometric.nn
from torch import Tensor, nn
from torch_geometric.data import Data

from graphsparse.ops.digest import digest, kind_of

#: Values that their text says all about.
_PLAIN = (type(None), bool, int, float, complex, str, bytes)
#: What makes a text useless as a name: an address, a part that is left out, and numbers that are rounded.
_UNCLEAR = re.compile(r"0x[0-9a-fA-F]+|\.\.\.|\b(tensor|array)\(")
_LIBRARIES = ("torch", "torch_geometric", "graphsparse")
#: Attributes that every module has.
_OF_EVERY_MODULE = frozenset(vars(nn.Module()))


def describe(value: Any, name: str, tag: str | None = None) -> str:
    """Describe an option in a text that is the same in every process.

    Functions and classes are described by their full names, tensors and arrays by digests, lists, dictionaries and
    dataclasses by what they hold, models by classes, options and weights, anything else by its ``repr``.

    Args:
        value: The option.
        name: Its name in messages.
        tag: A text of the user that stands for what has neither a name nor a text: lambdas, functions within functions,
            and objects whose ``repr`` holds an address or rounds numbers. Without it they are refused.

    Raises:
        TypeError: If the value cannot be described, and there is no tag.

    Example:
        >>> describe({"b": [1, np.float64(2.5)], "a": len}, "options")
        "{'a': builtins.len, 'b': [1, 2.5]}"
    """
    if isinstance(value, np.generic):
        value = value.item()
    if type(value) in _PLAIN:
        return repr(value)
    if isinstance(value, Tensor):
        return f"{kind_of(value)} {digest([value])}"
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return f"array {value.dtype} {list(value.shape)} {digest([value.tobytes()])}"
    if type(value) in (list, tuple):
        return "[" + ", ".join(describe(entry, name, tag) for entry in value) + "]"
    if type(value) in (set, frozenset):
        return "{" + ", ".join(sorted(describe(entry, name, tag) for entry in value)) + "}"
    if type(value) in (dict, OrderedDict):
        items = sorted((describe(key, name, tag), describe(entry, name, tag)) for key, entry in value.items())
        return "{" + ", ".join(f"{key}: {entry}" for key, entry in items) + "}"
    if isinstance(value, functools.partial):
        return f"partial {describe([value.func, value.args, value.keywords], name, tag)}"
    if callable(value) and isinstance(getattr(value, "__qualname__", None), str):
        owner = getattr(value, "__self__", None)
        bound = "" if owner is None or isinstance(owner, types.ModuleType) else f" of {describe(owner, name, tag)}"
        return _name_of(value, name, tag) + bound
    kind = _name_of(type(value), name, tag)
    if isinstance(value, nn.Module):
        return f"{kind} {describe([describe_model(value, tag), value.state_dict()], name, tag)}"
    if isinstance(value, Data):
        return f"{kind} {describe(value.to_dict(), name, tag)}"
    if is_dataclass(value):
        return f"{kind} {describe({entry.name: getattr(value, entry.name) for entry in fields(value)}, name, tag)}"
    text = repr(value)
    if _UNCLEAR.search(text):
        _need_tag(name, text, tag)
        return kind
    return f"{kind} {text}"


def describe_model(model: nn.Module, tag: str | None = None) -> dict[str, str]:
    """Describe a model by the classes and options of its layers, and the shapes of its parameters.

    Args:
        model: The model.
        tag: As in :func:`describe`.

    Raises:
        TypeError: If a layer has an attribute that cannot be described, and there is no tag.

    Example:
        >>> print(describe_model(nn.Dropout(0.25)))
        {"layer ''": "torch.nn.modules.dropout.Dropout {'inplace': False, 'p': 0.25}"}
    """
    found = {}
    for path, layer in model.named_modules():
        name = f"layer {path!r}"
        found[name] = f"{_name_of(type(layer), name, tag)} {_describe_layer(layer, name, tag)}"
    for path, parameter in model.named_parameters():
        found[f"parameter {path!r}"] = kind_of(parameter) + ("" if parameter.requires_grad else " frozen")
    saved = model.state_dict()
    for path, buffer in model.named_buffers():
        if path not in saved:
            found[f"buffer {path!r}"] = describe(buffer, "a buffer")
    return found


def _describe_layer(layer: nn.Module, name: str, tag: str | None) -> str:
    if isinstance(layer, torch_geometric.nn.Sequential):  # its text says how the layers are joined
        return repr(layer)
    library = _is_library(layer)
    options = {
        key: value
        for key, value in vars(layer).items()
        if key not in _OF_EVERY_MODULE and not (library and key.startswith("_"))
    }
    for key, value in vars(layer).items():
        if key in _OF_EVERY_MODULE and key.endswith("_hooks") and "state_dict" not in key and value:
            options[key] = list(value.values())
    texts = {}
    for key, value in options.items():
        # Objects that a layer of a library makes for itself follow from its other options.
        own = isinstance(value, weakref.ref) or (library and _is_library(value) and not callable(value))
        texts[key] = describe(value, f"{key!r} of {name} of the model", "" if own else tag)
    return "{" + ", ".join(f"{key!r}: {text}" for key, text in sorted(texts.items())) + "}"


def ingredient_key(spec: Mapping[str, Any]) -> str:
    """Return the name of an ingredient, which follows from all that its weights depend on.

    Args:
        spec: Plain values by name.

    Example:
        >>> ingredient_key({"lr": 0.1, "epochs": 2}) == ingredient_key({"epochs": 2, "lr": 0.1})
        True
    """
    return digest([json.dumps(spec, sort_keys=True, allow_nan=False)], 10)


def differences(saved: Mapping[str, Any], now: Mapping[str, Any], most: int = 3) -> str:
    """Name what differs between two descriptions, at most so many things; empty if nothing does."""
    names = [*saved, *(name for name in now if name not in saved)]
    missing = object()
    found = [name for name in names if saved.get(name, missing) != now.get(name, missing)]
    told = [f"{name} was {saved.get(name, 'missing')} and is now {now.get(name, 'missing')}" for name in found[:most]]
    return "; ".join(told) + (f"; and {len(found) - most} more" if len(found) > most else "")


def _name_of(thing: Any, name: str, tag: str | None) -> str:
    """Return the full name of a function or class, which must tell it from others."""
    full = f"{thing.__module__}.{thing.__qualname__}"
    if "<" in full:  # <lambda>, <locals>
        _need_tag(name, full, tag)
    return full


def _need_tag(name: str, text: str, tag: str | None) -> None:
    if tag is None:
        raise TypeError(
            f"{name} must be told from others by its name or its text, which {text[:200]!r} is not; define functions "
            "and classes in a module or a script, or give 'tag', any text, and another one whenever you change it"
        )


def _is_library(value: Any) -> bool:
    return type(value).__module__.partition(".")[0] in _LIBRARIES
