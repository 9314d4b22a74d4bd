"""What a merge needs to know of each network instead of a graph: Gram matrices, written where the network is."""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from graphsparse.soups.merging.domain import Domain, domains_of
from graphsparse.soups.merging.linear_maps import LinearMap, LinearMaps
from graphsparse.soups.states import State, check_states, tie, tied_names
from graphsparse.soups.store.failures import is_storage_error, storage_error
from graphsparse.soups.store.ingredient_folder import IngredientFolder
from graphsparse.soups.store.store import IngredientStore
from graphsparse.soups.workers.pools import make_pool
from graphsparse.soups.workers.supervise import Report, supervise
from graphsparse.soups.workers.workers import Workers, as_workers
from graphsparse.training.check import check_model


@dataclass(frozen=True, eq=False)
class Statistics:
    r"""Gram matrices :math:`Z^\top Z / n` of the inputs of each linear map of one network, float64 ``[p, p]``.

    Args:
        maps: The linear maps.
        grams: A matrix for each.
        rows: Number of nodes :math:`n` that they are means over.
    """

    maps: list[LinearMap]
    grams: list[Tensor]
    rows: int

    @classmethod
    def of(cls, model: nn.Module, state: State, domain: Domain) -> "Statistics":
        """Compute those of a network."""
        run = LinearMaps(model, domain.data)
        rows, given = len(domain.nodes), zip(run.maps, run.inputs(state, domain.nodes), strict=True)
        inputs = [m.inputs(own) for m, own in given]
        return cls(run.maps, [z.t() @ z / rows for z in inputs], rows)

    @classmethod
    def read(cls, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> "Statistics":
        """Return those of a file."""
        plain: list[dict[str, Any]] = [
            {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}
            for entry in header["maps"]
        ]
        return cls(
            [LinearMap(**entry) for entry in plain],
            [_square(tensors[str(i)]) for i in range(len(plain))],
            header["rows"],
        )

    def write(self, folder: IngredientFolder) -> None:
        """Write them to the folder of their ingredient."""
        header = {"rows": self.rows, "maps": [asdict(m) for m in self.maps]}
        folder.write_statistics({str(i): _upper(gram) for i, gram in enumerate(self.grams)}, header)


def _upper(gram: Tensor) -> Tensor:
    """Return the upper triangle of a symmetric matrix, row by row, which says all about it."""
    return gram[tuple(torch.triu_indices(*gram.shape))]


def _square(upper: Tensor) -> Tensor:
    size = (math.isqrt(8 * len(upper) + 1) - 1) // 2
    gram = upper.new_zeros(size, size)
    gram[tuple(torch.triu_indices(size, size))] = upper
    return gram + gram.triu(1).t()


class _Folder(IngredientFolder):
    """An ingredient that is finished when its statistics are there."""

    def is_done(self) -> bool:
        return self.statistics.exists()


@dataclass(frozen=True)
class _Job:
    """Write the statistics of an ingredient, in whatever process."""

    model: nn.Module
    workers: Workers

    def portable(self) -> "_Job":
        return self

    def work(self, folder: IngredientFolder) -> Callable[[], None]:
        store = IngredientStore(folder.store, [folder.key])
        state = tie(store[0], tied_names(self.model))
        # What its outputs stand for does not matter here.
        (domain,) = domains_of(store.graph(), store.parts(), None, 1, 0, store.parts(halo=True))
        return partial(Statistics.of(self.model, state, domain).write, folder)


def write_statistics(
    store: IngredientStore, model: nn.Module, *, workers: int | Workers = 1, progress: bool = False
) -> None:
    r"""Write what a merge needs to know of each ingredient besides its weights, so that it needs no graph.

    .. math:: G_{il} = \frac{1}{|V_i|} \sum_{v \in V_i} z_{il}(v)^\top z_{il}(v)

    for each linear map :math:`l` of ingredient :math:`i`, where :math:`z_{il}(v)` is what the map is applied to at node
    :math:`v` after aggregation, with a 1 for the bias, and :math:`V_i` are the nodes of its own part
    (``sampler="own_part"``), or all nodes. ``merge(store, model, method="gnnmerge")`` without ``data`` then gives what
    it gives with the graph. The same workers do this as train: on several machines each ingredient sends
    :math:`\sum_l p_l (p_l + 1) / 2` numbers of 8 bytes, for maps with :math:`p_l` inputs, and nothing of its graph. Its
    file lies in its folder, whole or not at all, with a checksum and the digest of the weights that it belongs to. What
    is there is not computed again, unless it is damaged or of other weights.

    **A Gram matrix is not private.** It is a sum over nodes and no more: with fewer nodes than columns, with one-hot
    features, or with nodes that are known already, rows can be read off it, and nothing here adds noise.

    Args:
        store: The ingredients, or some of them as a slice.
        model: A model that their weights fit; it is not changed.
        workers: As in :func:`~graphsparse.soups.train_ingredients`.
        progress: Whether to show a progress bar.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If the weights do not fit the model, or a layer of it is not linear in its weights.
        IngredientError: If it failed three times, with the traceback in the message.
        OSError: If the store cannot be written.

    Example:
        >>> import tempfile
        >>> from torch_geometric.nn import GCN
        >>> from graphsparse.soups import merge, train_ingredients, write_statistics
        >>> from graphsparse.testing import random_graph
        >>> make_model = lambda: GCN(8, 16, 2, 3)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     store = train_ingredients(make_model, random_graph(), 2, folder, sampler="own_part", workers=0)
        ...     write_statistics(store, make_model(), workers=0)
        ...     merged = merge(store, make_model(), method="gnnmerge")  # without the graph
        ...     [entry["rows"] for entry in merged.trace]
        [60, 60]

    Source: what is sent is that of GNNMerge, arXiv 2503.03384; the files are our own.
    """
    if not isinstance(store, IngredientStore):
        raise TypeError(f"'store' must be an IngredientStore (got {type(store).__name__})")
    check_model(model)
    check_states(store, model.state_dict())
    LinearMaps(model, store.graph())
    folders: list[IngredientFolder] = []
    try:
        for key in store.keys:
            folders.append(_Folder(store.path, key))
            try:
                folders[-1].read_statistics()
            except ValueError:
                folders[-1].statistics.unlink(missing_ok=True)
        with Report(folders, "statistics" if progress else False, warn=False) as report:
            if report.open:
                supervise(make_pool(_Job(model, as_workers(workers))), report)
            report.check()
    except OSError as error:
        if not is_storage_error(error, store.path):
            raise
        raise storage_error(store.path, error) from error
