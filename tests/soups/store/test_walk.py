import collections
import copy
import functools
import json
import operator
import os
import random
import subprocess
import sys
import threading
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from descriptions import Config, Kind, changed, own_layer
from ingredient_runs import Net
from torch import nn
from torch_geometric.nn import GAT, GCN, GIN, PNA, GCNConv, GraphSAGE, MessagePassing, Sequential
from torch_geometric.transforms import RandomNodeSplit

from graphsparse.soups.store.description import describe, describe_function, describe_model
from graphsparse.testing import random_graph

pytestmark = pytest.mark.once

HERE = Path(__file__).parents[2] / "helpers"


class Settings:
    """A plain class, as many keep their options in."""

    def __init__(self, rate, **others):
        self.rate = rate
        vars(self).update(others)

    def make(self, data, seed=0):
        return [data] * self.rate

    @classmethod
    def build(cls):
        return cls(1)


class Slotted:
    __slots__ = ("__dict__", "rate", "unset")

    def __init__(self, rate):
        self.rate = rate


class Callable(Settings):
    def __call__(self, data, seed=0):
        return self.make(data, seed)


class NamedRate(float):
    pass


class Options(dict):
    pass


class Pickled(Settings):
    """Keeps what no process could send to another out of what it pickles."""

    def __getstate__(self):
        return {"rate": self.rate}


class Reduced(Settings):
    def __reduce__(self):
        return Reduced, (self.rate,)


def with_attribute(value, name="note"):
    made = NamedRate(0.5)
    setattr(made, name, value)
    return made


def with_entries(kind, **attributes):
    made = kind({"a": 1})
    vars(made).update(attributes)
    return made


def with_default(factory):
    return collections.defaultdict(factory, a=[])


def drawn(seed):
    return torch.Generator().manual_seed(seed)


def relu(slope):
    return nn.LeakyReLU(slope)


def linear(seed):
    torch.manual_seed(seed)
    return nn.Linear(2, 2)


OBJECTS = [
    lambda rate: Settings(rate),
    lambda rate: Settings(1, inner=Settings(rate)),
    lambda rate: Settings(1, inner=[{"a": (Settings(rate),)}]),
    lambda rate: Slotted(rate),
    lambda rate: Callable(rate),
    lambda rate: Pickled(rate, file=open(os.devnull)),  # noqa: PTH123, SIM115
    lambda rate: Reduced(rate, file=open(os.devnull)),  # noqa: PTH123, SIM115
    lambda rate: Settings(rate).make,
    lambda rate: Settings(rate).make.__call__,
    lambda rate: functools.partial(Settings(rate).make, seed=1),
    lambda rate: functools.partial(Settings.make, Settings(rate)),
    lambda rate: functools.lru_cache(Settings(rate).make),
    lambda rate: torch.no_grad()(Settings(rate).make),
    lambda rate: torch.set_grad_enabled(rate > 2)(Settings.make),
    lambda rate: functools.wraps(len)(lambda: Settings(rate)),
    lambda rate: lambda data: Settings(1, inner=rate).make(data),
    lambda rate: NamedRate(rate),
    lambda rate: with_attribute(Settings(rate)),
    lambda rate: with_entries(Options, rate=rate),
    lambda rate: with_default(Settings(rate).make),
    lambda rate: [1, 2, 3, 4, 5, 6, 7].__getitem__ if rate > 2 else [1, 2].__getitem__,
    lambda rate: {"a": rate}.get,
    lambda rate: operator.itemgetter(rate),
    lambda rate: np.add if rate > 2 else np.subtract,
    lambda rate: np.random.default_rng(rate),
    lambda rate: random.Random(rate),
    drawn,
    relu,
    linear,
    lambda rate: nn.Sequential(nn.Linear(2, 2), relu(rate)).requires_grad_(False)[1:],
    lambda rate: relu(rate).forward,
    lambda rate: RandomNodeSplit(num_val=rate),
    lambda rate: weakref.ref(KEPT[rate]),
    lambda rate: torch.vmap(Settings(rate).make),
    lambda rate: {rate: Settings(1)}.values() if rate > 2 else {1: Settings(rate)}.values(),
    lambda rate: {rate: 1}.keys(),
    lambda rate: torch.ops.aten.relu if rate > 2 else torch.ops.aten.neg,
]
KEPT = {rate: Settings(rate) for rate in (2, 6)}


@pytest.mark.parametrize("make", OBJECTS)
def test_objects_are_told_apart_by_their_state(make):
    for held in (lambda value: value, lambda value: lambda: value, lambda value: [{"a": value}]):
        first, again, second = (describe_function(held(make(rate)), "it") for rate in (2, 2, 6))
        assert first == again != second
        assert "0x" not in first
    layers = [own_layer(lambda self, x: x, option=make(rate)) for rate in (2, 2, 6)]
    assert changed(*layers[:2]) == ""
    assert "option=" in changed(*layers[1:])


