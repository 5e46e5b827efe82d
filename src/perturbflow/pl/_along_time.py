"""Genes along time: observed, fitted and forecast, and under interventions."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, cast

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from perturbflow._checks import check_one_of, check_whole_number
from perturbflow.pl._drawing import DARK, GREY, PALETTE, colors_of, drawing, finish, legend_beside, name_rows, plot
from perturbflow.pl._dynamics_results import as_list, positions_of, read_result
from perturbflow.trajectories._fields import DynamicsFields, read_dynamics_fields, trajectories_of

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from mudata import MuData
    from numpy.typing import NDArray

_MOST_COLUMNS = 4
_FEW_PANELS = 12  # more are smaller, and stand closer
_MOST_NAMED = 12  # colours in the legend
_DASHES = ("-", "--")


@plot
def trajectories(
    adata: AnnData | MuData,
    genes: str | Sequence[str],
    *,
    key: str = "forecast",
    trajectories: str | Sequence[str] | None = None,
    modality: str | None = None,
    show: bool | None = None,
    save: bool | str | None = None,
) -> Figure:
    """Draw data, fit and forecast of some genes along time, one panel per gene.

    Points are the observed means at every time, larger for more cells. The line is solid where the trajectory was
    observed, and dashed, on a grey ground, beyond. Up to six trajectories have a colour each; more are coloured by their
    perturbation, where one is registered, and grey without.

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

    Returns
    -------
    The figure. Colours are those of ``adata.uns["<trajectory_key>_colors"]`` or ``adata.uns["<perturbation_key>_colors"]``,
    where there are any.

    Examples
    --------
    >>> import perturbflow as pf
    >>> adata = pf.datasets.hill_network(n_genes=5, n_trajectories=6, n_times=20)
    >>> pf.pp.setup_dynamics(adata, time_key="time", trajectory_key="trajectory")
    >>> pf.tl.fit_dynamics(adata, effort=0.02, progress_bar=False)
    >>> pf.tl.forecast(adata)
    >>> figure = pf.pl.trajectories(adata, ["gene0", "gene1"])
    >>> len(figure.axes)
    2
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
    groups = _groups(adata, fields, chosen)
    shades = _colors(adata, fields, groups)
    colors = {name: shades[group] for name, group in groups.items()}
    is_crowded = len(chosen) > _MOST_NAMED

    is_few = len(names) <= _FEW_PANELS
    n_rows = math.ceil(len(names) / (_MOST_COLUMNS if is_few else _MOST_COLUMNS + 2))
    n_columns = math.ceil(len(names) / n_rows)
    width, height = (2.3, 1.9) if is_few else (1.75, 1.45)
    size = (1.8 + width * n_columns, 0.5 + height * n_rows)
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
            line: dict[str, Any] = {"color": colors[name], "linewidth": 0.8 if is_crowded else 1.4}
            if is_past.any():
                ax.plot(time[is_past], level[is_past], label=name, **line)
            if not is_past.all():
                ax.plot(time[begin:], level[begin:], linestyle=(0, (3, 1.5)), **line)
            if name in observed:
                data = observed[name]
                place = adata.var_names.get_loc(names[at])
                sizes = 12 + 16 * np.sqrt(data.weight / data.weight.max()) * (np.ptp(data.weight) > 0)
                dots: dict[str, Any] = {"s": sizes / 3, "alpha": 0.35} if is_crowded else {"s": sizes, "alpha": 0.6}
                ax.scatter(data.time, data.values[:, place], color=colors[name], linewidths=0, **dots)
        finish(ax, names[at])
        ax.margins(x=0.02)
        if at % n_columns == 0:
            ax.set_ylabel(fields.layer or "expression")
        if at + n_columns >= len(names):
            ax.set_xlabel(fields.time_key)
            ax.tick_params(labelbottom=True)
    _legend(figure, shades, list(groups.values()), is_forecast=bool((time > until[rows].min()).any()))
    return figure


def _groups(adata: AnnData, fields: DynamicsFields, names: list[str]) -> dict[str, str]:
    """Return what the colour of every trajectory of a forecast stands for: itself or, where these are many, its perturbation."""
    keeps_colors = fields.trajectory_key is not None and f"{fields.trajectory_key}_colors" in adata.uns
    if fields.perturbation_key is None or keeps_colors or len(names) <= len(PALETTE):
        return {name: name for name in names}
    return {name: name.rpartition("|")[2] for name in names}


