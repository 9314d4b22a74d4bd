"""The whole graph as one batch."""

from collections.abc import Iterator

from torch_geometric.data import Data

from graphsparse.loader.batches import Batches


class FullBatch(Batches):
    """Gives the graph itself, once in every epoch.

    Args:
        data: The graph, in any form that the model takes.
        seed: Not used: there is nothing to draw.

    Raises:
        TypeError: If ``data`` is no ``Data``.

    Example:
        >>> from graphsparse.testing import random_graph
        >>> data = random_graph()
        >>> [batch is data for batch in FullBatch(data)]
        [True]
    """

    def __init__(self, data: Data, *, seed: int = 0) -> None:
        if not isinstance(data, Data):
            raise TypeError(f"'data' must be a torch_geometric Data (got {type(data).__name__})")
        super().__init__(data, seed)

    def __iter__(self) -> Iterator[Data]:
        """Yield the graph."""
        yield self.data

    def __len__(self) -> int:
        """Return 1."""
        return 1
