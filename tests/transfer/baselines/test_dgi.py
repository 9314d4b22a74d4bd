import torch
from torch_geometric.nn import GIN

from graphsparse.nn import accelerate
from graphsparse.testing import random_graph
from graphsparse.transfer.baselines.dgi import InfomaxObjective


def test_loss_is_that_of_the_paper():
    graph = random_graph()
    encoder = GIN(8, 16, 2)
    objective = InfomaxObjective(encoder, 8, 16, graph, 0)
    torch.manual_seed(3)
    found = objective()
    torch.manual_seed(3)
    shuffled = graph.x[torch.randperm(60)]
    real, false = encoder(graph.x, graph.edge_index), encoder(shuffled, graph.edge_index)
    summary = real.mean(0).sigmoid()
    d_real, d_false = (z @ objective.infomax.weight @ summary for z in (real, false))
    expected = -d_real.sigmoid().log().mean() - (1 - d_false.sigmoid()).log().mean()
    assert torch.allclose(found, expected, atol=1e-5)


def test_sparse_features_give_the_loss_and_the_gradients_of_dense_ones():
    dense = random_graph()
    dense.x = dense.x * (dense.x > 1.2)
    sparse = dense.clone()
    sparse.x = dense.x.to_sparse_csr()
    found = []
    for graph in (dense, sparse):
        torch.manual_seed(0)
        objective = InfomaxObjective(accelerate(GIN(8, 16, 2)), 8, 16, graph, 0)
        torch.manual_seed(1)
        loss = objective()
        loss.backward()
        found.append([loss, *(weight.grad for weight in objective.parameters() if weight.grad is not None)])
    assert len(found[0]) == len(found[1]) > 4
    for expected, given in zip(*found, strict=True):
        assert torch.allclose(expected, given, atol=1e-5)


def test_learns():
    torch.manual_seed(0)
    objective = InfomaxObjective(GIN(8, 16, 2), 8, 16, random_graph(), 0)
    optimizer = torch.optim.Adam(objective.parameters(), lr=1e-2)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = objective()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]
    assert objective.encoder is objective.infomax.encoder
