import pytest
import torch
from hypothesis import given, settings
from sparse_reference import BACKENDS, close, graphs, reference, run
from torch.autograd import gradcheck, gradgradcheck

from graphsparse.ops import Adjacency, kernels, pattern, sort, spmm
from graphsparse.ops.spmm import REDUCTIONS
from graphsparse.testing import random_graph

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12, torch.bfloat16: 2e-2, torch.float16: 4e-3}


@pytest.mark.parametrize("reduce", REDUCTIONS)
@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=60, deadline=None)
@given(graphs())
def test_every_backend_equals_the_reference(backend, reduce, graph):
    edge_index, x, value, num_dst, generator = graph
    adj = Adjacency.from_edge_index(edge_index, num_nodes=(x.size(0), num_dst))
    grad = torch.randn(num_dst, x.size(1), generator=generator)
    with torch.no_grad():
        if value is not None and reduce in ("min", "max"):
            value.mul_(torch.randint(0, 2, value.shape, generator=generator) * 2 - 1)  # negative ones turn the order
    wide = [None if part is None else part.double() for part in (x, value, grad)]
    theirs = run(lambda x, v: reference(edge_index, x, reduce, v, num_dst), *wide)
    ours = run(lambda x, v: spmm(adj, x, reduce, value=v, backend=backend), x, value, grad)
    if value is not None and reduce in ("min", "max"):
        assert (ours[2][value == 0] == 0).all()
    # The gradient of a value is a sum of terms that may cancel: its error is relative to them, not to the sum.
    terms = (grad.abs()[edge_index[1]] * x.abs()[edge_index[0]]).sum(1)
    if value is not None and reduce == "mean":
        total = torch.zeros(num_dst).index_add(0, edge_index[1], value)
        terms = terms / total.clamp(min=0.1)[edge_index[1]]  # values are 0 or at least 0.1
    largest = grad.abs().max().item() if grad.numel() else 0
    close(ours, theirs, least=[0, largest, terms.max().item() if len(terms) else 0])
    held = Adjacency.from_edge_index(edge_index, value, (x.size(0), num_dst))
    close([spmm(held, x, reduce, backend=backend)], ours[:1])
    close(run(lambda x, _: spmm(held, x, reduce, backend=backend), x, None, grad), ours[:2])


@pytest.mark.parametrize("reduce", REDUCTIONS)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("size", [(6, 6), (4, 7)])
def test_gradcheck(backend, reduce, size):
    generator = torch.Generator().manual_seed(1)
    edge_index = torch.stack([torch.randint(n - 1, (14,), generator=generator) for n in size])  # the last is isolated
    edge_index = torch.cat([edge_index, edge_index[:, :3]], dim=1)
    x = torch.randn(size[0], 3, generator=generator, dtype=torch.float64, requires_grad=True)
    value = (torch.rand(17, generator=generator, dtype=torch.float64) + 0.2).requires_grad_()
    adj = Adjacency.from_edge_index(edge_index, num_nodes=size)
    assert gradcheck(lambda x: spmm(adj, x, reduce, backend=backend), x)
    assert gradcheck(lambda x, v: spmm(adj, x, reduce, value=v, backend=backend), (x, value))
    assert gradcheck(lambda v: spmm(adj, x.detach(), reduce, value=v, backend=backend), value)
    if size[0] == size[1]:
        assert gradcheck(lambda x, v: spmm(adj.with_value(v).gcn_norm(), x, reduce, backend=backend), (x, value))


@pytest.mark.parametrize("reduce", REDUCTIONS)
@settings(max_examples=60, deadline=None)
@given(graphs())
def test_value_0_equals_deleting_the_edge(reduce, graph):
    edge_index, x, value, num_dst, generator = graph
    mask = torch.rand(edge_index.size(1), generator=generator) < 0.5
    weight = mask.float() if value is None else value * mask
    adj = Adjacency.from_edge_index(edge_index, num_nodes=(x.size(0), num_dst))
    grad = torch.randn(num_dst, x.size(1), generator=generator)
    soft = run(lambda x, _: spmm(adj, x, reduce, value=weight), x, None, grad)
    hard = run(lambda x, _: spmm(adj.select(mask), x, reduce, value=weight[mask]), x, None, grad)
    plain = adj.select(weight != 0).with_value(None if value is None else weight[weight != 0])
    for other in (hard, run(lambda x, _: spmm(plain, x, reduce), x, None, grad)):
        close(soft, other)