def test_a_bound_method_is_one_of_its_object():
    assert describe_function(Settings(2).make) == describe_function(Settings(2).make)
    assert describe_function(Settings(2).make) != describe_function(Settings(6).make)
    assert describe_function(Settings.build) != describe_function(Callable.build)


def test_a_model_with_an_object_of_a_plain_class():
    def forward(self, x):
        return nn.functional.dropout(x, self.cfg.rate, self.training)

    first, again, second = (own_layer(forward, cfg=Settings(rate)) for rate in (0.1, 0.1, 0.9))
    assert changed(first, again) == ""
    assert "cfg=" in changed(first, second)


def own_class(source, name="Own", base="object", **around):
    """A class from its source, as an edited file would define it."""
    code = f"class {name}({base}):\n" + "\n".join(f"    {line}" for line in source.splitlines())
    exec(code, space := {"__name__": "edited", "functools": functools, "torch": torch, "nn": nn, **around})
    return space[name]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("def __call__(self, data, seed): return 1", "def __call__(self, data, seed): return 2"),
        ("def run(self, rate=1): return rate", "def run(self, rate=2): return rate"),
        ("def run(self, *, rate=1): return rate", "def run(self, *, rate=2): return rate"),
        ("@staticmethod\ndef run(): return 1", "@staticmethod\ndef run(): return 2"),
        ("@classmethod\ndef run(cls): return 1", "@classmethod\ndef run(cls): return 2"),
        ("@property\ndef run(self): return 1", "@property\ndef run(self): return 2"),
        ("@functools.cached_property\ndef run(self): return 1", "@functools.cached_property\ndef run(self): return 2"),
        ("@functools.lru_cache\ndef run(self): return 1", "@functools.lru_cache\ndef run(self): return 2"),
        ("@torch.no_grad()\ndef run(self): return 1", "@torch.no_grad()\ndef run(self): return 2"),
        ("run = functools.partialmethod(print, 1)", "run = functools.partialmethod(print, 2)"),
        ("rate = 1", "rate = 2"),
        ("class Inner: rate = 1", "class Inner: rate = 2"),
        ("act = nn.LeakyReLU(0.1)", "act = nn.LeakyReLU(0.2)"),
        ("def run(self): return 1, 23", "def run(self): return 12, 3"),
        ("def run(self, x): return x * 1 + 23", "def run(self, x): return x * 12 + 3"),
    ],
)
def test_classes_are_told_apart_by_their_code(first, second):
    kinds = [own_class(source) for source in (first, first, second)]
    derived = [own_class("pass", "Derived", "Own", Own=kind) for kind in kinds]
    for make in (lambda i: kinds[i], lambda i: kinds[i](), lambda i: derived[i], lambda i: [derived[i]()]):
        described = [describe_function(functools.partial(make(i))) if callable(make(i)) else None for i in range(3)]
        described = [describe(make(i)) if described[i] is None else described[i] for i in range(3)]
        assert described[0] == described[1] != described[2]
        assert "0x" not in described[0]
    models = [type("Model", (own_class(source, base="nn.Module"),), {})() for source in (first, first, second)]
    assert changed(*models[:2]) == ""
    assert "code of Own." in changed(*models[1:])


def test_classes_are_told_apart_by_what_they_derive_from():
    for base in ("nn.ReLU", "nn.ELU"):
        assert describe(own_class("pass", base=base)) != describe(own_class("pass", base="nn.Tanh"))
    assert "code of Own.__bases__" in changed(own_class("pass", base="nn.ReLU")(), own_class("pass", base="nn.Tanh")())


def test_a_class_may_have_the_name_of_its_parent():
    """The code of the parent must not stand in for that of the child."""
    parent = own_class("def forward(self, x): return x", base="nn.Module")
    first, second = (own_class(f"def forward(self, x): return x * {i}", base="Own", Own=parent)() for i in (2, 3))
    assert "code of Own.forward" in changed(first, second)


def test_what_holds_itself():
    def make(rate):
        first, second = Settings(rate), Settings(1)
        first.other, second.other = second, [first, {"a": second}]
        return second

    class Own:
        def copy(self):
            return Own()

    Own.only = Own()
    assert describe(make(2)) == describe(make(2)) != describe(make(6))
    assert describe(copy.deepcopy(make(2))) == describe(make(2))
    assert "..." in describe(make(2))
    assert "0x" not in describe(Own) + describe(Own())
    layer = own_layer(lambda self, x: x)
    layer.inner, layer.chosen = relu(0.1), []
    layer.chosen += [layer.inner, layer]
    assert "chosen=[layer 'inner', layer '']" in describe_model(layer)["layer ''"]


def test_what_is_shared_costs_no_more():
    value = [Settings(1)]
    for _ in range(40):
        value = [Settings(1, first=value, second=value)]
    assert describe(value) == describe(copy.deepcopy(value))
    many = [Settings(i) for i in range(5000)]
    assert describe(many) != describe(many[::-1])


