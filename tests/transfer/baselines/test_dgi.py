import torch
from torch_geometric.nn import GIN

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
