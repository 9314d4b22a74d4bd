"""What a supermask holds, leaves alone, and hands on."""

import copy
import gc
import io
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch_geometric.nn import GCN, GIN

from graphsparse.nn import accelerate
from graphsparse.nn.supermask import Supermask
from graphsparse.testing import random_graph

DATA = random_graph()


def run(model, data=DATA):
    return model(data.x, data.edge_index)


def search(model, steps=30, lr=0.1):
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0)
    for _ in range(steps):
        model.train()
        optimizer.zero_grad()
        F.cross_entropy(run(model)[DATA.train_mask], DATA.y[DATA.train_mask]).backward()
        optimizer.step()
        model.step()
    return model.eval()


def alive():
    """Bytes of all tensors there are; shared memory counts once."""
    gc.collect()
    # Other tests may have left sparse tensors behind, which have no storage.
    tensors = [t for t in gc.get_objects() if type(t) in (torch.Tensor, nn.Parameter) and t.layout == torch.strided]
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())


def test_memory():
    graph = random_graph(20, 1000)
    start = alive()
    masked = Supermask(GCN(1000, 500, 2, 3), 0.9)
    num, slack = masked.scores.numel(), 20_000
    assert num == 500 * 1003
    assert 8 * num <= alive() - start <= 8 * num + slack  # scores and frozen weights
    assert sum(p.numel() for p in masked.parameters()) == num
    assert sum(b.numel() for b in masked.buffers()) <= num + 500
    run(masked, graph).sum().backward()
    assert alive() - start <= 16 * num + slack  # the gradient of the scores, and room to select in
    assert masked.frozen.grad is None
    assert not masked.frozen.requires_grad
    state = masked.state_dict()
    assert sum(value.nbytes for value in state.values()) <= 4 * num + 100


def test_model_is_left_as_it_is():
    torch.manual_seed(1)
    model = GIN(8, 16, 2, 3, norm="batch_norm").train()
    before = copy.deepcopy(model.state_dict())
    parameters = dict(model.named_parameters())
    random = torch.random.get_rng_state()
    masked = Supermask(model, 0.5)
    for _ in range(3):
        run(masked)
    assert torch.equal(torch.random.get_rng_state(), random)
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in before.items())
    assert all(model.get_parameter(name) is value for name, value in parameters.items())
    # The statistics belong to the wrapper, and went on.
    assert masked.state_dict()["model.norms.0.module.num_batches_tracked"] == 3
    assert not torch.equal(masked.materialize().norms[0].module.running_mean, model.norms[0].module.running_mean)


def test_two_searches_are_equal_and_seeds_differ():
    results = []
    for seed, noise in ((5, 0), (5, 1), (6, 0)):
        torch.manual_seed(noise)
        results.append(search(Supermask(GCN(8, 16, 2, 3), 0.7, seed=seed, total_steps=20)))
    assert torch.equal(results[0].scores, results[1].scores)
    assert torch.equal(run(results[0]), run(results[1]))
    assert not torch.equal(results[0].frozen, results[2].frozen)


