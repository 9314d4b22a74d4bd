"""A method of merging written outside the package, with public names only."""

import inspect

import pytest
import torch
from torch_geometric import nn

from graphsparse.soups import MERGES, LeastSquares, LinearMaps, merge, merge_method
from graphsparse.testing import random_graph

# What a user writes: counted below.


@merge_method("own least squares", needs=["graph"], source="GNNMerge, arXiv 2503.03384")
def own_least_squares(run, *, ridge=1e-3):
    """Find for every linear map the weights that do on each network's own nodes what that network does."""
    merged, problems = dict(run.mean()), {}
    for state, domain in zip(run, run.domains, strict=True):
        model = LinearMaps(run.model, domain.data)
        for m, z in zip(model.maps, model.inputs(state, domain.nodes), strict=True):
            z = m.inputs(z)
            problems.setdefault(m, LeastSquares()).add(z, z @ m.matrix(state), 1 / len(z))
    for m, problem in problems.items():
        matrix = problem.solve(ridge * problem.scale(), m.matrix(merged))
        merged.update(m.tensors(matrix, merged, problem.moments(matrix)))
        run.note(map=m.name, **problem.report())
    return merged


@pytest.fixture(autouse=True)
def _forget():
    yield
    MERGES.pop("passed on", None)


def test_it_has_at_most_20_lines():
    assert len(inspect.getsource(own_least_squares).splitlines()) <= 20


@pytest.mark.parametrize("kind", [nn.GCN, nn.GraphSAGE])
def test_it_is_gnnmerge(kind):
    data = random_graph()
    given = [kind(8, 6, 2, 3).state_dict() for _ in range(3)]
    owner = torch.arange(60) % 3
    own, ours = (
        merge(given, kind(8, 6, 2, 3), data, method, responsibility=owner, ridge=0.01)
        for method in ("own least squares", "gnnmerge")
    )
    for name, value in ours.state_dict.items():
        torch.testing.assert_close(own.state_dict[name], value, rtol=1e-5, atol=1e-6)
    assert [entry["map"] for entry in own.trace] == [entry["map"] for entry in ours.trace]


def test_what_a_method_needs_and_takes_is_checked():
    model = nn.GCN(8, 6, 2, 3)
    with pytest.raises(ValueError, match="'data' must be a graph"):
        merge([model.state_dict()] * 2, model, method="own least squares")
    with pytest.raises(TypeError, match="rigde"):
        merge([model.state_dict()] * 2, model, random_graph(), "own least squares", rigde=1.0)
    with pytest.raises(TypeError, match=r"\(run, \*, ...\)"):
        merge_method("passed on")(lambda run, ridge: run[0])
    with pytest.raises(ValueError, match="'needs' can hold"):
        merge_method("passed on", needs=["labels"])
    with pytest.raises(ValueError, match="'start' must be"):
        merge_method("passed on", start="own")


def test_what_needs_the_first_weights_says_so_and_warns_of_different_ones():
    @merge_method("passed on", needs=["base"], start="shared")
    def passed_on(run):
        return run.base

    torch.manual_seed(0)
    model = nn.GCN(8, 6, 2, 3)
    given = [nn.GCN(8, 6, 2, 3).state_dict() for _ in range(2)]
    with pytest.raises(ValueError, match="'base' must hold the weights"):
        merge(given, model, method="passed on")
    with pytest.warns(UserWarning, match="started from different weights"):
        found = merge(given, model, method="passed on", base=model.state_dict())
    assert all(torch.equal(found.state_dict[name], value) for name, value in model.state_dict().items())
