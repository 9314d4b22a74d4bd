from xml.etree import ElementTree

import pytest

from graphsparse.metrics import compare_graphs
from graphsparse.plotting import plot_bars, plot_comparison, plot_curves, plot_matrix_and_bars
from graphsparse.testing import random_graph
from graphsparse.transforms import SparsifyEdges
from graphsparse.typing import has_module

pytestmark = pytest.mark.skipif(not has_module("matplotlib"), reason="needs matplotlib")
SVG = "{http://www.w3.org/2000/svg}"
PANELS = {"one": {"a": [(0.0, 80.0, 1.0), (50.0, 70.0, 2.0)]}, "two": {"a": [(0.0, 60.0, 1.0)], "b": [(1.0, 2.0, 0.0)]}}


@pytest.mark.parametrize(("ending", "start"), [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")])
def test_the_ending_chooses_the_format(tmp_path, ending, start):
    path = tmp_path / "deep" / f"plot.{ending}"
    plot_curves(path, PANELS, x_label="x", y_label="y", levels={"one": {"dense": (75.0, 1.0)}})
    assert path.read_bytes().startswith(start)
    assert list(path.parent.iterdir()) == [path]


def test_every_curve_and_label_is_drawn(tmp_path):
    path = tmp_path / "plot.svg"
    import matplotlib

    with matplotlib.rc_context({"svg.fonttype": "none"}):
        plot_curves(path, PANELS, x_label="edges", y_label="accuracy", levels={"two": {"dense": (75.0, 1.0)}})
    text = path.read_text()
    for word in ("one", "two", "edges", "accuracy", ">a<", ">b<", "dense"):
        assert word in text


def drawn(tmp_path, panels, **options):
    import matplotlib

    with matplotlib.rc_context({"svg.fonttype": "none"}):
        plot_curves(tmp_path / "plot.svg", panels, x_label="x", y_label="y", **options)
    return ElementTree.parse(tmp_path / "plot.svg").getroot()


def test_many_panels_stand_in_rows_of_four(tmp_path):
    points = [(0.0, 1.0, 0.1), (1.0, 2.0, 0.1)]
    root = drawn(tmp_path, {f"panel {i}": {"a": points} for i in range(6)})
    panels = [group for group in root.iter(f"{SVG}g") if group.get("id", "").startswith("axes_")]
    assert len(panels) == 6
    one = drawn(tmp_path, {f"panel {i}": {"a": points} for i in range(4)})
    assert root.get("width") == one.get("width")
    assert float(root.get("height")[:-2]) > 1.7 * float(one.get("height")[:-2])


def test_things_on_the_axis_are_named_and_curves_stand_side_by_side(tmp_path):
    curves = {name: [(0.0, 1.0, 0.1), (1.0, 2.0, 0.1)] for name in "ab"}
    root = drawn(tmp_path, {"one": curves}, x_names=["first thing", "second"], joined=False)
    texts = [text.text for text in root.iter(f"{SVG}text")]
    assert texts.count("first thing") == texts.count("second") == 1
    places = {use.get("x") for use in root.iter(f"{SVG}use") if f"{use.get('style')}".startswith("fill")}
    assert len(places) >= 4  # two points of either curve, none above another


def test_no_curve():
    with pytest.raises(ValueError, match="no curve"):
        plot_curves("never.png", {}, x_label="x", y_label="y")


def test_bad_ending_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="xyz"):
        plot_curves(tmp_path / "plot.xyz", PANELS, x_label="x", y_label="y")
    assert not list(tmp_path.iterdir())


LABELS = {"matrix_label": "disagreement", "bar_label": "barrier", "label": "ingredient"}


def test_matrix_and_bars(tmp_path):
    path = tmp_path / "deep" / "plot.svg"
    import matplotlib

    with matplotlib.rc_context({"svg.fonttype": "none"}):
        plot_matrix_and_bars(path, [[0.0, 0.2], [0.2, 0.0]], [0.0, 0.3], level=0.1, marked=[1], **LABELS)
    text = path.read_text()
    for word in LABELS.values():
        assert f">{word}<" in text
    assert "#d55e00" in text.lower()  # the bar that is marked
    assert list(path.parent.iterdir()) == [path]
    plot_matrix_and_bars(tmp_path / "one.png", [[0.0]], [0.0], **LABELS)


@pytest.mark.parametrize(("matrix", "bars"), [([], []), ([[0.0]], [0.0, 1.0]), ([[0.0, 1.0]], [0.0])])
def test_no_square_matrix(tmp_path, matrix, bars):
    with pytest.raises(ValueError, match="row and a column"):
        plot_matrix_and_bars(tmp_path / "plot.png", matrix, bars, **LABELS)
    assert not list(tmp_path.iterdir())


def bars(tmp_path, panels, **options):
    import matplotlib

    with matplotlib.rc_context({"svg.fonttype": "none"}):
        plot_bars(tmp_path / "bars.svg", panels, **options)
    return ElementTree.parse(tmp_path / "bars.svg").getroot()


def test_each_bar_has_its_name_and_its_figure(tmp_path):
    root = bars(
        tmp_path, {"Cora": {"dense": (81.0, 0.5), "ticket": 0.25}, "size": {"file": 1234.5}}, labels={"Cora": "%"}
    )
    words = ["".join(text.itertext()).strip() for text in root.iter(f"{SVG}text")]
    assert {"Cora", "size", "%", "dense", "ticket", "file", "81.0", "0.250", "1,234"} <= set(words)


@pytest.mark.parametrize(("panels", "message"), [({}, "holds no bar"), ({"a": {"b": float("nan")}}, "finite numbers")])
def test_bars_that_cannot_be_drawn(tmp_path, panels, message):
    with pytest.raises(ValueError, match=message):
        plot_bars(tmp_path / "bars.svg", panels)
    assert not list(tmp_path.iterdir())


def test_comparisons_are_bars_by_figure(tmp_path):
    import matplotlib

    before = random_graph()
    found = {name: compare_graphs(before, SparsifyEdges(0.5, name)(before)) for name in ("degree", "teddy")}
    none = before.clone()
    none.edge_index = none.edge_index[:, :0]
    found["nothing"] = compare_graphs(before, none)
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        plot_comparison(tmp_path / "bars.svg", found)
    root = ElementTree.parse(tmp_path / "bars.svg").getroot()
    words = ["".join(text.itertext()).strip() for text in root.iter(f"{SVG}text")]
    assert words.count("teddy") == words.count("share of pairs lost") + 11 == 12  # once in each panel
    assert words.count("nothing") < 12  # neither a stretch nor a correlation is left to draw
    assert f"{found['teddy'].to_dict()['mean stretch']:#.3g}" in words


def test_no_comparison(tmp_path):
    with pytest.raises(ValueError, match="hold none of the figures"):
        plot_comparison(tmp_path / "bars.svg", {})
