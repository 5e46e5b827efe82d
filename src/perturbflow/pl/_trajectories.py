"""Observed, fitted and forecast expression along time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np

from perturbflow._dynamics_fields import DynamicsFields, read_dynamics_fields, trajectories_of
from perturbflow.pl._drawing import BLUE, DARK, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILLION, colors_of, finish
from perturbflow.pl._dynamics_results import as_list, positions_of, read_result

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PALETTE = (BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY, DARK)
_MOST_COLUMNS = 4
_MOST_NAMED = 12  # trajectories in the legend


def trajectories(
    adata: AnnData,
    genes: str | Sequence[str],
    *,
    key: str = "forecast",
    trajectories: str | Sequence[str] | None = None,
    show: bool | None = None,
) -> Figure:
    """Draw data, fit and forecast of some genes along time, one panel a gene.

    Points are the observed means at every time, larger for more cells. The line is solid where the trajectory was
    observed, and dashed, on a grey ground, beyond.

    Parameters
    ----------
    adata
        Cells with registered fields (:func:`perturbflow.pp.setup_dynamics`) and a forecast
        (:func:`perturbflow.tl.forecast`).
    genes
        Genes, in the order of the panels.
    key
        The forecast in ``adata.uns``.
    trajectories
        Names of trajectories; all if None.
    show
        Show the figure.

    Returns
    -------
    The figure. Colours are those of ``adata.uns["<trajectory_key>_colors"]``, where there are any.

    Raises
    ------
    KeyError
        If there is no forecast or no registration, with the call that makes it, or a gene or a trajectory is unknown,
        with the most similar ones.
    ValueError
        If no gene or no trajectory is named.
    """
    result = read_result(adata, key, kind="forecast", entry="trajectories")
    fields = read_dynamics_fields(adata)
    names, known = as_list(genes, parameter="genes"), [str(name) for name in result["trajectories"]]
    chosen = as_list(known if trajectories is None else trajectories, parameter="trajectories")
    columns = positions_of(names, result["genes"], parameter="genes", where=f"the genes of `adata.uns[{key!r}]`")
    rows = positions_of(chosen, known, parameter="trajectories", where=f"the trajectories of `adata.uns[{key!r}]`")
    time, until = (np.asarray(result[name], dtype=np.float64) for name in ("time", "observed_until"))
    values = np.asarray(result["values"])
    observed = {data.name: data for data in trajectories_of(adata, fields)}
    colors = _colors(adata, fields, chosen)

    n_columns = min(len(names), _MOST_COLUMNS)
    n_rows = math.ceil(len(names) / n_columns)
    size = (0.6 + 2.3 * n_columns + 1.2, 0.5 + 1.9 * n_rows)
    figure, panels = plt.subplots(n_rows, n_columns, figsize=size, layout="constrained", squeeze=False, sharex=True)
    for at, ax in enumerate(panels.flat):
        if at >= len(names):
            ax.remove()
            continue
        _shade(ax, until[rows], float(time.max()))
        for row, name in zip(rows, chosen, strict=True):
            level, is_past = values[row, :, columns[at]], time <= until[row]
            # The last observed time belongs to both parts, so that they meet.
            begin = max(int(is_past.sum()) - 1, 0)
            if is_past.any():
                ax.plot(time[is_past], level[is_past], color=colors[name], linewidth=1.4, label=name)
            if not is_past.all():
                ax.plot(time[begin:], level[begin:], color=colors[name], linewidth=1.4, linestyle=(0, (3, 1.5)))
            if name in observed:
                data = observed[name]
                place = adata.var_names.get_loc(names[at])
                sizes = 12 + 16 * np.sqrt(data.weight / data.weight.max()) * (np.ptp(data.weight) > 0)
                ax.scatter(data.time, data.values[:, place], s=sizes, color=colors[name], alpha=0.6, linewidths=0)
        finish(ax, names[at])
        ax.margins(x=0.02)
        if at % n_columns == 0:
            ax.set_ylabel(fields.layer or "expression")
        if at + n_columns >= len(names):
            ax.set_xlabel(fields.time_key)
            ax.tick_params(labelbottom=True)
    _legend(figure, {name: colors[name] for name in chosen}, is_forecast=bool((time > until[rows].min()).any()))
    if show:
        plt.show()
    return figure


def _colors(adata: AnnData, fields: DynamicsFields, names: list[str]) -> dict[str, str]:
    """A colour for every trajectory of a forecast; those that share a trajectory key share the colour kept for it."""
    if len(names) <= len(PALETTE):
        palette = list(PALETTE[: len(names)])
    else:
        ramp = plt.get_cmap("viridis")(np.linspace(0, 0.92, len(names)))
        palette = [f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue, _ in (255 * ramp).round().astype(int)]
    colors = dict(zip(names, palette, strict=True))
    own = fields.trajectory_key
    if own is None or f"{own}_colors" not in adata.uns:
        return colors
    kept = [str(name) for name in adata.obs[own].astype("category").cat.categories]
    kept_colors = colors_of(adata, own, kept, dict.fromkeys(kept, GREY))
    stems = {name: name.rpartition("|")[0] if fields.perturbation_key is not None else name for name in names}
    return {name: kept_colors.get(stems[name], color) for name, color in colors.items()}


def _shade(ax: Axes, until: np.ndarray, end: float) -> None:
    """Shade what lies beyond the observed time, darker where it does so for more trajectories."""
    starts, counts = np.unique(until[until < end], return_counts=True)
    for start, count in zip(starts, counts, strict=True):
        ax.axvspan(start, end, color="black", alpha=0.08 * count / len(until), linewidth=0, zorder=0)


def _legend(figure: Figure, colors: dict[str, str], *, is_forecast: bool) -> None:
    """Write which colour is which trajectory, and what points and lines are."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=color, label=name) for name, color in list(colors.items())[:_MOST_NAMED]]
    if len(colors) > _MOST_NAMED:
        handles.append(Line2D([], [], linestyle="none", label=f"and {len(colors) - _MOST_NAMED:,} more"))
    handles.append(Line2D([], [], color=GREY, marker="o", linestyle="none", markersize=4, label="observed"))
    handles.append(Line2D([], [], color=GREY, label="fitted"))
    if is_forecast:
        handles.append(Line2D([], [], color=GREY, linestyle=(0, (3, 1.5)), label="forecast"))
    figure.legend(handles=handles, frameon=False, fontsize="small", loc="outside right upper")
