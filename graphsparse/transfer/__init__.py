"""Transfer: link prediction on a sparse graph, helped by a dense one through the nodes they share."""

from graphsparse.transfer.anchors import degree_matched_negatives
from graphsparse.transfer.baselines import BASELINES, BaselineOptions
from graphsparse.transfer.edge_propagation import LAMBDA_GRID, EdgeLabelPropagation
from graphsparse.transfer.emb_propagation import EmbPropagation
from graphsparse.transfer.gitl import GITL
from graphsparse.transfer.leak import assert_no_leak
from graphsparse.transfer.link_split import split_links
from graphsparse.transfer.link_training import LinkTraining
from graphsparse.transfer.pair import SharedNodePair
from graphsparse.transfer.prepare import PreparedPair, prepare_pair
from graphsparse.transfer.queries import Scorer
from graphsparse.transfer.release_preset import release_preset
from graphsparse.transfer.split import LinkSplit
from graphsparse.transfer.student import MLPStudent
from graphsparse.transfer.teacher import LinkTeacher
from graphsparse.transfer.xmc import XMCPropagation

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
