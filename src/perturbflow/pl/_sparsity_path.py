"""Plot of the strengths of a penalty: which was chosen, and why."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from perturbflow.pl._drawing import BLUE, DARK, GREEN, VERMILLION, drawing, legend_above
from perturbflow.pl._dynamics_results import read_result
from perturbflow.pl._shown_and_saved import plot

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData
    from numpy.typing import NDArray


@plot
def sparsity_path(
    adata: AnnData | MuData,
    *,
    key: str = "dynamics",
    modality: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: bool | str | None = None,
) -> Axes:
    """Draw errors and the number of edges along the strengths of the sparsity penalty.

    Errors are read on the left, with standard errors for those on held-out data: at 1, the dotted line, dynamics predict
    changes as badly as no change at all. Edges are read on the right: those that the penalty leaves at every strength,
    and at the chosen one, which the vertical line marks, those that elimination left of them. These are the edges of the
    fitted dynamics; :func:`perturbflow.tl.infer_graph` may rank more pairs, with a confidence for each. The axis of
    strengths is logarithmic; a strength of 0 stands before a break.

    Parameters
    ----------
    adata
        Cells with fitted dynamics (:func:`perturbflow.tl.fit_dynamics`).
    key
        The dynamics in ``adata.uns``.

    Returns
    -------
    The Axes of the errors. There is a second one on the same place.

    Raises
    ------
    KeyError
        If there are no fitted dynamics with a path, with the call that makes them.

    Examples
    --------
    >>> import perturbflow as pf
    >>> adata = pf.datasets.hill_network(n_genes=5, n_trajectories=6, n_times=20)
    >>> pf.pp.setup_dynamics(adata, time_key="time", trajectory_key="trajectory")
    >>> pf.tl.fit_dynamics(adata, effort=0.02, progress_bar=False)
    >>> ax = pf.pl.sparsity_path(adata)
    >>> ax.get_xlabel()
    'strength of the penalty'
    """
    result = read_result(adata, key, kind="dynamics", entry="sparsity_path")
    path = pd.DataFrame(result["sparsity_path"])
    path = path.sort_values("strength", kind="stable")
    strength = path["strength"].to_numpy(dtype=np.float64)
    place = _places(strength)
    chosen = np.flatnonzero(path["chosen"].to_numpy(dtype=bool))
    with drawing(ax, figsize=(5.0, 3.7)) as ax:
        other = ax.twinx()
        ax.set_zorder(other.get_zorder() + 1)  # errors are drawn over the number of edges
        ax.patch.set_visible(False)
        other.plot(
            place, path["n_edges"], "s--", color=GREEN, linewidth=1.0, markersize=3.5, label="edges left by the penalty"
        )
        other.set_ylabel("number of edges", color=GREEN)
        other.set_ylim(bottom=0)
        other.yaxis.set_major_locator(MaxNLocator(integer=True))
        other.spines["top"].set_visible(False)

        ax.plot(place, path["train_error"], "o-", color=BLUE, linewidth=1.2, markersize=3.5, label="training error")
        held_out = path["valid_error"].to_numpy(dtype=np.float64)
        if np.isfinite(held_out).any():
            ax.errorbar(
                place,
                held_out,
                yerr=np.nan_to_num(path["valid_error_se"].to_numpy(dtype=np.float64)),
                fmt="o-",
                color=VERMILLION,
                elinewidth=0.9,
                capsize=2,
                linewidth=1.2,
                markersize=3.5,
                label="held-out error (± SE)",
            )
        ax.axhline(1.0, color=DARK, linewidth=1.0, linestyle=":", zorder=0, label="error of no change at all")
        title = f"sparsity of {key!r}"
        for at in chosen:
            ax.axvline(place[at], color=DARK, linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
            ax.plot(place[at], held_out[at], "D", color=VERMILLION, markersize=8, markeredgecolor="white", zorder=4)
            n_edges = int(path["n_edges"].iloc[at])
            title = f"chosen strength {strength[at]:.3g}: {n_edges:,} edge{'s' * (n_edges != 1)}"
            left = int(result.get("n_edges", n_edges))
            if left < n_edges:
                title += f", {left:,} after elimination"
                mark: dict[str, Any] = {"markersize": 7, "markerfacecolor": "white", "markeredgewidth": 1.5}
                other.plot(place[at], left, "s", color=GREEN, label="edges after elimination", **mark)
        ax.set(xscale="log", xlabel="strength of the penalty", ylabel="relative error")
        _label_zero(ax, place, strength)
        handles = [*ax.get_legend_handles_labels()[0], *other.get_legend_handles_labels()[0]]
        legend_above(ax, title, n_lines=math.ceil(len(handles) / 2), ncols=2, handles=handles)
    return ax


def _places(strength: NDArray[np.float64]) -> NDArray[np.float64]:
    """Strengths as drawn on a logarithmic axis: 0 stands one step of the path, at least a factor 3, before the others."""
    positive = np.unique(strength[strength > 0])
    if len(positive) == 0:
        return np.ones(len(strength))
    step = float(np.median(positive[1:] / positive[:-1])) if len(positive) > 1 else 10.0
    return np.where(strength > 0, strength, positive[0] / max(step, 3.0))


def _label_zero(ax: Axes, place: NDArray[np.float64], strength: NDArray[np.float64]) -> None:
    """Write 0 where the axis has it, and keep other ticks away from it."""
    if (strength > 0).all():
        return
    zero = float(place[strength == 0][0])
    positive = place[strength > 0]
    if len(positive) == 0:
        ax.set_xticks([zero], ["0"])
        ax.minorticks_off()
        return
    decades = 10.0 ** np.arange(np.ceil(np.log10(positive.min()) - 1e-9), np.floor(np.log10(positive.max()) + 1e-9) + 1)
    shown = decades if len(decades) else np.unique(positive)
    shown = shown[:: max(1, len(shown) // 6)]
    labels = [f"$10^{{{np.log10(value):.0f}}}$" if len(decades) else f"{value:.2g}" for value in shown]
    ax.set_xticks([zero, *shown], ["0", *labels])
    ax.minorticks_off()
    gap = np.sqrt(zero * positive.min())
    mark: dict[str, Any] = {
        "transform": ax.get_xaxis_transform(),
        "ha": "center",
        "va": "center",
        "color": DARK,
        "clip_on": False,
    }
    ax.text(gap, 0.0, "//", fontsize="small", **mark)
