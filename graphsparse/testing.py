"""Small graphs and assertions for tests, ours and those of users; nothing in the package imports this file."""

import torch
from torch import Tensor
from torch_geometric.data import Data, HeteroData
from torch_geometric.transforms import ToUndirected
from torch_geometric.utils import to_undirected


def toy_edge_index() -> Tensor:
    """Return the undirected five-node graph ``0-1, 0-2, 0-3, 3-4, 1-2``, both directions of each edge.

    Example:
        >>> toy_edge_index().shape
        torch.Size([2, 10])
    """
    edge_index: Tensor = to_undirected(torch.tensor([[0, 0, 0, 3, 1], [1, 2, 3, 4, 2]]))
    return edge_index


def random_graph(num_nodes: int = 60, num_features: int = 8, num_classes: int = 3, seed: int = 0) -> Data:
    """Return a small undirected graph with features that carry the class, labels and three masks.

    Args:
        num_nodes: Number of nodes.
        num_features: Width of ``x``.
        num_classes: Number of classes.
        seed: Two calls with the same seed return equal graphs.

    Example:
        >>> random_graph().num_nodes
        60
    """
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(num_classes, (num_nodes,), generator=generator)
    pairs = torch.randint(num_nodes, (2, 6 * num_nodes), generator=generator)
    same = y[pairs[0]] == y[pairs[1]]
    keep = (same | (torch.rand(pairs.size(1), generator=generator) < 0.2)) & (pairs[0] != pairs[1])
    x = torch.randn(num_nodes, num_features, generator=generator)
    x[:, :num_classes] += 2 * torch.nn.functional.one_hot(y, num_classes)
    fold = torch.arange(num_nodes) % 3
    return Data(
        x=x,
        edge_index=to_undirected(pairs[:, keep], num_nodes=num_nodes),
        y=y,
        train_mask=fold == 0,
        val_mask=fold == 1,
        test_mask=fold == 2,
    )


def random_hetero_graph(num_nodes: int = 40, seed: int = 0) -> HeteroData:
    """Return a small graph of papers, with labels of 3 classes and masks, and authors; every edge type has its reverse.

    Args:
        num_nodes: Number of papers; there are half as many authors.
        seed: Two calls with the same seed return equal graphs.

    Example:
        >>> random_hetero_graph().edge_types
        [('paper', 'cites', 'paper'), ('author', 'writes', 'paper'), ('paper', 'rev_cites', 'paper'),
         ('paper', 'rev_writes', 'author')]
    """
    generator, papers = torch.Generator().manual_seed(seed), random_graph(num_nodes, seed=seed)
    num_authors = num_nodes // 2
    data = HeteroData()
    for key in ("x", "y", "train_mask", "val_mask", "test_mask"):
        data["paper"][key] = papers[key]
    data["author"].x = torch.randn(num_authors, 5, generator=generator)
    above = papers.edge_index[0] < papers.edge_index[1]
    data["paper", "cites", "paper"].edge_index = papers.edge_index[:, above]
    ends = [torch.randint(size, (2 * num_nodes,), generator=generator) for size in (num_authors, num_nodes)]
    data["author", "writes", "paper"].edge_index = torch.stack(ends)
    found: HeteroData = ToUndirected(merge=False)(data)
    return found


def assert_undirected(edge_index: Tensor) -> None:
    """Assert that the reverse of every edge is there.

    Example:
        >>> assert_undirected(toy_edge_index())
    """
    edges = set(map(tuple, edge_index.t().tolist()))
    unpaired = {(u, v) for u, v in edges if (v, u) not in edges}
    assert not unpaired, f"edges without their reverse: {sorted(unpaired)[:5]}"
