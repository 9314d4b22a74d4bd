"""What all ingredients of a call share and no file of a store holds: the model and the functions."""

import copy
import pickle
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import cloudpickle  # type: ignore[import-untyped]
import torch
from torch import nn
from torch_geometric.data import Data

from graphsparse.loader import make_loader
from graphsparse.training.node_task import Inference, predict
from graphsparse.typing import MakeModel
from graphsparse.utils.layerwise_inference import layerwise_inference

#: Makes the loader of an ingredient: ``(data, seed=..., **options)``.
MakeLoader: TypeAlias = Callable[..., Iterable[Data]]

INFERENCE: Mapping[str, Inference] = {"full": predict, "layerwise": layerwise_inference}


@dataclass(frozen=True)
class Job:
    """What all ingredients of a call share.

    It travels to other processes by ``cloudpickle``, which takes functions and classes of scripts and notebooks along;
    it is never part of a store.

    Args:
        model: The model; its weights do not matter.
        sampler: Name of the sampler, or a function that makes the loader.
        sampler_options: Options of the sampler.
        inference: ``"full"``, ``"layerwise"``, or a function that returns the logits of a whole graph.
        device: Device to train on.
        checkpoint_every: Save after every so many epochs, by time when ``None``.
        settings: What is set in PyTorch where ``train_ingredients`` was called.
        rebuild: Builds the model anew, for models that cannot be copied; stays in its process.

    Example:
        >>> job = Job(nn.Linear(2, 3))
        >>> load_job(dump_job(job)).model
        Linear(in_features=2, out_features=3, bias=True)
    """

    model: nn.Module
    sampler: str | MakeLoader = "full"
    sampler_options: Mapping[str, Any] = field(default_factory=dict)
    inference: str | Inference = "full"
    device: str = "cpu"
    checkpoint_every: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    rebuild: MakeModel | None = None

    def make_model(self) -> nn.Module:
        """Return a model of its own for an ingredient."""
        return copy.deepcopy(self.model) if self.rebuild is None else self.rebuild()

    def make_loader(self, data: Data, seed: int) -> Iterable[Data] | None:
        """Return the loader of an ingredient; ``None`` for the whole graph."""
        if self.sampler == "full":
            return None
        if isinstance(self.sampler, str):
            return make_loader(self.sampler, data, seed=seed, **self.sampler_options)
        return self.sampler(data, seed=seed, **self.sampler_options)

    @property
    def infer(self) -> Inference:
        """What returns the logits of a whole graph."""
        return INFERENCE[self.inference] if isinstance(self.inference, str) else self.inference


def dump_job(job: Job) -> bytes:
    """Return a job as bytes, with the places where modules are found here.

    Raises:
        TypeError: If the model or a function cannot be sent to another process.
    """
    try:
        payload = cloudpickle.dumps(replace(job, rebuild=None))
    except Exception as error:  # what cannot be pickled may raise anything
        raise TypeError(
            "the model, the sampler, its options or 'inference' cannot be sent to another process "
            f"({type(error).__name__}: {error}); workers=0 trains in this one"
        ) from error
    return pickle.dumps({"path": [str(Path(entry).absolute()) for entry in sys.path], "payload": payload})


def load_job(content: bytes) -> Job:
    """Return the job of :func:`dump_job`, in another process.

    Args:
        content: What :func:`dump_job` returned. It runs code: never take it from a folder that others can write to.

    Raises:
        ImportError: If a module of the model is not found here.
    """
    outer = pickle.loads(content)
    # In the same order, as names of modules may be there twice.
    sys.path[:] = [*outer["path"], *(entry for entry in sys.path if entry not in outer["path"])]
    job: Job = pickle.loads(outer["payload"])
    return job


def torch_settings() -> dict[str, Any]:
    """Return what is set in PyTorch and changes results."""
    return {
        "dtype": torch.get_default_dtype(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "warn_only": torch.is_deterministic_algorithms_warn_only_enabled(),
        "precision": torch.get_float32_matmul_precision(),
    }


def apply_settings(settings: Mapping[str, Any]) -> None:
    """Set in PyTorch what :func:`torch_settings` returned elsewhere."""
    if settings:
        torch.set_default_dtype(settings["dtype"])
        torch.use_deterministic_algorithms(settings["deterministic"], warn_only=settings["warn_only"])
        torch.set_float32_matmul_precision(settings["precision"])
