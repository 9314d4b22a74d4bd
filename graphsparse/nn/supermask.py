"""A mask that is searched over weights that are never trained."""

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

from graphsparse.nn.coats import ALPHA, CoatSpacing, coat_sparsities, mean_square
from graphsparse.nn.flat_layout import draw_flat_scores, lay_out, one_of_each
from graphsparse.nn.folding import fold_roles
from graphsparse.nn.parameter_roles import ParameterFilter, ParameterRole, Role, parameter_roles
from graphsparse.nn.ramp import Ramp, ramp_factor
from graphsparse.nn.skeleton import copy_without, forget_weights, put_parameters, recurrent_layers
from graphsparse.nn.straight_through import straight_through
from graphsparse.nn.thresholds import (
    ThresholdPlan,
    Thresholds,
    Transform,
    compiled_count_coats,
    parse_group,
)
from graphsparse.nn.weight_laws import SCORE_LAWS, WEIGHT_LAWS, ScoreLaw, WeightLaw, draw_weight
from graphsparse.ops.check import check_sparsity
from graphsparse.utils.counter_random import check_seed

if TYPE_CHECKING:
    from graphsparse.tickets.ticket import Ticket


@dataclass(frozen=True)
class SupermaskSparsity:
    """Fractions that are exactly zero, counted, not nominal.

    Args:
        total: Of all masked weights together.
        tensors: Of every masked tensor, by its name.
    """

    total: float
    tensors: Mapping[str, float]


