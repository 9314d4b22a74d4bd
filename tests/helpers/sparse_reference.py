"""Random graphs, and what an adjacency and its products are by definition."""

import torch
from hypothesis import strategies as st

from graphsparse.ops import kernels
from graphsparse.typing import has_module

BACKENDS = [
    name for name in kernels.BACKENDS if name in ("torch", "gather-scatter") or has_module(name.replace("-", "_"))
]


@st.composite
def edge_lists(draw, bipartite=False, max_nodes=9):
    """Any edge list: unsorted, with loops and repeated edges, isolated nodes, or nothing at all."""
    num_src = draw(st.integers(0, max_nodes))
    num_dst = draw(st.integers(0, max_nodes)) if bipartite else num_src
    size = draw(st.integers(0, 24)) if num_src and num_dst else 0
    seed = draw(st.integers(0, 2**31))
    generator = torch.Generator().manual_seed(seed)
    src = torch.randint(max(num_src, 1), (size,), generator=generator)
    dst = torch.randint(max(num_dst, 1), (size,), generator=generator)
    edge_index = torch.stack([src, dst])
    if draw(st.booleans()) and size:
        edge_index = edge_index[:, (dst * num_src + src).argsort(stable=True)]
    return edge_index, (num_src, num_dst), generator


def dense(edge_index, weight, size):
    """The matrix by definition: one addition for each edge."""
    matrix = torch.zeros(size[1], size[0], dtype=torch.float64)
    for edge, (src, dst) in enumerate(edge_index.t().tolist()):
        matrix[dst, src] += 1 if weight is None else weight[edge].item()
    return matrix


def of(adj):
    return dense(*adj.to_edge_index(), (adj.num_src, adj.num_dst))


@st.composite
def graphs(draw):
    """Any edge list, with isolated nodes, loops and repeated edges, and values of which some are 0."""
    num_src, num_dst = draw(st.integers(0, 8)), draw(st.integers(0, 8))
    size = draw(st.integers(0, 30)) if num_src and num_dst else 0
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    edge_index = torch.stack([torch.randint(max(n, 1), (size,), generator=generator) for n in (num_src, num_dst)])
    x = torch.randn(num_src, draw(st.integers(0, 5)), generator=generator)
    value = None
    if draw(st.booleans()):
        value = torch.rand(size, generator=generator) + 0.1
        value[torch.rand(size, generator=generator) < 0.2] = 0
    return edge_index, x, value, num_dst, generator


def reference(edge_index, x, reduce, weight, num_dst):
    """One message for each edge, gathered and scattered by torch, so that autograd knows the gradients."""
    src, dst = edge_index
    weight = x.new_ones(len(src)) if weight is None else weight
    message = x[src] * weight[:, None]
    out = x.new_zeros(num_dst, x.size(1))
    if reduce in ("sum", "mean"):
        out = out.index_add(0, dst, message)
        if reduce == "mean":
            total = x.new_zeros(num_dst).index_add(0, dst, weight)[:, None]
            out = torch.where(total == 0, 0, out / torch.where(total == 0, 1, total))
        return out
    there = weight != 0
    index = dst[there, None].expand(-1, x.size(1))
    return out.scatter_reduce(0, index, message[there], "amax" if reduce == "max" else "amin", include_self=False)


def run(function, x, value, grad):
    """The result and the gradients of everything that has one."""
    x = x.clone().requires_grad_()
    value = None if value is None else value.clone().requires_grad_()
    out = function(x, value)
    out.backward(grad)
    return [out.detach(), x.grad, *([] if value is None else [value.grad])]


def close(ours, theirs, tolerance=1e-5, least=(0, 0, 0)):
    """Relative to the largest number of each tensor, or to a number of its own if that is larger."""
    for a, b, scale in zip(ours, theirs, least[: len(ours)], strict=True):
        assert a.shape == b.shape
        scale = max(scale, b.abs().max().item() if b.numel() else 0.0, 1e-3)
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance * scale, check_dtype=False)
