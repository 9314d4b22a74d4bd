"""Transfer: link prediction on a sparse graph, helped by a dense one through the nodes they share."""

from graphsparse.transfer.baselines import BASELINES, BaselineOptions, register_baseline
from graphsparse.transfer.data.given import given_split
from graphsparse.transfer.data.leak import assert_no_leak
from graphsparse.transfer.data.negatives import degree_matched_negatives
from graphsparse.transfer.data.pair import SharedNodePair
from graphsparse.transfer.data.prepare import prepare_pair
from graphsparse.transfer.data.split import LinkSplit, split_links
from graphsparse.transfer.data.split_transform import SplitLinks
from graphsparse.transfer.gitl import GITL
from graphsparse.transfer.models.link_model import sage_encoder
from graphsparse.transfer.models.predictor import LinkPredictor
from graphsparse.transfer.models.student import MLPStudent
from graphsparse.transfer.models.teacher import LinkTeacher
from graphsparse.transfer.propagation.edge_propagation import EdgeLabelPropagation
from graphsparse.transfer.propagation.xmc import XMCPropagation

__all__ = [
    "BASELINES",
    "GITL",
    "BaselineOptions",
    "EdgeLabelPropagation",
    "LinkPredictor",
    "LinkSplit",
    "LinkTeacher",
    "MLPStudent",
    "SharedNodePair",
    "SplitLinks",
    "XMCPropagation",
    "assert_no_leak",
    "degree_matched_negatives",
    "given_split",
    "prepare_pair",
    "register_baseline",
    "sage_encoder",
    "split_links",
]
