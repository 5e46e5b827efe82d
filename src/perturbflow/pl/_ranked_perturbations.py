"""The perturbations that lead nearest to a target."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from perturbflow._checks import check_key, check_whole_number
from perturbflow.pl._drawing import GREY, KIND_COLORS, drawing, finish
from perturbflow.pl._shown_and_saved import plot
from perturbflow.store._keys import read_record

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData

_WORDS = {
    "reach": ("share of the squared distance removed\n(0: no move, 1: the target", "perturbations toward the target"),
    "follow": ("amount of the signature in the effect\n(0: no move, 1: all", "perturbations along the signature"),
    "reverse": ("amount of the signature that is reversed\n(0: no move, 1: all", "perturbations against the signature"),
}


@plot
def ranked_perturbations(
    adata: AnnData | MuData,
    *,
    n_top: int = 20,
    key: str = "ranked_perturbations",
    modality: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: bool | str | None = None,
) -> Axes:
    """Scores of the best perturbations with their intervals, best on top.

    The colour says what the prediction rests on; the vertical lines mark no move (0) and the target (1), which is
    reached where all of the squared distance is removed, or of a signature where all of it is followed or reversed.

    Parameters
    ----------
    adata
        Cells with a ranking (:func:`perturbflow.tl.rank_perturbations`).
    n_top
        How many perturbations to draw.
    key
        The ranking in ``adata.uns``.

    Raises
    ------
    KeyError
        If there is no ranking, with the call that makes it.

    Examples
    --------
    >>> import perturbflow as pf
    >>> adata = pf.datasets.simulated_perturb_seq(n_cells=600, n_genes=50, n_perturbations=4, n_combinations=2)
    >>> pf.pp.setup_perturbation(adata, perturbation_key="perturbation", control="control")
    >>> pf.pp.split_perturbations(adata, task="combination")
    >>> pf.tl.fit_flow(adata, max_steps=20, progress_bar=False)
    >>> label = adata.uns["split"]["held_out"]["perturbation"].iloc[0]
    >>> pf.tl.rank_perturbations(adata, {"perturbation": label})
    >>> ax = pf.pl.ranked_perturbations(adata, n_top=3)
    >>> len(ax.get_yticks())
    3
    """
    hint = f"Run `pf.tl.rank_perturbations(adata, target, key_added={key!r})` first."
    table: pd.DataFrame = read_record(adata, key, "ranked_perturbations", what="a ranking", hint=hint)
    check_whole_number(n_top, name="n_top", least=1)
    check_key(f"{key}_params", adata.uns, where="adata.uns", hint=hint)
    table = table.iloc[:n_top]
    level = float(adata.uns[f"{key}_params"]["level"])
    what, title = _WORDS[str(adata.uns[f"{key}_params"].get("goal", "reach"))]
    places, names = np.arange(len(table)), table["perturbation"].astype(str).tolist()
    if "dose" in table:
        names = [f"{name}, dose {dose}" for name, dose in zip(names, table["dose"], strict=True)]
    longest = max(map(len, names), default=0)
    with drawing(ax, figsize=(4.2 + 0.065 * longest, 1.1 + 0.22 * max(len(table), 3))) as ax:
        for value in (0.0, 1.0):
            ax.axvline(value, color=GREY, linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
        for kind, color in KIND_COLORS.items():
            rows = np.flatnonzero(table["kind"].astype(str) == kind)
            if len(rows):
                part = table.iloc[rows]
                ax.hlines(places[rows], part["lower"], part["upper"], color=color, linewidth=1.2)
                ax.scatter(part["score"], places[rows], color=color, s=18, zorder=3, label=kind)
        ax.set(
            xlabel=f"{what}; {level:.0%} interval)",
            ylim=(len(table) - 0.5, -0.5),
        )
        ax.set_yticks(places, names, fontsize="small")
        ax.tick_params(axis="y", length=0)
        ax.legend(
            frameon=False,
            fontsize="small",
            loc="upper left",
            bbox_to_anchor=(1.0, 1.0),
            title="kind of condition",
            title_fontsize="x-small",
            alignment="left",
        )
        finish(ax, title)
    return ax
