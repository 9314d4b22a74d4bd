import pytest
from models import MODELS

from graphsparse.soups.evaluation.evaluator import Evaluator
from graphsparse.soups.recipes.split import fit_and_accept
from graphsparse.testing import random_graph


def evaluator():
    return Evaluator(MODELS["GCN"](), random_graph())


def test_halves_share_no_node_and_miss_none():
    whole = evaluator()
    fit, accept = fit_and_accept(whole, True, 3)
    assert not (fit.data.mask & accept.data.mask).any()
    assert ((fit.data.mask | accept.data.mask) == whole.data.mask).all()
    assert (fit.data.y[accept.data.mask] == -1).all()


def test_whole():
    whole = evaluator()
    assert fit_and_accept(whole, False, 0) == (whole, whole)


def test_bad_input():
    with pytest.raises(TypeError, match="'split_validation' must be True or False"):
        fit_and_accept(evaluator(), 0.5, 0)
    with pytest.raises(TypeError, match="'seed'"):
        fit_and_accept(evaluator(), True, "0")