def test_what_is_too_deep_or_too_much_is_refused(monkeypatch):
    deep = Settings(0)
    for _ in range(200):
        deep = Settings(0, inner=deep)
    with pytest.raises(ValueError, match="^'inner' of .* is nested more than 100 levels deep"):
        describe_function(lambda: deep)
    monkeypatch.setattr("graphsparse.soups.store.walk._MOST_OBJECTS", 10)
    many = [Settings(i) for i in range(20)]
    with pytest.raises(ValueError, match="^'many' of 'sampler' holds more than 10 objects"):
        describe_function(lambda: many, "sampler")


@pytest.mark.parametrize("make", [lambda: (i for i in range(3)), lambda: open(os.devnull)])  # noqa: PTH123, SIM115
def test_what_cannot_be_read_is_refused_by_name(make):
    message = r"^'file' of '__self__' of 'sampler' is a .*, whose content cannot be read, .*__getstate__"
    with pytest.raises(TypeError, match=message):
        describe_function(Settings(1, file=make()).make, "sampler")
    with pytest.raises(TypeError, match="^'file' of 'cfg' of layer '' of model is a "):
        describe_model(own_layer(lambda self, x: x, cfg=Settings(1, file=make())))


def test_locks_and_modules_have_no_content():
    for value in (threading.Lock(), threading.RLock(), threading.Event(), json, object()):
        assert describe(Settings(value)) == describe(copy.copy(Settings(value)))
        assert "0x" not in describe([value])


def test_caches_do_not_matter():
    kind = own_class("@functools.cached_property\ndef size(self): return 3")
    used = kind()
    assert used.size == 3
    assert describe(used) == describe(kind())
    counted = functools.lru_cache(Settings.build)
    before = describe(counted)
    counted()
    assert describe(counted) == before


def test_hooks_belong_to_a_layer():
    def halve(layer, arguments, result):
        return result * 0.5

    def double(layer, arguments, result):
        return result * 2

    layers = [nn.Linear(2, 2) for _ in range(3)]
    for layer, hook in zip(layers, (halve, halve, double), strict=True):
        layer.handle = layer.register_forward_hook(hook)
    assert changed(*layers[:2]) == ""
    assert "_forward_hooks" in changed(*layers[1:])


class OwnConv(MessagePassing):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(8, 3)

    def forward(self, x, edge_index):
        return self.propagate(edge_index, x=self.lin(x))


MODELS = {
    "gcn": lambda: GCN(8, 16, 2, 3, cached=True),
    "gat": lambda: GAT(8, 16, 2, 3, act="elu", norm="batch_norm"),
    "gin": lambda: GIN(8, 16, 2, 3, act=lambda x: x.relu()),
    "sage": lambda: GraphSAGE(8, 16, 2, 3, aggr=["mean", "softmax"]),
    "pna": lambda: PNA(
        8, 16, 2, 3, aggregators=["mean", "std"], scalers=["identity", "linear"], deg=torch.tensor([0, 3, 4])
    ),
    "sequential": lambda: Sequential("x, e", [(GCNConv(8, 4, cached=True), "x, e -> x"), (GCNConv(4, 3), "x, e -> x")]),
    "own": lambda: OwnConv(),
    "net": lambda: Net(),
}


@pytest.mark.parametrize("name", MODELS)
def test_use_does_not_change_the_description_of_a_model(name):
    model, data = MODELS[name](), random_graph()
    before = describe_model(model)
    described = describe(model)
    state = copy.deepcopy(model.state_dict())
    for _ in range(2):
        model(data.x, data.edge_index).sum().backward()
    assert describe_model(model) == before == describe_model(MODELS[name]())
    model.load_state_dict(state)  # running statistics
    assert describe(model) == described


def test_a_compiled_function_is_described_by_the_original():
    compiled = [torch.compile(Settings(rate).make) for rate in (2, 2, 6)]
    assert describe(compiled[0]) == describe(compiled[1]) != describe(compiled[2])
    assert describe_model(torch.compile(Net())) == describe_model(torch.compile(Net()))


def test_objects_are_described_the_same_in_another_process():
    """Where texts have other hashes, and objects lie elsewhere."""
    code = (
        "import json, sys; sys.path.insert(0, sys.argv[1]); from test_walk import *; "
        "print(json.dumps([describe_all(), [describe_model(MODELS[name]()) for name in MODELS]]))"
    )
    paths = os.pathsep.join([str(HERE), str(HERE.parents[1])])
    command = [sys.executable, "-c", code, str(Path(__file__).parent)]
    processes = []
    for seed in ("7", "8"):
        environment = {**os.environ, "PYTHONPATH": paths, "PYTHONHASHSEED": seed}
        processes.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
    first, second = (json.loads(process.communicate()[0]) for process in processes)
    assert first == second


def describe_all():
    words = {Settings(word) for word in ("a", "b", "c", "d")}
    weak = weakref.WeakSet(words)
    values = [
        *(make(2) for make in OBJECTS),
        words,
        weak,
        {"b", "a", Kind.FIRST},
        Config,
        Kind,
        collections.Counter("ab"),
    ]
    return [describe(value) for value in values] + [describe_function(Net.forward)]
