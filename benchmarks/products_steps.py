"""The steps of `products_scale.py`, each a function that reads and writes files of a work folder."""

import time

import numpy as np
import torch
import torch.nn.functional as F
from community_graph import BLOCK, community_graph
from torch_geometric.data import Data
from torch_geometric.index import index2ptr
from torch_geometric.loader import ClusterData, ClusterLoader, NeighborLoader
from torch_geometric.loader.cluster import Partition
from torch_geometric.nn import GraphSAGE
from torch_geometric.utils import index_sort, sort_edge_index

NUM_NODES, NUM_EDGES, NUM_FEATURES, NUM_CLASSES = 2_449_029, 61_859_140, 100, 47


class ClustersOf(ClusterData):
    """PyG's `ClusterData` for parts that are known already. Edges must have no attributes.

    The graph is brought into order by sorting one 64-bit key per edge in place: PyG's own code holds several copies of
    the edge list and of the order.
    """

    def __init__(self, data, part, num_parts):
        # Not the constructor of PyG: it would compute parts.
        self.num_parts, self.recursive = num_parts, False
        self.keep_inter_cluster_edges, self.sparse_format = False, "csr"
        num_nodes = part.numel()
        node_perm = part.argsort(stable=True)
        partptr = torch.zeros(num_parts + 1, dtype=torch.int64)
        partptr[1:] = part.bincount(minlength=num_parts).cumsum(0)
        place = torch.empty_like(node_perm)
        place[node_perm] = torch.arange(num_nodes)
        key = torch.empty(data.num_edges, dtype=torch.int64)
        blocks = [slice(start, start + BLOCK) for start in range(0, data.num_edges, BLOCK)]
        for block in blocks:
            row, col = data.edge_index[:, block]
            key[block] = place[row] * num_nodes + place[col]
        key.numpy().sort()
        indptr = torch.searchsorted(key, torch.arange(num_nodes + 1) * num_nodes)
        for block in blocks:
            key[block] %= num_nodes
        self.partition = Partition(indptr, key, partptr, node_perm, None, "csr")
        self.data = self._permute_data(data, self.partition)


