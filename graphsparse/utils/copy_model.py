"""Copies of a user's model in which every reference leads to the copy."""

import copy
import dis
import functools
import gc
import types
import weakref
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized
from torch_geometric.inspector import Inspector

#: What is shared by a copy and its original: classes and what PyG notes of them, modules of Python, what is scripted.
_SHARED = (type, Inspector, types.ModuleType, torch.jit.ScriptModule)
#: What leads nowhere: most of what a module of torch holds is a number, a word, or an empty dictionary for hooks.
_ATOMS = {type(None), bool, int, float, str, torch.dtype}
_CONTAINERS = {dict, OrderedDict, list, set}
#: Whose methods know no module by a global name.
_LIBRARIES = {"builtins", "collections", "torch", "torch_geometric", "graphsparse"}
#: What Python hands on in place of a copy, with all that it leads to.
_HANDED_ON = (types.FunctionType, types.BuiltinFunctionType, type(functools.cache(len)), weakref.ref)


def copy_model(model: nn.Module, tensors: Mapping[int, Tensor] | None = None, *, share: bool = False) -> nn.Module:
    """Return a copy of a model, in which lists, partial functions, bound methods and children lead to the copy, too.

    An activation that the model keeps comes without its graph. Functions are never copied: where one leads to a module
    of the model, as a closure may, the copy would be half a copy, and is refused. What is scripted is shared.

    Args:
        model: The model; it stays as it is.
        tensors: What the copy holds in the place of some tensors, by their ids.
        share: Whether it holds the other tensors and arrays themselves, in place of copies.

    Raises:
        ValueError: If the model holds what cannot be copied, or what leads from the copy back to the model; the message
            names the attribute.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2))
        >>> model.layers = [model[0]]
        >>> new = copy_model(model, share=True)
        >>> new.layers[0] is new[0], new[0] is model[0], new[0].weight is model[0].weight
        (True, False, True)
    """
    memo: dict[int, Any] = dict(tensors or {})
    found = list(_reached(model, through_functions=False))
    for where, item in found:
        if type(item) in weakref.ProxyTypes:
            raise ValueError(f"'model' cannot be copied: {where!r} holds a weakref.proxy; use weakref.ref")
        if id(item) in memo:
            continue
        if isinstance(item, _SHARED) or (share and isinstance(item, Tensor | np.ndarray)):
            memo[id(item)] = item
        elif isinstance(item, Tensor) and not item.is_leaf:
            memo[id(item)] = item.detach().clone()
        elif isinstance(item, nn.Module):  # without asking its class, which may build another one
            memo[id(item)] = object.__new__(type(item))
    for _, item in found:
        if isinstance(item, weakref.ref) and id(item()) in memo:
            memo[id(item)] = weakref.ref(memo[id(item())])
    originals = {}
    for where, item in found:
        if isinstance(item, nn.Module) and memo[id(item)] is not item:
            originals[id(item)] = where or type(item).__name__
            _set_state(memo[id(item)], item, where, memo)
    new: nn.Module = memo[id(model)]
    for where, item in _reached(new, through_functions=True):
        if id(item) in originals:
            raise ValueError(
                f"'model' cannot be copied: {where or type(new).__name__!r} of a copy leads back to "
                f"{originals[id(item)]!r} of the model, by a function that holds it or a cache, which Python does not "
                "copy; make it a method, or give it the module as an argument"
            )
    return new


def _set_state(new: nn.Module, module: nn.Module, where: str, memo: dict[int, Any]) -> None:
    """Give a copy the attributes of the original, copied."""
    # Every object has the method from Python 3.11 on; that of a parametrised module refuses.
    of_class: Any = None if is_parametrized(module) else getattr(module, "__getstate__", None)
    state: dict[str, Any] = dict(vars(module) if of_class is None else of_class())
    for key, value in state.items():
        if type(value) in _ATOMS:
            continue
        if _is_empty(value):
            state[key] = memo.setdefault(id(value), type(value)())
            continue
        try:
            state[key] = copy.deepcopy(value, memo)
        except Exception as error:  # what cannot be copied may raise anything
            raise ValueError(
                f"'model' cannot be copied: {_join(where, key)!r} holds {type(value).__name__}, which cannot "
                f"({type(error).__name__}: {error})"
            ) from error
    new.__setstate__(state)  # type: ignore[no-untyped-call]


def _reached(model: nn.Module, *, through_functions: bool) -> Iterator[tuple[str, Any]]:
    """Walk to all that a model leads to, nearest first; yield by which attribute an object was reached, and it."""
    queue: deque[tuple[str, Any]] = deque([("", model)])
    seen: dict[int, Any] = {}
    while queue:
        where, item = queue.popleft()
        if type(item) in _ATOMS or id(item) in seen or _is_empty(item):
            continue
        seen[id(item)] = item  # alive, so that nothing else gets its id
        yield where, item
        if isinstance(item, type) and through_functions:
            own = {} if item.__module__.partition(".")[0] in _LIBRARIES else vars(item)
            used = [other for method in own.values() for other in _global_modules(method)]
            queue.extend((where, other) for other in (*item.__bases__, *used))
        if isinstance(item, (*_SHARED, Tensor, np.ndarray)) or type(item) in weakref.ProxyTypes:
            continue
        if isinstance(item, nn.Module):
            queue.append((where, type(item)))
            for key, value in vars(item).items():
                children = value.items() if key == "_modules" else ()
                queue.extend([*((_join(where, name), child) for name, child in children), (_join(where, key), value)])
        elif not isinstance(item, _HANDED_ON):
            queue.extend((where, other) for other in gc.get_referents(item))
        elif through_functions:
            queue.extend((where, other) for other in _referents(item))


def _referents(item: Any) -> list[Any]:
    """Return what a function or a weak reference leads to."""
    if isinstance(item, weakref.ref):
        return [item()]
    if isinstance(item, types.FunctionType):
        held = [item.__closure__, item.__defaults__, item.__kwdefaults__, item.__dict__]
        return [*held, *_global_modules(item)]
    return gc.get_referents(item)


def _global_modules(function: Any) -> list[nn.Module]:
    """Return the modules of torch that a function knows by a global name."""
    if not isinstance(function, types.FunctionType):
        return []
    space = function.__globals__
    names = {name for name in function.__code__.co_names if isinstance(space.get(name), nn.Module)}
    if not names:  # as nearly always
        return []
    used = {entry.argval for entry in dis.get_instructions(function) if entry.opname == "LOAD_GLOBAL"}
    return [space[name] for name in names & used]


def _is_empty(item: Any) -> bool:
    return type(item) in _CONTAINERS and not item


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key
