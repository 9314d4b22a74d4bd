"""Tickets that an earlier release found, so that a change of machinery does not change what is found."""

import base64
import zlib

import numpy as np
import pytest
import torch
from torch_geometric.nn import GCN

from graphsparse.datasets import synthetic_citation
from graphsparse.tickets import Distillation, Untrained, find_ticket
from graphsparse.training import NodeTask, Training, predict

DISTILLED = {"distillation": Distillation()}
INDUCTIVE = {"distillation": Distillation(nodes="observed")}
OPTIONS = {
    "teddy": {"edge_sparsity": 0.4},
    "teddy, distilled": {"edge_sparsity": 0.4, **DISTILLED},
    "teddy, inductive": {"edge_sparsity": 0.4, **INDUCTIVE},
    "random": {"edge_sparsity": 0.4, "method": "random"},
    "ugt": {"method": Untrained(epochs=60)},
    "multicoated": {"method": Untrained("multicoated", epochs=60)},
}
#: Accuracy on validation and test nodes, the best epoch, the mean square of all logits, those of the first node, and
#: the masks of the weights (numbers of coats are several masks), compressed.
FOUND = {
    "teddy": (
        (0.620000, 0.66, 57),
        0.3618150,
        (-0.079685, -0.321547, 0.865611, -0.903167, -0.117239, -0.735309, -0.068591),
        "eNpjaGBgaANiEYYGBdYFHAqCLGwOCgwMDRotnD2MiY0nFjgsYGBg4BBgYWGawnrAg5mBhZGJoYFBiaNDpUGJiclhgRtjB0gBCzMX"
        "UBdDm0sLY8+DAEEFXgaGAw8UBDlYWBg4WRg1BFiAihomMDn4MPgekI1mYDLhOsLAyMCoIPBp28Lbp9/f3WBu3nKiBQDlVyD2",
    ),
    "teddy, distilled": (
        (0.580000, 0.67, 59),
        0.4443039,
        (-0.148598, -0.765654, 0.825835, -0.748130, -0.256320, -0.752457, -0.119371),
        "eNpj6WBgaGlgYBBhaNBgXcChIMjDFqDAwNDB0cPZ8zGpoXOBwwIGBgYOARYWpokMBzwYGVgYmRgaGJRkWlQamJkUnBa4MXaAFLAw"
        "cwEpljYgMeeAAIMCIwODQ4OCIAcLAwMnC6OGAJBmaJjI5ODD5XsgdrJIo4LWERYGAUYFgU+bNt4+/f7qRnPjllMtAMyyIGo=",
    ),
    "teddy, inductive": (
        (0.466667, 0.555, 59),
        0.2351272,
        (-0.767748, -0.521796, 0.667224, -1.176510, 0.492796, -0.774665, 0.208486),
        "eNpjYWBgYGloYBBgaFBg6WjQEGRQcwAKNXAxMPE0MDZ0KDg0MLEwcAiwsAKVOHgwvGA/qibYIZjk0aAygYmJyWGBG+MMoHoOFiYG"
        "hg6gUQwNDDIOAgwKPMwMDoxMhqUsQDlXRg0BFpChE5kOeDAcyOD9rMugYHEEaCqHJsO3TStP/n+7fYO59ZFTxwHxSB+A",
    ),
    "random": (
        (0.633333, 0.565, 58),
        0.2019252,
        (-0.416239, -0.917753, 0.675252, -0.830502, -0.512040, -0.372920, -0.522080),
        "eNpj4GESYBA7nGjmwdDBwODAwhDKFODFkcTCwKDQwCiRaCDByMTg1KLQwsjAx8HkyRDAwiAywYGRgdGFsUGQ48iCA50NjBsYGGLYRIxY"
        "mRgSHDRYGJiOsDAl8DApMrg5cHIwMDAwMmxU4+HgYHigwiDIqMDAICDgwMHQMKElASQVcocvuM6b68ZnhZ6HBybJAQDVVxxJ",
    ),
    "ugt": (
        (0.566667, 0.505, 59),
        0.0171275,
        (0.071896, -0.187889, 0.249832, -0.064688, -0.023962, -0.439313, -0.074832),
        "eNpj4WMoLmRYuUBIhUGjoUGDwYGDQYGRhYWBnfUfW4+GQ4IDUwuDo6oko4CEBGOg045LCgxMjAosG0DqDBgcGBiYfBgYBJwYGG7M"
        "YHBgFPIJYmLgEGBh4DJkZGBQYOBgYAhQaWBKUFBgEOHWYAlhaGKRlLJsEch2YGHoYGR6EMQgIZEpyCMj1JHiortBQMUJAP2nGP8=",
    ),
    "multicoated": (
        (0.766667, 0.815, 56),
        0.4747737,
        (0.242936, 1.056842, 1.696595, -0.152869, -0.609158, 0.759355, 0.940473),
        "eNpVzzFLw0AUB/B/jmu8lAiv0sFB5QxBos3kUMTpqhk6OBRdKziIq/0Ij6Cgg+Do2MXvUYpjFlF00tnJz+BLQoP9wy337vH/HTQs"
        "HKh9mUT9z5nVwdTCV3t6ZR+4GOgQnnseBB331OYzlb4rwFpN1hjA4PFuaxwq7TPSOPrlt+0HMKBkRsQWHqJRB921G+Oko84Ga2bT"
        "hwyhHA6L897qV5YX95Pv66HMrRwyWRLtfIjGTAFfilrltYdaA8K6aJDOSg00SkqV7hhKK4YpNXN7i0UIpcaOSDTcWFDtsolrDXBQ"
        "bPbCV9EEk9Or4eKRyUwUO9FUn5OLFhpNXGoIfCwFCsshkgLRSMsP5/VWE6/px5LmX5KXYDckl5/AHTn3B+u5Nyc=",
    ),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_the_same_ticket_is_found(name):
    data = synthetic_citation(600, num_features=64, num_val=150, num_test=200)

    def make_model():
        return GCN(64, 16, 2, 7, dropout=0.5)

    task = NodeTask(data, inductive="inductive" in name)
    training = Training(epochs=60, seed=3, fast=False)
    ticket = find_ticket(make_model, task, weight_sparsity=0.8, training=training, **OPTIONS[name])
    logits = predict(ticket.materialize(make_model), ticket.sparsify(data))
    figures, square, first, code = FOUND[name]
    masks = np.unpackbits(np.frombuffer(zlib.decompress(base64.b64decode(code)), np.uint8))
    counts = torch.cat([mask.reshape(-1).int() for mask in ticket.weight_masks.values()])
    ours = torch.cat([counts > coat for coat in range(int(counts.max()))]).numpy()
    # Sums of another processor may put one weight before another whose size is the same to the last bit but one.
    assert (ours != masks[: ours.size]).sum() <= 2
    assert [ticket.metrics[key] for key in ("val", "test", "best_epoch")] == pytest.approx(figures, abs=1e-5)
    torch.testing.assert_close(logits[0], torch.tensor(first), rtol=1e-4, atol=1e-4)
    assert float(logits.double().square().mean()) == pytest.approx(square, rel=1e-4)
