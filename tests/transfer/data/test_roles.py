import torch

from graphsparse.transfer.data.roles import GRAPHS, match_nodes


def test_nodes_and_roles_by_hand():
    match = match_nodes(["a", "b", "c"], [["x", "c"], ["y", "x", "a"]])
    assert (match.num_target, match.num_nodes) == (3, 5)
    assert [ids.tolist() for ids in match.source_ids] == [[3, 2], [4, 3, 0]]
    assert match.shared.tolist() == [True, False, True]
    nodes = {name: match.nodes(name).tolist() for name in GRAPHS}
    assert nodes == {
        "target": [0, 1, 2],
        "intersection": [0, 2],
        "enriched_intersection": [0, 2],
        "enriched_target": [0, 1, 2],
        "union": [0, 1, 2, 3, 4],
        "source": [0, 2, 3, 4],
    }
    role = match.role(torch.arange(5))
    assert role.dtype == torch.int8
    assert role.tolist() == [2, 1, 2, 0, 0]


def test_nothing_shared():
    match = match_nodes(torch.tensor([1, 2]), [torch.tensor([3])])
    assert match.nodes("intersection").numel() == 0
    assert match.role(match.nodes("union")).tolist() == [1, 1, 0]
