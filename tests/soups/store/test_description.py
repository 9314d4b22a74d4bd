import collections
import copy
import dataclasses
import enum
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
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ingredient_runs import Net
from torch import nn
from torch_geometric.nn import GAT, GCN, GIN, PNA, GCNConv, GraphSAGE, MessagePassing, Sequential
from torch_geometric.transforms import RandomNodeSplit

from graphsparse.soups.store.description import content_key, describe, describe_function, describe_model, differences
from graphsparse.testing import random_graph

pytestmark = pytest.mark.once

HERE = Path(__file__).parents[2] / "helpers"


def changed(first, second):
    return differences(describe_model(first), describe_model(second), most=100)


def test_equal_models_have_equal_descriptions_whatever_their_weights():
    assert changed(Net(), Net()) == ""


@pytest.mark.parametrize(
    "other",
    [
        lambda: GAT(8, 16, 2, 3, heads=2, dropout=0.4),
        lambda: GAT(8, 16, 2, 3, heads=4, dropout=0.5),
        lambda: GAT(8, 16, 2, 3, heads=2, dropout=0.5, add_self_loops=False),
        lambda: GAT(8, 16, 2, 3, heads=2, dropout=0.5, act="elu"),
        lambda: GAT(8, 16, 3, 3, heads=2, dropout=0.5),
        lambda: GAT(8, 16, 2, 3, heads=2, dropout=0.5, v2=True),
        lambda: GAT(8, 16, 2, 3, heads=2, dropout=0.5).double(),
        lambda: GAT(8, 16, 2, 3, heads=2, dropout=0.5).requires_grad_(False),
    ],
)
def test_whatever_changes_the_result_changes_the_description(other):
    assert changed(GAT(8, 16, 2, 3, heads=2, dropout=0.5), other())


def own_layer(forward, **attributes):
    kind = type("Own", (nn.Module,), {"forward": forward})
    layer = kind()
    vars(layer).update(attributes)
    return layer


def test_own_layers_are_told_apart_by_code_and_attributes():
    def forward(self, x):
        return x * 2

    def other(self, x):
        return x * 3

    def documented(self, x):
        """Doubles."""
        # and nothing else
        return x * 2

    assert "code of Own.forward" in changed(own_layer(forward), own_layer(other))
    assert changed(own_layer(forward), own_layer(documented)) == ""
    assert "_rate=0.5" in changed(own_layer(forward, _rate=0.5), own_layer(forward, _rate=0.6))
    first, second = own_layer(forward), own_layer(forward)
    first.register_buffer("scale", torch.ones(2), persistent=False)
    second.register_buffer("scale", torch.zeros(2), persistent=False)
    assert "buffer 'scale'" in changed(first, second)


def test_functions_are_told_apart_by_code_closure_and_defaults():
    def make(power):
        return lambda x: x**power

    assert describe_function(make(2)) == describe_function(make(2)) != describe_function(make(3))
    assert describe_function(lambda x=1: x) != describe_function(lambda x=2: x)
    assert describe_function(lambda: "a") != describe_function(lambda: "b")
    partial = [functools.partial(torch.add, alpha=alpha) for alpha in (1, 1, 2)]
    assert describe(partial[0]) == describe(partial[1]) != describe(partial[2])


def test_no_address_in_a_description():
    for value in (object(), [object()], lambda: object(), torch.nn.ReLU(), {"a": object}):
        assert "0x" not in describe(value)


def test_options_of_any_order_and_depth():
    assert describe({"a": 1, "b": {2, 1}}) == describe({"b": {1, 2}, "a": 1})
    assert describe(torch.zeros(3)) != describe(torch.ones(3))
    assert describe((1, 2)) == describe([1, 2]) != describe([2, 1])
    deep: list = []
    deep.append(deep)
    assert len(describe(deep)) < 100


@dataclasses.dataclass
class Config:
    alpha: float
    steps: list


