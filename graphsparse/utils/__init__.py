"""Functions on graphs."""

from graphsparse.utils.partition import partition_graph

__all__ = ["partition_graph"]
