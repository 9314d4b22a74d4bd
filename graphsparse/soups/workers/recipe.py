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
from graphsparse.ops.check import check_count
from graphsparse.ops.digest import digest
from graphsparse.soups.store.description import content_key, describe, describe_function
from graphsparse.soups.store.naming import hashed
from graphsparse.soups.workers.jitter import Jitter, check_jitter, check_option, draw_jitter
from graphsparse.soups.workers.job import INFERENCE, Job, MakeLoader, torch_settings
from graphsparse.soups.workers.seed_streams import stream_seed
from graphsparse.training.check import check_callable, check_model
from graphsparse.training.node_task import Inference, NodeTask
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
    sampler: str | MakeLoader
    sampler_options: Mapping[str, Any]
    epochs: int
    lr: float
    weight_decay: float
    jitter: Jitter | None
    init: str
    inference: str | Inference
    eval_every: int
    accelerate: bool
    seed: int

    def check(self) -> None:
        """Refuse options that no ingredient can be trained with.

        Raises:
            TypeError: If one has the wrong type, or holds what ingredients could not be told apart by.
            ValueError: If one is out of range, or holds too much.
        """
        for name in ("epochs", "lr", "weight_decay"):
            check_option(name, getattr(self, name))
        check_count(self.eval_every, "eval_every")
        check_jitter(self.jitter)
        check_seed(self.seed)
        if self.init not in INITS:
            raise ValueError(f"'init' must be one of {list(INITS)} (got {self.init!r})")
        if isinstance(self.inference, str):
            if self.inference not in INFERENCE:
                raise ValueError(f"'inference' must be one of {list(INFERENCE)} or a function (got {self.inference!r})")
        else:
            check_callable(self.inference, "inference")
        if not isinstance(self.sampler, str):
            check_callable(self.sampler, "sampler")
        elif self.sampler == "full" and self.sampler_options:
            raise TypeError(f"the sampler 'full' has no options (got {sorted(self.sampler_options)})")
        self._options()
        self._functions()

    def _functions(self) -> dict[str, str]:
        """Describe the sampler and how to evaluate, by name or by what the functions do."""
        functions = {"sampler": self.sampler, "inference": self.inference}
        return {name: it if isinstance(it, str) else describe_function(it, name) for name, it in functions.items()}

    def _options(self) -> dict[str, str]:
        """Describe the options of the sampler that weights depend on."""
        options = self.sampler_options.items()
        return {name: describe(value, f"sampler_options[{name!r}]") for name, value in options if name != "save_dir"}

    def build(self, number: int) -> nn.Module:
        """Build a model with initial weights of its own.

        Args:
            number: 0 for the weights that all share; index plus one for those of an ingredient alone.

        Raises:
            TypeError: If ``make_model`` does not build a model whose state is made of tensors.
            ValueError: If it has nothing to train, is lazy, or lies on a device.
        """
        model = build_model(self.make_model, stream_seed(self.seed, "weights", number))
        check_model(model)
        others = [name for name, value in model.state_dict().items() if not isinstance(value, Tensor)]
        if others:
            raise TypeError(f"'make_model' builds a model with {others[0]!r} in its state dict, which is no tensor")
        on_device = [name for name, value in model.state_dict().items() if value.device.type != "cpu"]
        if on_device:
            raise ValueError(f"'make_model' must build the model on CPU ({on_device[0]!r} is on another device)")
        return model

    def try_out(self, graph: Data) -> None:
        """Find out whether model, options and graph fit together, where that takes no time; workers would find out.

        Args:
            graph: What ingredients are trained on.

        Raises:
            ValueError: If they do not, or the model has no dropout that could be drawn.
        """
        model = self.build(0)
        if self.jitter is not None and "dropout" in self.jitter and set_dropout(model, 0.0) == 0:
            raise ValueError("'jitter' draws 'dropout', but the model has none that could be set")
        edges = graph.get("edge_index")
        if edges is None or edges.size(1) > _SMALL:
            return
        task = NodeTask(graph)
        with seeded(0):
            task.check(model)

    def start(self, model: nn.Module) -> dict[str, str]:
        """Say where ingredients start, which all of a store have in common."""
        return {"init": self.init} | ({"weights": weights_name(model)} if self.init == "shared" else {})

    def ingredients(
        self, num: int, model: nn.Module, content: Mapping[str, Any]
    ) -> Iterator[tuple[str, dict[str, Any], dict[str, Tensor]]]:
        """Draw ingredients, one after the other.

        Args:
            num: Number of ingredients.
            model: The model with the weights that all share.
            content: What the store is made for.

        Yields:
            Key, what to train, and initial weights.
        """
        common = {
            **self._functions(),
            "sampler_options": self._options(),
            "eval_every": int(self.eval_every),
            "accelerate": bool(self.accelerate),
            "model": hashed(str(sorted(content["model"].items()))),
            "graph": hashed(str(sorted(content["graph"].items()))),
        }
        for index in range(num):
            own = model if self.init == "shared" else self.build(index + 1)
            drawn = draw_jitter(self.jitter, self.seed, index)
            spec = {
                **common,
                "initial": weights_name(own),
                "epochs": int(drawn.get("epochs", self.epochs)),
                "lr": float(drawn.get("lr", self.lr)),
                "weight_decay": float(drawn.get("weight_decay", self.weight_decay)),
                "dropout": float(drawn["dropout"]) if "dropout" in drawn else None,
                "data_seed": stream_seed(self.seed, "data", index),
                "dropout_seed": stream_seed(self.seed, "dropout", index),
            }
            yield content_key(spec), {"index": index, "seed": int(self.seed), **spec}, own.state_dict()

    def job(self, model: nn.Module, store: Path, device: str, checkpoint_every: int | None) -> Job:
        """Return what all workers get.

        Args:
            model: The model.
            store: Folder of the store.
            device: Device to train on.
            checkpoint_every: Save after every so many epochs.
        """
        options = dict(self.sampler_options)
        if self.sampler == "cluster":
            options.setdefault("save_dir", store / "partitions")
        return Job(
            model=self._for_training(model),
            sampler=self.sampler,
            sampler_options=options,
            inference=self.inference,
            device=device,
            checkpoint_every=checkpoint_every,
            settings=torch_settings(),
            rebuild=lambda: self._for_training(self.build(0)),
        )

    def _for_training(self, model: nn.Module) -> nn.Module:
        return accelerate(model, fast_dropout=True) if self.accelerate else model

    def check_loader(self, job: Job, model: nn.Module, graph: Data) -> None:
        """Find out before the first worker starts whether the sampler takes its options, the graph and the model.

        What a sampler computes once and keeps, such as a partition, is there for all workers afterwards.

        Args:
            job: What workers get.
            model: The model.
            graph: What ingredients are trained on.

        Raises:
            TypeError: If an option is unknown, or the sampler gives nothing to iterate over.
            ValueError: If an option is out of range, or the sampler does not fit the graph or the model.
        """
        options = dict(self.sampler_options)
        if self.sampler == "saint_rw" and _is_positive(options.get("coverage", 1)):
            options["coverage"] = math.ulp(0.0)  # each ingredient has counts of its own, so that one draw will do here
            job = replace(job, sampler_options=options)
        with seeded(0):
            loader = job.make_loader(graph, 0)
        if loader is None and self.sampler == "full":
            return
        if isinstance(loader, Iterator) or not hasattr(loader, "__iter__"):
            raise TypeError(f"'sampler' must return a loader (got {type(loader).__name__})")
        if getattr(loader, "needs_weighted_sums", False):
            check_sums_weighted_messages(model, keeps_targets=getattr(loader, "keeps_targets", True))


def _is_positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf


def weights_name(model: nn.Module) -> str:
    """Return a digest of the weights and buffers of a model."""
    return digest(model.state_dict().values())
