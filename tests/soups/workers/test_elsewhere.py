import copy
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

from graphsparse.loader.parts import ClusterBatches
from graphsparse.nn import layerwise_inference
from graphsparse.soups.workers.elsewhere import _read_own, dump_recipe, load_recipe
from graphsparse.soups.workers.recipe import Recipe
from graphsparse.testing import random_graph
from graphsparse.training import Training, predict

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
        recipe = Recipe(
            lambda: copy.deepcopy(model),
            Training(epochs=3, fast=False),
            sampler=lambda data, seed: [data],
            inference=only_here.infer,
        )
        content = dump_recipe(recipe)
    finally:
        sys.path.remove(str(tmp_path))
        del sys.modules["only_here"]
    (tmp_path / "recipe.pkl").write_bytes(content)
    code = (
        "import sys, torch; from pathlib import Path; from graphsparse.soups.workers.elsewhere import load_recipe; "
        f"recipe = load_recipe(Path({str(tmp_path / 'recipe.pkl')!r}).read_bytes()); "
        "model = recipe.model(); assert model.first is model.again; "
        "total = recipe.infer(model, torch.ones(1, 2)).sum().item(); "
        "print(total, recipe.make_loader(4, 0, None), recipe.training.epochs)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    total, rest = found.stdout.split(" ", 1)
    assert float(total) == pytest.approx(model(torch.ones(1, 2)).sum().item())
    assert rest.strip() == "[4] 3"


def test_samplers_by_name_and_by_function(tmp_path):
    data = random_graph()
    assert Recipe(Net).make_loader(data, 1, tmp_path) is None
    clusters = Recipe(Net, sampler="cluster", sampler_options={"num_parts": 4})
    first, again, other = (clusters.make_loader(data, seed, tmp_path) for seed in (1, 1, 2))
    assert isinstance(first, ClusterBatches)
    assert first.num_parts == 4
    assert torch.equal(first.generator.get_state(), again.generator.get_state())
    assert not torch.equal(first.generator.get_state(), other.generator.get_state())
    own = Recipe(Net, sampler=NotedBatches, sampler_options={"num_parts": 2}).make_loader(data, 5, tmp_path)
    assert (own.seed, len(own)) == (5, 2)


def test_inference_by_name_and_by_function():
    assert Recipe(Net).infer is predict
    assert Recipe(Net, inference="layerwise").infer is layerwise_inference
    own = functools.partial(layerwise_inference, batch_size=5)
    assert Recipe(Net, inference=own).infer is own


def test_what_cannot_be_sent_is_refused():
    def locked():
        model = Net()
        model.lock = threading.Lock()
        return model

    with pytest.raises(TypeError, match="cannot be sent to another process .*lock.* workers=0"):
        dump_recipe(Recipe(locked))


def test_settings_of_torch_travel():
    content = dump_recipe(Recipe(Net))
    try:
        torch.set_default_dtype(torch.float64)
        torch.use_deterministic_algorithms(True, warn_only=True)
        double = dump_recipe(Recipe(Net))
        load_recipe(content)
        assert torch.get_default_dtype() is torch.float32
        assert not torch.are_deterministic_algorithms_enabled()
        load_recipe(double)
        assert torch.get_default_dtype() is torch.float64
        assert torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        load_recipe(content)
    assert torch.get_default_dtype() is torch.float32


@pytest.mark.skipif(os.name == "nt", reason="has other rights")
def test_a_job_that_others_could_have_written_is_refused(tmp_path):
    folder = tmp_path / "job"
    folder.mkdir(0o700)
    file = folder / "recipe.pkl"
    file.write_bytes(b"job")
    assert _read_own(file) == b"job"
    for path, mode in ((file, 0o666), (file, 0o620), (folder, 0o777), (folder, 0o770)):
        before = path.stat().st_mode
        path.chmod(mode)
        with pytest.raises(PermissionError, match="could be written by others") as caught:
            _read_own(file)
        assert repr(str(path)) in str(caught.value)
        path.chmod(before)
