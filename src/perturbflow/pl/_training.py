"""Plot of the training of a flow."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from perturbflow.pl._drawing import BLUE, DARK, VERMILLION, drawing, finish
from perturbflow.pl._shown_and_saved import plot
from perturbflow.predict._flow_store import read_flow

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData
    from numpy.typing import NDArray


@plot
def training(
    adata: AnnData | MuData,
    *,
    key: str = "flow",
    modality: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: bool | str | None = None,
) -> Axes:
    """Training loss and energy distance on held-out conditions over the steps of training.

    The loss is read on the left, the energy distance on the right, both on axes that begin at 0. The vertical line
    marks the step with the smallest energy distance, whose weights were kept. The title says so if predictions do not use
    these weights, because the network did not improve on its prior.

    Parameters
    ----------
    adata
        Cells with a fitted flow (:func:`perturbflow.tl.fit_flow`).
    key
        The flow in ``adata.uns``.

    Returns
    -------
    The Axes of the loss. With held-out conditions there is a second one on the same place.

    Raises
    ------
    KeyError
        If there is no fitted flow, with the call that makes it.

    Examples
    --------
    >>> import perturbflow as pf
    >>> adata = pf.datasets.simulated_perturb_seq(n_cells=600, n_genes=50, n_perturbations=4, n_combinations=2)
    >>> pf.pp.setup_perturbation(adata, perturbation_key="perturbation", control="control")
    >>> pf.pp.split_perturbations(adata, task="combination")
    >>> pf.tl.fit_flow(adata, max_steps=20, progress_bar=False)
    >>> ax = pf.pl.training(adata)
    >>> ax.get_xlabel()
    'training step'
    """
    flow = read_flow(adata, key)
    history = {name: np.asarray(values) for name, values in flow.history.items()}
    if "loss" not in history:
        msg = f"Expected the history of a trained network in `adata.uns[{key!r}]`, found none: it is the prior alone. Fit another preset."
        raise ValueError(msg)
    steps, energies = history.get("valid_step", np.empty(0)), history.get("valid_energy", np.empty(0))
    with drawing(ax, figsize=(4.8, 3.1)) as ax:
        ax.plot(history["step"], history["loss"], color=BLUE, linewidth=1.2, label="training loss")
        ax.set(xlabel="training step", ylabel="training loss (smoothed)", ylim=_from_zero(history["loss"]))
        finish(ax, "training" if key == "flow" else f"training: {key}")
        if not np.isfinite(energies).any():
            ax.annotate("no held-out conditions", (0.98, 0.95), xycoords="axes fraction", ha="right", va="top")
        else:
            best = int(steps[np.nanargmin(energies)])
            ax.yaxis.label.set_color(BLUE)
            ax.tick_params(axis="y", labelcolor=BLUE)
            other = ax.twinx()
            other.plot(steps, energies, "o--", color=VERMILLION, linewidth=1.2, markersize=3, label="held-out energy")
            other.plot(best, np.nanmin(energies), "D", color=VERMILLION, markersize=7, markeredgecolor="white")
            other.axvline(best, color=DARK, linewidth=0.8, linestyle=(0, (4, 3)))
            other.set_ylabel("energy distance, held-out conditions", color=VERMILLION)
            other.set_ylim(_from_zero(energies))
            other.tick_params(axis="y", labelcolor=VERMILLION)
            other.spines["top"].set_visible(False)
            used = "; not used, the prior alone predicts" if flow.flow.config.entry_time == 1 else ""
            ax.set_title(f"best: step {best:,}{used}", loc="right", fontsize="small", color=DARK)
    return ax


def _from_zero(values: NDArray[np.floating]) -> tuple[float, float]:
    """Limits of an axis that has 0 on it, so that small changes look small."""
    low, high = min(float(np.nanmin(values)), 0.0), max(float(np.nanmax(values)), 0.0)
    margin = 0.06 * (high - low or 1.0)
    return low - margin * (low < 0), high + margin
