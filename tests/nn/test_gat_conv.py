import pytest
import torch
from layers import FLOWS, close, edge_by_edge, form, result, same, twins, unsorted_graph

from graphsparse.nn import GATConv


@pytest.mark.parametrize("flow", FLOWS)
def test_dropout_draws_as_pyg(flow):
    edge_index, _, x = unsorted_graph()
    edge_index = edge_index[:, edge_index[0] != edge_index[1]]
    theirs, ours = twins("GATConv", 5, 3, heads=2, dropout=0.5, flow=flow)
    expected = same(theirs, ours, x, edge_index, seed=3)
    assert not torch.equal(expected[0], result(theirs, x, edge_index, seed=4)[0])


def test_weights_enter_the_attention():
    edge_index, weight, x = unsorted_graph()
    theirs, ours = twins("GATConv", 5, 3, heads=2)
    out, (edges, alpha) = ours(x, edge_index, edge_weight=weight, return_attention_weights=True)
    _, (expected, plain) = theirs(x, edge_index, return_attention_weights=True)
    assert torch.equal(edges, expected)
    given = torch.cat([weight[edge_index[0] != edge_index[1]], torch.ones(12)]).view(-1, 1)
    total = torch.zeros(12, 2).index_add(0, edges[1], plain * given)
    close([alpha], [plain * given / total[edges[1]]])
    message = alpha.unsqueeze(-1) * theirs.lin(x).view(12, 2, 3)[edges[0]]
    close([out], [torch.zeros(12, 2, 3).index_add(0, edges[1], message).view(12, 6) + theirs.bias])
    with edge_by_edge():
        again, (same_edges, other) = ours(x, edge_index, edge_weight=weight, return_attention_weights=True)
    close([again, other], [out, alpha])
    assert torch.equal(same_edges, edges)
    for nothing in (False, None):
        assert torch.is_tensor(theirs(x, edge_index, return_attention_weights=nothing))
        assert torch.is_tensor(ours(x, edge_index, return_attention_weights=nothing))


def test_hooks_and_messages_of_a_subclass_see_weights():
    edge_index, weight, x = unsorted_graph()
    ours = twins("GATConv", 5, 3)[1]
    expected = ours(x, edge_index, edge_weight=weight) - ours.bias
    ours.register_message_forward_hook(lambda conv, args, out: 2 * out)
    close([ours(x, edge_index, edge_weight=weight) - ours.bias], [2 * expected])

    class Tripled(GATConv):
        def message(self, x_j, alpha):
            return 3 * alpha.unsqueeze(-1) * x_j

    triple = Tripled(5, 3)
    triple.load_state_dict(ours.state_dict())
    close([triple(x, edge_index, edge_weight=weight) - ours.bias], [3 * expected])


def test_refuses_weights_that_would_not_count():
    edge_index, weight, x = unsorted_graph()
    adj = form("Adjacency", edge_index, (12, 12), weight)
    plain = form("Adjacency", edge_index, (12, 12))
    mean = twins("GATConv", 5, 3, aggr="mean")[1]
    explained = GATConv(5, 3)
    explained.explain = True
    hooked = GATConv(5, 3)
    hooked.register_edge_update_forward_hook(lambda *_: None)

    class Own(GATConv):
        def edge_update(self, alpha_j, alpha_i, edge_attr, index, ptr, dim_size):
            return torch.ones_like(alpha_j)

    reasons = [
        "with aggr='mean'",
        "while it is explained",
        "with hooks on 'edge_update'",
        "with a method 'edge_update'",
    ]
    for layer, reason in zip((mean, explained, hooked, Own(5, 3)), reasons, strict=True):
        for given_edges, given_weight in ((edge_index, weight), (adj, None)):
            with pytest.raises(ValueError, match=f"takes no 'edge_weight' {reason}"):
                layer(x, given_edges, edge_weight=given_weight)
        if layer is not explained:
            close([layer(x, plain)], [layer(x, edge_index)])
    with pytest.raises(ValueError, match="for features of 3 dimensions"):
        GATConv(5, 3)(x.view(1, 12, 5), edge_index, edge_weight=weight)
    with pytest.raises(AssertionError, match="Static graphs"):
        GATConv(5, 3)(x.view(1, 12, 5), edge_index)


def test_other_aggregations():
    edge_index, _, x = unsorted_graph()
    for aggr in ("mean", "max", "softmax"):
        theirs, ours = twins("GATConv", 5, 3, heads=2, aggr=aggr)
        same(theirs, ours, x, edge_index)
        close(result(ours, x, form("Adjacency", edge_index, (12, 12))), result(theirs, x, edge_index))


def test_edge_features_of_one_dimension():
    edge_index, _, x = unsorted_graph()
    edge_attr = torch.rand(edge_index.size(1))
    for fill_value in ("mean", 2.0, torch.tensor(0.5)):
        theirs, ours = twins("GATConv", 5, 3, edge_dim=1, fill_value=fill_value)
        same(theirs, ours, x, edge_index, edge_attr)


def test_features_of_self_loops_and_weights():
    edge_index = torch.tensor([[0, 2, 1], [1, 1, 0]])
    x, edge_attr = torch.randn(3, 5), torch.randn(3, 2)
    weight = torch.tensor([1.0, 2.0, 3.0])
    layer = GATConv(5, 3, edge_dim=2, fill_value="any")
    with pytest.raises(ValueError, match="'fill_value' 'any' does not go with weights"):
        layer(x, edge_index, edge_attr, edge_weight=weight)
    # The features of the self-loop of a node are the weighted mean of those of the edges into it.
    ours, filled = (twins("GATConv", 5, 3, edge_dim=2, add_self_loops=loops)[1] for loops in (True, False))
    loops = torch.stack([edge_attr[2], (edge_attr[0] + 2 * edge_attr[1]) / 3, torch.zeros(2)])
    whole = torch.cat([edge_index, torch.arange(3).expand(2, -1)], 1)
    attr, value = torch.cat([edge_attr, loops]), torch.cat([weight, torch.ones(3)])
    close([ours(x, edge_index, edge_attr, edge_weight=weight)], [filled(x, whole, attr, edge_weight=value)])
