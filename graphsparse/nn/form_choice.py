"""Which form of a sparse model is the fastest on a graph: measured, and told."""

import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from graphsparse.metrics import weight_sparsity
from graphsparse.nn.compact_linear import CompactLinear
from graphsparse.nn.csr_linear import CSRLinear
from graphsparse.nn.form_cost import Call, bytes_held, executed_macs
from graphsparse.nn.inference_forms import FORMS, InferenceForm, inference_form
from graphsparse.utils.call_model import call_model

#: How much slower than the fastest form a simpler one may be, and still be chosen.
_TIE = 1.05
#: Runs of each form whatever they take, besides two before them, in which what is constant is computed and kept.
_MIN_RUNS, _MAX_RUNS = 3, 200
#: Seconds up to which a run depends on what the form before it has left in the caches.
_SHORT = 0.05


@dataclass(frozen=True)
class FormFigures:
    """What was measured of a form.

    Args:
        form: The form.
        milliseconds: Median time of a forward pass over the graph, after those that compute what is constant.
        bytes: Memory of parameters and buffers.
        multiply_accumulates: What the form carries out; zeros in a dense weight are multiplied, so they count. ``None``
            if it cannot be told.
        deviation: Largest difference of a logit from those of ``dense``, as a fraction of the largest of these.
        left_out: Why the form was not in the choice; ``None`` if it was.
    """

    form: str
    milliseconds: float | None = None
    bytes: int | None = None
    multiply_accumulates: int | None = None
    deviation: float | None = None
    left_out: str | None = None


