"""Values of any kind with all that they hold, in plain words."""

import enum
import functools
import hashlib
import re
import sys
import types
import weakref
from collections.abc import Callable, Mapping, Sequence, Set, ValuesView
from pathlib import PurePath
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from graphsparse.ops.digest import digest
from graphsparse.soups.store.code_digest import code_digest
from graphsparse.soups.store.naming import hashed, is_library, kind_of, name_of
from graphsparse.soups.store.pickled import held, own_attributes, reduced, split_state, vars_of

#: What classes of a user derive from without being another's for it.
_BASES = ("abc", "collections.abc", "enum", "typing")
#: Attributes that every module has, and what they start as says nothing.
_OF_EVERY_MODULE = frozenset(vars(nn.Module()))
#: What its text says all about.
_PLAIN = str | bytes | int | float | complex | range | PurePath | torch.dtype | torch.device | torch.layout
#: Types whose objects have no content, or one that follows from what is described anyway or from how often it was used.
_CONTENTLESS = (
    "builtins.object",
    "builtins.ellipsis",
    "builtins.NotImplementedType",
    "_thread.lock",
    "_thread.RLock",
    "torch.utils.hooks.RemovableHandle",
    "torch_geometric.inspector.Inspector",
)
#: Entries of classes that only lead to what objects hold or to compiled code.
_DESCRIPTORS = (
    types.MemberDescriptorType,
    types.GetSetDescriptorType,
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
    types.ClassMethodDescriptorType,
)
#: PyG writes the forward pass of its ``Sequential`` anew for every object, to a module with a random name.
_GENERATED = re.compile(r"_Sequential_[0-9a-f]{6}$")
#: Bounds within which Python's stack, time and memory last.
_DEEPEST, _MOST_OBJECTS, _LONGEST = 100, 100_000, 1_000_000


class Place(NamedTuple):
    """Where a value was found: its name in messages, the ids of those that hold it, and the option it belongs to."""

    name: str
    above: tuple[int, ...] = ()
    option: str | None = None

    def below(self, value: Any) -> "Place":
        """Return the place of what a value holds."""
        return self._replace(above=(*self.above, id(value)))

    def attribute(self, name: str) -> "Place":
        """Return the place of an attribute of what is here."""
        full = f"{name!r} of {self.name}"
        return self._replace(name=full if len(full) < 200 else f"{full[:100]} ... {full[-80:]}", option=None)


