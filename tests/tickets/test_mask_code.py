import lzma
import math
import random
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphsparse.tickets import mask_code
from graphsparse.tickets.mask_code import decode_masks, encode_masks

SHAPES = st.lists(st.lists(st.integers(0, 9), max_size=3).map(tuple), max_size=4)


def draw(shape, density, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < density


def entropy(p):
    return 0.0 if p in (0, 1) else -(p * math.log2(p) + (1 - p) * math.log2(1 - p))


def same(masks, code):
    decoded = decode_masks(code, [mask.shape for mask in masks])
    assert len(decoded) == len(masks)
    return all(a.dtype == b.dtype and torch.equal(a, b) for a, b in zip(decoded, masks, strict=True))


@given(SHAPES, st.sampled_from([0.0, 0.003, 0.1, 0.5, 0.9, 0.999, 1.0]), st.integers(0, 99))
@settings(max_examples=80, deadline=None)
def test_masks_round_trip(shapes, density, seed):
    masks = [draw(shape, density, seed + i) for i, shape in enumerate(shapes)]
    assert same(masks, encode_masks(masks))


@given(SHAPES, st.integers(1, 6), st.integers(0, 99))
@settings(max_examples=80, deadline=None)
def test_coats_round_trip(shapes, coats, seed):
    counts = [sum(draw(s, (0.1, 0.5, 0.9)[seed % 3], seed + c).byte() for c in range(coats)) for s in shapes]
    assert not shapes or same(counts, encode_masks(counts))


@pytest.mark.parametrize("density", [0.0, 0.001, 0.01, 0.1, 0.3, 0.5, 0.65, 0.95, 1.0])
@pytest.mark.parametrize("shape", [(300, 501), (1, 9000)])
def test_every_way_round_trips_at_sizes_beyond_a_window(density, shape):
    masks = [draw(shape, density), draw((7, 256), density).T, draw((2, 4, 50), density)]
    assert same(masks, encode_masks(masks))


def test_views_and_expanded_masks():
    mask = draw((40, 60), 0.3)
    assert same([mask.T, mask[::2], mask[0].expand(5, 60)], encode_masks([mask.T, mask[::2], mask[0].expand(5, 60)]))


@pytest.mark.parametrize("density", [0.002, 0.01, 0.05, 0.1, 0.3, 0.5, 0.8, 0.96])
def test_independent_bits_take_hardly_more_than_their_entropy(density):
    mask = draw((700, 700), density)
    bound = mask.numel() * entropy(float(mask.float().mean())) / 8
    # No code can be much shorter on average; this also tells a code that loses bits.
    assert 0.99 * bound < len(encode_masks([mask])) < 1.15 * bound + 100


def test_nested_coats_take_hardly_more_than_their_entropy():
    scores = torch.rand(600, 600, generator=torch.Generator().manual_seed(0))
    counts = sum((scores >= k).byte() for k in (0.55, 0.70, 0.85))
    bound = counts.numel() * (entropy(0.45) + 0.45 * entropy(0.30 / 0.45) + 0.30 * entropy(0.15 / 0.30)) / 8
    code = encode_masks([counts])
    assert 0.99 * bound < len(code) < 1.05 * bound
    assert len(code) < 0.95 * sum(len(encode_masks([counts > n])) for n in range(3))


def test_emptier_rows_and_columns_are_made_use_of():
    density = torch.where(torch.arange(1000) % 100 < 50, 0.19, 0.01)
    long, short = (torch.rand(shape, generator=torch.Generator().manual_seed(0)) for shape in ((256, 1000), (1000, 90)))
    by_columns, by_rows = long < density, short < density[:, None]
    for mask, way in ((by_columns, True), (by_rows, False)):
        code = encode_masks([mask])
        assert len(code) < 0.97 * mask.numel() * entropy(0.1) / 8
        assert bool(code[5] & mask_code._BY_COLUMNS) == way


def test_nothing_and_everything_take_no_space():
    for mask in (torch.zeros(1000, 1000, dtype=torch.bool), torch.ones(1000, 1000, dtype=torch.bool)):
        assert len(encode_masks([mask])) < 60
        assert same([mask], encode_masks([mask]))
    assert len(encode_masks([torch.zeros(1000, dtype=torch.uint8)])) == 5


def test_what_is_no_mask_is_refused():
    mask = torch.ones(3, dtype=torch.bool)
    for masks in ([mask, mask.byte()], [mask.float()], [mask.long()]):
        with pytest.raises(TypeError, match="all bool or all uint8"):
            encode_masks(masks)
    with pytest.raises(ValueError, match="254 coats"):
        encode_masks([torch.full((3,), 255, dtype=torch.uint8)])


CODES = {
    "few": [draw((30, 41), 0.05)],
    "many": [draw((30, 41), 0.5)],
    "coats": [draw((20, 20), 0.6).byte() + draw((20, 20), 0.4, 1), draw((5,), 0.5).byte()],
}


@pytest.mark.parametrize("masks", CODES.values(), ids=CODES)
def test_every_flip_and_every_cut_is_refused(masks):
    code, shapes = encode_masks(masks), [mask.shape for mask in masks]
    damaged = [code[:length] for length in range(len(code))] + [code + b"\0"]
    damaged += [code[:i] + bytes([code[i] ^ 1 << i % 8]) + code[i + 1 :] for i in range(len(code))]
    for other in damaged:
        with pytest.raises(ValueError, match="damaged"):
            decode_masks(other, shapes)


@pytest.mark.parametrize("masks", CODES.values(), ids=CODES)
def test_other_shapes_are_refused(masks):
    code, shapes = encode_masks(masks), [tuple(mask.shape) for mask in masks]
    for other in ([(1, *shapes[0]), *shapes[1:]], [(*shapes[0][:-1], 99), *shapes[1:]], [*shapes, (0,)], []):
        with pytest.raises(ValueError, match="other shapes"):
            decode_masks(code, other)


def seal(body, shapes):
    """Give bytes a right checksum."""
    return struct.pack("<I", mask_code._crc(body, shapes)) + body


@pytest.mark.parametrize("masks", CODES.values(), ids=CODES)
def test_nonsense_with_a_right_checksum_never_does_worse_than_a_value_error(masks):
    shapes, generator = [tuple(mask.shape) for mask in masks], random.Random(0)
    body, refused = encode_masks(masks)[4:], 0
    for attempt in range(400):
        other = bytearray(body)
        for _ in range(1 + attempt % 3):
            other[generator.randrange(min(len(other), (12, 10**9)[attempt % 2]))] = generator.randrange(256)
        other = other[: generator.choice([len(other), generator.randrange(1, len(other))])]
        try:
            decoded = decode_masks(seal(bytes(other), shapes), shapes)
        except ValueError:
            refused += 1
        else:
            assert [tuple(mask.shape) for mask in decoded] == shapes
    assert refused > 100


def test_claims_of_a_plane_are_checked():
    shape = [(10,)]

    def plane(way, payload, length=None):
        return seal(b"\xff" + struct.pack("<BQ", way, len(payload) if length is None else length) + payload, shape)

    def gaps(*values):
        return mask_code._compress(bytes(values))

    assert decode_masks(plane(10, gaps(9)), shape)[0].nonzero().tolist() == [[9]]
    for way, payload, length, match in (
        (3, b"", None, "unknown way"),
        (16, b"", None, "unknown way"),
        (0, b"\0", None, "1 bytes for 10 bits"),
        (0, b"\0\0", 2**63, "ends within a plane"),
        (0, b"\0\0", 1, "1 bytes for 10 bits"),
        (10, gaps(10), None, "marks entry 10 of 10"),
        (10, gaps(*[0] * 11), None, "does not end"),
        (10, gaps(3, 255), None, "within a distance"),
        (10, gaps(3) + b"\0", None, "does not end"),
        (10, gaps(3)[:-1], None, "does not end|damaged"),
    ):
        with pytest.raises(ValueError, match=match):
            decode_masks(plane(way, payload, length), shape)
    with pytest.raises(ValueError, match="2 bytes too many"):
        decode_masks(seal(b"\xff" + struct.pack("<BQ", 0, 2) + b"\0\0ab", shape), shape)
    with pytest.raises(ValueError, match="within a plane"):
        decode_masks(seal(b"\xff" + b"\0" * 3, shape), shape)


def test_bomb_does_not_go_off():
    bomb = mask_code._compress(bytes(1 << 25))
    body = b"\xff" + struct.pack("<BQ", 10, len(bomb)) + bomb
    code = seal(body, [(10,)])
    tracemalloc.start()
    with pytest.raises(ValueError, match="does not end"):
        decode_masks(code, [(10,)])
    _, peak = tracemalloc.get_traced_memory()
    # A tensor of a million million entries that a few bytes do not back up is not reserved either.
    with pytest.raises(ValueError, match="bytes for"):
        decode_masks(seal(b"\xff" + struct.pack("<BQ", 0, 2) + b"\0\0", [(10**6, 10**6)]), [(10**6, 10**6)])
    tracemalloc.stop()
    assert peak < 4 * len(bomb) + (1 << 20)


def test_stream_is_what_the_module_says():
    """Read by hand, with the standard library alone."""
    mask = draw((6, 50), 0.06)
    code = encode_masks([mask])
    crc, planes, way, length = struct.unpack_from("<IBBQ", code)
    assert crc == zlib.crc32(code[4:], zlib.crc32(b"[(6, 50)]"))
    assert (planes, length) == (255, len(code) - 14)
    assert way in (10, 14)
    raw = {"id": lzma.FILTER_LZMA1, "dict_size": 1 << 16, "lc": 0, "lp": 0, "pb": 0}
    position, ones = -1, []
    skipped = 0
    for step in lzma.decompress(code[14:], format=lzma.FORMAT_RAW, filters=[raw]):
        skipped += step
        if step < 255:
            position += skipped + 1
            ones.append(position)
            skipped = 0
    flat = (mask.T if way & 4 else mask).reshape(-1)
    assert np.array_equal(np.array(ones), flat.nonzero().squeeze(1).numpy())
