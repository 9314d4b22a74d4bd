import pytest
import torch
from transfer_pairs import small_pair

from graphsparse.transfer.data.split import check_dense_x, check_queries, check_split


@pytest.mark.parametrize(
    ("pairs", "error", "message"),
    [
        (torch.tensor([[0, 5], [1, 2]]), ValueError, "pairs"),
        (torch.tensor([[0, -1], [1, 2]]), ValueError, "pairs"),
        (torch.tensor([[0, 2], [1, 2]]), ValueError, "no self-loops .got 1, the first for node 2"),
        (torch.tensor([[0.0], [1.0]]), TypeError, "'pairs' must be a dense int64 or int32 tensor"),
        (torch.tensor([0, 1]), ValueError, "shape"),
    ],
)
def test_what_is_no_query(pairs, error, message):
    with pytest.raises(error, match=message):
        check_queries(pairs, 5)


def test_int32_is_taken():
    assert check_queries(torch.tensor([[0], [1]], dtype=torch.int32), 2).dtype == torch.int64


def test_split_of_another_pair():
    (pair, split), (_, other) = small_pair(0), small_pair(1)
    check_split(pair, split)
    with pytest.raises(TypeError, match="'pair' must be a SharedNodePair .got NoneType"):
        check_split(None, split)
    with pytest.raises(TypeError, match="'split' must be a LinkSplit .got SharedNodePair"):
        check_split(pair, pair)
    with pytest.raises(ValueError, match="of another pair"):
        check_split(pair, other)


def test_features_must_be_there_and_dense():
    pair, _ = small_pair()
    check_dense_x(pair)
    width = pair.num_union_nodes
    with pytest.raises(TypeError, match="must be dense floating point numbers .*sparse_csr"):
        check_dense_x(pair.with_x(torch.eye(width).to_sparse_csr()))
    with pytest.raises(TypeError, match="must be dense floating point numbers .got torch.int64"):
        check_dense_x(pair.with_x(torch.ones(width, 2, dtype=torch.int64)))
    pair.target = pair.target.clone()
    del pair.target.x
    with pytest.raises(ValueError, match="the target has no features 'x'"):
        check_dense_x(pair)
