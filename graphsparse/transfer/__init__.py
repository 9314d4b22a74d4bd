"""Transfer: link prediction on a sparse graph, helped by a dense one through the nodes they share."""

from graphsparse.transfer.baselines import BASELINES, BaselineOptions
from graphsparse.transfer.data.leak import assert_no_leak
from graphsparse.transfer.data.negatives import degree_matched_negatives
from graphsparse.transfer.data.pair import SharedNodePair
from graphsparse.transfer.data.prepare import PreparedPair, prepare_pair
from graphsparse.transfer.data.queries import Scorer
from graphsparse.transfer.data.split import LinkSplit, split_links
from graphsparse.transfer.gitl import GITL
from graphsparse.transfer.models.link_training import LinkTraining
from graphsparse.transfer.models.student import MLPStudent
from graphsparse.transfer.models.teacher import LinkTeacher
from graphsparse.transfer.propagation.edge_propagation import LAMBDA_GRID, EdgeLabelPropagation
from graphsparse.transfer.propagation.emb_propagation import EmbPropagation
from graphsparse.transfer.propagation.xmc import XMCPropagation
from graphsparse.transfer.release_preset import release_preset

__all__ = [
    "BASELINES",
    "GITL",
    "LAMBDA_GRID",
    "BaselineOptions",
    "EdgeLabelPropagation",
    "EmbPropagation",
    "LinkSplit",
    "LinkTeacher",
    "LinkTraining",
    "MLPStudent",
    "PreparedPair",
    "Scorer",
    "SharedNodePair",
    "XMCPropagation",
    "assert_no_leak",
    "degree_matched_negatives",
    "prepare_pair",
    "release_preset",
    "split_links",
]