@pytest.mark.parametrize("reduce", REDUCTIONS)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_every_dtype(backend, reduce, dtype):
    data = random_graph(seed=3)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(60, 7, generator=generator).to(dtype)
    value = (torch.rand(data.num_edges, generator=generator) + 0.5).to(dtype)
    grad = torch.randn(60, 7, generator=generator).to(dtype)
    adj = Adjacency.from_edge_index(data.edge_index, num_nodes=60)
    ours = run(lambda x, v: spmm(adj, x, reduce, value=v, backend=backend), x, value, grad)
    assert {part.dtype for part in ours} == {dtype}
    wide = (x.double(), value.double(), grad.double())
    theirs = run(lambda x, v: reference(data.edge_index, x, reduce, v, 60), *wide)
    tolerance = TOLERANCE[dtype]
    if reduce in ("min", "max") and dtype in kernels.HALF:
        theirs, ours = theirs[:1], ours[:1]  # rounding makes ties, and which edge wins one decides the gradients
    close(ours, theirs, tolerance)
    # Values of another type are cast to that of x, and get their gradients in their own.
    mixed = run(lambda x, v: spmm(adj, x, reduce, value=v, backend=backend), x, value.double(), grad)
    assert [part.dtype for part in mixed] == [dtype, dtype, torch.float64]
    close(mixed[:1], ours[:1], tolerance)


@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_ties_give_the_gradient_to_the_first_edge(reduce):
    adj = Adjacency.from_edge_index(torch.tensor([[2, 1, 0, 1], [0, 0, 0, 0]]), num_nodes=3)
    for backend in BACKENDS:
        x, value = torch.ones(3, 1, requires_grad=True), torch.ones(4, requires_grad=True)
        spmm(adj, x, reduce, value=value, backend=backend).sum().backward()
        if reduce in ("min", "max"):
            assert x.grad.flatten().tolist() == [1, 0, 0]
            assert value.grad.tolist() == [0, 0, 1, 0]


@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_a_symmetric_adjacency_never_transposes(reduce, monkeypatch):
    data = random_graph()
    x = data.x.clone().requires_grad_()
    plain = Adjacency.from_edge_index(data.edge_index, symmetric=True)
    monkeypatch.setattr(pattern, "stable_order", None)
    monkeypatch.setattr(pattern.Pattern, "transposed", None)
    for adj in (
        plain,
        plain.gcn_norm(),
        Adjacency.from_edge_index(data.edge_index, torch.ones(data.num_edges), symmetric=True),
    ):
        spmm(adj, x, reduce).sum().backward()
    assert x.grad.isfinite().all()
    if reduce in ("sum", "mean"):
        with pytest.raises(TypeError, match="not callable"):  # the test would notice
            spmm(Adjacency.from_edge_index(data.edge_index, symmetric=False), x, reduce).sum().backward()


def test_the_transpose_is_sorted_once(monkeypatch):
    data = random_graph()
    calls = []
    order = pattern.stable_order
    monkeypatch.setattr(pattern, "stable_order", lambda *a: calls.append(1) or order(*a))
    adj = Adjacency.from_edge_index(data.edge_index)
    x = data.x.clone().requires_grad_()
    for _ in range(3):
        spmm(adj, x).sum().backward()
        spmm(adj, x, value=torch.rand(data.num_edges, requires_grad=True)).sum().backward()
    assert len(calls) == 1


