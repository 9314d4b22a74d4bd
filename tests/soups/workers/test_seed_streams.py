import itertools

import numpy as np
import torch

from graphsparse.soups.workers.seed_streams import STREAMS, stream_seed


def test_streams_differ_and_repeat():
    places = list(itertools.product((0, 1), STREAMS, range(50), (0, 1)))
    seeds = [stream_seed(*place) for place in places]
    assert len(set(seeds)) == len(seeds)
    assert [stream_seed(*place) for place in places] == seeds


def test_seeds_are_those_that_numpy_spawns():
    children = np.random.SeedSequence(7).spawn(2)[1].spawn(4)[3].spawn(1)[0]
    assert stream_seed(7, "data", 3) == int(children.generate_state(1, np.uint64)[0]) >> 1


def test_seeds_do_for_every_generator():
    for index in range(20):
        seed = stream_seed(2**70, "dropout", index)
        assert 0 <= seed < 2**63
        torch.Generator().manual_seed(seed)
        np.random.default_rng(seed)


def test_takes_integers_of_numpy():
    assert stream_seed(np.int64(3), "data") == stream_seed(3, "data")