class Walk:
    """Describes values with all that they hold, each of them once.

    Args:
        layers: Names of the layers of the model that is described, by their ids.
    """

    def __init__(self, layers: Mapping[int, str] | None = None) -> None:
        self.layers = layers or {}
        self.known: dict[int, tuple[Any, str]] = {}  # values are kept, so that no other one gets their ids
        self.highest = sys.maxsize  # where in ``above`` the highest value stands that was met again further below
        self.objects = 0

    def value(self, value: Any, place: Place) -> str:
        """Describe any value."""
        if isinstance(value, np.number | np.bool_ | np.character):
            value = value.item()
        if value is None or (isinstance(value, _PLAIN) and not _is_derived(value)):
            return repr(value)
        if isinstance(value, Tensor):
            return f"{value.dtype} {list(value.shape)} {digest([value])}".removeprefix("torch.")
        if isinstance(value, np.ndarray | np.generic) and not value.dtype.hasobject:
            content = hashlib.blake2b(value.tobytes(), digest_size=8).hexdigest()
            return f"array {value.dtype} {list(value.shape)} {content}"
        if id(value) in self.layers:
            return self.layers[id(value)]
        if id(value) in place.above:
            self.highest = min(self.highest, place.above.index(id(value)))
            return "..."
        if id(value) in self.known:
            return self.known[id(value)][1]
        if len(place.above) >= _DEEPEST:
            raise ValueError(f"{place.name} is nested more than {_DEEPEST} levels deep, too deep to be described")
        outer, self.highest = self.highest, sys.maxsize
        text = self._compound(value, place.below(value))
        if len(text) > _LONGEST:
            text = f"{kind_of(value)} {hashed(text)}"
        if self.highest >= len(place.above):  # else it would read differently from elsewhere
            self.known[id(value)] = value, text
        self.highest = min(self.highest, outer)
        return text

    def _compound(self, value: Any, place: Place) -> str:
        """Describe a value that may hold others."""
        if issubclass(type(value), type):  # which ``list[int]`` is not, whatever Python 3.10 says of it
            parts = self._class_parts(value, place)
            return name_of(value) + (f" {hashed(str(sorted(parts.items())))}" if parts else "")
        if isinstance(value, enum.Enum):
            return f"{self.value(type(value), place)}.{value.name}={self.value(value.value, place)}"
        made_of = held(value)
        if made_of is not None:
            return f"{self.value(type(value), place)} {self.value(made_of, place)}"
        if isinstance(value, Mapping):
            items = sorted((self.value(key, place), self.value(entry, place)) for key, entry in value.items())
            return "{" + ", ".join(f"{key}: {entry}" for key, entry in items) + "}" + self._derived(value, place)
        if isinstance(value, _PLAIN):
            return _base_text(value) + self._derived(value, place)
        if isinstance(value, Sequence | ValuesView):
            return "[" + ", ".join(self.value(entry, place) for entry in value) + "]" + self._derived(value, place)
        if isinstance(value, Set):
            entries = sorted(self.value(entry, place) for entry in value)
            return "{" + ", ".join(entries) + "}" + self._derived(value, place)
        if isinstance(value, nn.Module):
            return f"{kind_of(value)} {hashed(str(sorted(self.model(value, place, with_weights=True).items())))}"
        return self._function(value, place) if callable(value) else self._object(value, place)

    def model(self, model: nn.Module, place: Place, with_weights: bool = False) -> dict[str, str]:
        """Describe a model as :func:`describe_model` does, or with its weights, too."""
        found: dict[str, str] = {}
        code: dict[str, str] = {}
        place = place if place.above else place.below(model)
        state = model.state_dict(keep_vars=True)
        for name, layer in model.named_modules():
            here = place._replace(name=f"layer {name!r} of {place.name}")
            options = self._attributes(_options(layer), here)
            found[f"layer {name!r}"] = f"{kind_of(layer)}({options})"
            for part, text in self._class_parts(type(layer), here).items():
                _add(code, part, text)
        for name, buffer in model.named_buffers():
            if name not in state:
                found[f"buffer {name!r}"] = self.value(buffer, place)
        for name, value in state.items():
            if with_weights or not isinstance(value, Tensor):
                found[f"weights {name!r}"] = "not drawn yet" if is_lazy(value) else self.value(value, place)
            if isinstance(value, Tensor) and not is_lazy(value):
                frozen = "" if not isinstance(value, nn.Parameter) or value.requires_grad else " frozen"
                found[f"tensor {name!r}"] = f"{value.dtype} {list(value.shape)}{frozen}".removeprefix("torch.")
        return found | {f"code of {name}": text for name, text in sorted(code.items())}

    def _function(self, function: Callable[..., Any], place: Place) -> str:
        """Describe what can be called and is no class or module."""
        if isinstance(function, functools.partial):
            place = place._replace(option=None)
            parts = [self.value(part, place) for part in (function.func, function.args, function.keywords)]
            return f"partial({', '.join(parts)})"
        if isinstance(function, types.MethodType):
            bound = self.value(function.__self__, place.attribute("__self__"))
            return f"{self.value(function.__func__, place._replace(option=None))} of {bound}"
        if isinstance(function, types.FunctionType):
            compiled = vars(function).get("_torchdynamo_orig_callable")
            if compiled is not None:
                return f"compiled {self.value(compiled, place)}"
            is_bare = is_library(function.__module__) and not _GENERATED.search(function.__module__)
            name = name_of(function) if is_bare else f"{function.__qualname__} {code_digest(function)}"
            return name + (self._extras(function, place) if not is_bare or function.__closure__ else "")
        owner = getattr(function, "__self__", None)
        if isinstance(function, types.BuiltinFunctionType | types.MethodWrapperType):
            is_bare = owner is None or isinstance(owner, types.ModuleType | type) or _is_binding(owner)
            return name_of(function) + ("" if is_bare else f" of {self.value(owner, place.attribute('__self__'))}")
        if isinstance(function, _DESCRIPTORS):
            return name_of(function)
        return self._object(function, place._replace(option=None))

    def _extras(self, function: types.FunctionType, place: Place) -> str:
        """Describe what a function holds besides its code: it belongs to the function as the code does."""
        cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        # The class of a method is described where the method is.
        held = [self.value(_cell(cell), place.attribute(name)) for name, cell in cells if name != "__class__"]
        place, own = place._replace(option=None), vars_of(function)
        texts = [self.value(part, place) for part in (function.__defaults__, function.__kwdefaults__)]
        texts += [f"[{', '.join(held)}]", *([self.value(own, place)] if own else [])]
        return f" {hashed('[' + ', '.join(texts) + ']')}"

    def _class_parts(self, kind: type, place: Place) -> dict[str, str]:
        """Describe methods and values of a class and those that it derives from, unless they are a library's."""
        found: dict[str, str] = {}
        for parent in kind.__mro__:
            if is_library(parent.__module__) or parent.__module__ in _BASES:
                continue
            for key, value in [*vars(parent).items()]:  # pickle's own protocol notes things in classes
                name = f"{parent.__qualname__}.{key}"
                text = self._class_part(parent, key, value, place.attribute(name))
                if text is not None:
                    _add(found, name, text)
            bases = [name_of(base) for base in parent.__bases__ if base is not nn.Module]
            if any(not base.startswith("builtins.") for base in bases):
                _add(found, f"{parent.__qualname__}.__bases__", ", ".join(bases))
        return found

    def _class_part(self, parent: type, key: str, value: Any, place: Place) -> str | None:
        """Describe an entry of a class; ``None`` for those that Python makes itself."""
        if isinstance(value, types.FunctionType):
            code = code_digest(value)
            extras = any((value.__defaults__, value.__kwdefaults__, vars_of(value), _is_closure(value)))
            return code + (self._extras(value, place) if extras else "")
        if isinstance(value, staticmethod | classmethod):
            return f"{kind_of(value)} {self.value(value.__func__, place)}"
        if isinstance(value, property):
            return f"property {self.value([value.fget, value.fset, value.fdel], place)}"
        if isinstance(value, functools.cached_property):
            return f"property {self.value(value.func, place)}"
        is_made = key.startswith("__") and key.endswith("__")
        if is_made or key == "_abc_impl" or isinstance(value, _DESCRIPTORS) or issubclass(parent, enum.Enum):
            return None
        highest = self.highest
        try:
            return self.value(value, place)
        except (TypeError, ValueError):  # it is made by the code around it, and no two objects differ in it
            self.highest = highest
            return kind_of(value)

    def _derived(self, value: Any, place: Place) -> str:
        """Describe what a class of a user adds to a container or a number, empty if it is none."""
        if is_library(type(value).__module__):
            return ""
        kind, own = self.value(type(value), place), self._attributes(own_attributes(value), place)
        return f" {kind}({own})" if own or kind != kind_of(value) else ""

    def _attributes(self, attributes: Mapping[str, Any], place: Place) -> str:
        texts = ((key, self.value(value, place.attribute(key))) for key, value in sorted(attributes.items()))
        return ", ".join(f"{key}={text}" for key, text in texts)

    def _object(self, value: Any, place: Place) -> str:
        """Describe an object by its class and by what it would pickle, which is also what workers get."""
        if place.option is not None:
            raise TypeError(
                f"'{place.option}' must be made of numbers, texts, arrays, tensors, dataclasses or functions, by whose "
                f"content ingredients are told apart (got {kind_of(value)})"
            )
        kind = kind_of(value)
        if kind in _CONTENTLESS or kind.startswith("torch._dynamo."):
            return kind
        if kind.startswith("torch._ops.") or isinstance(value, types.ModuleType):
            return f"{kind} {getattr(value, '__name__', value)}"
        if isinstance(value, weakref.ref):
            return f"{kind} {self.value(value(), place)}"
        self.objects += 1
        if self.objects > _MOST_OBJECTS:
            raise ValueError(f"{place.name} holds more than {_MOST_OBJECTS} objects, too many to be described")
        name = self.value(type(value), place)
        state = reduced(value, place.name)
        if isinstance(state, str):  # the name of something global
            own = vars_of(value)
            return f"{name} {state}" + (f" {self.value(own, place)}" if own else "")
        attributes, others = split_state(type(value), state)
        others = others and [self.value(entry, place) for entry in others]
        return f"{name}({self._attributes(attributes, place)})" + (f" [{', '.join(others)}]" if others else "")