def _colors(adata: AnnData, fields: DynamicsFields, groups: Mapping[str, str]) -> dict[str, str]:
    """A colour for everything that colours stand for; those that are kept for a trajectory or a perturbation come first."""
    is_itself = list(groups) == list(groups.values())
    kinds = list(dict.fromkeys(groups.values()))
    colored = [kind for kind in kinds if is_itself or kind != fields.control]
    if len(colored) <= len(PALETTE):
        palette = list(PALETTE[: len(colored)])
    else:
        ramp = plt.get_cmap("viridis")(np.linspace(0, 0.92, len(colored)))
        palette = [f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue, _ in (255 * ramp).round().astype(int)]
    colors = dict.fromkeys(kinds, GREY) | dict(zip(colored, palette, strict=True))
    own = fields.trajectory_key if is_itself else fields.perturbation_key
    if own is None or f"{own}_colors" not in adata.uns:
        return colors
    kept = [str(name) for name in adata.obs[own].astype("category").cat.categories]
    kept_colors = colors_of(adata, own, kept, dict.fromkeys(kept, GREY))
    has_both = is_itself and fields.perturbation_key is not None
    return {kind: kept_colors.get(kind.rpartition("|")[0] if has_both else kind, colors[kind]) for kind in kinds}


def _shade(ax: Axes, until: np.ndarray, end: float) -> None:
    """Shade what lies beyond the observed time, darker where it does so for more trajectories."""
    starts, counts = np.unique(until[until < end], return_counts=True)
    for start, count in zip(starts, counts, strict=True):
        ax.axvspan(start, end, color="black", alpha=0.08 * count / len(until), linewidth=0, zorder=0)


def _legend(figure: Figure, colors: dict[str, str], groups: list[str], *, is_forecast: bool) -> None:
    """Write which colour is which trajectory or perturbation, and what points and lines are."""
    counts = Counter(groups)
    # Of a long ramp of colours, some that are evenly spaced and can be told apart.
    kinds = list(colors)
    steps = np.arange(len(kinds)) if len(kinds) <= _MOST_NAMED else np.linspace(0, len(kinds) - 1, 6).astype(int)
    handles = []
    for kind in (kinds[step] for step in steps):
        several = f" ({counts[kind]:,} trajectories)" if counts[kind] > 1 else ""
        handles.append(Line2D([], [], color=colors[kind], label=f"{kind.replace('|', ', ')}{several}"))
    if len(steps) < len(kinds):
        handles.append(Line2D([], [], linestyle="none", label=f"… {len(kinds):,} in total, in this order"))
    handles.append(Line2D([], [], color=DARK, marker="o", linestyle="none", markersize=4, label="observed"))
    handles.append(Line2D([], [], color=DARK, label="fitted"))
    if is_forecast:
        handles.append(Line2D([], [], color=DARK, linestyle=(0, (3, 1.5)), label="forecast"))
    figure.legend(handles=handles, frameon=False, fontsize="small", loc="outside right upper")


@plot
def knockout_response(
    adata: AnnData | MuData,
    *,
    genes: str | Sequence[str] | None = None,
    top: int = 15,
    key: str = "knockout",
    trajectory: str | None = None,
    kind: Literal["heatmap", "curves"] = "heatmap",
    modality: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: bool | str | None = None,
) -> Axes:
    """Draw the difference between the run under an intervention and the unperturbed run over time.

    Parameters
    ----------
    adata
        Cells with a simulated intervention (:func:`perturbflow.tl.simulate_knockout`).
    genes
        Genes to draw, in this order; those that respond most if None.
    top
        How many genes to draw if none are named, by the largest absolute difference at any time.
    key
        The intervention in ``adata.uns``.
    trajectory
        Name of the trajectory; the mean over all if None.
    kind
        ``"heatmap"`` draws a row per gene, below the framed rows of the genes that the intervention holds; the colours
        span the responses of the others. ``"curves"`` draws a line per gene, and of the genes held only those named; of
        more than 12, the 12 that respond most are coloured and in the legend.

    Examples
    --------
    >>> import perturbflow as pf
    >>> adata = pf.datasets.hill_network(n_genes=5, n_trajectories=6, n_times=20)
    >>> pf.pp.setup_dynamics(adata, time_key="time", trajectory_key="trajectory")
    >>> pf.tl.fit_dynamics(adata, effort=0.02, progress_bar=False)
    >>> pf.tl.simulate_knockout(adata, "gene0")
    >>> ax = pf.pl.knockout_response(adata)
    >>> sorted(tick.get_text() for tick in ax.get_yticklabels())
    ['gene0', 'gene1', 'gene2', 'gene3', 'gene4']
    """
    check_one_of(kind, ("heatmap", "curves"), name="kind")
    check_whole_number(top, name="top", least=1)
    result = read_result(adata, key, kind="knockout", entry="perturbed")
    if "time" not in result:
        msg = (
            f"Expected a response along time in `adata.uns[{key!r}]`, found a steady-state response. Plot its table: "
            f"`adata.uns[{key!r}]['response'].head(20).plot.barh('gene', 'standardised_change')`."
        )
        raise ValueError(msg)
    time, names = np.asarray(result["time"], dtype=np.float64), [str(name) for name in result["genes"]]
    difference, of = _difference(result, trajectory, key)
    held = pd.DataFrame(result["interventions"])
    held_kinds = dict(zip(held["gene"].astype(str), held["kind"].astype(str), strict=True))
    is_held = np.array([name in held_kinds for name in names])

    if genes is None:
        size = np.where(is_held, -1.0, np.abs(difference).max(axis=0))
        responding = np.argsort(-size, kind="stable")[: min(top, int((~is_held).sum()))]
        columns = responding if kind == "curves" else np.concatenate([np.flatnonzero(is_held), responding])
    else:
        where = f"the genes of `adata.uns[{key!r}]`"
        columns = positions_of(as_list(genes, parameter="genes"), names, parameter="genes", where=where)
    shown = [names[column] for column in columns]
    title = f"response to {', '.join(f'{name} {what}' for name, what in held_kinds.items())}\n{of}"
    level = f"{adata.uns.get('dynamics_fields', {}).get('layer') or 'expression'}, perturbed − unperturbed"

    height = 1.2 + 0.22 * max(len(shown), 4)
    with drawing(ax, figsize=(5.0, height if kind == "heatmap" else 3.2)) as ax:
        if kind == "heatmap":
            _draw_heat_map(ax, time, difference[:, columns], shown, is_held[columns], level=level)
        else:
            _draw_curves(ax, time, difference[:, columns], shown, is_held[columns], level=level)
        ax.set_xlabel(str(adata.uns.get("dynamics_fields", {}).get("time_key", "time")))
        finish(ax, title)
    return ax


