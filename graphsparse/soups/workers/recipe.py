"""How ingredients are made: what they have in common, and what is drawn for each."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch_geometric.data import Data

from graphsparse.loader import check_sums_weighted_messages
from graphsparse.nn.accelerate import accelerate
from graphsparse.nn.dropout import set_dropout
from graphsparse.ops.digest import digest
from graphsparse.soups.store.key import describe, ingredient_key
from graphsparse.soups.workers.jitter import Jitter, check_jitter, draw_jitter, stream_seed
from graphsparse.soups.workers.job import INFERENCE, Job, MakeLoader, torch_settings
from graphsparse.soups.workers.pools import Workers
from graphsparse.training import NodeTask, Training
from graphsparse.training.check import check_callable, check_model
from graphsparse.training.node_task import Inference
from graphsparse.training.seeding import build_model, seeded
from graphsparse.typing import MakeModel
from graphsparse.utils.counter_random import check_seed

INITS = ("shared", "independent")
#: Graphs of at most so many edges are tried out before anything is written.
_SMALL = 2_000_000


@dataclass(frozen=True)
class Recipe:
    """All that the weights of ingredients depend on, besides the graph; see ``train_ingredients``."""

    make_model: MakeModel
    training: Training
    sampler: str | MakeLoader
    sampler_options: Mapping[str, Any] | None
    jitter: Jitter | None
    init: str
    inference: str | Inference
    tag: str | None

    def __post_init__(self) -> None:
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
        if self.sampler_options is not None and not isinstance(self.sampler_options, Mapping):
            raise TypeError(f"'sampler_options' must map names of options to values (got {self.sampler_options!r})")
        if not isinstance(self.sampler, str):
            check_callable(self.sampler, "sampler")
        elif self.sampler == "full" and self.sampler_options:
            raise TypeError(f"the sampler 'full' has no options (got {sorted(self.sampler_options)})")
        if self.tag is not None and not isinstance(self.tag, str):
            raise TypeError(f"'tag' must be a text (got {self.tag!r} of type {type(self.tag).__name__})")
        self._common()

    def _common(self) -> dict[str, Any]:
        """Describe what all ingredients have in common and their weights depend on."""
        options = {name: value for name, value in (self.sampler_options or {}).items() if name != "save_dir"}
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
        edges = graph.get("edge_index")
        if edges is not None and edges.size(1) <= _SMALL:
            with seeded(0):
                NodeTask(graph).check(model)

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
            spec = {
                **common,
                "initial": weights_name(own),
                "epochs": int(drawn.get("epochs", self.training.epochs)),
                "lr": float(drawn.get("lr", self.training.lr)),
                "weight_decay": float(drawn.get("weight_decay", self.training.weight_decay)),
                "dropout": float(drawn["dropout"]) if "dropout" in drawn else None,
                "data_seed": stream_seed(seed, "data", index),
                "dropout_seed": stream_seed(seed, "dropout", index),
            }
            yield ingredient_key(spec), {"index": index, "seed": int(seed), **spec}, own.state_dict()

    def job(self, store: Path, workers: Workers) -> Job:
        """Return what all workers get."""
        options = dict(self.sampler_options or {})
        if self.sampler == "cluster":
            options.setdefault("save_dir", store / "partitions")
        return Job(
            make_model=self._for_training,
            training=replace(self.training, progress=False, log=None),
            sampler=self.sampler,
            sampler_options=options,
            inference=self.inference,
            device=workers.device,
            checkpoint_every=workers.checkpoint_every,
            settings=torch_settings(),
        )

    def _for_training(self) -> nn.Module:
        model = self.build(0)
        return accelerate(model, fast_dropout=True) if self.training.fast else model

    def check_loader(self, job: Job, model: nn.Module, graph: Data) -> None:
        """Find out before the first worker starts whether the sampler takes its options, the graph and the model.

        What a sampler computes once and keeps, such as a partition, is there for all workers afterwards.
        """
        options = dict(job.sampler_options)
        if self.sampler == "saint_rw" and _is_positive(options.get("coverage", 1)):
            options["coverage"] = math.ulp(0.0)  # each ingredient has counts of its own, so that one draw will do here
        with seeded(0):
            loader = replace(job, sampler_options=options).make_loader(graph, 0)
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
