"""Soups: many networks trained apart, one model of the same cost."""

from graphsparse.soups.diagnosis import Diagnosis, diagnose
from graphsparse.soups.evaluation.evaluator import Evaluator
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
    "SOUPS",
    "Acceptance",
    "Diagnosis",
    "EnsembleResult",
    "Evaluator",
    "IngredientError",
    "IngredientStore",
    "Ingredients",
    "SoupResult",
    "StorageError",
    "TicketStates",
    "Workers",
    "combine",
    "diagnose",
    "ensemble",
    "greedy_soup",
    "interpolation_soup",
    "learned_soup",
    "lottery_pool",
    "mix",
    "soup",
    "train_ingredients",
    "uniform_soup",
]