class Supermask(nn.Module):
    r"""Wraps a model whose weights stay random and searches the mask under which they work.

    .. math::
        \tilde W = W \odot \sum_n [g(S) \text{ is not among the } \lfloor k_n \, |S| \rfloor \text{ smallest}]

    The weights :math:`W` are drawn from ``seed`` and the name of each tensor by a generator that gives every device
    and release the same bits. They are never trained: what is trained are the scores :math:`S`, :attr:`scores`, one
    flat parameter, through a mask that hands its gradient straight on.

    The model itself is neither changed nor kept: the wrapper holds a copy without its weights, and puts masked weights
    in their place for every call, by :func:`torch.func.functional_call`. Any model works, that of
    :func:`~graphsparse.nn.accelerate` too; arguments and results of the call are the model's.

    Unless ``select`` or ``train`` say otherwise, matrices and attention vectors are masked, embedding tables by whole
    columns; biases are zero; normalisation layers, and single numbers such as the epsilon of GIN, are trained.

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
        law: Law of the weights: ``"kaiming_uniform"``, ``"kaiming_normal"`` or ``"signed_constant"``.
        scaled: Scale the weights so that the masked ones have the variance of the whole: by
            :math:`1 / \sqrt{1 - \mathrm{sparsity}}`, and with several coats by :math:`1 / \sqrt{\mathrm{E}[m^2]}`
            with the number :math:`m` of coats on a weight. ``"first"`` takes the sparsity of the first coat for any
            number of them, as published; with more coats the signal then grows, which attention does not bear.
        score_law: Law of the initial scores: ``"kaiming_uniform"``, ``"edge_popup"`` or ``"kaiming_normal_fan_out"``.
        coats: Number of nested masks whose sum multiplies the weights.
        coat_spacing: ``"uniform"``, ``"linear"`` or ``"adaptive_linear"``, see
            :func:`~graphsparse.nn.coats.coat_sparsities`. The latter two need ``transform="abs"``.
        coat_scores: Scores to space the coats by, those of a finished search with one coat; needed for
            ``"adaptive_linear"``. ``"linear"`` takes the initial scores by default.
        alpha: Threshold from which on ``"adaptive_linear"`` leaves a coat out.
        select: Says by name and parameter what is masked. Other matrices are then frozen as a whole.
        train: Says by name and parameter what is trained from the model's own values.
        fold: Names of layers that share their frozen weights, stage by stage, as
            :func:`~graphsparse.nn.folding.folding_stages` divides them. What is trained is not shared.
        share_masks: Share the masks of folded layers too.
        ramp: ``"linear"`` or ``"cubic"`` growth of the sparsity from 0, or ``None``.
        total_steps: Calls of :meth:`step` of the whole training; ``None`` for the final sparsity from the start.
        ramp_end: Fraction of ``total_steps`` after which the final sparsity holds.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If an argument is out of range, nothing is masked, or the model is not on one device.

    Example:
        >>> from torch_geometric.nn import GCN
        >>> from graphsparse.testing import random_graph
        >>> data = random_graph()
        >>> model = Supermask(GCN(8, 16, 2, 3), sparsity=0.8, seed=1, total_steps=100)
        >>> model(data.x, data.edge_index).shape
        torch.Size([60, 3])
        >>> [name for name, _ in model.named_parameters()]
        ['scores']
        >>> model.sparsity().total
        0.7954545454545454
        >>> type(model.materialize()).__name__
        'GCN'

    Source: Huang et al., *You Can Have Better Graph Neural Networks by Not Training Weights at All*, arXiv 2211.15335;
    coats: Yan et al., arXiv 2312.03236.
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
        law: WeightLaw = "kaiming_uniform",
        scaled: bool | Literal["first"] = False,
        score_law: ScoreLaw = "kaiming_uniform",
        coats: int = 1,
        coat_spacing: CoatSpacing = "uniform",
        coat_scores: Tensor | None = None,
        alpha: float = ALPHA,
        select: ParameterFilter | None = None,
        train: ParameterFilter | None = None,
        fold: Sequence[Sequence[str]] = (),
        share_masks: bool = True,
        ramp: Ramp | None = "linear",
        total_steps: int | None = None,
        ramp_end: float = 0.5,
    ) -> None:
        super().__init__()
        first = check_sparsity(sparsity)
        self.seed = check_seed(seed)
        _check_group(scope, first)
        for name, value, known in (("law", law, WEIGHT_LAWS), ("score_law", score_law, SCORE_LAWS)):
            if value not in known:
                raise ValueError(f"'{name}' must be one of {known} (got {value!r})")
        if not isinstance(scaled, bool) and scaled != "first":
            raise TypeError(f"'scaled' must be a bool or 'first' (got {scaled!r})")
        if coat_spacing != "uniform" and transform != "abs":
            raise ValueError(f"'coat_spacing' {coat_spacing!r} measures absolute scores and needs transform='abs'")
        ramp_factor(0, total_steps, ramp, end=ramp_end)
        self.ramp, self.total_steps, self.ramp_end = ramp, total_steps, ramp_end
        self.law = law

        roles = fold_roles(model, parameter_roles(model, select, train), fold, share_masks=share_masks)
        frozen = [entry for entry in roles if entry.role in ("weights", "columns", "dense")]
        self._names = {entry.names[0]: entry.names for entry in roles if entry.role not in ("trained", "kept")}
        self._layout, self._dense, num = lay_out(frozen)
        self._borrowed = {entry.names[0] for entry in frozen if entry.source is not None}
        self._zero = {e.names[0]: tuple(e.parameter.shape) for e in roles if e.role == "zero"}
        device, dtype = one_of_each([entry.parameter for entry in frozen])

        self.register_buffer("frozen", torch.empty(num, device=device, dtype=dtype), persistent=False)
        longest = max((e.parameter.numel() for e in roles if e.role == "zero"), default=0)
        self.register_buffer("zeros", torch.zeros(longest, device=device, dtype=dtype), persistent=False)
        self.scores = nn.Parameter(draw_flat_scores(self._layout, score_law, self.seed, device, dtype))
        if coat_spacing == "linear" and coat_scores is None:
            coat_scores = self.scores
        sparsities = coat_sparsities(first, coats, coat_spacing, scores=coat_scores, alpha=alpha)
        #: What the frozen weights are scaled for: the mean square of the mask.
        self.mean_square = mean_square(sparsities[:1] if scaled == "first" else sparsities) if scaled else 1.0
        self.redraw()
        sizes = tuple(entry.of_scores(self.scores).numel() for entry in self._layout.values())
        widths = tuple(entry.shape[-1] for entry in self._layout.values())
        self._thresholds = Thresholds(ThresholdPlan(sizes, widths, sparsities, scope, transform))
        self._steps = 0
        self._factor = torch.ones((), dtype=torch.float64)
        self._set_factor()
        self._has_recurrent = bool(recurrent_layers(model))
        self.model = copy_without(model, [name for names in self._names.values() for name in names])
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
        return self.plan.sparsities[0] * float(self._factor)

    @property
    def ramp_is_over(self) -> bool:
        """Whether training has reached the final sparsity."""
        return float(self._factor) == 1

    @property
    def trains_as_it_evaluates(self) -> bool:
        """Whether a step of training begins with the forward pass of an evaluation; dropout aside."""
        return self.ramp_is_over

    @torch.no_grad()
    def redraw(self) -> None:
        """Draw the frozen weights anew from the seed: the bits they had, whatever was done to them since."""
        for name, entry in (self._layout | self._dense).items():
            if name in self._borrowed:
                continue
            square = self.mean_square if name in self._layout else 1.0
            drawn = draw_weight(
                entry.shape, self.law, seed=self.seed, name=name, mean_square=square, device=self.frozen.device
            )
            entry.of_weights(self.frozen).copy_(drawn)

    def step(self) -> None:
        """Say that the optimiser has taken a step: the ramp moves on."""
        self._steps += 1
        self._set_factor()

    def _set_factor(self) -> None:
        self._factor.fill_(ramp_factor(self._steps, self.total_steps, self.ramp, end=self.ramp_end))

    def _counts(self, *, final: bool) -> Tensor:
        if not torch.compiler.is_compiling():
            return self._thresholds.counts(self.scores, 1.0 if final else float(self._factor))
        plan = self.plan
        factor = torch.ones((), dtype=torch.float64) if final else self._factor
        sizes, widths, sparsities = list(plan.sizes), list(plan.widths), list(plan.sparsities)
        counts: Tensor = compiled_count_coats(
            self.scores.detach(), factor, sizes, widths, sparsities, plan.scope, plan.transform
        )
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
        weights = dict(zip(self._layout, masked, strict=True))
        weights |= {name: entry.of_weights(self.frozen) for name, entry in self._dense.items()}
        for name, shape in self._zero.items():
            weights[name] = self.zeros[: torch.Size(shape).numel()].view(shape)
        return {name: weights[first] for first, names in self._names.items() for name in names}

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the model with its masked weights."""
        weights = self._weights(final=not self.training)
        recurrent = recurrent_layers(self.model) if self._has_recurrent else []
        forget_weights(recurrent)
        try:
            return functional_call(self.model, weights, args, kwargs, tie_weights=False)
        finally:
            forget_weights(recurrent)

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

    def sparsity(self) -> SupermaskSparsity:
        """Count what is zero at the final sparsity."""
        zero = {name: mask.numel() - int(mask.count_nonzero()) for name, mask in self.masks().items()}
        sizes = {name: torch.Size(entry.shape).numel() for name, entry in self._layout.items()}
        tensors = {name: zero[name] / sizes[name] for name in sizes}
        return SupermaskSparsity(sum(zero.values()) / sum(sizes.values()), tensors)

    @torch.no_grad()
    def materialize(self) -> nn.Module:
        """Return a plain model of the original class in evaluation mode, with the final mask in its weights.

        Its keys are the original ones, it computes what this one does in evaluation mode, bit for bit, and it shares
        no memory with it. Nothing keeps its zeros at zero if it is trained on.
        """
        model = copy.deepcopy(self.model)
        weights = self._weights(final=True)
        for first, names in self._names.items():
            put_parameters(model, dict.fromkeys(names, nn.Parameter(weights[first].clone())))
        return model.eval()

    def frozen_tensors(self) -> list[ParameterRole]:
        """Return what is frozen of the model: names, role, weights (no copy), and the tensor they are borrowed from."""
        places = self._layout | self._dense
        owners = {entry.weight: name for name, entry in places.items() if name not in self._borrowed}
        weights = {name: entry.of_weights(self.frozen) for name, entry in places.items()}
        weights |= {name: self.zeros[: torch.Size(s).numel()].view(s) for name, s in self._zero.items()}
        entries = []
        for name, names in self._names.items():
            parameter = nn.Parameter(weights[name], requires_grad=False)
            role: Role = "zero" if name in self._zero else "dense" if name in self._dense else "weights"
            if name in self._layout and self._layout[name].columns:
                role = "columns"
            source = owners[places[name].weight] if name in self._borrowed else None
            entries.append(ParameterRole(names, parameter, role, source))
        return entries

    def to_ticket(self, **options: Any) -> "Ticket":
        """Return the final mask as a ticket; see :func:`~graphsparse.tickets.from_supermask.ticket_from_supermask`."""
        from graphsparse.tickets.from_supermask import ticket_from_supermask

        return ticket_from_supermask(self, **options)

    def _recipe(self) -> Tensor:
        """Everything that the frozen weights depend on, as one number."""
        tensors = {name: (entry.weight, entry.shape) for name, entry in (self._layout | self._dense).items()}
        columns = [name for name, entry in self._layout.items() if entry.columns]
        text = json.dumps([self.seed, self.law, self.mean_square, tensors, columns, list(self._layout)])
        digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
        return torch.tensor(int.from_bytes(digest, "little", signed=True))

    def state_dict(  # type: ignore[override]
        self, *, destination: dict[str, Any] | None = None, prefix: str = "", keep_vars: bool = False
    ) -> dict[str, Any]:
        """Return scores, what the model trains and buffers itself, and how far the ramp is; no frozen weights."""
        # A linear layer of PyG writes its weight without asking whether there is one.
        gone = [name for names in self._names.values() for name in names]
        put_parameters(self.model, dict.fromkeys(gone, nn.Parameter(torch.empty(0))))
        try:
            state: dict[str, Any] = super().state_dict(
                destination=destination,  # type: ignore[arg-type]
                prefix=prefix,
                keep_vars=keep_vars,
            )
        finally:
            put_parameters(self.model, dict.fromkeys(gone))
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


def _check_group(scope: str, sparsity: float) -> None:
    group = parse_group(scope)
    if group is not None and abs(sparsity - (1 - group[0] / group[1])) > 1e-9:
        raise ValueError(f"'sparsity' must be {1 - group[0] / group[1]:g} for the scope {scope!r} (got {sparsity})")