def _difference(result: Mapping[str, Any], trajectory: str | None, key: str) -> tuple[NDArray[np.float64], str]:
    """Perturbed minus unperturbed (n, d) of a trajectory or of the mean over all, and what that is called."""
    difference = np.asarray(result["perturbed"], dtype=np.float64) - np.asarray(result["unperturbed"], np.float64)
    known = [str(name) for name in result["trajectories"]]
    if trajectory is None:
        return difference.mean(axis=0), known[0] if len(known) == 1 else f"mean of {len(known)} trajectories"
    where = f"the trajectories of `adata.uns[{key!r}]`"
    return difference[positions_of([trajectory], known, parameter="trajectory", where=where)[0]], trajectory


def _draw_heat_map(
    ax: Axes,
    time: NDArray[np.float64],
    values: NDArray[np.float64],
    names: list[str],
    is_held: NDArray[np.bool_],
    *,
    level: str,
) -> None:
    """Draw a row per gene, with frames around the genes that are held."""
    size = np.abs(values).max(axis=0)
    limit = float((size[~is_held] if (~is_held).any() else size).max(initial=0.0)) or 1.0
    image = ax.pcolormesh(
        time,
        np.arange(len(names)),
        values.T,
        cmap="RdBu_r",
        vmin=-limit,
        vmax=limit,
        shading="nearest",
        rasterized=True,
    )
    name_rows(ax, names)
    for place in np.flatnonzero(is_held):
        ax.get_yticklabels()[place].set_fontweight("bold")
        frame = Rectangle(
            (0, place - 0.5), 1, 1, transform=ax.get_yaxis_transform(), fill=False, edgecolor=DARK, linewidth=1.4
        )
        ax.add_patch(frame).set_clip_on(False)
    figure = cast("Figure", ax.get_figure(root=True))
    extend = "both" if (size > limit).any() else "neither"
    bar = figure.colorbar(image, ax=ax, extend=extend, shrink=min(1.0, 8 / len(names)), anchor=(0, 1.0), pad=0.02)
    bar.set_label(level.replace(", ", ",\n"), fontsize="small")
    bar.ax.tick_params(labelsize="small")
    bar.outline.set_visible(False)


def _draw_curves(
    ax: Axes,
    time: NDArray[np.float64],
    values: NDArray[np.float64],
    names: list[str],
    is_held: NDArray[np.bool_],
    *,
    level: str,
) -> None:
    """Draw a line per gene: broad and grey for genes that are held, thin and grey for those that are too many."""
    ax.axhline(0.0, color=DARK, linewidth=0.8, zorder=0)
    size = np.where(is_held, np.inf, np.abs(values).max(axis=0, initial=0.0))
    named = (
        np.sort(np.argsort(-size, kind="stable")[:_MOST_NAMED]) if len(names) > _MOST_NAMED else np.arange(len(names))
    )
    rest = np.setdiff1d(np.arange(len(names)), named)
    for place in rest:
        ax.plot(time, values[:, place], color=GREY, linewidth=0.6, zorder=1)
    for at, place in enumerate(named):
        turn, color = divmod(at, len(PALETTE))
        if is_held[place]:
            ax.plot(time, values[:, place], color=GREY, linewidth=2.2, label=f"{names[place]} (held)")
        else:
            dash = _DASHES[turn % len(_DASHES)]
            style: dict[str, Any] = {"color": PALETTE[color], "linestyle": dash, "zorder": 3 - at / len(named)}
            ax.plot(time, values[:, place], linewidth=1.3, label=names[place], **style)
    if len(rest):
        ax.plot([], [], color=GREY, linewidth=0.6, label=f"{len(rest):,} more")
    ax.set_ylabel(level.replace(", ", ",\n"))
    legend_beside(ax)
