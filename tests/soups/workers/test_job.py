import functools
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from ingredient_runs import Net, NotedBatches
from torch import nn

from graphsparse.loader import ClusterBatches
from graphsparse.soups.workers.job import Job, apply_settings, dump_job, load_job, torch_settings
from graphsparse.testing import random_graph
from graphsparse.training import Training, predict
from graphsparse.utils import layerwise_inference

pytestmark = pytest.mark.once


def test_comes_back_whole_in_another_process(tmp_path):
    """A class that no module holds, a lambda, and a module that only this process knows where to find."""

    class Local(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(2, 3)
            self.again = self.first

        def forward(self, x):
            return self.first(x) + scale

    scale = 5.0
    (tmp_path / "only_here.py").write_text("def infer(model, data):\n    return model(data)\n")
    sys.path.insert(0, str(tmp_path))
    try:
        import only_here

        model = Local()
        job = Job(lambda: model, Training(epochs=3), sampler=lambda data, seed: [data], inference=only_here.infer)
        content = dump_job(job)
    finally:
        sys.path.remove(str(tmp_path))
        del sys.modules["only_here"]
    (tmp_path / "job.pkl").write_bytes(content)
    code = (
        "import sys, torch; from pathlib import Path; from graphsparse.soups.workers.job import load_job; "
        f"job = load_job(Path({str(tmp_path / 'job.pkl')!r}).read_bytes()); "
        "model = job.make_model(); assert model.first is model.again; "
        "print(job.infer(model, torch.ones(1, 2)).sum().item(), job.make_loader(4, 0), job.training.epochs)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    total, rest = found.stdout.split(" ", 1)
    assert float(total) == pytest.approx(model(torch.ones(1, 2)).sum().item())
    assert rest.strip() == "[4] 3"


def test_samplers_by_name_and_by_function():
    data = random_graph()
    assert Job(Net).make_loader(data, 1) is None
    first, again, other = (
        Job(Net, sampler="cluster", sampler_options={"num_parts": 4}).make_loader(data, seed) for seed in (1, 1, 2)
    )
    assert isinstance(first, ClusterBatches)
    assert first.num_parts == 4
    assert torch.equal(first.generator.get_state(), again.generator.get_state())
    assert not torch.equal(first.generator.get_state(), other.generator.get_state())
    own = Job(Net, sampler=NotedBatches, sampler_options={"num_parts": 2}).make_loader(data, 5)
    assert (own.seed, len(own)) == (5, 2)


def test_inference_by_name_and_by_function():
    assert Job(Net).infer is predict
    assert Job(Net, inference="layerwise").infer is layerwise_inference
    own = functools.partial(layerwise_inference, batch_size=5)
    assert Job(Net, inference=own).infer is own


def test_what_cannot_be_sent_is_refused():
    model = Net()
    model.lock = threading.Lock()
    with pytest.raises(TypeError, match="cannot be sent to another process .*lock.* workers=0"):
        dump_job(Job(lambda: model))


def test_settings_of_torch_travel():
    before = torch_settings()
    try:
        torch.set_default_dtype(torch.float64)
        settings = load_job(dump_job(Job(Net, settings=torch_settings()))).settings
        apply_settings(before)
        assert torch.get_default_dtype() is torch.float32
        apply_settings(settings)
        assert torch.get_default_dtype() is torch.float64
        apply_settings({})
    finally:
        apply_settings(before)
    assert torch_settings() == before
