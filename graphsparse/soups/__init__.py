"""Soups: many networks trained apart, one model of the same cost."""

import graphsparse.soups.merging.methods as _methods  # noqa: F401  registers them
from graphsparse.soups.diagnosis import Diagnosis, diagnose
from graphsparse.soups.evaluation.evaluator import Evaluator
from graphsparse.soups.merging.align import AlignedStates, align
from graphsparse.soups.merging.least_squares import LeastSquares
from graphsparse.soups.merging.linear_maps import LinearMaps
from graphsparse.soups.merging.merge import MERGES, MergeRun, merge, merge_method
from graphsparse.soups.merging.route import route
from graphsparse.soups.merging.statistics import write_statistics
from graphsparse.soups.recipes.averages import EnsembleResult, ensemble, greedy_soup, interpolation_soup, uniform_soup
from graphsparse.soups.recipes.learned import learned_soup
from graphsparse.soups.recipes.soup import SOUPS, Acceptance, Ingredients, SoupResult, soup
from graphsparse.soups.sparse import TicketStates, lottery_pool
from graphsparse.soups.states import combine, mix
from graphsparse.soups.store.failures import IngredientError, StorageError
from graphsparse.soups.store.store import IngredientStore
from graphsparse.soups.workers.train_ingredients import train_ingredients
from graphsparse.soups.workers.workers import Workers

__all__ = [
    "MERGES",
    "SOUPS",
    "Acceptance",
    "AlignedStates",
    "Diagnosis",
    "EnsembleResult",
    "Evaluator",
    "IngredientError",
    "IngredientStore",
    "Ingredients",
    "LeastSquares",
    "LinearMaps",
    "MergeRun",
    "SoupResult",
    "StorageError",
    "TicketStates",
    "Workers",
    "align",
    "combine",
    "diagnose",
    "ensemble",
    "greedy_soup",
    "interpolation_soup",
    "learned_soup",
    "lottery_pool",
    "merge",
    "merge_method",
    "mix",
    "route",
    "soup",
    "train_ingredients",
    "uniform_soup",
    "write_statistics",
]
