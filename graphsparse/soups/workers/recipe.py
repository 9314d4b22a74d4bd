"""How ingredients are made: what they have in common, and what is drawn for each."""

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from torch import Tensor, nn
from torch_geometric.data import Data

from graphsparse.loader import make_loader
from graphsparse.loader.batches import check_sums_weighted_messages
from graphsparse.nn import Supermask, layerwise_inference
from graphsparse.nn.accelerate import accelerate
from graphsparse.nn.inference import why_not_by_layers
from graphsparse.nn.linear import set_dropout
from graphsparse.ops.check import check_count, check_list, check_number
from graphsparse.ops.digest import digest
from graphsparse.soups.store.key import describe, ingredient_key
from graphsparse.soups.store.own_part import OwnParts
from graphsparse.soups.workers.workers import Workers
from graphsparse.training import NodeTask, Training, predict
from graphsparse.training.check import check_callable, check_model
from graphsparse.training.node_task import Inference
from graphsparse.training.seeding import build_model, seeded
from graphsparse.typing import MakeModel
from graphsparse.utils.copy_model import copy_model
from graphsparse.utils.counter_random import check_seed

#: Makes the loader of an ingredient: ``(data, seed=..., **options)``.
MakeLoader: TypeAlias = Callable[..., Iterable[Data]]
#: Values to draw from, by the name of an option.
Jitter: TypeAlias = Mapping[str, Sequence[float]]

#: What may be drawn, and what has a seed of its own. The orders are part of every draw: add at the end only.
JITTERED = ("lr", "weight_decay", "epochs", "dropout")
STREAMS = ("weights", "data", "dropout", "jitter")
INITS = ("shared", "independent")
#: The sampler that gives each ingredient one part of the graph, and nothing else.
OWN_PART = "own_part"
INFERENCE: Mapping[str, Inference] = {"full": predict, "layerwise": layerwise_inference}
#: Graphs of at most so many edges are tried out before anything is written.
_SMALL = 2_000_000


