"""Make one network of several that were trained apart: the entry, what a method sees, and the registry of methods."""

import functools
import inspect
import warnings
from collections.abc import Callable, Container, Iterator, Sequence
from functools import cached_property
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch_geometric.data import Data
from tqdm import tqdm

from graphsparse.soups.diagnosis import ANGLE, angle_between
from graphsparse.soups.merging.align import AlignedStates
from graphsparse.soups.merging.domain import Domain, domains_for, num_outputs
from graphsparse.soups.merging.statistics import Statistics
from graphsparse.soups.recipes.soup import SoupResult
from graphsparse.soups.states import Mixture, State, States, Weights, check_states, tie, tied_names, weighted_sum
from graphsparse.training.check import check_callable, check_model
from graphsparse.typing import Log
from graphsparse.utils.counter_random import check_seed


class MergeRun:
    """What a method of merging sees: networks, read one at a time, and what each of them answers for. No labels.

    Args:
        states: State dicts.
        model: The model that the merged network is an instance of.
        domains: What each network answers for; ``None`` where no graph was given.
        base: The weights that all networks started from, where they are known.
        statistics: Returns the Gram matrices of a network by its number, where they are to be used in place of a graph.
        seed: Of all that a method draws.
        progress: Whether to show a progress bar.
        log: Receives the entries of the trace one by one.
    """

    def __init__(
        self,
        states: States,
        model: nn.Module,
        domains: Sequence[Domain] | None = None,
        base: State | None = None,
        statistics: Callable[[int], Statistics] | None = None,
        *,
        seed: int = 0,
        progress: bool = False,
        log: Log | None = None,
    ) -> None:
        #: Returns the Gram matrices of a network by its number, where there is no graph.
        self.statistics = statistics
        self.model, self.seed, self.trace = model, seed, list[dict[str, Any]]()
        #: Number of outputs of the merged network.
        self.num_outputs = num_outputs(model)
        self._states, self._domains, self._base = states, domains, base
        self._ties, self._progress, self._log = tied_names(model), progress, log

    def __len__(self) -> int:
        """Return the number of networks."""
        return len(self._states)

    def __getitem__(self, index: int, /) -> dict[str, Tensor]:
        """Return the state dict of a network, on CPU, in which all names of one tensor lead to one tensor."""
        return tie({name: value.cpu() for name, value in self._states[index].items()}, self._ties)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        """Yield the state dicts one after the other."""
        for i in tqdm(range(len(self)), disable=not self._progress, desc="merging"):
            yield self[i]

    @property
    def domains(self) -> Sequence[Domain]:
        """What each network answers for."""
        assert self._domains is not None, "a method that needs the graph says so"
        return self._domains

    @property
    def base(self) -> State:
        """The weights that all networks started from."""
        assert self._base is not None, "a method that needs the first weights says so"
        return self._base

    @cached_property
    def parameters(self) -> list[str]:
        """Names of the floating parameters of the model, one name of each."""
        return [name for name, value in self.model.named_parameters() if value.is_floating_point()]

    @cached_property
    def has_own_heads(self) -> bool:
        """Whether a network has fewer outputs than the model."""
        return any(len(domain.classes) < self.num_outputs for domain in self._domains or ())

    def mean(self, weights: Weights | None = None) -> Mixture:
        """Return the weighted sum of all networks, their mean by default; heads of different size are the model's."""
        size = len(self)
        weights = torch.full((size,), 1 / size, dtype=torch.float64) if weights is None else weights
        like = {name: value.cpu() for name, value in self.model.state_dict().items()}
        heads = {name: like[name] for name, value in self[0].items() if value.shape != like[name].shape}
        states: States = _Without(self, heads) if heads else self
        return Mixture({**heads, **weighted_sum(states, weights)}, weights)

    def vector(self, state: State) -> Tensor:
        """Return all parameters of a state, one after the other, float64 ``[P]`` on CPU."""
        return torch.cat([state[name].detach().cpu().double().flatten() for name in self.parameters])

    def split(self, vector: Tensor) -> dict[str, Tensor]:
        """Return what such a vector holds of each parameter by its name, as views of it."""
        shapes = {name: self.model.get_parameter(name).shape for name in self.parameters}
        parts = vector.split([shape.numel() for shape in shapes.values()])  # type: ignore[no-untyped-call]
        return {name: part.view(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}

    def with_parameters(self, vector: Tensor) -> dict[str, Tensor]:
        """Return a state dict with the parameters of a vector; all else is as in :meth:`mean`."""
        found = dict(self.mean())
        return {**found, **{name: part.to(found[name].dtype) for name, part in self.split(vector).items()}}

    def note(self, **entry: Any) -> None:
        """Add an entry to the trace."""
        self.trace.append(entry)
        if self._log is not None:
            self._log({**entry})


class _Without:
    """State dicts without some of their tensors."""

    def __init__(self, states: States, names: Container[str]) -> None:
        self._states, self._names = states, names

    def __len__(self) -> int:
        return len(self._states)

    def __getitem__(self, index: int, /) -> State:
        return {name: value for name, value in self._states[index].items() if name not in self._names}


class MergeMethod(Protocol):
    """A method of merging, as :func:`merge_method` registers it."""

    name: str
    needs: frozenset[str]
    start: str
    heads: bool
    statistics: bool
    source: str

    def __call__(self, run: MergeRun, **options: Any) -> State:
        """Return the merged state dict."""
        ...


#: All methods of merging by name.
MERGES: dict[str, MergeMethod] = {}


def merge_method(
    name: str,
    *,
    needs: Sequence[str] = (),
    start: str = "any",
    heads: bool = False,
    statistics: bool = False,
    source: str = "",
) -> Callable[[Callable[..., State]], MergeMethod]:
    """Register a method of merging in ``MERGES``, under a name that :func:`merge` takes.

    A method ``method(run, *, ...)`` gets a :class:`MergeRun` and returns a state dict, a ``Mixture`` where that is a
    weighted sum. Its keyword parameters are the options of :func:`merge`.

    Args:
        name: Name of the method.
        needs: What it needs among ``"graph"``, for domains, and ``"base"``, the weights that all networks started from.
        start: ``"any"``, or ``"shared"`` for a method that is worth little for networks from different weights.
        heads: Whether it can merge networks that know different classes, with a head for each.
        statistics: Whether Gram matrices (:func:`write_statistics`) will do for it where no graph is given.
        source: Where it was published.

    Returns:
        A decorator of methods.

    Raises:
        TypeError: If a method has other parameters.
        ValueError: If ``needs`` or ``start`` is unknown.

    Example:
        >>> from torch_geometric.nn import GCN
        >>> @merge_method("first", source="nowhere")
        ... def first(run):
        ...     return run[0]
        >>> model = GCN(8, 16, 2, 3)
        >>> merge([model.state_dict()] * 2, model, method="first").weights is None
        True
        >>> del MERGES["first"]
    """
    if unknown := set(needs) - {"graph", "base"}:
        raise ValueError(f"'needs' can hold 'graph' and 'base' (got {sorted(unknown)})")
    if start not in ("any", "shared"):
        raise ValueError(f"'start' must be 'any' or 'shared' (got {start!r})")

    def register(method: Callable[..., State]) -> MergeMethod:
        given = list(inspect.signature(method).parameters.values())
        if len(given) < 1 or any(option.kind is not option.KEYWORD_ONLY for option in given[1:]):
            raise TypeError(f"a method must have the parameters (run, *, ...) (got {inspect.signature(method)})")
        made = cast(Any, functools.wraps(method)(lambda run, **options: method(run, **options)))
        made.name, made.needs, made.start, made.heads, made.source = name, frozenset(needs), start, heads, source
        made.statistics = statistics
        MERGES[name] = made
        return cast(MergeMethod, made)

    return register


def merge(
    states: States,
    model: nn.Module,
    data: Data | Sequence[Data] | None = None,
    method: str = "condense",
    *,
    responsibility: Tensor | Sequence[Tensor] | None = None,
    classes: Sequence[Sequence[int]] | None = None,
    base: State | None = None,
    seed: int = 0,
    progress: bool = False,
    log: Log | None = None,
    **options: Any,
) -> SoupResult:
    """Make one network of several that were trained apart, without training and without labels.

    The networks may come from different weights and may know different parts of a graph, or different classes. Then a
    mean of their weights is worthless, and what decides is **who answers for which node**: a method of this registry
    looks at each network on its own nodes alone. Where all know the same, a soup is what to take, see
    ``docs/merging.md``.

    Args:
        states: State dicts of the networks, a list or a store; read one at a time, and never written to.
        model: A model that the merged network is an instance of. It is not changed.
        data: The graph, or one for each network. Features and edges are read, labels and masks never. ``None`` for
            methods that look at weights alone, and for ``"gnnmerge"`` where a store holds what
            :func:`write_statistics` wrote.
        method: A name in ``MERGES``.
        responsibility: The network that answers for each node, int64 ``[N]``, -1 for none, or for each network a mask
            or the indices of its nodes. By default those of the store, if its ingredients were trained on parts of
            their own; else all nodes of its graph for each. **Indices must not come from labels of nodes that a network
            was not trained on.**
        classes: For each network the class of each of its outputs, where heads differ: ``[[0, 1], [2, 3]]`` for two
            networks that know two of four classes each. ``model`` has an output for every class.
        base: The weights that all networks started from, for methods that need them; by default those of the store.
        seed: Of all that is drawn.
        progress: Whether to show a progress bar.
        log: Receives the entries of the trace one by one.
        options: Options of the method.

    Returns:
        The merged network; ``weights`` where it is a weighted sum, no scores, and in ``trace`` what each step found,
        such as the number of rows and the condition of a system of equations. Running statistics of normalisations are
        averaged, and integers those of the first network, where a method says nothing else; an
        :class:`~graphsparse.soups.Evaluator` estimates running statistics anew.

    Raises:
        TypeError: If an argument has the wrong type, or the method has no such option.
        ValueError: If the method is unknown, needs what is not given, or cannot merge a layer of the model, which the
            message names; if states do not fit the model, or a responsibility its graph.

    Warns:
        UserWarning: If the networks started from different weights, and the method is worth little then.

    Example:
        >>> from torch_geometric.nn import GraphSAGE
        >>> from graphsparse.testing import random_graph
        >>> data, models = random_graph(), [GraphSAGE(8, 16, 2, 3) for _ in range(2)]
        >>> owner = torch.arange(60) % 2  # the first answers for even nodes, the second for odd ones
        >>> states = [model.state_dict() for model in models]
        >>> merged = merge(states, models[0], data, method="gnnmerge", responsibility=owner)
        >>> models[0].load_state_dict(merged.state_dict), [entry["rows"] for entry in merged.trace]
        (<All keys matched successfully>, [60, 60])
    """
    if method not in MERGES:
        raise ValueError(f"'method' must be one of {sorted(MERGES)} (got {method!r})")
    chosen = MERGES[method]
    inspect.signature(chosen).bind(None, **options)
    check_model(model)
    check_seed(seed)
    if log is not None:
        check_callable(log, "log")
    if classes is not None and not chosen.heads:
        able = sorted(name for name, other in MERGES.items() if other.heads)
        raise ValueError(f"'classes' can be given to the methods {able} (got {method!r})")
    like = model.state_dict()
    check_states(states, like, shorter=() if classes is None else like.keys())
    domains, statistics = None, None
    if "graph" in chosen.needs and data is None:
        statistics = _statistics(states, chosen, responsibility, classes)
    elif "graph" in chosen.needs:
        domains = domains_for(states, model, data, responsibility, classes)
    if "base" in chosen.needs:
        base = _base(states, model, base, method)
    if chosen.start == "shared" and not isinstance(states, AlignedStates):
        _warn_of_start(states, model, method)
    run = MergeRun(states, model, domains, base, statistics, seed=seed, progress=progress, log=log)
    with torch.no_grad():
        found = chosen(run, **options)
    weights = found.weights if isinstance(found, Mixture) else None
    done = {name: found[name].detach().to(value, copy=True) for name, value in model.state_dict().items()}
    return SoupResult(tie(done, tied_names(model)), weights, None, [], run.trace)


def _statistics(states: States, method: MergeMethod, responsibility: Any, classes: Any) -> Callable[[int], Statistics]:
    """Return what reads the statistics of a network from a store, where these will do in place of a graph."""
    read = getattr(states, "statistics", None)
    if not method.statistics or not callable(read):
        instead = ", or 'states' a store that write_statistics was called for" if method.statistics else ""
        raise ValueError(
            f"'data' must be a graph for the method {method.name!r}, which looks at what networks compute{instead}"
        )
    for name, given in (("responsibility", responsibility), ("classes", classes)):
        if given is not None:
            raise ValueError(f"{name!r} needs 'data': statistics are those of each network's own nodes and all classes")
    return lambda index: Statistics.read(*read(index))


def _base(states: States, model: nn.Module, base: State | None, method: str) -> State:
    if base is None and callable(initial := getattr(states, "initial", None)):
        base = initial()
    if base is None:
        raise ValueError(f"'base' must hold the weights that all networks started from for the method {method!r}")
    check_states([base], model.state_dict(), name="base")
    return base


def _warn_of_start(states: States, model: nn.Module, method: str) -> None:
    names = [name for name, _ in model.named_parameters()]
    first = states[0]
    angles = [angle_between(first, states[i], names) for i in range(1, len(states))]
    if any(angle > ANGLE for angle in angles):
        warnings.warn(
            f"networks seem to have started from different weights (up to {max(angles):.0f} degrees apart), where "
            f"{method!r} is worth little: take 'gnnmerge' or 'condense', which do not care",
            UserWarning,
            stacklevel=3,
        )
