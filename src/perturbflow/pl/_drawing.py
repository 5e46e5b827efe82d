"""Common parts of all plots: figures that are shown and saved, axes, colours, rows, legends, and labels of points."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, cast

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox
from numpy.typing import ArrayLike, NDArray

from perturbflow._checks import check_one_of
from perturbflow._docs import shares
from perturbflow._settings import settings
from perturbflow.screen._modality import takes_modality

Plot = TypeVar("Plot", bound=Callable[..., Any])

FORMAT = "pdf"
PARAMETERS = {
    "ax": "Axes to draw on; by default those of a new figure.",
    "show": "Whether to show the figure.",
    "save": (
        "Whether to save the figure in ``pf.settings.figdir``, or a suffix for the file name, such as\n"
        '``"_first.png"``.'
    ),
}

RAISES = """KeyError
    If the results or a name in them are missing; the message has the call to run first or the most similar names.
ValueError
    If the entry is something else, or an option is unknown or out of range."""
of_graph = shares(
    {"adata": "Cells with a graph (:func:`perturbflow.tl.infer_graph`).", "key": "The graph in ``adata.uns``."}
)
of_fit = shares(
    {"adata": "Cells with a fitted flow (:func:`perturbflow.tl.fit_flow`).", "key": "The flow in ``adata.uns``."}
)
of_evaluation = shares(
    {
        "adata": "Cells with an evaluation (:func:`perturbflow.tl.evaluate`).",
        "key": "The evaluation in ``adata.uns``.",
        "split": "Split to show; by default one panel per split.",
        "ax": "Axes to draw on; requires ``split``.",
    },
    returns="The Axes if ``split`` is given, otherwise an array with the Axes of all splits, even if there is only one.",
)

# Okabe and Ito's palette, which remains distinct under colour blindness, with a brown in place of their purple: without
# green-sensitive cones that is hard to tell from grey, which is for what others are compared with.
BLUE, VERMILLION, ORANGE, GREEN, BROWN, SKY = "#0072B2", "#D55E00", "#E69F00", "#009E73", "#663300", "#56B4E9"
GREY, DARK = "#A8A8A8", "#333333"
PALETTE = (VERMILLION, BLUE, GREEN, ORANGE, SKY, BROWN)

SOURCES: Mapping[str, str] = {"control": GREY, "observed": BLUE, "predicted": VERMILLION}
KIND_COLORS: Mapping[str, str] = {
    "seen": BLUE,
    "new dose": SKY,
    "combination": GREEN,
    "new context": ORANGE,
    "unseen": VERMILLION,
}
EXPRESSION = "expression (log1p)"

_NAMES = {"mmd": "MMD", "rmse": "RMSE", "mse": "MSE", "mae": "MAE", "auroc": "AUROC", "r2": "R²"}
_NAMES |= {name: name.capitalize() for name in ("pearson", "spearman", "jaccard", "wasserstein")}


def plot(function: Plot) -> Plot:
    """Decorator of every plot: it takes a MuData, and shows and saves its figure by ``show`` and ``save``.

    The function itself sees neither of these. A file is ``<plot><save>.pdf`` in the figure directory, as in scanpy; a
    new figure that is saved is closed, so that loops do not fill the memory.
    """

    @wraps(function)
    def wrapper(
        *arguments: Any, show: bool | None = None, save: bool | str | None = None, **options: Any
    ) -> Axes | Figure | NDArray[np.object_]:
        path = None if save is None or save is False else _path(function.__name__, save)
        drawn = function(*arguments, **options)
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            _figure_of(drawn).savefig(path, bbox_inches="tight")
        if show:
            plt.show()
        if path is not None and options.get("ax") is None:
            plt.close(_figure_of(drawn))
        return drawn

    return takes_modality(shares(PARAMETERS, returns="The Axes.", raises=RAISES)(cast("Plot", wrapper)))


def _path(name: str, save: bool | str) -> Path:
    """Return the file of a plot; ValueError if ``save`` names a folder or is no text."""
    if save is True:
        save = ""
    if not isinstance(save, str) or "/" in save or "\\" in save:
        msg = (
            f"Expected `save` to be True or a suffix of the file name, such as '_first.png', found {save!r}. Files are saved "
            "in `pf.settings.figdir`; use `ax.figure.savefig(path)` for other places."
        )
        raise ValueError(msg)
    known = save.rpartition(".")[2].lower() in Figure().canvas.get_supported_filetypes()
    return Path(settings.figdir) / f"{name}{save}{'' if known and '.' in save else f'.{FORMAT}'}"


def _figure_of(drawn: Axes | Figure | NDArray[np.object_]) -> Figure:
    """Return the figure of what a plot returns: Axes, an array of them, or the figure itself."""
    if isinstance(drawn, Figure):
        return drawn
    ax = cast("Axes", np.atleast_1d(np.asarray(drawn, dtype=object))[0])
    return cast("Figure", ax.get_figure(root=True))


@contextmanager
def drawing(ax: Axes | None, *, figsize: tuple[float, float]) -> Iterator[Axes]:
    """Yield ``ax`` or the Axes of a new figure.

    The current Axes of a figure that is given remain so, also where a second one is laid over ``ax``.
    """
    if ax is None:
        figure, ax = plt.subplots(figsize=figsize, layout="constrained")
        current = ax
    else:
        figure = cast("Figure", ax.get_figure(root=True))
        current = figure.gca()
    yield ax
    figure.sca(current)


def panels(n_panels: int, ax: Axes | None = None, *, figsize: tuple[float, float]) -> NDArray[np.object_]:
    """Return ``ax`` or the Axes (n_panels,) of a new figure, side by side."""
    if ax is not None:
        return np.array([ax], dtype=object)
    figure, axes = plt.subplots(1, n_panels, figsize=figsize, layout="constrained", squeeze=False)
    figure.get_layout_engine().set(wspace=0.08)  # type: ignore[union-attr, call-arg]
    return axes[0]


def check_split(splits: Sequence[str], split: str | None, ax: Axes | None) -> list[str]:
    """Return the splits to draw, each on Axes of its own, or the one that is asked for."""
    if split is not None:
        check_one_of(split, splits, name="split")
        return [split]
    if ax is not None:
        msg = f"Expected `split` to be one of {list(splits)} when `ax` is given, found None: every split has its own Axes."
        raise ValueError(msg)
    return list(splits)


def colors_of(adata: AnnData, key: str, names: Sequence[str], default: Mapping[str, str]) -> dict[str, str]:
    """Colours of ``names``: ``adata.uns["<key>_colors"]``, by name or in their order, else ``default``."""
    own = adata.uns.get(f"{key}_colors")
    if own is None:
        return {name: default[name] for name in names}
    if isinstance(own, Mapping):
        return {name: str(own.get(name, default[name])) for name in names}
    if len(own) < len(names):
        msg = f"Expected {len(names)} colours in `adata.uns[{key + '_colors'!r}]`, for {list(names)}, found {len(own)}."
        raise ValueError(msg)
    return {name: str(color) for name, color in zip(names, own, strict=False)}


def model_colors(models: Sequence[str], is_own: Callable[[str], bool]) -> dict[str, str]:
    """Colours of models: one of its own for each that is no baseline, grey for the others.

    Where there are more models than colours that can be told apart, the first of these is that of all.
    """
    own = [model for model in models if is_own(model)]
    colors = PALETTE if len(own) <= len(PALETTE) else PALETTE[:1] * len(own)
    return dict.fromkeys(models, GREY) | dict(zip(own, colors, strict=False))


def metric_name(metric: str) -> str:
    """Name of a metric in words."""
    return " ".join(_NAMES.get(word, word) for word in metric.split("_"))


def finish(ax: Axes, title: str) -> None:
    """Write the title and remove the upper and right frame."""
    ax.set_title(title, loc="left", fontsize="medium")
    ax.spines[["top", "right"]].set_visible(False)


def legend_beside(ax: Axes, **options: Any) -> None:
    """Write the legend to the right of the Axes, off the data."""
    options = {"fontsize": "small", "title_fontsize": "x-small", "alignment": "left"} | options
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, **options)


def legend_above(ax: Axes, title: str, *, n_lines: int = 1, **options: Any) -> None:
    """Write the title and, between it and the Axes, the legend in one row, whose entries have so many lines."""
    finish(ax, "")
    ax.set_title(title, loc="left", fontsize="medium", pad=6 + 14 * n_lines)
    options = {"ncols": 3, "columnspacing": 1.0, "borderaxespad": 0.1, "handlelength": 1.8} | options
    ax.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), frameon=False, fontsize="small", **options)


def name_rows(ax: Axes, names: Sequence[str], *, margin: float = 0.5, fontsize: float | str = "small") -> None:
    """Write names beside the rows 0, 1, ..., which run from the top down."""
    ax.set_yticks(range(len(names)), names, fontsize=fontsize)
    ax.set_ylim(len(names) - margin, -margin)
    ax.tick_params(axis="y", length=0)


def labels_of_rows(table: pd.DataFrame, columns: Sequence[str]) -> list[str]:
    """Return a name of every row of a table: its values in some columns, such as perturbation and context."""
    return [", ".join(map(str, row)) for row in table[list(columns)].itertuples(index=False)]


def text_behind(ax: Axes, ends: ArrayLike, texts: Sequence[str], **options: Any) -> None:
    """Write texts behind the ends of the rows 0, 1, ..."""
    for place, (end, text) in enumerate(zip(ends, texts, strict=True)):  # type: ignore[arg-type]
        ax.annotate(text, (end, place), xytext=(4, 0), textcoords="offset points", va="center", color=DARK, **options)


def points_of_kind(
    ax: Axes,
    table: pd.DataFrame,
    columns: Sequence[str],
    rows: NDArray[np.intp],
    *,
    linewidth: float = 1.2,
    **style: Any,
) -> None:
    """Draw some rows of a table as points with intervals; ``columns`` are those of the point and of both ends."""
    point, lower, upper = (table[column].iloc[rows] for column in columns)
    ax.hlines(rows, lower, upper, color=style["color"], linewidth=linewidth, zorder=2)
    ax.scatter(point, rows, zorder=3, **style)


def label_points(
    ax: Axes,
    x: ArrayLike,
    y: ArrayLike,
    labels: Sequence[str],
    *,
    avoid: Sequence[Bbox] = (),
    others: ArrayLike = (),
    size: float = 7,
) -> list[Annotation]:
    """Write labels next to points, each at the best free place around its point, with a line to it.

    Greedy, in the given order: places in growing circles are tried until the text covers no other label, nothing of
    ``avoid`` (in pixels) and not the frame, and none of the points ``others`` (n, 2) or, failing that, as few as
    possible. A label without any place is not written. Fixes the layout first, so call it when everything else is drawn.
    """
    figure = ax.get_figure(root=True)
    if figure is None:
        return []
    figure.draw_without_rendering()
    frame = ax.get_window_extent()
    points = ax.transData.transform(np.column_stack([np.asarray(x, dtype=float), np.asarray(y, dtype=float)]))
    taken = [*avoid, *(Bbox.from_bounds(px - 3, py - 3, 6, 6) for px, py in points)]
    near = ax.transData.transform(np.reshape(np.asarray(others, dtype=float), (-1, 2)))
    written = []
    for point, (px, py), label in zip(zip(x, y, strict=True), points, labels, strict=True):  # type: ignore[arg-type]
        text = ax.annotate(
            label,
            point,
            xytext=(0, 0),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=size,
            color=DARK,
            arrowprops={"arrowstyle": "-", "color": "#888888", "linewidth": 0.5, "shrinkA": 1, "shrinkB": 2},
            path_effects=[withStroke(linewidth=1.6, foreground="white")],
            zorder=5,
        )
        box = Text.get_window_extent(text)  # without the line
        width, height = box.width + 3, box.height + 2
        best: tuple[float, float, Bbox] | None = None
        least = len(near) + 1
        for dx, dy in _places(width, height):
            place = Bbox.from_bounds(px + dx - width / 2, py + dy - height / 2, width, height)
            inside = frame.x0 < place.x0 and place.x1 < frame.x1 and frame.y0 < place.y0 and place.y1 < frame.y1
            if not inside or any(place.overlaps(other) for other in taken):
                continue
            low, high = np.asarray(place.min) - 2, np.asarray(place.max) + 2
            n_covered = int(((near > low) & (near < high)).all(axis=1).sum())
            if n_covered < least:
                best, least = (dx, dy, place), n_covered
            if not least:
                break
        if best is None:
            text.remove()
            continue
        text.set_position((best[0] * 72 / figure.dpi, best[1] * 72 / figure.dpi))
        taken.append(best[2])
        written.append(text)
    return written


def _places(width: float, height: float) -> Iterator[tuple[float, float]]:
    """Offsets in pixels of the centre of a label of this size, near ones first."""
    for radius in np.arange(6, 90, 7):
        for angle in np.arange(16) * (math.pi / 8) + math.pi / 8:
            c, s = math.cos(angle), math.sin(angle)
            # The label touches the circle with its side that faces the point.
            yield c * (radius + width / 2), s * (radius + height / 2)
