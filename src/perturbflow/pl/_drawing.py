"""Common parts of all plots: axes, colours, and labels of points that do not overlap."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patheffects import withStroke
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from perturbflow._checks import check_one_of

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation
    from numpy.typing import ArrayLike, NDArray

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


def new_panels(n_panels: int, *, figsize: tuple[float, float]) -> NDArray[np.object_]:
    """Return the Axes (n_panels,) of a new figure, side by side."""
    figure, axes = plt.subplots(1, n_panels, figsize=figsize, layout="constrained", squeeze=False)
    figure.get_layout_engine().set(wspace=0.08)  # type: ignore[union-attr, call-arg]
    return axes[0]


def check_split(splits: Sequence[str], split: str | None, ax: Axes | None) -> list[str]:
    """Return the splits to draw, each on Axes of its own, or the one that is asked for."""
    if split is not None:
        check_one_of(split, splits, name="split")
        return [split]
    if ax is not None:
        msg = f"Expected `split` to be one of {list(splits)} when `ax` is given, found None: every split has an Axes of its own."
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


def legend_above(ax: Axes, title: str, *, n_lines: int = 1, **options: Any) -> None:
    """Write the title and, between it and the Axes, the legend in one row, whose entries have so many lines."""
    finish(ax, "")
    ax.set_title(title, loc="left", fontsize="medium", pad=6 + 14 * n_lines)
    options = {"ncols": 3, "columnspacing": 1.0, "borderaxespad": 0.1, "handlelength": 1.8} | options
    ax.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), frameon=False, fontsize="small", **options)


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
