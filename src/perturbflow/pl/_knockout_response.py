"""How genes respond to an intervention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import pandas as pd
from matplotlib.patches import Rectangle

from perturbflow._checks import check_one_of, check_whole_number
from perturbflow.pl._drawing import DARK, GREY, drawing, finish
from perturbflow.pl._dynamics_results import as_list, positions_of, read_result
from perturbflow.pl._trajectories import PALETTE

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

_DASHES = ("-", "--", ":")


def knockout_response(
    adata: AnnData,
    *,
    genes: str | Sequence[str] | None = None,
    top: int = 15,
    key: str = "knockout",
    trajectory: str | None = None,
    kind: Literal["heatmap", "curves"] = "heatmap",
    ax: Axes | None = None,
    show: bool | None = None,
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
        ``"heatmap"`` draws a row a gene, below the framed rows of the genes that the intervention holds; the colours
        span the responses of the others. ``"curves"`` draws a line a gene, and of the genes held only those named.
    ax
        Axes to draw on; those of a new figure if None.
    show
        Show the figure.

    Returns
    -------
    The Axes.

    Raises
    ------
    KeyError
        If there is no simulated intervention, with the call that makes it, or a gene or the trajectory is unknown,
        with the most similar ones.
    ValueError
        If an option is out of range, or ``genes`` is empty.
    """
    check_one_of(kind, ("heatmap", "curves"), name="kind")
    check_whole_number(top, name="top", least=1)
    result = read_result(adata, key, kind="knockout", entry="perturbed")
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
    title = f"response to {', '.join(f'{name} {what}' for name, what in held_kinds.items())}, {of}"

    height = 1.0 + 0.22 * max(len(shown), 4)
    with drawing(ax, figsize=(5.0, height if kind == "heatmap" else 3.2), show=show) as ax:
        if kind == "heatmap":
            _draw_heat_map(ax, time, difference[:, columns], shown, is_held[columns])
        else:
            _draw_curves(ax, time, difference[:, columns], shown, is_held[columns])
        ax.set_xlabel(_time_name(adata))
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


def _time_name(adata: AnnData) -> str:
    return str(adata.uns.get("dynamics_fields", {}).get("time_key", "time"))


def _draw_heat_map(
    ax: Axes, time: NDArray[np.float64], values: NDArray[np.float64], names: list[str], is_held: NDArray[np.bool_]
) -> None:
    """Draw a row a gene, with frames around the genes that are held."""
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
    bar = figure.colorbar(image, ax=ax, extend=extend, shrink=min(1.0, 6 / len(names)), anchor=(0, 1.0), pad=0.02)
    bar.set_label("perturbed − unperturbed", fontsize="small")
    bar.ax.tick_params(labelsize="small")
    bar.outline.set_visible(False)


def _draw_curves(
    ax: Axes, time: NDArray[np.float64], values: NDArray[np.float64], names: list[str], is_held: NDArray[np.bool_]
) -> None:
    """Draw a line a gene, dotted grey for genes that are held."""
    ax.axhline(0.0, color=GREY, linewidth=0.8, zorder=0)
    for place, name in enumerate(names):
        turn, color = divmod(place, len(PALETTE))
        if is_held[place]:
            ax.plot(time, values[:, place], color=GREY, linewidth=2.2, label=f"{name} (held)")
        else:
            dash = _DASHES[turn % len(_DASHES)]
            ax.plot(time, values[:, place], color=PALETTE[color], linestyle=dash, linewidth=1.3, label=name)
    ax.set_ylabel("perturbed − unperturbed")
    ax.legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(1.0, 1.0), ncols=1 + len(names) // 16)
