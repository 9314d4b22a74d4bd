"""Untrained tickets: a mask over frozen random weights."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, TypeAlias

from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR

from graphsparse.nn import Supermask, SupermaskLaw, coat_sparsities
from graphsparse.nn.linear import set_dropout
from graphsparse.nn.sparsities import CoatSpacing, Ramp
from graphsparse.nn.thresholds import Transform
from graphsparse.ops.check import check_count, check_number
from graphsparse.tickets.described import as_plain
from graphsparse.tickets.run import TicketRun
from graphsparse.tickets.ticket import Ticket
from graphsparse.training import FitResult
from graphsparse.training.training import MakeOptimizer

Preset: TypeAlias = Literal["ugt", "edge_popup", "edge_popup_original", "multicoated"]


def _adamw(parameters: list[nn.Parameter], lr: float, weight_decay: float) -> Optimizer:
    return AdamW(parameters, lr=lr, weight_decay=weight_decay, fused=True)


def _sgd_cosine(epochs: int) -> MakeOptimizer:
    def make(parameters: list[nn.Parameter], lr: float, weight_decay: float) -> Any:
        sgd = SGD(parameters, lr=lr, momentum=0.9, weight_decay=weight_decay)
        return sgd, CosineAnnealingLR(sgd, epochs)

    return make


@dataclass(frozen=True)
class _Published:
    """A published way to search: what a supermask is made of, and how its scores are trained."""

    transform: Transform = "identity"
    law: SupermaskLaw = field(default_factory=SupermaskLaw)
    scope: str = "global"
    ramp: Ramp | None = "linear"
    coats: int = 1
    optimizer: Callable[[int], MakeOptimizer] = lambda epochs: _adamw
    epochs: int = 400
    lr: float = 0.01
    weight_decay: float = 0.0


_EDGE_POPUP: dict[str, Any] = {"optimizer": _sgd_cosine, "epochs": 100, "lr": 0.1, "weight_decay": 1e-4}
#: ``ugt``: Huang et al., arXiv 2211.15335. ``edge_popup``: the baseline of its figures, which differs in the threshold
#: per tensor and the missing ramp alone. ``edge_popup_original``: Ramanujan et al., arXiv 1911.13299. ``multicoated``:
#: Yan et al., arXiv 2312.03236.
_PRESETS: dict[str, _Published] = {
    "ugt": _Published(),
    "edge_popup": _Published(scope="layer", ramp=None),
    "edge_popup_original": _Published(
        "abs", SupermaskLaw("signed_constant", "edge_popup"), scope="layer", ramp=None, **_EDGE_POPUP
    ),
    "multicoated": _Published("abs", SupermaskLaw("signed_constant", scaled=True), coats=3),
}


@dataclass(frozen=True)
class Untrained:
    r"""Search a mask under which a model with random, never trained weights does its task.

    The weights of the model are drawn from the seed and frozen; what is trained is a score for each of them, and the
    :math:`\lfloor \mathrm{sparsity} \cdot n \rfloor` weights with the lowest scores are left out; see
    :class:`~graphsparse.nn.Supermask`. The sparsity grows from 0 over the first half of the epochs. In every epoch the
    mask of the final sparsity is judged on the validation part, and the ticket is the one of the best epoch, which may
    lie within the ramp. The test part is read once, for that mask. The weights of the ticket follow from the seed, so
    that its file holds little more than the mask.

    =========================  =====================================================================================
    preset                     what is searched
    =========================  =====================================================================================
    ``"ugt"``                  one threshold for all tensors, signed scores, Kaiming-uniform weights; AdamW, 400 epochs
    ``"edge_popup"``           the same with one threshold per tensor and without the ramp, the baseline of UGT
    ``"edge_popup_original"``  absolute scores, weights :math:`\pm\sigma`, SGD with momentum and a cosine schedule
    ``"multicoated"``          three nested masks whose sum multiplies weights :math:`\pm\sigma`, scaled; AdamW
    =========================  =====================================================================================

    Scores are trained otherwise than weights: of the ``training`` of :func:`~graphsparse.tickets.find_ticket` the
    epochs, the learning rate and the weight decay are not used, but those given here. With ``lr=0`` nothing is learned
    and the mask is a random one: ``"random_untrained"`` is the method for that.

    Args:
        preset: One of the names above.
        coats: Number of nested masks, where it differs from the preset, as for the following three.
        coat_spacing: How sparsities of coats are spaced. All but ``"uniform"`` make a search with one coat first.
        scaled: How weights are scaled.
        scope: What is ranked together; ``"2:4"`` keeps 2 of every 4 weights.
        epochs: Number of epochs of the search; ``None`` for that of the preset, as for the following two.
        lr: Learning rate of the scores.
        weight_decay: Weight decay of the scores.
        dropout: Dropout of the model during the search; ``None`` leaves it as ``make_model`` sets it.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If the preset is unknown, or a number is out of range.

    Example:
        >>> from torch_geometric.nn import GCN
        >>> from graphsparse.datasets import synthetic_citation
        >>> from graphsparse.tickets import find_ticket
        >>> data = synthetic_citation(1000, num_features=64, num_val=200, num_test=300)
        >>> make_model = lambda: GCN(64, 32, 2, 7, bias=False)
        >>> ticket = find_ticket(make_model, data, weight_sparsity=0.5, method=Untrained(epochs=20))
        >>> ticket.metrics["test"] > 0.3
        True

    Source: Huang et al., *You Can Have Better Graph Neural Networks by Not Training Weights at All*, arXiv 2211.15335,
    Section 3; coats: Yan et al., arXiv 2312.03236.
    """

    preset: Preset = "ugt"
    coats: int | None = None
    coat_spacing: CoatSpacing | None = None
    scaled: bool | Literal["first"] | None = None
    scope: str | None = None
    epochs: int | None = None
    lr: float | None = None
    weight_decay: float | None = None
    dropout: float | None = 0.0
    prunes: ClassVar[frozenset[str]] = frozenset({"weights"})
    nested: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.preset not in _PRESETS:
            raise ValueError(f"'preset' must be one of {sorted(_PRESETS)} (got {self.preset!r})")
        if self.epochs is not None:
            check_count(self.epochs, "epochs")
        for name in ("lr", "weight_decay"):
            if getattr(self, name) is not None:
                check_number(getattr(self, name), name, least=0)

    def find(self, run: TicketRun) -> Iterator[Ticket]:
        """Yield a ticket of frozen weights for each target."""
        published = self._published()
        own = {name: getattr(published, name) for name in ("coats", "epochs", "lr", "weight_decay")}
        for number, target in enumerate(run.targets, 1):
            masked, result = self._search(run, target.weights, f"mask-{number}")
            described = {**run.described(), "Untrained": {**(as_plain(self) or {}), **own}}
            ticket = Ticket.from_supermask(
                masked,
                data=run.graph,
                config={"weight_sparsity": target.weights, **described},
                metrics={"val": result.val, "best_epoch": result.best_epoch},
            )
            logits = result.logits
            del masked, result  # what they keep of the graph would stay while the ticket is judged
            run.check(ticket, logits)
            yield ticket

    def _published(self) -> _Published:
        """Return the preset with what differs from it."""
        known, names = _PRESETS[self.preset], ("coats", "scope", "epochs", "lr", "weight_decay")
        law = known.law if self.scaled is None else replace(known.law, scaled=self.scaled)
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return replace(known, law=law, **given)

    def _search(self, run: TicketRun, sparsity: float, tag: str) -> tuple[Supermask, FitResult]:
        """Return the wrapped model with the scores of the best epoch, and the result of the search."""
        published, spacing, scores = self._published(), self.coat_spacing or "uniform", None
        if spacing != "uniform":
            single = replace(self, coats=1, coat_spacing="uniform")
            scores = single._search(run, sparsity, f"{tag}-one-coat")[0].scores.detach()
        model = run.model()
        if self.dropout is not None:
            set_dropout(model, self.dropout)
        masked = Supermask(
            model,
            sparsity,
            seed=run.training.seed,
            scope=published.scope,
            transform=published.transform,
            law=published.law,
            coats=coat_sparsities(sparsity, published.coats, spacing, scores=scores),
            ramp=published.ramp,
            # Where nothing is learned, the final sparsity holds from the start; a pass shows the data to normalisation.
            total_steps=published.epochs if published.lr > 0 else None,
        )
        del model  # the wrapper has a copy without weights
        run.check(Ticket.from_supermask(masked, data=run.graph), run.logits(masked))
        result = run.train(
            masked,
            tag,
            epochs=published.epochs,
            lr=published.lr,
            weight_decay=published.weight_decay,
            optimizer=run.training.optimizer or published.optimizer(published.epochs),
            after_step=[_one_step_per_epoch],
        )
        return masked, result


def _one_step_per_epoch(model: nn.Module, epoch: int) -> None:
    """Move the ramp on with the first batch of an epoch: the length of an epoch need not be known."""
    assert isinstance(model, Supermask)
    if model.steps_done <= epoch:
        model.step()
