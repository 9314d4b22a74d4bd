"""Every public name is used where people look, and no signature is longer than one can read."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "graphsparse"


def used_words():
    """Every word of the documents, examples and benchmarks."""
    files = [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "docs").rglob("*.rst"),
    ]
    files += [*(ROOT / "examples").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]
    return {word for file in files for word in re.findall(r"\w+", file.read_text(encoding="utf-8"))}


def public_names():
    """The names in the ``__all__`` of each package, by its folder."""
    for file in sorted(PACKAGE.rglob("__init__.py")):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and any(getattr(target, "id", "") == "__all__" for target in node.targets):
                yield file.parent.relative_to(PACKAGE).as_posix(), set(ast.literal_eval(node.value))


WORDS = used_words()
NAMES = dict(public_names())


@pytest.mark.parametrize("folder", NAMES)
def test_every_public_name_is_used_in_a_document_an_example_or_a_benchmark(folder):
    assert NAMES[folder] - WORDS == set()


def long_signatures(file):
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            given = node.args
            names = [
                a.arg for a in (*given.posonlyargs, *given.args, *given.kwonlyargs) if a.arg not in ("self", "cls")
            ]
            if len(names) > 12:
                yield node.name


def test_no_signature_has_more_than_twelve_arguments():
    found = {file.relative_to(PACKAGE).as_posix(): set(long_signatures(file)) for file in PACKAGE.rglob("*.py")}
    assert {file: names for file, names in found.items() if names} == {}
