"""All baselines by name, called alike."""

from typing import TYPE_CHECKING, Protocol

from graphsparse.transfer.baselines.common_neighbors import (
    CommonNeighbors,
    NeighborWeight,
    adamic_adar_weight,
    count_weight,
    resource_allocation_weight,
)
from graphsparse.transfer.baselines.cosine import FeatureCosine
from graphsparse.transfer.baselines.dgi import InfomaxObjective
from graphsparse.transfer.baselines.egi import EgoObjective
from graphsparse.transfer.baselines.gnn import GraphLinkPredictor
from graphsparse.transfer.baselines.options import BaselineOptions
from graphsparse.transfer.baselines.pagerank import PersonalizedPageRank
from graphsparse.transfer.baselines.pretraining import Objective, PretrainedLinkPredictor
from graphsparse.transfer.data.queries import Scorer, check_dense_x, check_split
from graphsparse.transfer.models.student import MLPStudent
from graphsparse.transfer.propagation.xmc import XMCPropagation

if TYPE_CHECKING:
    from graphsparse.transfer.data.pair import SharedNodePair
    from graphsparse.transfer.data.split import LinkSplit


class Baseline(Protocol):
    """Fits a baseline and returns what scores pairs of the target."""

    def __call__(
        self, pair: "SharedNodePair", split: "LinkSplit", seed: int = 0, options: BaselineOptions | None = None
    ) -> Scorer:
        """Fit on what the split leaves."""
        ...


def _neighbors(graph: str, weight: NeighborWeight) -> Baseline:
    def fit(
        pair: "SharedNodePair", split: "LinkSplit", seed: int = 0, options: BaselineOptions | None = None
    ) -> Scorer:
        check_split(pair, split)
        found = pair.graph(graph, without=split)
        return CommonNeighbors(found.edge_index, found.num_nodes, weight)

    return fit


def _pagerank(graph: str) -> Baseline:
    def fit(
        pair: "SharedNodePair", split: "LinkSplit", seed: int = 0, options: BaselineOptions | None = None
    ) -> Scorer:
        check_split(pair, split)
        found = pair.graph(graph, without=split)
        return PersonalizedPageRank(found.edge_index, found.num_nodes, symmetric=not pair.directed)

    return fit


def _xmc(graph: str) -> Baseline:
    def fit(
        pair: "SharedNodePair", split: "LinkSplit", seed: int = 0, options: BaselineOptions | None = None
    ) -> Scorer:
        check_split(pair, split)
        found = pair.graph(graph, without=split)
        return XMCPropagation(directed=pair.directed).fit(found.edge_index, found.num_nodes)

    return fit


def _cosine(
    pair: "SharedNodePair", split: "LinkSplit", seed: int = 0, options: BaselineOptions | None = None
) -> Scorer:
    check_split(pair, split)
    check_dense_x(pair)
    return FeatureCosine(pair.target.x)


def _gnn(train_on: str, messages: str, fine_tune: str | None = None) -> Baseline:
    def fit(
        pair: "SharedNodePair", split: "LinkSplit", seed: int = 0, options: BaselineOptions | None = None
    ) -> Scorer:
        return GraphLinkPredictor(train_on, messages, fine_tune, options).fit(pair, split, seed)

    return fit


def _pretrained(objective: Objective, inputs: str, messages: str) -> Baseline:
    def fit(
        pair: "SharedNodePair", split: "LinkSplit", seed: int = 0, options: BaselineOptions | None = None
    ) -> Scorer:
        return PretrainedLinkPredictor(objective, inputs, messages, options).fit(pair, split, seed)

    return fit


def _mlp(supervise_on: str) -> Baseline:
    def fit(
        pair: "SharedNodePair", split: "LinkSplit", seed: int = 0, options: BaselineOptions | None = None
    ) -> Scorer:
        options = BaselineOptions() if options is None else options
        student = plain_student(supervise_on, options)
        return student.fit(pair, split, seed=seed, progress=options.progress, log=options.log)

    return fit


def plain_student(supervise_on: str = "target", options: BaselineOptions | None = None) -> MLPStudent:
    """Return a student without a teacher, of the options of the baselines.

    Example:
        >>> plain_student().needs_teacher
        False
    """
    options = BaselineOptions() if options is None else options
    return MLPStudent(
        options.student_hidden,
        options.num_layers,
        options.hidden,
        dropout=options.dropout,
        input_dropout=options.input_dropout,
        emb_weight=0.0,
        supervise_on=supervise_on,
        num_neg=options.num_neg,
        training=options.student_training,
    )


#: Baselines by name. Those that end in ``_enriched`` use the source's links between shared nodes, too.
BASELINES: dict[str, Baseline] = {
    "common_neighbors": _neighbors("target", count_weight),
    "common_neighbors_enriched": _neighbors("enriched_target", count_weight),
    "adamic_adar": _neighbors("target", adamic_adar_weight),
    "adamic_adar_enriched": _neighbors("enriched_target", adamic_adar_weight),
    "resource_allocation": _neighbors("target", resource_allocation_weight),
    "resource_allocation_enriched": _neighbors("enriched_target", resource_allocation_weight),
    "pagerank": _pagerank("target"),
    "pagerank_enriched": _pagerank("enriched_target"),
    "xmc": _xmc("target"),
    "xmc_enriched": _xmc("enriched_target"),
    "cosine": _cosine,
    "gnn_target": _gnn("target", "target"),
    "gnn_union": _gnn("union", "union"),
    "gnn_enriched": _gnn("enriched_target", "enriched_target"),
    "source_zero_shot": _gnn("source", "target"),
    "source_zero_shot_enriched": _gnn("source", "enriched_target"),
    "fine_tune_all": _gnn("source", "target", "all"),
    "fine_tune_all_enriched": _gnn("source", "enriched_target", "all"),
    "fine_tune_last": _gnn("source", "target", "last"),
    "fine_tune_last_enriched": _gnn("source", "enriched_target", "last"),
    "dgi": _pretrained(InfomaxObjective, "degree", "target"),
    "dgi_enriched": _pretrained(InfomaxObjective, "degree", "enriched_target"),
    "dgi_features": _pretrained(InfomaxObjective, "features", "target"),
    "egi": _pretrained(EgoObjective, "degree", "target"),
    "egi_enriched": _pretrained(EgoObjective, "degree", "enriched_target"),
    "egi_features": _pretrained(EgoObjective, "features", "target"),
    "mlp_target": _mlp("target"),
    "mlp_enriched": _mlp("enriched_target"),
}
