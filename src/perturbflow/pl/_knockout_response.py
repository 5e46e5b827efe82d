"""Plot of the response of genes to an intervention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import pandas as pd
from matplotlib.patches import Rectangle

from perturbflow._checks import check_one_of, check_whole_number
from perturbflow.pl._drawing import DARK, GREY, PALETTE, drawing, finish
from perturbflow.pl._dynamics_results import as_list, positions_of, read_result
from perturbflow.pl._shown_and_saved import plot

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from mudata import MuData
    from numpy.typing import NDArray

_DASHES = ("-", "--")
_MOST_NAMED = 12  # curves in the legend


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

    Raises
    ------
    KeyError
        If there is no simulated intervention, with the call that makes it, or a gene or the trajectory is unknown,
        with the most similar ones.
    ValueError
        If an option is out of range, or ``genes`` is empty.

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
            f"Expected a response along time in `adata.uns[{key!r}]`, found one of cells at rest. Draw its table: "
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
    ax.set_yticks(np.arange(len(names)), names, fontsize="small")
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
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
    ax.legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(1.0, 1.0))