def _add(found: dict[str, str], name: str, text: str) -> None:
    """Add a text under its name, or under the next free one where another class of that name has it."""
    while found.get(name, text) != text:
        name += "'"
    found[name] = text


def _options(layer: nn.Module) -> dict[str, Any]:
    """Return what belongs to a layer besides its weights: its attributes, and functions hooked into its passes."""
    library = is_library(type(layer).__module__)
    options = {
        key: value
        for key, value in vars(layer).items()
        if key not in _OF_EVERY_MODULE and not (library and key.startswith("_"))
    }
    hooks = {key: value for key, value in vars(layer).items() if key.endswith("_hooks") and "state_dict" not in key}
    return options | {key: list(value.values()) for key, value in hooks.items() if isinstance(value, dict) and value}


def _is_derived(value: Any) -> bool:
    """Say whether a number or a text is of a class that may hold more."""
    is_user = isinstance(value, str | bytes | int | float | complex) and not is_library(type(value).__module__)
    return is_user or isinstance(value, enum.Enum)


def _base_text(value: Any) -> str:
    """Write a number or a text as if it were of the class of Python that it derives from."""
    base = next(base for base in (str, bytes, int, float, complex) if isinstance(value, base))
    return base.__repr__(value)


def _is_binding(owner: Any) -> bool:
    """Say whether the owner of a compiled function is there for its library only."""
    return type(owner).__name__ == "PyCapsule" or type(owner).__module__.startswith("pybind11")


def _is_closure(function: types.FunctionType) -> bool:
    return any(name != "__class__" for name in function.__code__.co_freevars)


def _cell(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not yet filled
        return None