def make_graph(folder, scale, seed):
    """Write edges, features, labels and the mask of training nodes."""
    start = time.perf_counter()
    num_nodes, num_edges = int(NUM_NODES * scale), int(NUM_EDGES * scale)
    edge_index, y = community_graph(num_nodes, num_edges, seed=seed)
    seconds = time.perf_counter() - start
    torch.save(edge_index, folder / "edge_index.pt")
    del edge_index
    generator = torch.Generator().manual_seed(seed)
    y %= NUM_CLASSES
    center = torch.randn(NUM_CLASSES, NUM_FEATURES, generator=generator)
    x = torch.empty(num_nodes, NUM_FEATURES)
    for part, label in zip(x.split(BLOCK // 16), y.split(BLOCK // 16), strict=True):
        part.normal_(generator=generator).add_(center[label], alpha=0.25)
    train = torch.rand(num_nodes, generator=generator) < 0.08  # the share of ogbn-products
    torch.save({"x": x, "y": y, "train_mask": train}, folder / "nodes.pt")
    return {"seconds": seconds, "nodes": num_nodes, "edges": 2 * num_edges}


def read_graph(folder):
    return Data(edge_index=torch.load(folder / "edge_index.pt"), **torch.load(folder / "nodes.pt"))


def cut(edge_index, part):
    """Return the share of edges between two parts."""
    between = sum(int((part[edges[0]] != part[edges[1]]).count_nonzero()) for edges in edge_index.split(BLOCK, dim=1))
    return between / edge_index.size(1)


def partition(folder, scale, parts):
    from graphsparse.utils import partition_graph

    edge_index = torch.load(folder / "edge_index.pt")
    start = time.perf_counter()
    part = partition_graph(edge_index, parts, int(NUM_NODES * scale))
    seconds = time.perf_counter() - start
    torch.save(part, folder / "part.pt")
    size = part.bincount(minlength=parts).double()
    return {"seconds": seconds, "cut": cut(edge_index, part), "largest": float(size.max() / size.mean())}


def partition_pyg(folder, scale, parts):
    """Do what PyG's ClusterData does, but with METIS from pymetis: PyG's own source of it is on no package index."""
    import pymetis

    edge_index, num_nodes = torch.load(folder / "edge_index.pt"), int(NUM_NODES * scale)
    start = time.perf_counter()
    row, col = sort_edge_index(edge_index, num_nodes=num_nodes)
    graph = pymetis.CSRAdjacency(index2ptr(row, size=num_nodes).numpy(), col.numpy())
    found = pymetis.part_graph(parts, graph, recursive=False)
    part = torch.tensor(found.vertex_part)
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "cut": cut(edge_index, part)}


def make_model(hidden):
    torch.manual_seed(0)
    return GraphSAGE(NUM_FEATURES, hidden, 3, NUM_CLASSES)


def epoch(folder, parts, hidden, clusters, seed):
    from graphsparse.nn import accelerate

    model = accelerate(make_model(hidden))
    figures = train(model, folder, parts, clusters, seed, None)
    torch.save(model.state_dict(), folder / "model.pt")
    return figures


def epoch_pyg(folder, parts, hidden, clusters, seed, sample):
    return train(make_model(hidden), folder, parts, clusters, seed, sample)


def train(model, folder, parts, clusters, seed, most):
    """Train for one epoch, or for its first batches."""
    start = time.perf_counter()
    data = read_graph(folder)
    read = time.perf_counter() - start
    start = time.perf_counter()
    dataset = ClustersOf(data, torch.load(folder / "part.pt"), parts)
    del data
    prepared = time.perf_counter() - start
    order = torch.Generator().manual_seed(seed)
    loader = ClusterLoader(dataset, batch_size=clusters, shuffle=True, generator=order)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    model.train()
    loading, training, losses = [], [], []
    start = time.perf_counter()
    for number, batch in enumerate(loader):
        if number == most:
            break
        loading.append(time.perf_counter() - start)
        start = time.perf_counter()
        optimizer.zero_grad()
        out = model(batch.x, batch.edge_index)
        # The sum over no training node is 0, the mean is not.
        loss = F.cross_entropy(out[batch.train_mask], batch.y[batch.train_mask], reduction="sum")
        loss = loss / max(1, int(batch.train_mask.sum()))
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
        training.append(time.perf_counter() - start)
        start = time.perf_counter()
    return {
        "seconds": sum(loading) + sum(training),
        "read": read,
        "prepared": prepared,
        "loading": loading,
        "training": training,
        "losses": losses,
        "batches": len(loader),
    }


def trained_model(folder, hidden):
    model = make_model(hidden)
    model.load_state_dict(torch.load(folder / "model.pt"))
    return model.eval()


def inference(folder, hidden, batch_size):
    from graphsparse.nn import layerwise_inference

    data, model = read_graph(folder), trained_model(folder, hidden)
    start = time.perf_counter()
    logits = layerwise_inference(model, data, batch_size=batch_size)
    seconds = time.perf_counter() - start
    torch.save(logits, folder / "logits.pt")
    return {"seconds": seconds, "accuracy": float((logits.argmax(1) == data.y).double().mean())}


def inference_pyg(folder, hidden, sample, batch_size=4096):
    """Time some batches of every layer of PyG's `inference`, and extrapolate to all batches."""
    data, model = read_graph(folder), trained_model(folder, hidden)
    start = time.perf_counter()
    some = torch.randperm(data.num_nodes, generator=torch.Generator().manual_seed(0))[: sample * batch_size]
    edges = Data(edge_index=data.edge_index, num_nodes=data.num_nodes)
    loader = NeighborLoader(edges, [-1], some, batch_size=batch_size)
    prepared = time.perf_counter() - start
    total = 0.0
    for layer, conv in enumerate(model.convs):
        # Filled, because memory that nobody has written to is not there yet.
        x = data.x if layer == 0 else torch.full((data.num_nodes, hidden), 0.01)
        out = torch.full((data.num_nodes, conv.out_channels), 0.01)
        start = time.perf_counter()
        for batch in loader:
            rows = batch.n_id[: batch.batch_size]
            out[rows] = model.inference_per_layer(layer, x[batch.n_id], batch.edge_index, batch.batch_size)
        total += (time.perf_counter() - start) * data.num_nodes / len(some)
    return {"seconds": prepared + total, "share": len(some) / data.num_nodes}


def check(folder, hidden, nodes=300):
    """Compare logits with those that SciPy computes for some nodes from all that lies within three steps."""
    from scipy.sparse import csr_array

    data, state = read_graph(folder), torch.load(folder / "model.pt")
    start = time.perf_counter()
    num_nodes, x = data.num_nodes, data.x.numpy()
    row, order = index_sort(data.edge_index[1], max_value=num_nodes)
    col, pointer = data.edge_index[0][order].int().numpy(), index2ptr(row, size=num_nodes).numpy()
    del data, row, order
    graph = csr_array((np.ones(len(col), dtype=np.float32), col, pointer), shape=(num_nodes, num_nodes))
    # The rows of the graph that each layer needs, and the nodes on the other side of them.
    needed, rows = [np.sort(np.random.default_rng(0).choice(num_nodes, min(nodes, num_nodes), replace=False))], []
    place = np.empty(num_nodes, dtype=np.int32)
    for _ in range(3):
        part = graph[needed[-1]]
        seen = np.zeros(num_nodes, dtype=bool)
        seen[needed[-1]] = seen[part.indices] = True
        needed.append(np.flatnonzero(seen))
        place[needed[-1]] = np.arange(len(needed[-1]))
        shape = (part.shape[0], len(needed[-1]))
        rows.append(csr_array((part.data, place[part.indices], part.indptr), shape=shape))
    del graph, part
    hidden_state = x[needed[-1]]
    for layer in range(3):
        part, inside, outside = rows.pop(), needed[2 - layer], needed[3 - layer]
        left, bias, right = (
            state[f"convs.{layer}.{name}"].numpy() for name in ("lin_l.weight", "lin_l.bias", "lin_r.weight")
        )
        mean = part @ hidden_state
        mean /= np.maximum(np.diff(part.indptr), 1)[:, None]
        own = hidden_state[np.searchsorted(outside, inside)]
        hidden_state = mean @ left.T
        hidden_state += bias
        hidden_state += own @ right.T
        if layer < 2:
            np.maximum(hidden_state, 0, out=hidden_state)
    logits = torch.load(folder / "logits.pt").numpy()[needed[0]]
    error = float(np.abs(logits - hidden_state).max() / np.abs(hidden_state).max())
    if not error <= 1e-5:
        raise RuntimeError(f"logits differ from a direct computation by {error:.1e} of the largest one")
    return {"seconds": time.perf_counter() - start, "error": error, "nodes": len(needed[-1])}