@pytest.mark.parametrize("reduce", REDUCTIONS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_blocks_of_rows_give_the_rows_of_the_product(backend, reduce):
    data = random_graph(seed=5)
    generator = torch.Generator().manual_seed(0)
    value, grad = torch.rand(data.num_edges, generator=generator), torch.randn(60, 8, generator=generator)

    def in_blocks(x, value):
        adj = Adjacency.from_edge_index(data.edge_index, value, 60)
        return torch.cat([spmm(adj.rows(i, min(i + 25, 60)), x, reduce, backend=backend) for i in range(0, 60, 25)])

    whole = Adjacency.from_edge_index(data.edge_index, num_nodes=60)
    expected = run(lambda x, v: spmm(whole, x, reduce, value=v, backend=backend), data.x, value, grad)
    close(run(in_blocks, data.x, value, grad), expected)


@pytest.mark.parametrize("reduce", REDUCTIONS)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("width", [3, 80])  # 80 floats are more than MKL is given
def test_indices_too_large_for_int32(backend, reduce, width, monkeypatch):
    monkeypatch.setattr(sort, "INT32_LIMIT", 9)
    data = random_graph(seed=6)
    generator = torch.Generator().manual_seed(0)
    x, grad = torch.randn(60, width, generator=generator), torch.randn(60, width, generator=generator)
    value = torch.rand(data.num_edges, generator=generator)
    adj = Adjacency.from_edge_index(data.edge_index, num_nodes=60)
    assert adj.col.dtype == torch.int64
    ours = run(lambda x, v: spmm(adj, x, reduce, value=v, backend=backend), x, value, grad)
    close(ours, run(lambda x, v: reference(data.edge_index, x, reduce, v, 60), x, value, grad))


def test_shapes_of_x():
    adj = Adjacency.from_edge_index(torch.tensor([[0, 1, 2], [1, 1, 0]]), num_nodes=(3, 2))
    x = torch.randn(3, 2, 4, requires_grad=True)
    out = spmm(adj, x)
    assert out.shape == (2, 2, 4)
    torch.testing.assert_close(out[1], x[0] + x[1])
    assert spmm(adj, x[:, 0, 0]).shape == (2,)
    torch.testing.assert_close(spmm(adj, x.transpose(1, 2)), out.transpose(1, 2))
    for empty in (torch.zeros(3, 0), torch.zeros(3, 2, 0)):
        assert spmm(adj, empty, "max").shape == (2, *empty.shape[1:])


def test_x_and_values_are_not_changed():
    data = random_graph()
    adj = Adjacency.from_edge_index(data.edge_index, torch.rand(data.num_edges))
    x, value = data.x.clone(), adj.value.clone()
    for reduce in REDUCTIONS:
        for backend in BACKENDS:
            spmm(adj, data.x, reduce, backend=backend)
    assert torch.equal(data.x, x)
    assert torch.equal(adj.value, value)


def test_results_are_the_same_without_compiled_extensions(without_extensions):
    data = random_graph()
    adj = Adjacency.from_edge_index(data.edge_index)
    for reduce in REDUCTIONS:
        close([spmm(adj, data.x, reduce)], [reference(data.edge_index, data.x, reduce, None, 60)])
    with pytest.raises(ImportError, match="'torch_sparse' is needed here but blocked by a test"):
        spmm(adj, data.x, backend="torch-sparse")


def learned(size=(6, 6)):
    """Return an adjacency of doubles with repeated edges and an isolated node, features, and values."""
    generator = torch.Generator().manual_seed(1)
    edge_index = torch.stack([torch.randint(n - 1, (10,), generator=generator) for n in size])
    edge_index = torch.cat([edge_index, edge_index[:, :2]], dim=1)
    x = torch.randn(size[0], 2, generator=generator, dtype=torch.float64, requires_grad=True)
    value = (torch.rand(12, generator=generator, dtype=torch.float64) + 0.2).requires_grad_()
    return Adjacency.from_edge_index(edge_index, num_nodes=size), x, value


@pytest.mark.parametrize("reduce", REDUCTIONS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_have_gradients_and_come_many_at_once(backend, reduce):
    adj, x, value = learned()
    twice = {"check_batched_grad": True}
    assert gradgradcheck(lambda x, v: spmm(adj, x, reduce, value=v, backend=backend), (x, value), **twice)
    assert gradgradcheck(lambda x: spmm(adj, x * x, reduce, backend=backend), x, **twice)
    assert gradcheck(lambda x, v: spmm(adj, x, reduce, value=v, backend=backend), (x, value), check_batched_grad=True)
    if backend == "torch":
        adj, x, value = learned((4, 7))
        assert gradgradcheck(lambda x, v: spmm(adj, x, reduce, value=v), (x, value), **twice)
    if backend == "torch" and reduce in ("sum", "max"):
        adj, x, value = learned()
        value = value.detach().clone()
        value[::3] = 0
        value.requires_grad_()
        kept = value if reduce == "sum" else value.detach()  # an extremum jumps where an edge comes back
        assert gradgradcheck(lambda x, v: spmm(adj.with_value(v).gcn_norm(), x, reduce), (x, kept), **twice)


@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_transforms_of_functions(reduce):
    adj, x, value = learned()

    def by_definition(x, value):
        return reference(adj.to_edge_index()[0], x, reduce, value, 6)

    assert gradcheck(lambda x, v: spmm(adj, x, reduce, value=v), (x, value), check_forward_ad=True)
    x, value = x.detach(), value.detach()

    def ours(x, value):
        return spmm(adj, x, reduce, value=value)

    expected = torch.autograd.functional.jacobian(by_definition, (x, value))
    ways = [
        torch.func.jacrev(ours, (0, 1))(x, value),
        torch.func.jacfwd(ours, (0, 1))(x, value),
        torch.autograd.functional.jacobian(ours, (x, value), vectorize=True),
        torch.autograd.functional.jacobian(ours, (x, value), vectorize=True, strategy="forward-mode"),
    ]
    for found in ways:
        close(list(found), list(expected))
    many = torch.stack([x, 2 * x])
    close([torch.func.vmap(ours, (0, None))(many, value)[1]], [by_definition(2 * x, value)])
    if reduce in ("sum", "mean"):
        cube = [lambda x, f=f: (f(x, value) ** 3).sum() for f in (ours, by_definition)]
        for vectorize in (False, True):
            found, wanted = (torch.autograd.functional.hessian(f, x, vectorize=vectorize) for f in cube)
            close([found], [wanted])
        close([torch.func.hessian(cube[0])(x)], [torch.func.hessian(cube[1])(x)])
    leaf = x.clone().requires_grad_()
    out = ours(leaf, value)  # a graph of our kernels, asked from within a transform
    rows = torch.func.vmap(lambda g: torch.autograd.grad(out, leaf, g, retain_graph=True)[0])
    close([rows(torch.eye(12, dtype=x.dtype).view(12, 6, 2))], [expected[0].view(12, 6, 2)])


ADJ = Adjacency.from_edge_index(torch.tensor([[0, 1], [1, 2]]))


X = torch.ones(3, 2)


BAD = [
    ((torch.eye(3), X), {}, TypeError, "'adj' must be an Adjacency (got Tensor)"),
    ((ADJ, [1.0]), {}, TypeError, "'x' must be a dense floating point tensor (got list)"),
    ((ADJ, X.long()), {}, TypeError, "floating point tensor (got torch.int64"),
    ((ADJ, X.to_sparse()), {}, TypeError, "layout torch.sparse_coo"),
    ((ADJ, X[:2]), {}, ValueError, "'x' must have one row per source, 3 (got shape [2, 2])"),
    ((ADJ, torch.tensor(1.0)), {}, ValueError, "one row per source"),
    ((ADJ, X.to("meta")), {}, ValueError, "on the device of the edges"),
    ((ADJ, X, "add"), {}, ValueError, "'reduce' must be one of"),
    ((ADJ, X), {"backend": "cusparse"}, ValueError, "'backend' must be one of"),
    ((ADJ, X), {"value": torch.ones(3)}, ValueError, "one entry per edge, shape [2] (got [3])"),
    ((ADJ, X), {"value": torch.ones(2).bool()}, TypeError, "floating point"),
]


@pytest.mark.parametrize(("arguments", "options", "error", "message"), BAD)
def test_bad_arguments(arguments, options, error, message):
    with pytest.raises(error) as raised:
        spmm(*arguments, **options)
    assert message in str(raised.value)


@pytest.mark.cuda
@pytest.mark.parametrize("reduce", REDUCTIONS)
@pytest.mark.parametrize("backend", [None, *BACKENDS])
def test_cuda_equals_cpu(backend, reduce, device):
    if backend == "torch" and reduce in ("min", "max"):
        pytest.skip("torch has no such kernel")
    data = random_graph(seed=4)
    generator = torch.Generator().manual_seed(0)
    value = torch.rand(data.num_edges, generator=generator)
    grad = torch.randn(60, 8, generator=generator)
    adj = Adjacency.from_edge_index(data.edge_index, num_nodes=60)
    ours = run(
        lambda x, v: spmm(adj.to(device), x, reduce, value=v, backend=backend),
        data.x.to(device),
        value.to(device),
        grad.to(device),
    )
    theirs = run(lambda x, v: spmm(adj, x, reduce, value=v), data.x, value, grad)
    close([part.cpu() for part in ours], theirs)


@pytest.mark.parametrize("width", [4, 200])
@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_autocast_leaves_the_type_of_the_features(width, reduce):
    adj = Adjacency.from_edge_index(torch.tensor([[0, 1, 1], [1, 0, 2]]))
    x = torch.randn(3, width, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = spmm(adj, x, reduce)
        half = spmm(adj, x.bfloat16(), reduce)
    assert (out.dtype, half.dtype) == (torch.float32, torch.bfloat16)
    assert torch.equal(out, spmm(adj, x, reduce))
    out.sum().backward()
    assert x.grad.shape == x.shape
