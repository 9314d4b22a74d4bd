import subprocess
import sys
import types

import pytest

import graphsparse
from graphsparse import typing


@pytest.fixture
def clean_cache():
    typing._find.cache_clear()
    yield
    typing._find.cache_clear()


def test_backends_gives_a_version_or_a_reason():
    report = graphsparse.backends()
    assert set(report) == {"torch_sparse", "torch_scatter", "pyg_lib", "numba", "matplotlib", "ray", "onednn"}
    assert isinstance(typing.onednn_linear(), str) != report.pop("onednn")[0].isdigit()
    for name, text in report.items():
        assert typing.has_module(name) == text[0].isdigit(), (name, text)


def test_broken_package_is_reported_with_its_reason(monkeypatch, clean_cache):
    def broken(name):
        raise OSError("undefined symbol: _ZN5torch")

    monkeypatch.setattr(typing.importlib, "import_module", broken)
    assert "undefined symbol" in graphsparse.backends()["torch_sparse"]
    with pytest.raises(ImportError, match=r"(?s)'torch_sparse' is needed.*undefined symbol.*pip install"):
        typing.optional_module("torch_sparse")


def test_missing_dependency_of_an_optional_package_is_not_called_missing_package(monkeypatch, clean_cache):
    def missing(name):
        raise ModuleNotFoundError("No module named 'torch_scatter'", name="torch_scatter")

    monkeypatch.setattr(typing.importlib, "import_module", missing)
    report = graphsparse.backends()
    assert report["torch_scatter"] == "not installed"
    assert report["torch_sparse"] == "broken: No module named 'torch_scatter'"


def test_optional_packages_are_imported_once(monkeypatch, clean_cache):
    calls = []

    def count(name):
        calls.append(name)
        return types.ModuleType(name)

    monkeypatch.setattr(typing.importlib, "import_module", count)
    graphsparse.backends()
    graphsparse.backends()
    assert sorted(calls) == ["matplotlib", "numba", "pyg_lib", "ray", "torch_scatter", "torch_sparse"]


def test_fixture_blocks_extensions(without_extensions):
    assert graphsparse.backends()["torch_sparse"] == "blocked by a test"
    assert not typing.has_module("torch_sparse")


def test_leg_without_extensions_blocks_them(request):
    if not request.config.getoption("--without-extensions"):
        pytest.skip("runs in the leg without compiled extensions")
    assert graphsparse.backends()["torch_sparse"] == "not installed"


@pytest.mark.once
def test_slow_packages_are_imported_late():
    code = """
import sys, graphsparse, graphsparse.datasets
try:
    graphsparse.datasets.load_ogb("ogbn-arxiv", "nowhere", download=False)
except FileNotFoundError:
    pass
print([name for name in ("ogb", "outdated", "matplotlib", "ray") if name in sys.modules])
"""
    found = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"