class Kind(enum.Enum):
    FIRST = 1
    SECOND = 2


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (np.int64(2), np.int64(6)),
        (np.float32(0.5), np.float32(0.25)),
        (np.longdouble(0.5), np.longdouble(0.25)),
        (np.datetime64("2020"), np.datetime64("2021")),
        (np.array([1, 2]), np.array([2, 1])),
        (np.array([1, "a"], dtype=object), np.array([1, "b"], dtype=object)),
        (np.zeros(4), np.zeros((2, 2))),
        (Config(0.1, [1]), Config(0.1, [2])),
        (SimpleNamespace(alpha=0.1), SimpleNamespace(alpha=0.2)),
        (Kind.FIRST, Kind.SECOND),
        (slice(1), slice(2)),
        (range(3), range(4)),
        (b"a", b"b"),
        (1j, 2j),
        (Path("a"), Path("b")),
        ([[[[[[1]]]]]], [[[[[[2]]]]]]),
        ({(1, 2): 0}, {(1, 3): 0}),
        (random_graph(), random_graph(seed=1)),
    ],
)
def test_values_are_told_apart_by_their_content(first, second):
    assert describe(first, "name") == describe(first, "name") != describe(second, "name")
    assert describe({"a": [first]}) != describe({"a": [second]})
    assert "0x" not in describe(first)


def test_numbers_of_numpy_are_numbers():
    assert describe([np.int64(2), np.float64(0.5), np.bool_(True)]) == describe([2, 0.5, True])


def test_a_named_option_must_be_told_apart():
    for wrong in (object(), [object()], {"a": Config(0.1, [object()])}):
        with pytest.raises(TypeError, match=r"'option' must be made of numbers.*\(got builtins.object\)"):
            describe(wrong, "option")


def test_a_function_that_calls_itself():
    def make(base):
        def count(n):
            return count(n - 1) if n else base

        return count

    assert describe(make(1)) == describe(make(1)) != describe(make(2))


def test_descriptions_are_the_same_in_another_process():
    code = (
        "import json; from ingredient_runs import Net; from torch_geometric.nn import GCN; "
        "from graphsparse.soups.store.description import *; "
        "print(json.dumps([describe_model(Net()), describe_model(GCN(4, 8, 2, 3)), describe({'b', 'a', 'c'}), "
        "describe_function(Net.forward)]))"
    )
    environment = {**os.environ, "PYTHONPATH": f"{HERE}{os.pathsep}{HERE.parents[1]}", "PYTHONHASHSEED": "7"}
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    here = [describe_model(Net()), describe_model(GCN(4, 8, 2, 3)), describe({"b", "a", "c"})]
    assert json.loads(found.stdout) == [*here, describe_function(Net.forward)]


def test_key_follows_from_content_alone():
    assert content_key({"a": 1, "b": 2.0}) == content_key({"b": 2.0, "a": 1})
    assert content_key({"a": 1}) != content_key({"a": 1.5}) != content_key({"b": 1.5})
    assert len(content_key({})) == 20


def test_differences_are_named():
    told = differences({"a": 1, "b": 2, "c": 3}, {"a": 1, "b": 0, "d": 4}, most=2)
    assert told == "b was 2 and is now 0; c was 3 and is now missing; and 1 more"
    assert differences({"a": None}, {}) != ""


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
    monkeypatch.setattr("graphsparse.soups.store.description._MOST_OBJECTS", 10)
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
        "import json, sys; sys.path.insert(0, sys.argv[1]); from test_description import *; "
        "print(json.dumps([describe_all(), [describe_model(MODELS[name]()) for name in MODELS]]))"
    )
    found = []
    for seed in ("7", "8"):
        paths = os.pathsep.join([str(HERE), str(HERE.parents[1])])
        environment = {**os.environ, "PYTHONPATH": paths, "PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", code, str(Path(__file__).parent)]
        told = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        found.append(json.loads(told.stdout))
    assert found[0] == found[1]


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
    return [describe(value) for value in values]
