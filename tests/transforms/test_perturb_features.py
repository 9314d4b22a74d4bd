import copy
import pickle

import pytest
import torch
import torch_geometric.transforms as T
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.data import Data, HeteroData

from graphsparse.ops.blocks import blocks
from graphsparse.testing import random_graph
from graphsparse.transforms import PerturbFeatures
from graphsparse.utils.counter_random import CounterRandom


def graph_with_unlabelled(num_nodes=60, num_features=8):
    """Training, validation and test nodes, and nodes of no mask, in unequal numbers."""
    data = random_graph(num_nodes, num_features)
    kind = torch.randint(10, (num_nodes,), generator=torch.Generator().manual_seed(1))
    data.train_mask, data.val_mask, data.test_mask = kind < 2, (kind >= 2) & (kind < 5), (kind >= 5) & (kind < 7)
    return data


def changed_rows(data, out):
    return (data.x != out.x).any(1)


@settings(max_examples=60, deadline=None)
@given(st.floats(0, 1), st.integers(0, 2**63 - 1))
def test_budget_is_met_in_every_group_and_training_nodes_are_spared(eps, seed):
    data = graph_with_unlabelled()
    out = PerturbFeatures(eps, seed)(data)
    changed = changed_rows(data, out)
    assert not changed[data.train_mask].any()
    rest = ~(data.train_mask | data.val_mask | data.test_mask)
    for group in (data.val_mask, data.test_mask, rest):
        assert int(changed[group].sum()) == int(eps * int(group.sum()))


def test_noise_is_that_of_the_protocol():
    data = graph_with_unlabelled(400, 50)
    out = PerturbFeatures(0.5, seed=3)(data)
    noise = out.x[changed_rows(data, out)]
    torch.testing.assert_close(noise.sum(1), torch.ones(len(noise)))
    ones = noise > 0
    # Every row is constant where it is not zero.
    torch.testing.assert_close(noise, ones / ones.sum(1, keepdim=True))
    num = ones.numel()
    assert abs(float(ones.float().mean()) - 0.5) < 4 * 0.5 / num**0.5
    # Each feature and each row by itself, with a tail of 1e-6 for the most extreme of 50 and of 160.
    assert ((ones.float().mean(0) - 0.5).abs() < 5.5 * 0.5 / len(ones) ** 0.5).all()
    assert ((ones.float().mean(1) - 0.5).abs() < 5.5 * 0.5 / 50**0.5).all()
    assert len(set(map(tuple, ones.tolist()))) == len(ones)