@dataclass(frozen=True, eq=False)
class FormChoice:
    """The fastest form of a model on a graph, and the figures it was chosen by.

    Args:
        model: The model in that form, in evaluation mode.
        chosen: The name of the form.
        table: The figures of every form, in the order of the choice.
        sparsity: Fraction of the parameters of the model that are zero, the same in all forms.
    """

    model: nn.Module
    chosen: str
    table: Mapping[str, FormFigures]
    sparsity: float

    @property
    def reason(self) -> str:
        """One sentence that says what was chosen and why."""
        own = self.table[self.chosen]
        parts = [f"{self.chosen}: {_ms(own)}"]
        timed = [row for row in self.table.values() if row.left_out is None]
        if any((row.milliseconds or 0) < (own.milliseconds or 0) for row in timed):
            parts[0] += " (as fast as any within 5 %, and simpler)"
        parts += [f"{row.form} {_ms(row)}" for row in timed if row is not own]
        parts += [f"{row.form} left out: {row.left_out}" for row in self.table.values() if row.left_out is not None]
        return ", ".join(parts)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield the table row by row: the figures of each form, the sparsity, and whether it was chosen."""
        for row in self.table.values():
            yield {**asdict(row), "sparsity": self.sparsity, "chosen": row.form == self.chosen}

    def __str__(self) -> str:
        return self.reason

    def __repr__(self) -> str:
        return f"FormChoice({self.reason})"


def fastest_form(
    model: nn.Module,
    data: Data,
    forms: Sequence[InferenceForm] = FORMS,
    *,
    budget: float = 1.5,
    tolerance: float = 1e-5,
    call: Call = call_model,
) -> FormChoice:
    """Run a sparse model on a graph in several forms, and return the fastest one with the figures.

    Each form runs twice, and its logits are compared with those of ``dense``. Then all take turns until the time is
    up, so that what else the machine does meets all alike, and the median of each counts. Of forms that are within 5 %
    of the fastest the simplest is chosen, in the order of :data:`FORMS`. The figures hold for this graph, this machine,
    and the number of threads that torch is set to; they are those of a graph that comes again, unchanged, as what is
    computed from constant features is kept.

    Args:
        model: The model. It is left as it is, and shares weights with the result: see
            :func:`~graphsparse.nn.inference_form`.
        data: The graph, on the device of the model.
        forms: The forms to choose from. ``dense`` is always run, for its logits, and is in the choice if it is named.
        budget: Seconds for the timed runs of all forms together, in which three runs of each always fit.
        tolerance: Largest deviation of a form that may be chosen, as a fraction of the largest logit.
        call: Calls a model on the graph; ``model(data.x, data.edge_index)`` with edge weights if there are any.

    Raises:
        TypeError: If ``model`` is no module, or does not return a tensor.
        ValueError: If a form does not exist, none is named, a number is out of range, or no form is left to choose.

    Example:
        >>> from torch_geometric.nn import GCN
        >>> from graphsparse.testing import random_graph
        >>> choice = fastest_form(GCN(8, 16, 2, 3), random_graph(), budget=0.01)
        >>> choice.table["dense"].bytes  # (8 * 16 + 16 + 16 * 3 + 3) numbers of 4 bytes
        780
        >>> choice.table["compact"].left_out
        'no linear layer has a row or column of zeros'
    """
    _check(model, forms, budget, tolerance)
    models: dict[str, nn.Module] = {}
    table: dict[str, FormFigures] = {}
    expected: Tensor | None = None
    for form in FORMS:
        if form not in forms and form != "dense":
            continue
        try:
            candidate = _build(model, form)
            logits = [_run(candidate, data, call) for _ in range(2)]  # the second run keeps what is constant
        except Exception as error:
            if form == "dense":
                raise
            table[form] = FormFigures(form, left_out=str(error) or type(error).__name__)
            continue
        if expected is None:
            expected = logits[1]
        deviation = max(_deviation(found, expected) for found in logits)
        wrong = None if deviation <= tolerance else f"its logits deviate by {deviation:.1e} from those of dense"
        table[form] = FormFigures(
            form, None, bytes_held(candidate), executed_macs(candidate, data, call), deviation, wrong
        )
        if wrong is None:
            models[form] = candidate
    if "dense" not in forms:
        del table["dense"], models["dense"]
    if not models:
        reasons = ", ".join(f"{row.form}: {row.left_out}" for row in table.values())
        raise ValueError(f"'forms' holds none that can be chosen ({reasons})")
    times = _milliseconds([partial(_run, candidate, data, call) for candidate in models.values()], budget)
    timed = dict(zip(models, times, strict=True))
    table |= {name: replace(table[name], milliseconds=milliseconds) for name, milliseconds in timed.items()}
    chosen = simplest_of_fastest(timed)
    return FormChoice(models[chosen], chosen, table, weight_sparsity(model))


def simplest_of_fastest(milliseconds: Mapping[str, float]) -> str:
    """Return the first form that takes no longer than the fastest one, by more than 5 %.

    Args:
        milliseconds: Time of each form, the simplest first.

    Example:
        >>> simplest_of_fastest({"dense": 2.2, "sparse_features": 2.09, "compact": 2.0})
        'sparse_features'
    """
    limit = _TIE * min(milliseconds.values())
    return next(form for form, time in milliseconds.items() if time <= limit)


def _build(model: nn.Module, form: InferenceForm) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is left as it is, is measured as it is
        made = inference_form(model, form)
    kinds = {type(module) for module in made.modules()}
    if form == "compact" and CompactLinear not in kinds:
        raise ValueError("no linear layer has a row or column of zeros")
    if form == "csr" and CSRLinear not in kinds:
        raise ValueError("there is no linear layer to hold in compressed rows")
    return made


def _run(model: nn.Module, data: Data, call: Call) -> Tensor:
    with torch.no_grad():
        out = call(model, data)
    if not isinstance(out, Tensor):
        raise TypeError(f"'model' must return a tensor (got {type(out).__name__})")
    if out.is_cuda:
        torch.cuda.synchronize(out.device)
    return out


def _deviation(found: Tensor, expected: Tensor) -> float:
    if found.shape != expected.shape:
        return float("inf")
    if found.numel() == 0:
        return 0.0
    difference = (found - expected).abs().max().item()
    return difference / expected.abs().max().item() if difference else 0.0


def _milliseconds(runs: Sequence[Callable[[], Tensor]], budget: float) -> list[float]:
    """Return the median time of each run; a short one is timed when it comes for the second time in a row."""
    times: list[list[float]] = [[] for _ in runs]
    start = time.perf_counter()
    while len(times[0]) < _MIN_RUNS or (len(times[0]) < _MAX_RUNS and time.perf_counter() - start < budget):
        for run, taken in zip(runs, times, strict=True):
            seconds = _seconds(run)
            taken.append(_seconds(run) if seconds < _SHORT else seconds)
    return [statistics.median(taken) * 1e3 for taken in times]


def _seconds(run: Callable[[], Tensor]) -> float:
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def _check(model: Any, forms: Any, budget: float, tolerance: float) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"'model' must be a torch module (got {type(model).__name__})")
    if isinstance(forms, str) or not forms or any(form not in FORMS for form in forms):
        raise ValueError(f"'forms' must be some of {FORMS} (got {forms!r})")
    for name, number in (("budget", budget), ("tolerance", tolerance)):
        if not number >= 0:
            raise ValueError(f"'{name}' must not be negative (got {number!r})")


def _ms(row: FormFigures) -> str:
    return f"{row.milliseconds:.3g} ms"