@dataclass(frozen=True)
class Recipe:
    """What all ingredients of a call have in common besides the graph; see ``train_ingredients``."""

    make_model: MakeModel
    training: Training = field(default_factory=Training)
    sampler: str | MakeLoader = "full"
    sampler_options: Mapping[str, Any] = field(default_factory=dict)
    jitter: Jitter | None = None
    init: str = "shared"
    inference: str | Inference = "full"
    tag: str | None = None
    workers: Workers = field(default_factory=Workers)

    def check(self) -> None:
        """Refuse what no ingredient can be trained with, and what ingredients could not be told apart by."""
        if not isinstance(self.training, Training):
            raise TypeError(f"'training' must be a Training (got {type(self.training).__name__})")
        if self.training.checkpoint is not None:
            raise ValueError("'training.checkpoint' must be None: each ingredient has its own in the store")
        check_seed(self.training.seed)
        check_jitter(self.jitter)
        if self.init not in INITS:
            raise ValueError(f"'init' must be one of {list(INITS)} (got {self.init!r})")
        if isinstance(self.inference, str):
            if self.inference not in INFERENCE:
                raise ValueError(f"'inference' must be one of {list(INFERENCE)} or a function (got {self.inference!r})")
        else:
            check_callable(self.inference, "inference")
        if not isinstance(self.sampler_options, Mapping):
            raise TypeError(f"'sampler_options' must map names of options to values (got {self.sampler_options!r})")
        if not isinstance(self.sampler, str):
            check_callable(self.sampler, "sampler")
        elif self.sampler == "full" and self.sampler_options:
            raise TypeError(f"the sampler 'full' has no options (got {sorted(self.sampler_options)})")
        if self.tag is not None and not isinstance(self.tag, str):
            raise TypeError(f"'tag' must be a text (got {self.tag!r} of type {type(self.tag).__name__})")
        self._common()

    @functools.cached_property
    def own_parts(self) -> OwnParts | None:
        """How the graph is cut, if ingredients are trained on parts of their own."""
        if self.sampler != OWN_PART:
            return None
        known = [entry.name for entry in fields(OwnParts)]
        if unknown := sorted(self.sampler_options.keys() - known):
            raise TypeError(f"the sampler {OWN_PART!r} has no option {unknown[0]!r}; it has {known}")
        return OwnParts(**self.sampler_options)

    def _common(self) -> dict[str, Any]:
        """Describe what all ingredients have in common and their weights depend on."""
        options = {name: value for name, value in self.sampler_options.items() if name != "save_dir"}
        options = {} if self.own_parts is not None else options  # which each ingredient has beside its part
        return {
            "sampler": describe(self.sampler, "'sampler'", self.tag),
            "sampler_options": {k: describe(v, f"'sampler_options[{k!r}]'", self.tag) for k, v in options.items()},
            "inference": describe(self.inference, "'inference'", self.tag),
            "optimizer": describe(self.training.optimizer, "'training.optimizer'", self.tag),
            "patience": None if self.training.patience is None else int(self.training.patience),
            "eval_every": int(self.training.eval_every),
            "fast": bool(self.training.fast),
            "tag": self.tag,
        }

    def build(self, number: int) -> nn.Module:
        """Build a model with initial weights of its own.

        Args:
            number: 0 for the weights that all share; index plus one for those of an ingredient alone.

        Raises:
            TypeError: If ``make_model`` does not build a model whose state is made of tensors.
            ValueError: If it has nothing to train, is lazy, or lies on a device.
        """
        model = build_model(self.make_model, stream_seed(self.training.seed, "weights", number))
        check_model(model)
        for name, value in model.state_dict().items():
            if not isinstance(value, Tensor):
                raise TypeError(f"'make_model' builds a model with {name!r} in its state dict, which is no tensor")
            if value.device.type != "cpu":
                raise ValueError(f"'make_model' must build the model on CPU ({name!r} is on another device)")
        return model

    def try_out(self, graph: Data) -> None:
        """Find out whether model, options and graph fit together, where that takes no time; workers would find out."""
        model = self.build(0)
        if self.jitter is not None and "dropout" in self.jitter and set_dropout(model, 0.0) == 0:
            raise ValueError("'jitter' draws 'dropout', but the model has none that could be set")
        by_layers = self.inference == "layerwise"
        if by_layers:
            trained = self.model()
            trained = trained.materialize() if isinstance(trained, Supermask) else trained
            if (why := why_not_by_layers(trained)) is not None:
                raise ValueError(f"'inference' cannot be 'layerwise' here: {why}")
        edges = graph.get("edge_index")
        if edges is not None and edges.size(1) <= _SMALL:
            with seeded(0):
                NodeTask(graph, inference=self.infer if by_layers else None).check(model)

    def start(self, model: nn.Module) -> dict[str, str]:
        """Say where ingredients start, which all of a store have in common."""
        return {"init": self.init} | ({"weights": weights_name(model)} if self.init == "shared" else {})

    def ingredients(
        self, num: int, model: nn.Module, graph: Mapping[str, str], layers: Mapping[str, str]
    ) -> Iterator[tuple[str, dict[str, Any], dict[str, Tensor]]]:
        """Draw ingredients, one after the other.

        Args:
            num: Number of ingredients.
            model: The model with the weights that all share.
            graph: Digests of the graph.
            layers: Description of the model.

        Yields:
            Key, what to train, and initial weights.
        """
        seed = self.training.seed
        common = {**self._common(), "model": digest([layers]), "graph": digest([graph])}
        for index in range(num):
            own = model if self.init == "shared" else self.build(index + 1)
            drawn = draw_jitter(self.jitter, seed, index)
            parts = self.own_parts
            spec = {
                **common,
                **({} if parts is None else {"part": {"number": index % parts.num_parts, **asdict(parts)}}),
                "initial": weights_name(own),
                "epochs": int(drawn.get("epochs", self.training.epochs)),
                "lr": float(drawn.get("lr", self.training.lr)),
                "weight_decay": float(drawn.get("weight_decay", self.training.weight_decay)),
                "dropout": float(drawn["dropout"]) if "dropout" in drawn else None,
                "data_seed": stream_seed(seed, "data", index),
                "dropout_seed": stream_seed(seed, "dropout", index),
            }
            yield ingredient_key(spec), {"index": index, "seed": int(seed), **spec}, own.state_dict()

    def portable(self) -> "Recipe":
        """Return the same with the model in place of what builds it, as it goes to another process."""
        training = replace(self.training, fast=False, log=None)  # the model comes in its faster form
        return replace(self, make_model=functools.partial(copy_model, self.model()), training=training)

    def model(self) -> nn.Module:
        """Return a model for an ingredient, in the form in which it is trained; its weights do not matter."""
        model = self.build(0)
        return accelerate(model, fast_dropout=True) if self.training.fast else model

    def make_loader(self, data: Data, seed: int, store: Path) -> Iterable[Data] | None:
        """Return the loader of an ingredient; ``None`` for the whole graph."""
        if self.sampler in ("full", OWN_PART):
            return None
        if not isinstance(self.sampler, str):
            return self.sampler(data, seed=seed, **self.sampler_options)
        kept = {"save_dir": store / "partitions"} if self.sampler == "cluster" else {}
        return make_loader(self.sampler, data, seed=seed, **{**kept, **self.sampler_options})

    @property
    def infer(self) -> Inference:
        """What returns the logits of a whole graph."""
        return INFERENCE[self.inference] if isinstance(self.inference, str) else self.inference

    def check_loader(self, model: nn.Module, graph: Data, store: Path) -> None:
        """Find out before the first worker starts whether the sampler takes its options, the graph and the model.

        What a sampler computes once and keeps, such as a partition, is there for all workers afterwards.
        """
        if self.own_parts is not None:
            self.own_parts.check(graph, store)
            return
        options = dict(self.sampler_options)
        if self.sampler == "saint_rw" and _is_positive(options.get("coverage", 1)):
            options["coverage"] = math.ulp(0.0)  # each ingredient has counts of its own, so that one draw will do here
        with seeded(0):
            loader = replace(self, sampler_options=options).make_loader(graph, 0, store)
        if loader is None and self.sampler == "full":
            return
        if isinstance(loader, Iterator) or not hasattr(loader, "__iter__"):
            raise TypeError(f"'sampler' must return a loader (got {type(loader).__name__})")
        if getattr(loader, "needs_weighted_sums", False):
            check_sums_weighted_messages(model)