@pytest.mark.parametrize("num_features", [1, 31, 32, 33, 100])
def test_bits_are_those_of_the_stream(num_features):
    """32 columns to a word, lowest bit first; node after node."""
    data = graph_with_unlabelled(40, max(num_features, 3))
    data.x = data.x[:, :num_features]
    out = PerturbFeatures(1.0, seed=9)(data)
    num_words = -(-num_features // 32)
    words = CounterRandom(9, "features").words(40 * num_words).view(40, num_words).tolist()
    for i in range(40):
        bits = [words[i][f // 32] >> (f % 32) & 1 for f in range(num_features)]
        expected = data.x[i] if data.train_mask[i] else torch.tensor(bits) / max(sum(bits), 1)
        torch.testing.assert_close(out.x[i], expected)


def test_a_row_without_ones_is_zero():
    data = Data(x=torch.ones(50, 1), train_mask=torch.zeros(50, dtype=torch.bool))
    out = PerturbFeatures(1.0)(data)
    assert set(out.x.flatten().tolist()) == {0.0, 1.0}


def test_more_budget_changes_more_of_the_same():
    data = graph_with_unlabelled()
    previous, was = data, torch.zeros(60, dtype=torch.bool)
    for eps in (0.1, 0.3, 0.7, 1.0):
        out = PerturbFeatures(eps, seed=5)(data)
        changed = changed_rows(data, out)
        assert changed[was].all()
        assert torch.equal(out.x[was], previous.x[was])
        previous, was = out, changed


def test_groups_are_chosen_apart():
    """A node's fate does not depend on the nodes of another group."""
    data = graph_with_unlabelled()
    out = PerturbFeatures(0.5, seed=2)(data)
    other = copy.copy(data)
    other.val_mask = torch.zeros_like(data.val_mask)
    assert torch.equal(PerturbFeatures(0.5, seed=2)(other).x[data.test_mask], out.x[data.test_mask])


def test_only_the_features_change_and_the_input_does_not():
    data = graph_with_unlabelled()
    before = copy.deepcopy(data)
    out = PerturbFeatures(0.8)(data)
    for key, value in before.to_dict().items():
        assert torch.equal(data[key], value)
        assert key == "x" or torch.equal(out[key], value)
    assert out.x.data_ptr() != data.x.data_ptr()
    assert torch.equal(PerturbFeatures(0)(data).x, data.x)


def test_seeds():
    data = graph_with_unlabelled()
    state = torch.get_rng_state()
    assert torch.equal(PerturbFeatures(0.5, 7)(data).x, PerturbFeatures(0.5, 7)(data).x)
    assert len({tuple(changed_rows(data, PerturbFeatures(0.5, s)(data)).tolist()) for s in range(10)}) == 10
    assert not torch.equal(PerturbFeatures(1.0, 7)(data).x, PerturbFeatures(1.0, 8)(data).x)
    assert torch.equal(torch.get_rng_state(), state)


def test_every_node_of_a_group_is_as_likely():
    data = graph_with_unlabelled()
    times = sum(changed_rows(data, PerturbFeatures(0.5, seed)(data)).int() for seed in range(200))
    size = int(data.test_mask.sum())
    share = int(size / 2) / size
    assert (abs(times[data.test_mask] / 200 - share) < 5 * (share * (1 - share) / 200) ** 0.5).all()


def test_blocks_do_not_matter(monkeypatch):
    data = graph_with_unlabelled()
    expected = PerturbFeatures(0.7)(data).x
    monkeypatch.setattr("graphsparse.transforms.perturb.row_blocks", lambda rows, width: blocks(rows, 2))
    assert torch.equal(PerturbFeatures(0.7)(data).x, expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_dtype_stays(dtype):
    data = graph_with_unlabelled()
    expected = PerturbFeatures(0.5)(data).x
    data.x = data.x.to(dtype)
    out = PerturbFeatures(0.5)(data)
    assert out.x.dtype == dtype
    torch.testing.assert_close(out.x.float(), expected, rtol=1e-3, atol=1e-3)


def test_compose_pickle_and_repr():
    data = graph_with_unlabelled()
    data.x = data.x.abs()
    transform = pickle.loads(pickle.dumps(T.Compose([T.NormalizeFeatures(), PerturbFeatures(0.5, seed=4)])))
    torch.testing.assert_close(transform(data).x.sum(1), torch.ones(60))
    assert str(PerturbFeatures(0.5)) == "PerturbFeatures(eps=0.5, seed=0)"
    assert str(PerturbFeatures(1, seed=3)) == "PerturbFeatures(eps=1.0, seed=3)"


@pytest.mark.parametrize(
    ("error", "match", "args"),
    [
        (TypeError, "'eps' must be a number in .0, 1. .got '1'", ("1",)),
        (TypeError, "'eps' must be a number in .0, 1. .got True", (True,)),
        (ValueError, "'eps' must be in .0, 1. .got 1.1", (1.1,)),
        (ValueError, "'eps' must be in .0, 1. .got -0.1", (-0.1,)),
        (ValueError, "'eps' must be in .0, 1. .got nan", (float("nan"),)),
        (TypeError, "'seed' must be an integer", (0.5, 1.0)),
        (ValueError, "'seed' must be between", (0.5, -1)),
    ],
)
def test_bad_arguments(error, match, args):
    with pytest.raises(error, match=match):
        PerturbFeatures(*args)


MASK = torch.ones(3, dtype=torch.bool)


@pytest.mark.parametrize(
    ("error", "match", "data"),
    [
        (TypeError, "'data' must be a homogeneous Data .got HeteroData", HeteroData()),
        (ValueError, "'data.x' is missing", Data(train_mask=MASK)),
        (TypeError, "'data.x' must be a dense floating.*torch.int64", Data(x=torch.ones(3, 1).long(), train_mask=MASK)),
        (TypeError, "'data.x' must be a dense.*sparse_csr", Data(x=torch.eye(3).to_sparse_csr(), train_mask=MASK)),
        (ValueError, r"'data.x' must be \[N, F\]", Data(x=torch.ones(3), train_mask=MASK)),
        (ValueError, "'data.train_mask' is missing", Data(x=torch.ones(3, 1), test_mask=MASK)),
        (TypeError, "'data.train_mask' must be a bool", Data(x=torch.ones(3, 1), train_mask=torch.ones(3))),
        (ValueError, r"'data.test_mask' must be \[3\]", Data(x=torch.ones(3, 1), train_mask=MASK, test_mask=MASK[:2])),
    ],
)
def test_bad_graphs(error, match, data):
    with pytest.raises(error, match=match):
        PerturbFeatures(0.5)(data)
