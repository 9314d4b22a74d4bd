"""A loader of batches, ready or to be made of the graph that a task is put on."""

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

from graphsparse.training.seeding import seeded

#: Makes a loader of the training graph.
MakeLoader: TypeAlias = Callable[[Any], Any]


class LoaderOf:
    """Gives the loader of a graph; a ready one, or ``None``, for every graph.

    What a function draws while it makes a loader follows from a seed of its own, always the same one.

    Args:
        given: A loader, a function that makes one of a graph, or ``None``.

    Example:
        >>> made = LoaderOf(lambda graph: [graph, graph])
        >>> made.of("graph"), made.of("graph") is made.of("graph"), made.is_ready
        (['graph', 'graph'], True, False)
    """

    def __init__(self, given: Any) -> None:
        self._makes = callable(given) and not hasattr(given, "__iter__")
        self.given = given if self._makes else _checked(given)
        self._made: tuple[Any, Any] | None = None

    @property
    def is_ready(self) -> bool:
        """Whether there are batches of a graph that was chosen before."""
        return self.given is not None and not self._makes

    def of(self, graph: Any) -> Any:
        """Return the loader of a graph, for the same one the same loader."""
        if not self._makes:
            return self.given
        if self._made is None or self._made[0] is not graph:
            with seeded(0):
                self._made = graph, _checked(self.given(graph))
            if self._made[1] is None:
                raise TypeError("'loader' is a function of the graph, and must return a loader (got None)")
        return self._made[1]


def _checked(loader: Any) -> Any:
    if isinstance(loader, Iterator):
        raise TypeError("'loader' is used up after one epoch; give a loader or a list of batches")
    return loader
