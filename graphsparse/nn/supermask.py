"""A mask that is searched over weights that are never trained."""

import weakref
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from graphsparse.nn.parameter_roles import ParameterFilter, ParameterRole, Role, fold_roles, parameter_roles
from graphsparse.nn.sparsities import RAMPS, Ramp, coat_sparsities, mean_square, ramp_factor
from graphsparse.nn.straight_through import lay_out, straight_through
from graphsparse.nn.thresholds import ThresholdPlan, Thresholds, Transform, parse_group
from graphsparse.nn.weight_laws import SupermaskLaw, WeightLaw, draw_scores, draw_weight
from graphsparse.ops.check import check_count, check_sparsity
from graphsparse.ops.digest import digest
from graphsparse.utils.copy_model import copy_model
from graphsparse.utils.counter_random import check_seed


class Supermask(nn.Module):
    r"""Wraps a model whose weights stay random and searches the mask under which they work.

    .. math::
        \tilde W = W \odot \sum_n [g(S) \text{ is not among the } \lfloor k_n \, |S| \rfloor \text{ smallest}]

    The weights :math:`W` are drawn from ``seed`` and the name of each tensor by a generator that gives every device
    and release the same bits. They are never trained: what is trained are the scores :math:`S`, :attr:`scores`, one
    flat parameter, through a mask that hands its gradient straight on.

    The model itself is neither changed nor kept: the wrapper holds a copy without its weights, and puts masked weights
    in their place for every call, by :func:`torch.func.functional_call`. Any model that can be copied works, that of
    :func:`~graphsparse.nn.accelerate` too; arguments and results of the call are the model's.

    Unless ``select`` or ``train`` say otherwise, matrices and attention vectors are masked, embedding tables by whole
    columns; biases are zero; normalisation layers, and single numbers such as the epsilon of GIN, are trained; so are
    the projections of ``TopKPooling`` and ``SAGPooling``, which are divided by their length.

    In training mode the sparsity of the ramp holds, in evaluation mode always the final one. The running statistics of
    batch normalisation are those of training, so they fit the evaluation only some steps after the ramp. Train with
    weight decay 0, and call :meth:`step` after every step of the optimiser.

    Args:
        model: Any model. It is left as it is.
        sparsity: Final fraction of the scores that removes its weight, that of the first coat if there are several.
        seed: Seed of weights and scores.
        scope: ``"global"`` ranks all scores together, ``"layer"`` those of each tensor, ``"2:4"`` (any ``n:m``) keeps 2
            of every 4 weights along the input dimension, which is a sparsity of 0.5.
        transform: ``"identity"`` ranks the scores, ``"abs"`` their absolute values.
        law: How the weights are drawn: ``"kaiming_uniform"``, ``"kaiming_normal"`` or ``"signed_constant"``; a
            :class:`~graphsparse.nn.SupermaskLaw` also says how they are scaled, and how scores are drawn.
        coats: Number of nested masks whose sum multiplies the weights, or the sparsity of each, which does not fall:
            see :func:`~graphsparse.nn.coat_sparsities`.
        select: Says by name and parameter what is masked. Other matrices are then frozen as a whole.
        train: Says by name and parameter what is trained from the model's own values.
        fold: Names of layers that share their frozen weights and masks, stage by stage. What is trained is not shared.
        ramp: ``"linear"`` or ``"cubic"`` growth of the sparsity from 0, up to half of the training, or ``None``.
        total_steps: Calls of :meth:`step` of the whole training; ``None`` for the final sparsity from the start.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range, nothing is masked, the model is not on one device, or it holds what
            cannot be copied, such as a function that leads to one of its layers.

    Example:
        >>> from torch_geometric.nn import GCN
        >>> from graphsparse.testing import random_graph
        >>> data = random_graph()
        >>> model = Supermask(GCN(8, 16, 2, 3), sparsity=0.8, seed=1, total_steps=100)
        >>> model(data.x, data.edge_index).shape
        torch.Size([60, 3])
        >>> [name for name, _ in model.named_parameters()]
        ['scores']
        >>> round(model.sparsity(), 4)
        0.7955
        >>> type(model.materialize()).__name__
        'GCN'

    Source: Huang et al., *You Can Have Better Graph Neural Networks by Not Training Weights at All*, arXiv 2211.15335;
    coats and folded layers: Yan et al., arXiv 2312.03236.
    """

    scores: nn.Parameter
    frozen: Tensor
    zeros: Tensor

    def __init__(
        self,
        model: nn.Module,
        sparsity: float,
        *,
        seed: int = 0,
        scope: str = "global",
        transform: Transform = "identity",
        law: WeightLaw | SupermaskLaw = "kaiming_uniform",
        coats: int | Sequence[float] = 1,
        select: ParameterFilter | None = None,
        train: ParameterFilter | None = None,
        fold: Sequence[Sequence[str]] = (),
        ramp: Ramp | None = "linear",
        total_steps: int | None = None,
    ) -> None:
        super().__init__()
        first = check_sparsity(sparsity)
        self.seed = check_seed(seed)
        group = parse_group(scope)
        if group is not None and abs(first - (1 - group[0] / group[1])) > 1e-9:
            raise ValueError(f"'sparsity' must be {1 - group[0] / group[1]:g} for the scope {scope!r} (got {first})")
        laws = law if isinstance(law, SupermaskLaw) else SupermaskLaw(law)
        sparsities = _sparsities(first, coats)
        if ramp not in RAMPS:
            raise ValueError(f"'ramp' must be one of {RAMPS} (got {ramp!r})")
        if total_steps is not None:
            check_count(total_steps, "total_steps")
        self.ramp, self.total_steps = ramp, total_steps
        self.law = laws.weights
        #: What the frozen weights are scaled for: the mean square of the mask.
        self.mean_square = 1.0
        if laws.scaled:
            self.mean_square = mean_square(sparsities[:1] if laws.scaled == "first" else sparsities)

        roles = fold_roles(model, parameter_roles(model, select, train), fold)
        if any(isinstance(module, nn.DataParallel) for module in model.modules()):
            raise ValueError(
                "'model' holds a DataParallel, which would copy weights that are made for each call; give its 'module'"
            )
        frozen = [entry for entry in roles if entry.is_frozen]
        self._names = {entry.names[0]: entry.names for entry in roles if entry.role not in ("trained", "kept")}
        self._roles: dict[str, Role] = {name: entry.role for entry in roles if (name := entry.names[0]) in self._names}
        self._layout, self._dense = lay_out(frozen)
        self._zero = {e.names[0]: tuple(e.parameter.shape) for e in roles if e.role == "zero"}
        plan = ThresholdPlan(
            tuple(place.num_scores for place in self._layout.values()),
            tuple(place.shape[-1] for place in self._layout.values()),
            sparsities,
            scope,
            transform,
        )
        self._thresholds = Thresholds(plan)
        devices, dtypes = ({getattr(entry.parameter, key) for entry in frozen} for key in ("device", "dtype"))
        if len(devices) > 1 or len(dtypes) > 1:
            raise ValueError(
                "'model' must hold its weights on one device and in one type "
                f"(got {sorted(map(str, devices))}, {sorted(map(str, dtypes))})"
            )
        like: dict[str, Any] = {"device": devices.pop(), "dtype": dtypes.pop()}
        num = sum(entry.parameter.numel() for entry in frozen)
        self.register_buffer("frozen", torch.empty(num, **like), persistent=False)
        longest = max((e.parameter.numel() for e in roles if e.role == "zero"), default=0)
        self.register_buffer("zeros", torch.zeros(longest, **like), persistent=False)
        # Half precision would tie most scores.
        wide = torch.promote_types(like["dtype"], torch.float32)
        self.scores = nn.Parameter(torch.empty(sum(plan.sizes), device=like["device"], dtype=wide))
        self._draw_scores(laws)
        self.redraw()
        self._steps = 0
        self._set_factor()
        self.model = _copy_without(model, [name for names in self._names.values() for name in names])
        self._has_recurrent = bool(_recurrent_layers(self.model))
        self.train(model.training)

    @property
    def plan(self) -> ThresholdPlan:
        """Scope, transform and the sparsity of every coat."""
        return self._thresholds.plan

    @property
    def steps_done(self) -> int:
        """Calls of :meth:`step` so far."""
        return self._steps

    @property
    def current_sparsity(self) -> float:
        """Sparsity of the first coat that holds in training now."""
        return self.plan.sparsities[0] * self._factor

    @property
    def trains_as_it_evaluates(self) -> bool:
        """Whether training begins with the forward pass of an evaluation, dropout aside: the ramp is over."""
        return self._factor == 1

    @torch.no_grad()
    def _draw_scores(self, laws: SupermaskLaw) -> None:
        for name, place in self._layout.items():
            part = place.of_scores(self.scores)
            shape = (1, place.shape[-1]) if place.columns else place.shape
            part.copy_(draw_scores(shape, laws.scores, seed=self.seed, name=name, device=part.device).view(part.shape))

    @torch.no_grad()
    def redraw(self) -> None:
        """Draw the frozen weights anew from the seed: the bits they had, whatever was done to them since."""
        for name, place in (self._layout | self._dense).items():
            square = self.mean_square if name in self._layout else 1.0
            drawn = draw_weight(
                place.shape, self.law, seed=self.seed, name=name, mean_square=square, device=self.frozen.device
            )
            place.of_weights(self.frozen).copy_(drawn)

    def step(self) -> None:
        """Say that the optimiser has taken a step: the ramp moves on."""
        self._steps += 1
        self._set_factor()

    def _set_factor(self) -> None:
        self._factor = ramp_factor(self._steps, self.total_steps, self.ramp)

    def _counts(self, *, final: bool) -> Tensor:
        counts: Tensor = self._thresholds.counts(self.scores, 1.0 if final else self._factor)
        return counts

    def _weights(self, *, final: bool) -> dict[str, Tensor]:
        """Every weight that the model lacks, by all its names."""
        masked = straight_through(
            self.scores,
            self.frozen,
            self._counts(final=final),
            tuple(self._layout.values()),
            coats=len(self.plan.sparsities),
            absolute=self.plan.transform == "abs",
        )
        weights = dict(zip(self._layout, masked, strict=True)) | self._unmasked()
        return {name: weights[first] for first, names in self._names.items() for name in names}

    def _unmasked(self) -> dict[str, Tensor]:
        """What is frozen without a mask."""
        weights = {name: place.of_weights(self.frozen) for name, place in self._dense.items()}
        for name, shape in self._zero.items():
            weights[name] = self.zeros[: torch.Size(shape).numel()].view(shape)
        return weights

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the model with its masked weights."""
        for given in (*args, *kwargs.values()):
            if isinstance(given, Tensor) and given.dim() and given.device != self.scores.device:
                raise ValueError(
                    f"the model is on {self.scores.device}, but what it is called with is on {given.device}: move one "
                    "of them to the other"
                )
        self._leave({})
        weights = self._weights(final=not self.training)
        recurrent = _recurrent_layers(self.model) if self._has_recurrent else []
        _forget_weights(recurrent)
        try:
            return functional_call(self.model, weights, args, kwargs, tie_weights=False)
        finally:
            _forget_weights(recurrent)
            if torch.is_grad_enabled() and not torch.compiler.is_compiling():
                self._leave(weights)

    def _leave(self, weights: Mapping[str, Tensor]) -> None:
        """Leave the weights of a call where layers find them that are run again in its backward pass, as checkpoints.

        They are plain attributes, no parameters: nobody who asks for those sees them.
        """
        for names in self._names.values():
            for name in names:
                owner, _, local = name.rpartition(".")
                attributes = vars(self.model.get_submodule(owner))
                attributes.pop(local, None)
                if name in weights:
                    attributes[local] = weights[name]

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the weights of the last call, which belong to its graph."""
        self._leave({})
        return vars(self)

    def score_views(self) -> dict[str, Tensor]:
        """Return the scores of every masked tensor, by its name, as views of :attr:`scores`.

        They have the shape of the tensor, ``[columns]`` for one that is masked by columns.
        """
        return {name: entry.of_scores(self.scores) for name, entry in self._layout.items()}

    def masks(self) -> dict[str, Tensor]:
        """Return what is kept of every masked tensor at the final sparsity, by its name and of its shape.

        Returns:
            bool tensors; with several coats, uint8 tensors that say how many keep a weight.
        """
        counts = self._counts(final=True).clone()
        if len(self.plan.sparsities) == 1:
            counts = counts.view(torch.bool)
        return {name: entry.of_scores(counts).expand(entry.shape) for name, entry in self._layout.items()}

    def sparsity(self) -> float:
        """Return the fraction of the masked weights that is exactly zero at the final sparsity, counted."""
        masks = self.masks().values()
        zero = sum(mask.numel() - int(mask.count_nonzero()) for mask in masks)
        return zero / sum(mask.numel() for mask in masks)

    @torch.no_grad()
    def materialize(self) -> nn.Module:
        """Return a plain model of the original class in evaluation mode, with the final mask in its weights.

        Its keys are the original ones, it computes what this one does in evaluation mode, bit for bit, and it shares
        no memory with it. Nothing keeps its zeros at zero if it is trained on.
        """
        self._leave({})
        model = copy_model(self.model)
        weights = self._weights(final=True)
        for first, names in self._names.items():
            _put_parameters(model, dict.fromkeys(names, nn.Parameter(weights[first].clone())))
        return model.eval()

    def frozen_tensors(self) -> list[ParameterRole]:
        """Return what is frozen of the model: names, role, and weights (no copy)."""
        weights = {name: place.of_weights(self.frozen) for name, place in self._layout.items()} | self._unmasked()
        return [
            ParameterRole(names, nn.Parameter(weights[name], requires_grad=False), self._roles[name])
            for name, names in self._names.items()
        ]

    def _recipe(self) -> Tensor:
        """Everything that the frozen weights depend on, as one number."""
        places = {name: list(place) for name, place in (self._layout | self._dense).items()}
        found = digest([self.seed, self.law, self.mean_square, places, list(self._layout)])
        return torch.tensor(int.from_bytes(bytes.fromhex(found), "little", signed=True))

    def state_dict(  # type: ignore[override]
        self, *, destination: dict[str, Any] | None = None, prefix: str = "", keep_vars: bool = False
    ) -> dict[str, Any]:
        """Return scores, what the model trains and buffers itself, and how far the ramp is; no frozen weights."""
        # A linear layer of PyG writes its weight without asking whether there is one.
        gone = [name for names in self._names.values() for name in names]
        _put_parameters(self.model, dict.fromkeys(gone, nn.Parameter(torch.empty(0))))
        try:
            state: dict[str, Any] = super().state_dict(
                destination=destination,  # type: ignore[arg-type]
                prefix=prefix,
                keep_vars=keep_vars,
            )
        finally:
            _put_parameters(self.model, dict.fromkeys(gone))
        for name in gone:
            state.pop(f"{prefix}model.{name}", None)
        return state

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[f"{prefix}steps_done"] = torch.tensor(self._steps)
        destination[f"{prefix}recipe"] = self._recipe()

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        steps, recipe = (state_dict.pop(prefix + key, None) for key in ("steps_done", "recipe"))
        if recipe is not None and int(recipe) != int(self._recipe()):
            error_msgs.append("the scores belong to other frozen weights: another seed, law, scale or set of tensors")
            return
        missing_keys += [prefix + k for k, v in (("steps_done", steps), ("recipe", recipe)) if v is None and strict]
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
        if steps is not None:
            self._steps = int(steps)
            self._set_factor()

    def extra_repr(self) -> str:
        """Name what the mask depends on."""
        plan = self.plan
        return f"sparsities={plan.sparsities}, scope={plan.scope!r}, transform={plan.transform!r}, seed={self.seed}"


