"""Other ways to predict the links of a target, under the same split."""

from graphsparse.transfer.baselines import egi, heuristics, networks, pretraining  # noqa: F401 - they register
from graphsparse.transfer.baselines.registry import BASELINES, BaselineOptions, register_baseline

__all__ = ["BASELINES", "BaselineOptions", "register_baseline"]
