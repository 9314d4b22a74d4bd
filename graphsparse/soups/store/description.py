"""Models, functions and options in plain words, equal for equal ones in different processes."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from graphsparse.soups.store.naming import hashed
from graphsparse.soups.store.walk import Place, Walk


def describe_model(model: nn.Module) -> dict[str, str]:
    """Describe the layers of a model, their options, the shapes of their weights and the code of those of a user.

    Args:
        model: The model.

    Returns:
        Texts by what they describe. That of code begins with ``code of``: it may differ between releases of Python.

    Raises:
        TypeError: If an attribute, or what it holds, has a content that cannot be read.
        ValueError: If an attribute is nested too deeply or holds too many objects.

    Example:
        >>> print(describe_model(nn.Dropout(0.25)))
        {"layer ''": 'torch.nn.modules.dropout.Dropout(inplace=False, p=0.25)'}
    """
    return Walk({id(layer): f"layer {name!r}" for name, layer in model.named_modules()}).model(model, Place("model"))


def describe(value: Any, option: str | None = None) -> str:
    """Describe an option: plain values by themselves, arrays by a digest, functions by their name and code.

    Anything else is described by its class, with the code of a user's one, and by what it would pickle.

    Args:
        value: The option.
        option: Its name, if anything else is to be refused.

    Raises:
        TypeError: If there is a name, and the value, or one in it, is something else; or if its content cannot be read.
        ValueError: If it is nested too deeply or holds too many objects.

    Example:
        >>> describe({"b": [1, 2.5], "a": None})
        "{'a': None, 'b': [1, 2.5]}"
    """
    return Walk().value(value, Place("the value" if option is None else f"'{option}'", option=option))


def describe_function(function: Callable[..., Any], name: str = "function") -> str:
    """Describe a function by its name and, unless it is one of a library, its code and all that it holds.

    Args:
        function: Any callable.
        name: Its name in messages.

    Raises:
        TypeError: If it holds something with a content that cannot be read.
        ValueError: If what it holds is nested too deeply or too much.

    Example:
        >>> describe_function(nn.functional.relu)
        'torch.nn.functional.relu'
    """
    return Walk().value(function, Place(f"'{name}'"))


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