def _sparsities(first: float, coats: int | Sequence[float]) -> tuple[float, ...]:
    if not isinstance(coats, Sequence):
        return coat_sparsities(first, coats)
    found = tuple(float(sparsity) for sparsity in coats)
    if found[:1] != (first,) or list(found) != sorted(found) or found[-1] > 1:
        raise ValueError(f"'coats' must be sparsities that begin with {first}, do not fall and end by 1 (got {coats})")
    return found


def _put_parameters(model: nn.Module, parameters: Mapping[str, nn.Parameter | None]) -> None:
    """Set parameters by their names where they are registered, without the checks of an assignment."""
    for name, parameter in parameters.items():
        owner, _, local = name.rpartition(".")
        model.get_submodule(owner)._parameters[local] = parameter


def _copy_without(model: nn.Module, names: Collection[str]) -> nn.Module:
    """Copy a model, with ``None`` in the places of some parameters, which are named by all their names."""
    # A copy of each of these would only be thrown away.
    memo = {id(model.get_parameter(name)): nn.Parameter(torch.empty(0)) for name in names}
    new = copy_model(model, memo)
    _put_parameters(new, dict.fromkeys(names))
    return new


def _recurrent_layers(model: nn.Module) -> list[nn.RNNBase]:
    """Return the layers that remember their weights besides their parameters."""
    return [module for module in model.modules() if isinstance(module, nn.RNNBase)]


def _forget_weights(layers: Sequence[nn.RNNBase]) -> None:
    """Make recurrent layers look for their weights again, and let go of those they had."""
    for layer in layers:
        nothing = nn.Parameter(torch.empty(0))
        layer._flat_weights = [nothing] * len(layer._flat_weights_names)
        layer._flat_weight_refs = [weakref.ref(nothing)] * len(layer._flat_weights_names)
