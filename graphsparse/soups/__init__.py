"""Soups: many networks trained apart, one model of the same cost."""

from graphsparse.soups.diagnosis.diagnostics import Diagnosis, diagnose
from graphsparse.soups.evaluation.evaluator import Evaluator
from graphsparse.soups.recipes.ensemble import EnsembleResult, ensemble
from graphsparse.soups.recipes.es2025 import Es2025
from graphsparse.soups.recipes.greedy import greedy_soup
from graphsparse.soups.recipes.interpolation import interpolation_soup
from graphsparse.soups.recipes.learned import learned_soup
from graphsparse.soups.recipes.partition_learned import partition_learned_soup
from graphsparse.soups.recipes.result import SoupResult
from graphsparse.soups.recipes.uniform import uniform_soup
from graphsparse.soups.sparse.lottery_pool import lottery_pool
from graphsparse.soups.sparse.shared_mask import shared_mask_soup
from graphsparse.soups.sparse.soup_ticket import soup_ticket
from graphsparse.soups.sparse.sparse_soup import sparse_soup
from graphsparse.soups.states.states import combine
from graphsparse.soups.store.failures import IngredientError, StorageError
from graphsparse.soups.store.store import IngredientStore
from graphsparse.soups.workers.pools import Workers
from graphsparse.soups.workers.train_ingredients import train_ingredients

__all__ = [
    "Diagnosis",
    "EnsembleResult",
    "Es2025",
    "Evaluator",
    "IngredientError",
    "IngredientStore",
    "SoupResult",
    "StorageError",
    "Workers",
    "combine",
    "diagnose",
    "ensemble",
    "greedy_soup",
    "interpolation_soup",
    "learned_soup",
    "lottery_pool",
    "partition_learned_soup",
    "shared_mask_soup",
    "soup_ticket",
    "sparse_soup",
    "train_ingredients",
    "uniform_soup",
]
