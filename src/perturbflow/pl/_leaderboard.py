"""Models by metrics as a heat map."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.colors import LinearSegmentedColormap, Normalize

from perturbflow.evaluation._leaderboard import (
    BOUNDS,
    Leaderboard,
    by_mean_rank,
    higher_is_better,
    is_own,
    metrics_in,
    models_in,
    read_table,
    splits_of,
)
from perturbflow.pl._drawing import BLUE, DARK, VERMILLION, metric_name, plot

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage
    from mudata import MuData
    from numpy.typing import NDArray

_POSITIONS = LinearSegmentedColormap.from_list(
    "position", [VERMILLION, "#F6D9C7", "#FAFAFA", "#BFD9EA", BLUE]
).with_extremes(bad="#E4E4E4")
_WIDTH, _HEIGHT = 0.47, 0.25  # of a cell, in inches
_MOST_COLUMNS = 16  # of metrics; more become rows
_MOST_BESIDE = 8  # columns of a panel that has others beside it
_LONGEST = 28  # characters in a line of the name of a metric


@plot
def leaderboard(
    adata: AnnData | MuData | Mapping[str, AnnData | MuData],
    *,
    key: str = "evaluation",
    split: str | None = None,
    metrics: str | Sequence[str] | None = None,
    models: Sequence[str] | None = None,
    swap_axes: bool | None = None,
    modality: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: bool | str | None = None,
) -> Axes | NDArray[np.object_]:
    """Means of every model under every metric, coloured by what they are worth.

    The colour puts all metrics on one scale: 0 is the score of the control cells, 1 that of the ceiling, real cells
    against themselves; below 0 a prediction is worse than none. It is grey for a metric that cannot tell these two
    apart. The number is the mean over conditions, bold for the best model. A triangle marks models that are better than
    the best baseline: the interval of the paired difference excludes 0. Models come from the best to the worst mean
    rank, those that are no baselines in bold, and control cells and positive controls last.

    Parameters
    ----------
    adata
        Cells with an evaluation (:func:`perturbflow.tl.evaluate`); or several by the name of their scenario, drawn side
        by side.
    key
        The evaluation in ``adata.uns``.
    split
        Draw this split only; by default a panel for every split.
    metrics
        Metrics to draw, in this order, or the name of a suite of ``perturbflow.metrics.SUITES``; by default all
        that have a value.
        "dynamic_range_fraction" is drawn if named.
    models
        Models to draw; all by default. Control cells and ceiling give the colours also if they are not among them.
    swap_axes
        Metrics as rows instead of columns; by default where there are more than 16.
    ax
        Axes to draw on, where there is one panel.

    Returns
    -------
    The Axes if ``split`` is given for one AnnData, otherwise an array with the Axes of every panel.

    Examples
    --------
    >>> import perturbflow as pf
    >>> adata = pf.datasets.simulated_perturb_seq(n_cells=600, n_genes=50, n_perturbations=4, n_combinations=2)
    >>> pf.pp.setup_perturbation(adata, perturbation_key="perturbation", control="control")
    >>> pf.pp.split_perturbations(adata, task="combination")
    >>> pf.tl.evaluate(adata, key=None, metrics=["energy_distance", "cosine_of_mean_effects"], progress_bar=False)
    >>> ax = pf.pl.leaderboard(adata, split="test")
    >>> [tick.get_text() for tick in ax.get_xticklabels()]
    ['energy distance ↓', 'cosine of mean effects ↑']
    """
    scenarios = adata if isinstance(adata, Mapping) else {"": adata}
    if not scenarios:
        msg = "Expected at least one AnnData, found an empty mapping."
        raise ValueError(msg)
    tables = {name: read_table(each, key) for name, each in scenarios.items()}
    shown = list(dict.fromkeys(metric for table in tables.values() for metric in metrics_in(table, metrics)))
    if metrics is None:
        rows = pd.concat([table if split is None else table[table["split"] == split] for table in tables.values()])
        has_values = set(rows.loc[rows["mean"].notna(), "metric"])
        shown = [metric for metric in shown if metric in has_values] or shown
    drawn = list(dict.fromkeys(model for table in tables.values() for model in models_in(table, models)))
    boards = {}
    for name, table in tables.items():
        splits = splits_of(table, split)
        for each in splits:
            title = each if not name else name if len(splits) == 1 else f"{name}, {each}"
            boards[title] = Leaderboard.of(table, each, shown, list(dict.fromkeys([*drawn, *BOUNDS])))
    if ax is not None and len(boards) > 1:
        msg = f"Expected one panel to draw on `ax`, found {list(boards)}. Choose a `split`."
        raise ValueError(msg)
    order = [model for model in by_mean_rank(list(boards.values())) if model in drawn]
    swapped = len(shown) > _MOST_COLUMNS if swap_axes is None else swap_axes
    is_beside = swapped or len(shown) <= _MOST_BESIDE
    shape = (len(shown), len(order)) if swapped else (len(order), len(shown))
    axes = _panels(len(boards), shape, is_beside=is_beside) if ax is None else np.array([ax], dtype=object)
    factors = _factors(np.concatenate([board.means for board in boards.values()]))
    for panel, (title, board) in zip(axes, boards.items(), strict=True):
        image = _draw(panel, board, order, factors, swapped=swapped)
        if is_beside and len(axes) > 1:  # slanted labels would push the panels apart
            plt.setp(panel.get_xticklabels(), rotation=90, va="center")
        n = int(board.n_conditions.max(initial=0))
        panel.set_title(f"{title}: {n:,} condition{'s' * (n != 1)}", loc="left", fontsize="medium", pad=6)
        panel.tick_params(
            labelleft=panel is axes[0] or not is_beside, labelbottom=panel is axes[-1] or is_beside, length=0
        )
    _explain(axes, image, n_rows=shape[0], swapped=swapped)
    return axes[0] if split is not None and not isinstance(adata, Mapping) else axes


def _panels(n_panels: int, shape: tuple[int, int], *, is_beside: bool) -> NDArray[np.object_]:
    """Axes of a new figure with cells of one size, side by side or one above the other."""
    n_rows, n_columns = shape
    across, down = (n_panels, 1) if is_beside else (1, n_panels)
    _, axes = plt.subplots(
        down,
        across,
        figsize=(3.2 + across * (_WIDTH * n_columns + 0.1), 1.6 + down * (_HEIGHT * n_rows + 0.3)),
        layout="constrained",
        squeeze=False,
    )
    return np.asarray(axes.ravel(), dtype=object)


def _draw(
    ax: Axes, board: Leaderboard, order: Sequence[str], factors: NDArray[np.float64], *, swapped: bool
) -> AxesImage:
    rows = [board.models.index(model) for model in order]
    positions = board.positions()[rows]
    means, best, beats = (array[rows] for array in (board.means, board.is_best(), board.beats_baselines))
    colored = np.where(np.isnan(means), np.nan, positions)
    norm = Normalize(-1.0, 1.0)
    image = ax.imshow(colored.T if swapped else colored, cmap=_POSITIONS, norm=norm, aspect="auto")
    scaled = means * 10.0**factors
    for model, metric in np.ndindex(*means.shape):
        if np.isnan(means[model, metric]):
            continue
        x, y = (model, metric) if swapped else (metric, model)
        ax.text(
            x,
            y,
            _short(float(scaled[model, metric]), scaled[:, metric]),
            ha="center",
            va="center",
            fontsize=7,
            fontweight="bold" if best[model, metric] else "normal",
            color=_readable(float(colored[model, metric]), norm),
        )
    marked = np.argwhere(beats & ~np.isnan(means))
    if len(marked):
        x, y = (marked if swapped else marked[:, ::-1]).T
        colors = [_readable(float(colored[model, metric]), norm) for model, metric in marked]
        ax.scatter(x + 0.41, y - 0.3, marker="^", s=13, color=colors, linewidths=0, gid="better than baselines")
    _label(ax, board, order, factors, swapped=swapped)
    return image


def _label(ax: Axes, board: Leaderboard, order: Sequence[str], factors: NDArray[np.float64], *, swapped: bool) -> None:
    names = [BOUNDS.get(model, model) for model in order]
    labels = [_metric_label(metric, factor) for metric, factor in zip(board.metrics, factors, strict=True)]
    columns, rows = (names, labels) if swapped else (labels, names)
    ax.set_xticks(range(len(columns)), columns, rotation=45, ha="right", rotation_mode="anchor", fontsize=8)
    ax.set_yticks(range(len(rows)), rows, fontsize=8)
    for tick, model in zip((ax.get_xticklabels() if swapped else ax.get_yticklabels()), order, strict=True):
        tick.set_fontweight("bold" if is_own(model) else "normal")
    ax.spines[:].set_visible(False)
    for edges, line in ((np.arange(len(columns) + 1), ax.axvline), (np.arange(len(rows) + 1), ax.axhline)):
        for edge in edges:
            line(float(edge) - 0.5, color="white", linewidth=1.0)
    n_bounds = sum(model in BOUNDS for model in order)
    if 0 < n_bounds < len(order):
        (ax.axvline if swapped else ax.axhline)(len(order) - n_bounds - 0.5, color=DARK, linewidth=0.8)


def _metric_label(metric: str, factor: float) -> str:
    unit = f" (×$10^{{{-factor:.0f}}}$)" if factor else ""
    name = "\n".join(textwrap.wrap(metric_name(metric), _LONGEST))
    return f"{name}{unit} {'↑' if higher_is_better(metric) else '↓'}"


def _factors(means: NDArray[np.float64]) -> NDArray[np.float64]:
    """Powers of ten by which the columns of tiny or huge numbers are multiplied (K,)."""
    exponents = np.floor(np.log10([_usual(column) for column in means.T]))
    return np.where((exponents >= -2) & (exponents < 4), 0.0, 3.0 * np.ceil((-1.0 - exponents) / 3))


def _usual(column: NDArray[np.float64]) -> float:
    """Median size of the known values other than 0, 1 if there are none."""
    known = np.abs(column[np.isfinite(column) & (column != 0)])
    return float(np.median(known)) if len(known) else 1.0


def _short(value: float, column: NDArray[np.float64]) -> str:
    """A number with the digits that fit into a cell, at least two that count for the usual size in its column."""
    usual = _usual(column)
    decimals = 3 if usual < 0.1 else 2 if usual < 10 else 1 if usual < 100 else 0
    whole = len(str(int(abs(value)))) + (value < 0)
    text = f"{value:.{max(0, min(decimals, 5 - whole))}f}"
    text = text.removeprefix("-") if float(text) == 0 else text
    return text.replace("-", "−")


def _readable(value: float, norm: Normalize) -> str:
    """Colour of text on a cell: white if that is dark."""
    red, green, blue, _ = _POSITIONS(norm(value)) if np.isfinite(value) else (1.0, 1.0, 1.0, 1.0)
    return "white" if 0.299 * red + 0.587 * green + 0.114 * blue < 0.5 else "#222222"


def _explain(axes: NDArray[np.object_], image: AxesImage, *, n_rows: int, swapped: bool) -> None:
    """Colour bar and what the signs mean."""
    figure: Figure = axes[0].get_figure(root=True)
    height = axes[0].get_subplotspec().get_gridspec().nrows * _HEIGHT * n_rows
    shrink = min(1.0, 1.6 / height)
    bar = figure.colorbar(
        image, ax=list(axes), shrink=shrink, aspect=14, fraction=0.05, pad=0.02, extend="both", anchor=(0.0, 1.0)
    )
    bar.set_ticks([-1, 0, 1], labels=["−1", "0 (control cells)", "1 (ceiling)"], fontsize=8)
    bar.outline.set_visible(False)
    note = f"bold: best of its {'row' if swapped else 'column'}"
    if any(ax.collections for ax in axes):
        note = f"▲ better than the best baseline (95 % interval)\n{note}"
    axes[0 if len(axes) == 1 or axes[0].get_subplotspec().get_gridspec().nrows == 1 else -1].set_xlabel(
        note, loc="left", fontsize=8, color=DARK
    )
