import random

import numpy as np
import pytest
import torch

from graphsparse.training.seeding import restore_rng_state, rng_state


def draws(generator):
    return (
        torch.rand(3).tolist(),
        torch.randperm(5).tolist(),
        random.random(),
        random.gauss(0, 1),
        np.random.rand(3).tolist(),  # noqa: NPY002 - the global state is what is saved
        np.random.normal(),  # noqa: NPY002
        torch.rand(2, generator=generator).tolist(),
    )


def test_all_generators_go_on_where_they_were(tmp_path):
    generator = torch.Generator().manual_seed(5)
    random.gauss(0, 1)  # keeps a second number for the next call
    np.random.normal()  # noqa: NPY002 - as well
    torch.save(rng_state([generator]), tmp_path / "a.pt")
    expected = [draws(generator) for _ in range(300)]  # more than one block of 624 words
    other = torch.Generator()
    restore_rng_state(torch.load(tmp_path / "a.pt", weights_only=True), [other])
    assert [draws(other) for _ in range(300)] == expected


def test_the_state_is_a_copy():
    state = rng_state()
    first = torch.rand(2), random.random()
    restore_rng_state(state)
    assert torch.equal(torch.rand(2), first[0])
    restore_rng_state(state)
    assert (torch.rand(2).tolist(), random.random()) == (first[0].tolist(), first[1])


def test_generators_that_are_missing():
    with pytest.raises(ValueError, match="'generators' must be the 1 of the state .got 0"):
        restore_rng_state(rng_state([torch.Generator()]))


@pytest.mark.cuda
def test_the_device_of_the_model_goes_on_too(device):
    state = rng_state(device=device)
    first = torch.rand(3, device=device)
    restore_rng_state(state, device=device)
    assert torch.equal(torch.rand(3, device=device), first)
