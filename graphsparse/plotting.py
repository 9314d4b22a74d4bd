"""Plots where people would rather look than read."""

import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from graphsparse.metrics.compare_graphs import GraphComparison
from graphsparse.typing import optional_module
from graphsparse.utils.files import atomic_write

# Colour-blind safe (Okabe and Ito 2008).
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_COLUMNS = 4


def plot_curves(
    path: str | Path,
    panels: Mapping[str, Mapping[str, Sequence[tuple[float, float, float]]]],
    *,
    x_label: str,
    y_label: str,
    levels: Mapping[str, Mapping[str, tuple[float, float]]] | None = None,
    x_names: Sequence[str] | None = None,
    joined: bool = True,
) -> None:
    """Draw curves of mean and standard deviation, one panel per title, into a PNG, SVG or PDF file.

    Panels stand in rows of up to four.

    Args:
        path: The file; its ending chooses the format. It is there whole or not at all.
        panels: For every panel the curves, for every curve its points ``(x, mean, standard deviation)``.
        x_label: What the horizontal axis shows, with its unit.
        y_label: What the vertical axis shows, with its unit; empty where it is another thing in each panel.
        levels: For every panel horizontal lines ``(mean, standard deviation)``, such as the dense model.
        x_names: Names of x = 0, 1, 2, ..., for an axis that shows things and no numbers.
        joined: Draw lines between the points of a curve; without them curves stand side by side.

    Raises:
        ImportError: If matplotlib is missing.
        ValueError: If there is nothing to draw.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     curve = [(0.0, 81.0, 0.5), (0.5, 78.0, 1.0)]
        ...     plot_curves(f"{folder}/a.png", {"Cora": {"TEDDY": curve}}, x_label="edges removed", y_label="accuracy")
        ...     Path(f"{folder}/a.png").stat().st_size > 0
        True
    """
    if not any(panels.values()):
        raise ValueError("'panels' holds no curve")
    columns = min(len(panels), _COLUMNS)
    rows = -(-len(panels) // columns)
    steep = max(map(len, x_names or ()), default=0) > 8
    # A figure of its own: pyplot would keep it, and choose a window system, for the whole process.
    size = (1 + 4.2 * columns, (4.4 if steep else 3.6) * rows)
    figure = optional_module("matplotlib.figure").Figure(figsize=size, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharey=y_label != "")
    for axis in axes[:, 0]:
        axis.set_ylabel(y_label)
    for axis in axes.flat[len(panels) :]:
        axis.remove()
    axes = axes.flat[: len(panels)]
    names = list(dict.fromkeys(name for curves in panels.values() for name in curves))
    levels = levels or {}
    lines = list(dict.fromkeys(name for panel in levels.values() for name in panel))
    # With more than seven curves a colour comes again with another marker.
    style = {name: (_COLOURS[i % 7], _MARKERS[(i + i // 7) % 7]) for i, name in enumerate(names)}
    options = {"markersize": 4, "capsize": 2, "linestyle": "-" if joined else "none"}
    for axis, (title, curves) in zip(axes, panels.items(), strict=True):
        for name, (mean, std) in levels.get(title, {}).items():
            axis.axhline(mean, color="0.4", linestyle=("-", "--", ":")[lines.index(name) % 3], linewidth=1, label=name)
            axis.axhspan(mean - std, mean + std, color="0.4", alpha=0.12, linewidth=0)
        for name, points in curves.items():
            x, means, stds = zip(*sorted(points), strict=True)
            colour, marker = style[name]
            aside = 0.0 if joined else 0.6 * ((names.index(name) + 0.5) / len(names) - 0.5)
            places = [value + aside for value in x]
            axis.errorbar(places, means, yerr=stds, label=name, color=colour, marker=marker, **options)
        axis.set(title=title, xlabel=x_label)
        axis.grid(alpha=0.25)
        if x_names is not None:
            turned = {"rotation": 35, "ha": "right"} if steep else {}
            axis.set_xticks(range(len(x_names)), x_names, **turned)
    legend = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(
        legend.values(),
        legend.keys(),
        loc="outside lower center",
        ncols=min(len(legend), 2 * columns),
        frameon=False,
    )
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=150, format=Path(path).suffix.lstrip(".") or "png")


def plot_bars(
    path: str | Path,
    panels: Mapping[str, Mapping[str, float | tuple[float, float]]],
    *,
    labels: Mapping[str, str] | None = None,
    marked: Collection[str] = (),
) -> None:
    """Draw a bar for each named figure, one panel per title, into a PNG, SVG or PDF file.

    Bars lie, so that long names stand beside them, and each has its figure written at its end. Panels stand in rows of
    up to four.

    Args:
        path: The file; its ending chooses the format. It is there whole or not at all.
        panels: For every panel the figures by name, a number or ``(mean, standard deviation)`` each.
        labels: For every panel what its axis shows, with its unit; the title where there is none.
        marked: Names whose bars have another colour, such as the method in question.

    Raises:
        ImportError: If matplotlib is missing.
        ValueError: If there is nothing to draw, or a figure is not a finite number.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     figures = {"test accuracy (%)": {"dense": (81.0, 0.5), "ticket": 80.2}}
        ...     plot_bars(f"{folder}/a.png", figures, marked=["ticket"])
        ...     Path(f"{folder}/a.png").stat().st_size > 0
        True
    """
    if not any(panels.values()):
        raise ValueError("'panels' holds no bar")
    longest = max(len(name) for figures in panels.values() for name in figures)
    columns = min(len(panels), _COLUMNS)
    rows, bars = -(-len(panels) // columns), max(map(len, panels.values()))
    width = max(4.0 + 0.08 * longest, 3.0 + 0.09 * max(map(len, panels)))
    size = (width * columns, (1.1 + 0.34 * bars) * rows)
    figure = optional_module("matplotlib.figure").Figure(figsize=size, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flat
    for axis in axes[len(panels) :]:
        axis.remove()
    for axis, (title, figures) in zip(axes[: len(panels)], panels.items(), strict=True):
        pairs = [value if isinstance(value, tuple) else (value, 0.0) for value in figures.values()]
        for name, value in zip(figures, pairs, strict=True):
            if not all(map(math.isfinite, value)):
                raise ValueError(f"'panels' must hold finite numbers (got {value} for {name!r} of {title!r})")
        colours = [_COLOURS[name in marked] for name in figures]
        drawn = axis.barh(range(len(pairs)), [mean for mean, _ in pairs], color=colours, height=0.7)
        stds = [std or math.nan for _, std in pairs]  # no whisker without a deviation
        axis.errorbar([mean for mean, _ in pairs], range(len(pairs)), xerr=stds, fmt="none", ecolor="0.2", capsize=2)
        axis.bar_label(drawn, [_short(mean) for mean, _ in pairs], padding=5)
        axis.set_yticks(range(len(pairs)), list(figures))
        axis.invert_yaxis()  # the first on top
        axis.margins(x=0.18)
        axis.set(title=title, xlabel=(labels or {}).get(title, title))
        axis.grid(axis="x", alpha=0.25)
        axis.set_axisbelow(True)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=150, format=Path(path).suffix.lstrip(".") or "png")


#: What a picture of a comparison shows, from what removing edges leaves to what it does to ways through the graph.
_COMPARED = (
    "share of edges kept",
    "share of nodes in the largest component after",
    "share of pairs lost",
    "mean stretch",
    "degree rank correlation",
    "degree rms relative error",
    "PageRank rank correlation",
    "mean local clustering after",
    "edge homophily after",
    "mean error of x'Lx, white x",
    "mean error of x'Lx, smooth x",
    "mean error of 16 cuts",
)


def plot_comparison(
    path: str | Path, comparisons: Mapping[str, GraphComparison], *, marked: Collection[str] = ()
) -> None:
    """Draw the main figures of graphs that are compared with one and the same, into a PNG, SVG or PDF file.

    There is a panel for each figure and in it a bar for each comparison, with its standard error if it has one. What is
    NaN or infinite has no bar.

    Args:
        path: The file; its ending chooses the format. It is there whole or not at all.
        comparisons: Results of :func:`~graphsparse.metrics.compare_graphs` by name.
        marked: Names whose bars have another colour.

    Raises:
        ImportError: If matplotlib is missing.
        ValueError: If there is nothing to draw.

    Example:
        >>> import tempfile
        >>> from graphsparse.metrics import compare_graphs
        >>> from graphsparse.testing import random_graph
        >>> from graphsparse.transforms import SparsifyEdges
        >>> data = random_graph()
        >>> found = {name: compare_graphs(data, SparsifyEdges(0.5, name)(data)) for name in ("degree", "teddy")}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     plot_comparison(f"{folder}/a.png", found)
        ...     Path(f"{folder}/a.png").stat().st_size > 0
        True
    """
    numbers = {name: comparison.to_dict() for name, comparison in comparisons.items()}
    panels = {
        figure: {
            name: (found[figure], found.get(f"{figure} error", 0.0))
            for name, found in numbers.items()
            if math.isfinite(found.get(figure, math.nan))
        }
        for figure in _COMPARED
    }
    if not any(panels.values()):
        raise ValueError(f"'comparisons' hold none of the figures {list(_COMPARED)}")
    labels = dict.fromkeys(panels, "")  # titles say it
    plot_bars(path, {figure: bars for figure, bars in panels.items() if bars}, labels=labels, marked=marked)


def _short(value: float) -> str:
    """Write a number with three digits, or as a whole number if it is large."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:#.3g}".rstrip(".")


def plot_matrix_and_bars(
    path: str | Path,
    matrix: Sequence[Sequence[float]],
    bars: Sequence[float],
    *,
    matrix_label: str,
    bar_label: str,
    label: str,
    level: float | None = None,
    marked: Sequence[int] = (),
) -> None:
    """Draw a square matrix as a heat map, and beside it a bar for each of its rows, into a PNG, SVG or PDF file.

    Args:
        path: The file; its ending chooses the format. It is there whole or not at all.
        matrix: The rows of the matrix.
        bars: A number for each row.
        matrix_label: What the colours show, with their unit.
        bar_label: What the bars show, with their unit.
        label: What a row is.
        level: Number to draw as a line across the bars.
        marked: Rows whose bars have another colour.

    Raises:
        ImportError: If matplotlib is missing.
        ValueError: If there is nothing to draw, or the matrix has not a row and a column for each bar.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     labels = {"matrix_label": "disagreement", "bar_label": "barrier", "label": "ingredient"}
        ...     plot_matrix_and_bars(f"{folder}/a.png", [[0.0, 0.1], [0.1, 0.0]], [0.0, 0.3], level=0.1, **labels)
        ...     Path(f"{folder}/a.png").stat().st_size > 0
        True
    """
    count = len(bars)
    if not count or [len(row) for row in matrix] != [count] * count:
        raise ValueError(
            f"'matrix' must have a row and a column for each of {count} bars, at least one "
            f"(got rows of {[len(row) for row in matrix][:5]})"
        )
    side = min(4.0 + 0.1 * count, 9.0)
    figure = optional_module("matplotlib.figure").Figure(figsize=(2 * side + 1, side), layout="constrained")
    left, right = figure.subplots(1, 2)
    figure.colorbar(left.imshow(matrix, cmap="viridis", vmin=0), ax=left, label=matrix_label)
    left.set(xlabel=label, ylabel=label)
    right.bar(range(count), bars, color=[_COLOURS[1] if i in marked else _COLOURS[0] for i in range(count)])
    right.axhline(0, color="black", linewidth=0.8)
    if level is not None:
        right.axhline(level, color="0.4", linestyle="--", linewidth=1)
    right.set(xlabel=label, ylabel=bar_label)
    for axis in (left.xaxis, left.yaxis, right.xaxis):
        axis.get_major_locator().set_params(integer=True)
    right.grid(axis="y", alpha=0.25)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=150, format=Path(path).suffix.lstrip(".") or "png")
