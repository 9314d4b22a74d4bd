"""Soups: many networks trained apart, one model of the same cost."""

from graphsparse.soups.diagnostics import Diagnosis, diagnose
from graphsparse.soups.ensemble import EnsembleResult, ensemble
from graphsparse.soups.es2025 import Es2025
from graphsparse.soups.evaluator import Evaluator
from graphsparse.soups.failures import IngredientError, StorageError
from graphsparse.soups.greedy import greedy_soup
from graphsparse.soups.interpolation import interpolation_soup
from graphsparse.soups.learned import learned_soup
from graphsparse.soups.lottery_pool import lottery_pool
from graphsparse.soups.partition_learned import partition_learned_soup
from graphsparse.soups.result import SoupResult
from graphsparse.soups.shared_mask import shared_mask_soup
from graphsparse.soups.soup_ticket import soup_ticket
from graphsparse.soups.sparse_soup import sparse_soup
from graphsparse.soups.states import combine
from graphsparse.soups.store import IngredientStore
from graphsparse.soups.train_ingredients import train_ingredients
from graphsparse.soups.uniform import uniform_soup

__all__ = [
    "Diagnosis",
    "EnsembleResult",
    "Es2025",
    "Evaluator",
    "IngredientError",
    "IngredientStore",
    "SoupResult",
    "StorageError",
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
