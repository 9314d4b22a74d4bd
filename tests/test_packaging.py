import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import graphsparse

ROOT = Path(__file__).parents[1]
MODULES = [p.relative_to(ROOT / "graphsparse") for p in sorted((ROOT / "graphsparse").rglob("*.py"))]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "flit_core.wheel", "--outdir", str(out), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    (path,) = out.glob("*.whl")
    return zipfile.ZipFile(path)


def test_wheel_holds_the_package_and_nothing_else(wheel):
    names = wheel.namelist()
    info = f"graphsparse-{graphsparse.__version__}.dist-info/"
    assert {name.split("/")[0] + "/" for name in names} == {"graphsparse/", info}
    inside = {name.removeprefix("graphsparse/") for name in names if name.startswith("graphsparse/")}
    assert inside == {p.as_posix() for p in MODULES} | {"py.typed"}
    assert f"{info}licenses/LICENSE" in names


def test_wheel_names_its_requirements(wheel):
    (name,) = [n for n in wheel.namelist() if n.endswith("METADATA")]
    text = wheel.read(name).decode()
    required = [re.match(r"[\w-]+", r)[0] for r in re.findall(r"Requires-Dist: (.*)", text) if "extra" not in r]
    core = {"torch", "torch-geometric", "numpy", "networkx", "ogb", "safetensors", "tqdm", "pymetis", "cloudpickle"}
    assert set(required) == core
    assert "Requires-Dist: torch-sparse==0.6.18" in text
    assert "License-Expression: MIT" in text


def test_top_level_folders_are_no_packages():
    for folder in ("datasets", "examples", "tests", "benchmarks"):
        assert not (ROOT / folder / "__init__.py").exists()


def test_files_stay_small():
    for path in MODULES:
        assert len((ROOT / "graphsparse" / path).read_text().splitlines()) <= 450, path


def test_public_names_are_there_and_documented():
    import importlib

    for package in (
        "ops",
        "edges",
        "utils",
        "metrics",
        "nn",
        "transforms",
        "datasets",
        "loader",
        "training",
        "tickets",
    ):
        module = importlib.import_module(f"graphsparse.{package}")
        for name in module.__all__:
            assert getattr(module, name).__doc__, name


def test_linter_and_floors_are_in_the_one_configuration_file():
    tomllib = pytest.importorskip("tomllib")
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    assert config["mypy"]["strict"] is True
    assert not any("graphsparse" in m for o in config["mypy"]["overrides"] for m in o["module"])