def _is_positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf


def weights_name(model: nn.Module) -> str:
    """Return a digest of the weights and buffers of a model."""
    return digest(model.state_dict().values())


def stream_seed(seed: int, stream: str, index: int = 0, part: int = 0) -> int:
    """Return the seed of one of many streams that do not depend on each other.

    The streams are those that NumPy's ``SeedSequence`` spawns, which stay the same from release to release.

    Args:
        seed: The one seed that all follow from, not negative.
        stream: ``"weights"``, ``"data"``, ``"dropout"`` or ``"jitter"``.
        index: Number of the ingredient.
        part: Number of what is drawn, where a stream has several parts.

    Returns:
        A seed below 2**63, for any generator of PyTorch, Python or NumPy.
    """
    spawned = np.random.SeedSequence(entropy=int(seed), spawn_key=(STREAMS.index(stream), index, part))
    return int(spawned.generate_state(1, np.uint64)[0]) >> 1


def draw_jitter(jitter: Jitter | None, seed: int, index: int) -> dict[str, Any]:
    """Draw the options of an ingredient, each from its own stream: what is drawn for one does not depend on others."""
    drawn = {}
    for name, values in (jitter or {}).items():
        rng = np.random.default_rng(stream_seed(seed, "jitter", index, JITTERED.index(name)))
        listed = check_list(values, f"jitter[{name!r}]")
        drawn[name] = listed[int(rng.integers(len(listed)))]
    return drawn


def check_jitter(jitter: Jitter | None) -> None:
    """Refuse options that cannot be drawn, and values that a training cannot run with."""
    if jitter is None:
        return
    if not isinstance(jitter, Mapping):
        raise TypeError(f"'jitter' must map names of options to lists of values (got {type(jitter).__name__})")
    for name, values in jitter.items():
        if name not in JITTERED:
            raise ValueError(f"'jitter' can draw {list(JITTERED)} (got {name!r})")
        label = f"jitter[{name!r}]"
        listed = check_list(values, label)
        if not listed:
            raise ValueError(f"'{label}' must hold at least one value (got none)")
        for value in listed:
            if name == "epochs":
                check_count(value, label)
            elif check_number(value, label, least=0, strictly=name == "lr") >= 1 and name == "dropout":
                raise ValueError(f"'{label}' must be in [0, 1) (got {value!r})")
