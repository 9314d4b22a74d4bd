"""What objects hold: by their attributes, by what they are made of, or by what pickle would keep of them."""

import argparse
import copyreg
import functools
import types
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
from torch_geometric.data import Data

from graphsparse.soups.store.naming import is_library, kind_of


def vars_of(thing: Any) -> dict[str, Any]:
    """Return the attributes of an object, none where it has no place for them."""
    return dict(getattr(thing, "__dict__", {}))


def own_attributes(value: Any) -> dict[str, Any]:
    """Return the attributes of an object and what is in its slots."""
    found = vars_of(value)
    for parent in type(value).__mro__:
        if not is_library(parent.__module__):
            slots = [key for key, entry in vars(parent).items() if isinstance(entry, types.MemberDescriptorType)]
            found.update({key: getattr(value, key) for key in slots if hasattr(value, key)})
    return found


def held(value: Any) -> Any:
    """Return what a value of a known class is made of, ``None`` for all others."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, slice):
        return [value.start, value.stop, value.step]
    if isinstance(value, Data):
        return value.to_dict()
    if isinstance(value, types.SimpleNamespace | argparse.Namespace):
        return vars(value)
    if type(value).__module__ == "torch_sparse.tensor":  # the rest of it are caches
        return [value.sizes(), *value.coo()]
    if is_dataclass(value) and not isinstance(value, type):
        return {entry.name: getattr(value, entry.name, None) for entry in fields(value)} | vars_of(value)
    return None


def reduced(value: Any, name: str) -> Any:
    """Return what pickle would keep of an object: the name of something global, or a tuple."""
    try:
        reducer = copyreg.dispatch_table.get(type(value))
        found = value.__reduce_ex__(4) if reducer is None else reducer(value)
    except Exception as error:  # code of others may raise anything
        raise TypeError(
            f"{name} is a {kind_of(value)}, whose content cannot be read, so that ingredients that differ in it could "
            f"not be told apart ({error}); make it where it is used, or leave it out in a '__getstate__' of what "
            "holds it"
        ) from error
    return found


def split_state(kind: type, state: Sequence[Any]) -> tuple[dict[str, Any], list[Any]]:
    """Split what pickle would keep into attributes, and how to make the object and fill it otherwise."""
    function, arguments, content, entries, items = (*state, None, None, None)[:5]
    is_new = getattr(function, "__name__", None) in ("__newobj__", "__newobj_ex__")
    others = [*arguments[1:]] if is_new else [function, *arguments]
    parts = content if isinstance(content, tuple) and len(content) == 2 else (content,)  # the second is of slots
    attributes: dict[str, Any] = {}
    if all(part is None or _is_attributes(part) for part in parts):
        attributes = {key: entry for part in parts for key, entry in (part or {}).items()}
    if not attributes or len(attributes) < sum(len(part or ()) for part in parts):
        others += [] if content is None else [content]
    others += [list(entry) for entry in (entries, items) if entry is not None]
    return {key: entry for key, entry in attributes.items() if not _is_cached(kind, key)}, others


def _is_attributes(value: Any) -> bool:
    return type(value) is dict and all(isinstance(key, str) for key in value)


def _is_cached(kind: type, key: str) -> bool:
    """Say whether an attribute is a cache of what follows from the others."""
    return any(isinstance(vars(parent).get(key), functools.cached_property) for parent in kind.__mro__)
