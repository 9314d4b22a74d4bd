import pytest

from graphsparse.soups.store.code_digest import code_digest


def made(source):
    """Make a function somewhere else each time."""
    names = {}
    exec("\n" * len(source) + source, names)
    return names["f"]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("def f(x): return x + 1", "def f(x): return x + 2"),
        ("def f(x): return x + 1", "def f(x): return x - 1"),
        ("def f(x): return x.a", "def f(x): return x.b"),
        ("def f(x, y): return x", "def f(y, x): return x"),
        ("def f(x): return (1, 23)", "def f(x): return (12, 3)"),
        ("def f(x): return x in {1, 2}", "def f(x): return x in {1, 3}"),
        ("def f(x): return 1", "def f(x): return True"),
        ("def f(x): return [y + 1 for y in x]", "def f(x): return [y + 2 for y in x]"),
    ],
)
def test_other_code_has_another_digest(first, second):
    assert code_digest(made(first)) == code_digest(made(first)) != code_digest(made(second))


def test_place_and_docstring_do_not_matter():
    assert code_digest(made("def f(x): return x")) == code_digest(made("\n\ndef f(x):\n  # one\n  return x"))
    assert code_digest(made('def f(x):\n  "a"\n  return x')) == code_digest(made('def f(x):\n  "b"\n  return x'))
