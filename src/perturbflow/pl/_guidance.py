"""Plot of the trade-off that the weight of guidance makes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from perturbflow.pl._drawing import BLUE, DARK, VERMILLION, drawing, finish, label_points
from perturbflow.pl._shown_and_saved import plot
from perturbflow.predict._flow_store import read_flow

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData


@plot
def guidance(
    adata: AnnData | MuData,
    *,
    key: str = "flow",
    modality: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: bool | str | None = None,
) -> Axes:
    """Recall of the most changed genes against the energy distance, for every weight of classifier-free guidance.

    A larger weight exaggerates what sets a condition apart: the genes that change most may become easier to find, while
    the cells become less like the real ones. Every point is a weight, with standard errors over the validation
    conditions; the diamond is the weight that predictions use. Where the prior alone predicts, all weights give the same.

    Parameters
    ----------
    adata
        Cells with a flow that was fitted with validation conditions (:func:`perturbflow.tl.fit_flow`).
    key
        The flow in ``adata.uns``.

    Raises
    ------
    KeyError
        If there is no fitted flow, with the call that makes it.
    ValueError
        If the flow was fitted without validation conditions, or with a fixed weight.

    Examples
    --------
    >>> import perturbflow as pf
    >>> adata = pf.datasets.simulated_perturb_seq(n_cells=600, n_genes=50, n_perturbations=4, n_combinations=2)
    >>> pf.pp.setup_perturbation(adata, perturbation_key="perturbation", control="control")
    >>> pf.pp.split_perturbations(adata, task="combination")
    >>> pf.tl.fit_flow(adata, max_steps=20, progress_bar=False)
    >>> ax = pf.pl.guidance(adata)
    >>> [text.get_text() for text in ax.texts][0]
    '1'
    """
    flow = read_flow(adata, key)
    curve = flow.guidance_curve
    if not curve:
        msg = (
            f"Expected a flow with a guidance curve in `adata.uns[{key!r}]`, found one fitted without validation "
            "conditions or with a fixed `guidance`. Run `pf.pp.split_perturbations(adata, ...)` and fit again."
        )
        raise ValueError(msg)
    weights, energies, recalls = curve["weight"], curve["energy_distance"], curve["recall"]
    chosen = flow.flow.config.guidance
    with drawing(ax, figsize=(4.2, 3.2)) as ax:
        ax.errorbar(
            energies,
            recalls,
            xerr=curve["energy_distance_se"],
            yerr=curve["recall_se"],
            fmt="o-",
            color=BLUE,
            ecolor="0.8",
            elinewidth=0.8,
            linewidth=1.2,
            markersize=4,
        )
        for weight, energy, recall in zip(weights, energies, recalls, strict=True):
            if weight == chosen:
                ax.plot(energy, recall, "D", color=VERMILLION, markersize=8, markeredgecolor="white", zorder=3)
        ax.set(xlabel="energy distance (lower is better)", ylabel="recall of the top 50 genes")
        finish(ax, "weight of guidance" if key == "flow" else f"weight of guidance: {key}")
        used = ", the prior alone predicts" if flow.flow.config.entry_time == 1 else ""
        ax.set_title(f"used: {chosen:g}{used}", loc="right", fontsize="small", color=DARK)
        line = np.linspace(0, 1, 20)[:, None]
        course = np.column_stack([energies, recalls])
        others = [one + line * (other - one) for one, other in zip(course[:-1], course[1:], strict=True)]
        label_points(ax, energies, recalls, [f"{weight:g}" for weight in weights], others=np.array(others), size=9)
    return ax