def test_state_dict_goes_on():
    """Stopped after 7 of 20 steps and continued from a file, the search ends where it would have ended."""

    def make(seed=1):
        return Supermask(GIN(8, 16, 2, 3, norm="batch_norm"), 0.7, seed=seed, total_steps=20)

    whole, first, second = make(), make(), make()
    optimizers = [torch.optim.AdamW(m.parameters(), lr=0.05, weight_decay=0) for m in (whole, first, second)]

    def go(model, optimizer, steps):
        for _ in range(steps):
            model.train()
            optimizer.zero_grad()
            run(model).square().mean().backward()
            optimizer.step()
            model.step()

    go(whole, optimizers[0], 20)
    go(first, optimizers[1], 7)
    file = io.BytesIO()
    torch.save({"model": first.state_dict(), "optimizer": optimizers[1].state_dict()}, file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    assert "scores" in state["model"]
    assert not any("lin" in key and "weight" in key for key in state["model"])
    second.load_state_dict(state["model"])
    optimizers[2].load_state_dict(state["optimizer"])
    assert second.steps_done == 7
    assert second.current_sparsity == first.current_sparsity
    go(second, optimizers[2], 13)
    assert torch.equal(second.scores, whole.scores)
    assert torch.equal(run(second.eval()), run(whole.eval()))
    # Scores are worth nothing over other weights.
    for other in (make(2), Supermask(GIN(8, 16, 2, 3, norm="batch_norm"), 0.7, seed=1, law="signed_constant")):
        with pytest.raises(RuntimeError, match="the scores belong to other frozen weights"):
            other.load_state_dict(state["model"])
    with pytest.raises(RuntimeError, match="Missing key.*steps_done"):
        second.load_state_dict({k: v for k, v in state["model"].items() if k != "steps_done"})
    # Inside another module, and with what does not belong there.
    nest = nn.ModuleDict({"a": make()})
    nest.load_state_dict({f"a.{key}": value for key, value in whole.state_dict().items()})
    assert torch.equal(nest["a"].scores, whole.scores)
    assert list(nest.state_dict()) == [f"a.{key}" for key in whole.state_dict()]


@pytest.mark.parametrize("how", ["deepcopy", "pickle"])
def test_copies(how):
    masked = search(Supermask(GIN(8, 16, 2, 3, norm="batch_norm"), 0.7, total_steps=20), steps=3)
    twin = copy.deepcopy(masked) if how == "deepcopy" else pickle.loads(pickle.dumps(masked))
    assert torch.equal(run(twin), run(masked))
    assert twin.steps_done == 3
    assert twin.current_sparsity == masked.current_sparsity
    search(twin, steps=3)
    assert not torch.equal(twin.scores, masked.scores)
    assert masked.steps_done == 3
    assert list(twin.state_dict()) == list(masked.state_dict())


def test_types():
    masked = Supermask(GCN(8, 16, 2, 3), 0.7)
    frozen, single = masked.frozen.clone(), run(masked.eval())
    masked.double()
    assert masked.scores.dtype == masked.frozen.dtype == torch.float64
    assert torch.equal(masked.frozen.float(), frozen)
    torch.testing.assert_close(masked(DATA.x.double(), DATA.edge_index).float(), single)
    assert torch.equal(masked.half().float().redraw() or masked.frozen, frozen)
    assert Supermask(GCN(8, 16, 2, 3).double(), 0.7).scores.dtype == torch.float64
    half = Supermask(GCN(8, 16, 2, 3).bfloat16(), 0.7)
    assert half.scores.dtype == torch.float32
    assert half(DATA.x.bfloat16(), DATA.edge_index).dtype == torch.bfloat16


@pytest.fixture
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.cuda
def test_on_cuda(device):
    here = Supermask(GCN(8, 16, 2, 3), 0.7, law="kaiming_normal", transform="abs", coats=2).eval()
    there = Supermask(GCN(8, 16, 2, 3).to(device), 0.7, law="kaiming_normal", transform="abs", coats=2).eval()
    assert torch.equal(there.frozen.cpu(), here.frozen)
    assert torch.equal(there.scores.cpu(), here.scores)
    assert all(torch.equal(mask.cpu(), here.masks()[name]) for name, mask in there.masks().items())
    data = random_graph().to(device)
    torch.testing.assert_close(run(there, data).cpu(), run(here), rtol=1e-3, atol=1e-4)
    assert torch.equal(run(here.to(device), data), run(there, data))


@pytest.mark.once  # a compiler is not shown the kernels of the extensions
@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("fast", [False, True])
def test_compiled(fast):
    model = GCN(8, 16, 2, 3)
    masked = Supermask(accelerate(model) if fast else model, 0.8, total_steps=20, transform="abs", coats=2)
    compiled = torch.compile(masked, backend="aot_eager")
    for _ in range(12):  # steps of the ramp
        gradients = []
        for call in (masked, compiled):
            masked.scores.grad = None
            out = run(call)
            out.square().sum().backward()
            gradients.append((out.detach(), masked.scores.grad))
        torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-4)
        masked.step()
    masked.eval()
    torch.testing.assert_close(run(compiled), run(masked))


def test_recurrent_layer_in_another_type():
    masked = search(Supermask(GCN(8, 16, 2, 3, jk="lstm"), 0.5), steps=1)
    single = run(masked)
    masked.double()
    torch.testing.assert_close(masked(DATA.x.double(), DATA.edge_index).float(), single, rtol=1e-4, atol=1e-5)
    assert copy.deepcopy(masked)(DATA.x.double(), DATA.edge_index).dtype == torch.float64


def test_inference_mode_then_training():
    masked = Supermask(GCN(8, 16, 2, 3), 0.8).eval()
    with torch.inference_mode():
        run(masked)
    run(masked).sum().backward()
    assert masked.scores.grad.count_nonzero() > 0
