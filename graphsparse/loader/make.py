"""Loaders by name."""

import inspect
from typing import Any

from torch_geometric.data import Data

from graphsparse.loader.batches import Batches, FullBatch
from graphsparse.loader.layerwise import FastGCNBatches, LadiesBatches
from graphsparse.loader.neighbor import NeighborBatches
from graphsparse.loader.parts import ClusterBatches, RandomNodeBatches
from graphsparse.loader.saint import SaintWalkBatches

#: Every sampler by its name.
SAMPLERS: dict[str, type[Batches]] = {
    "full": FullBatch,
    "cluster": ClusterBatches,
    "neighbor": NeighborBatches,
    "saint_rw": SaintWalkBatches,
    "random_node": RandomNodeBatches,
    "fastgcn": FastGCNBatches,
    "ladies": LadiesBatches,
}


def make_loader(sampler: str, data: Data, *, seed: int, **options: Any) -> Batches:
    """Return a loader of training batches by the name of its sampler.

    ======================  =====================================================================================
    ``full``                the graph itself (:class:`FullBatch`)
    ``cluster``             a few random clusters and the edges between them (:class:`ClusterBatches`)
    ``neighbor``            training nodes and random neighbours of theirs (:class:`NeighborBatches`)
    ``saint_rw``            subgraphs of random walks, normalised (:class:`SaintWalkBatches`); weighted
    ``random_node``         subgraphs of random nodes (:class:`RandomNodeBatches`)
    ``fastgcn``             each layer draws from the whole graph (:class:`FastGCNBatches`); weighted
    ``ladies``              each layer draws among the neighbours of the next (:class:`LadiesBatches`); weighted
    ======================  =====================================================================================

    Weighted ones need ``data.edge_weight`` and a model that sums weighted messages, see
    :func:`check_sums_weighted_messages`. Pass the loader to :func:`~graphsparse.training.fit`; a training with it goes
    on from a checkpoint as if it had not been interrupted.

    Args:
        sampler: Name of the sampler.
        data: The graph.
        seed: Seed of all draws.
        options: Options of the class of the sampler.

    Returns:
        An iterable of ``Data`` with a ``generator`` that all draws come from; every ``iter()`` is a new epoch.

    Raises:
        TypeError: If an option is unknown, or an argument has the wrong type.
        ValueError: If the sampler is unknown, an option is out of range, or the graph lacks what the sampler needs.

    Example:
        >>> from torch_geometric import seed_everything
        >>> from torch_geometric.nn import GraphSAGE
        >>> from graphsparse.testing import random_graph
        >>> from graphsparse.training import fit
        >>> seed_everything(0)
        >>> data = random_graph()
        >>> loader = make_loader("neighbor", data, seed=0, num_neighbors=[5, 5], batch_size=10)
        >>> fit(GraphSAGE(8, 16, 2, 3), data, epochs=10, loader=loader).test > 0.5
        True
    """
    if not isinstance(sampler, str) or sampler not in SAMPLERS:
        raise ValueError(f"'sampler' must be one of {sorted(SAMPLERS)} (got {sampler!r})")
    kind = SAMPLERS[sampler]
    known = [name for name in inspect.signature(kind.__init__).parameters if name not in ("self", "data", "seed")]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise TypeError(f"the sampler {sampler!r} has no option {unknown[0]!r}; it has {known}")
    make: Any = kind
    loader: Batches = make(data, seed=seed, **options)
    return loader
