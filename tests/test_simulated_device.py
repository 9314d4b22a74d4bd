"""What the device of the tests marked `cuda` must refuse and count: a GPU does, the simulated one pretends to."""

import copy

import pytest
import torch
from simulated_device import count_syncs, set_up

pytestmark = pytest.mark.cuda

MIXED = {
    "sum": lambda here, there: here + there,
    "product": lambda here, there: there @ here.t(),
    "mask": lambda here, there: torch.where(here > 0, there, there),
    "concatenation": lambda here, there: torch.cat([here, there]),
    "index": lambda here, there: here[there.long()[:, 0]],
    "scatter": lambda here, there: there.scatter_add(0, here.long(), there),
    "single number of the device": lambda here, there: here * there.sum(),
    "in place": lambda here, there: there.add_(here),
    "equal": lambda here, there: torch.equal(here, there),
    "module": lambda here, there: torch.nn.Linear(3, 2)(there),
    "sparse": lambda here, there: here.t().to_sparse_csr() @ there,
    "loss": lambda here, there: torch.nn.functional.mse_loss(there, here),
    "gradient": lambda here, there: there.requires_grad_().sum().backward(gradient=here.sum().reshape(1)),
}


@pytest.mark.parametrize("name", MIXED)
def test_tensors_of_two_devices_do_not_mix(name, device):
    here = torch.ones(2, 3)
    with pytest.raises(RuntimeError):
        MIXED[name](here, here.to(device))


def test_what_takes_tensors_of_the_cpu(device):
    there = torch.arange(6.0).view(2, 3).to(device)
    assert (there + torch.tensor(1.0)).tolist() == [[1, 2, 3], [4, 5, 6]]
    assert there[torch.tensor([1])].tolist() == [[3, 4, 5]]
    there[torch.tensor([0])] = torch.zeros(3, device=device)
    assert torch.zeros(2, 3).copy_(there).tolist() == [[0, 0, 0], [3, 4, 5]]
    with pytest.raises((TypeError, RuntimeError)):
        there.numpy()


def test_draws(device):
    for draw in (
        lambda generator: torch.rand(3, device=device, generator=generator),
        lambda generator: torch.randperm(3, device=device, generator=generator),
        lambda generator: torch.zeros(3, device=device).bernoulli_(0.5, generator=generator),
        lambda generator: torch.ones(3, device=device).multinomial(1, generator=generator),
    ):
        with pytest.raises(RuntimeError, match="generator"):
            draw(torch.Generator())
        state = torch.get_rng_state()
        draw(None)
        assert torch.equal(torch.get_rng_state(), state)  # it has a generator of its own
        torch.manual_seed(1)
        first = draw(None)
        torch.manual_seed(1)
        assert torch.equal(draw(None), first)


WAITS = {
    "item": (1, lambda x: x.sum().item()),
    "float": (1, lambda x: float(x[0])),
    "if": (1, lambda x: bool((x > 1).any())),
    "list": (1, lambda x: x.tolist()),
    "nonzero": (1, lambda x: x.nonzero()),
    "mask": (1, lambda x: x[x > 1]),
    "equal": (1, lambda x: torch.equal(x, x)),
    "back": (1, lambda x: x.cpu()),
    "there": (1, lambda x: torch.ones(2).to(x.device)),
    "numbers": (1, lambda x: torch.tensor([1.0], device=x.device)),
    "repeats": (1, lambda x: torch.arange(3, device=x.device).repeat_interleave(x.long())),
    "index of the CPU": (1, lambda x: x[torch.tensor([0])]),
    "two": (2, lambda x: x[: int(x[0])].max().item()),
    "none": (0, lambda x: (x + 1).sum().clamp(min=0).detach()),
    "counted repeats": (0, lambda x: torch.arange(3, device=x.device).repeat_interleave(x.long(), output_size=3)),
    "filled": (0, lambda x: torch.arange(3, device=x.device).masked_fill(x > 1, 0)),
    "indexed": (0, lambda x: x[torch.arange(2, device=x.device)]),
}


@pytest.mark.parametrize("name", WAITS)
def test_waits_of_the_host(name, device):
    expected, call = WAITS[name]
    x = torch.tensor([1.0, 1.0, 1.0], device=device)
    with count_syncs() as outer, count_syncs() as waits:
        call(x)
    assert len(waits) == expected, waits
    assert len(outer) == expected
    assert all("test_simulated_device.py" in line for line in waits)
    call(x)
    assert len(waits) == expected


def test_modules_and_files(device, tmp_path):
    model = torch.nn.Linear(3, 2).to(device)
    copied = copy.deepcopy(model).double()
    assert copied.weight.dtype == torch.float64
    assert isinstance(copied.weight, torch.nn.Parameter)
    assert torch.equal(copied.weight.float(), model.weight)
    copied.weight.data = torch.zeros_like(copied.weight)
    assert copied(torch.ones(1, 3, device=device).double()).tolist() == [copied.bias.tolist()]
    torch.save(model.state_dict(), tmp_path / "a.pt")
    state = torch.load(tmp_path / "a.pt", weights_only=True, map_location="cpu")
    assert torch.equal(state["weight"], model.weight.cpu())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_another_torch_is_refused(monkeypatch):
    monkeypatch.setattr(torch, "__version__", "9.9.0")
    with pytest.raises(RuntimeError, match="tried on 2.13 (.*)this is 9.9.0.: run the tests marked `cuda`"):
        set_up()
