"""What an untrained ticket is compared with: the trained model, random masks, and masks by magnitude."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam

from graphsparse.nn import Supermask, accelerate
from graphsparse.nn.dropout import set_dropout
from graphsparse.nn.parameter_roles import parameter_roles
from graphsparse.ops.select import num_removed
from graphsparse.tickets.mask_search import MaskSearch
from graphsparse.tickets.search_task import SearchTask
from graphsparse.training import FitResult, FixedMask, build_model
from graphsparse.training.step_projection import Exclude, HeldMask, Scope, smallest_masks
from graphsparse.typing import MakeModel

Control: TypeAlias = Literal["dense", "random_untrained", "random_trained", "magnitude", "magnitude_iterative"]

CONTROLS = ("dense", "random_untrained", "random_trained", "magnitude", "magnitude_iterative")
#: Dropouts among which the validation part chooses for the dense model, and then for all that are trained.
DROPOUTS = (0.0, 0.3, 0.5, 0.7)
#: Weight decay and learning rate of what is trained.
WEIGHT_DECAY, LR = 5e-4, 0.01
#: Largest number of epochs of what is trained: the best one comes early.
EPOCHS = 200
#: Fraction of the weights that each round of iterative pruning removes.
PER_ROUND = 0.2


def check_controls(controls: Sequence[str]) -> None:
    """Refuse unknown names."""
    if isinstance(controls, str) or any(name not in CONTROLS for name in controls):
        raise ValueError(f"'controls' must be a list of names among {CONTROLS} (got {controls!r})")


def run_controls(
    controls: Sequence[Control],
    make_model: MakeModel,
    task: SearchTask,
    sparsity: float,
    search: MaskSearch,
    *,
    fast: bool = True,
) -> dict[str, float | None]:
    """Run the controls and return their metrics, each under the name of the control.

    Args:
        controls: Names.
        make_model: Builds a fresh model.
        task: What the models are trained on.
        sparsity: Sparsity of the masks.
        search: Which tensors a mask covers, and how the untrained weights are drawn.
        fast: Whether to use :func:`~graphsparse.nn.accelerate`.
    """
    run = _Controls(make_model, task, sparsity, search.supermask, fast)
    metrics: dict[str, float | None] = {}
    for name in dict.fromkeys(controls):
        metrics |= {f"{name}_{key}": value for key, value in getattr(run, name)().items()}
    return metrics


class _Controls:
    """The controls of one ticket; the dense model is trained once for all of them."""

    def __init__(
        self, make_model: MakeModel, task: SearchTask, sparsity: float, supermask: Mapping[str, Any], fast: bool
    ) -> None:
        self.make_model, self.task, self.sparsity, self.fast = make_model, task, sparsity, fast
        self.supermask = supermask
        self._tuned: tuple[float, FitResult, float | None] | None = None

    def dense(self) -> dict[str, float | None]:
        dropout, result, test = self._dense()
        return self._metrics(result, test) | {"dropout": dropout}

    def random_untrained(self) -> dict[str, float | None]:
        model = Supermask(self._model(0.0), self.sparsity, seed=self.task.seed, **self._options())
        # Nothing is learned at this rate; one pass shows the data to normalisation layers.
        result = self.task.run(model, SGD(model.parameters(), lr=0.0), epochs=1)
        return self._metrics(result, result.test)

    def random_trained(self) -> dict[str, float | None]:
        model, exclude = self._trainable()
        optimizer = self._adam(model)
        FixedMask(optimizer, self.sparsity, scope=self._scope(), exclude=exclude, seed=self.task.seed)
        result = self._train(model, optimizer)
        return self._metrics(result, result.test)

    def magnitude(self) -> dict[str, float | None]:
        result = self._rewound(self._dense()[1], self.sparsity)
        return self._metrics(result, result.test)

    def magnitude_iterative(self) -> dict[str, float | None]:
        result, left = self._dense()[1], 1.0
        rounds = 0
        while rounds == 0 or left > 1 - self.sparsity:
            left = max(1 - self.sparsity, left * (1 - PER_ROUND))
            rounds += 1
            # The model of a round is at zero where it was masked, so that these weights are the smallest again.
            result = self._rewound(result, 1 - left)
        return self._metrics(result, result.test) | {"rounds": float(rounds)}

    def _metrics(self, result: FitResult, test: float | None) -> dict[str, float | None]:
        return {f"val_{self.task.metric}": result.val, f"test_{self.task.metric}": test}

    def _scope(self) -> Scope:
        """Return how weights are ranked where a mask is not searched: as it is there, except for groups."""
        return "global" if self.supermask.get("scope", "global") == "global" else "tensor"

    def _options(self) -> dict[str, Any]:
        """Return the arguments of the supermask that say what is masked and how weights are drawn."""
        left_out = ("coats", "coat_spacing", "coat_scores", "alpha", "ramp", "ramp_end")
        return {name: value for name, value in self.supermask.items() if name not in left_out}

    def _model(self, dropout: float) -> nn.Module:
        model = build_model(self.make_model, self.task.seed)
        set_dropout(model, dropout)
        return accelerate(model) if self.fast else model

    def _adam(self, model: nn.Module) -> Adam:
        return Adam(model.parameters(), lr=LR, weight_decay=WEIGHT_DECAY, fused=True)

    def _train(self, model: nn.Module, optimizer: Adam, task: SearchTask | None = None) -> FitResult:
        return (task or self.task).run(model, optimizer, epochs=min(self.task.epochs, EPOCHS))

    def _dense(self) -> tuple[float, FitResult, float | None]:
        """Return dropout, result and test metric of the dense model that is best on the validation part."""
        if self._tuned is None:
            # Without a dropout to set, one training is enough.
            places = set_dropout(build_model(self.make_model, self.task.seed), 0.0)
            task, best = self.task.without_test(), None
            for dropout in DROPOUTS if places else DROPOUTS[:1]:
                model = self._model(dropout)
                result = self._train(model, self._adam(model), task)
                if best is None or self.task.is_better(result.val, best[1].val):
                    best = (dropout, result)
            assert best is not None
            self._tuned = (*best, self.task.test(self._model(0.0), best[1]))
        return self._tuned

    def _trainable(self) -> tuple[nn.Module, Exclude]:
        """Return the model from its initial weights, and which of its parameters a mask doesn't cover."""
        model = self._model(self._dense()[0])
        return model, _not_masked(model, self.supermask)

    def _rewound(self, trained: FitResult, sparsity: float) -> FitResult:
        """Train from the initial weights on without those that are smallest in a trained model."""
        model, exclude = self._trainable()
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        optimizer = self._adam(model)

        def smallest(parameters: Sequence[nn.Parameter]) -> list[Tensor]:
            sizes = [trained.state_dict[names[id(parameter)]].abs() for parameter in parameters]
            return [~gone for gone in smallest_masks(sizes, lambda num: num_removed(sparsity, num), self._scope())]

        HeldMask(optimizer, smallest, exclude=exclude)
        return self._train(model, optimizer)


def _not_masked(model: nn.Module, supermask: Mapping[str, Any]) -> Exclude:
    roles = parameter_roles(model, supermask.get("select"), supermask.get("train"))
    masked = {id(entry.parameter) for entry in roles if entry.role in ("weights", "columns")}

    def exclude(parameter: torch.Tensor) -> bool:
        return id(parameter) not in masked

    return exclude
