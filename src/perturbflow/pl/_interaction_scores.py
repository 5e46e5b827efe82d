"""Genetic interactions: how much two perturbations do together, and which of the two."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from perturbflow._checks import check_one_of
from perturbflow.pl._drawing import BLUE, BROWN, DARK, GREEN, GREY, ORANGE, SKY, VERMILLION, drawing, finish
from perturbflow.pl._shown_and_saved import plot
from perturbflow.store._keys import read_record

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData

_COLORS = {
    "synergistic": VERMILLION,
    "suppressive": BLUE,
    "epistatic": ORANGE,
    "neomorphic": BROWN,
    "additive": GREEN,
    "undetermined": GREY,
}
_SOURCES = ("measured", "predicted")
_FARTHEST = 3.0  # magnitude


@plot
def interaction_scores(
    adata: AnnData | MuData,
    *,
    source: str = "measured",
    key: str = "interaction_scores",
    modality: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: bool | str | None = None,
) -> Axes:
    """Magnitudes of combinations with their intervals, coloured by the class of the interaction.

    A magnitude of 1 is what the effects of both alone add up to. What is not measurable is left out; intervals beyond
    a magnitude of 3 are cut there. Hollow points of the other source stand beside where there are some.

    Parameters
    ----------
    adata
        Cells with scores (:func:`perturbflow.tl.interaction_scores`).
    source
        "measured" or "predicted".
    key
        The scores in ``adata.uns``.

    Raises
    ------
    KeyError
        If there are no scores, with the call that makes them.
    ValueError
        If the entry is something else, or has nothing measurable of the source.

    Examples
    --------
    >>> import perturbflow as pf
    >>> adata = pf.datasets.simulated_perturb_seq(n_cells=800, n_genes=40, n_perturbations=4, n_combinations=3)
    >>> pf.pp.setup_perturbation(adata, perturbation_key="perturbation", control="control")
    >>> pf.pp.split_perturbations(adata, task="combination")
    >>> pf.tl.fit_flow(adata, preset="prior", progress_bar=False)
    >>> pf.tl.interaction_scores(adata)
    >>> ax = pf.pl.interaction_scores(adata, source="predicted")
    >>> len(ax.get_yticks()) <= 3
    True
    """
    hint = f"Run `pf.tl.interaction_scores(adata, key_added={key!r})` first."
    table: pd.DataFrame = read_record(adata, key, "interaction_scores", what="scores", hint=hint)
    check_one_of(source, _SOURCES, name="source")
    labels = list(table.columns[: table.columns.get_loc("source")])
    table = table[table["magnitude"].notna()].copy()
    table["name"] = [", ".join(map(str, row)) for row in table[labels].itertuples(index=False)]
    own = table[table["source"] == source].sort_values("magnitude", ascending=False, kind="stable")
    if own.empty:
        msg = f"Expected measurable combinations that are {source}, found none. Draw the other source."
        raise ValueError(msg)
    other = table[table["source"] != source].set_index("name")["magnitude"].reindex(own["name"]).to_numpy()
    longest = max(map(len, own["name"]))
    with drawing(ax, figsize=(4.4 + 0.065 * longest, 1.1 + 0.22 * max(len(own), 3))) as ax:
        places = np.arange(len(own))
        ax.axvline(1.0, color=DARK, linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
        for kind, color in _COLORS.items():
            rows = np.flatnonzero(own["class"].astype(str) == kind)
            if len(rows):
                part = own.iloc[rows]
                low, high = (part[f"magnitude_{end}"].clip(0, _FARTHEST) for end in ("lower", "upper"))
                ax.hlines(places[rows], low, high, color=color, linewidth=1.2)
                ax.scatter(part["magnitude"].clip(0, _FARTHEST), places[rows], color=color, s=20, zorder=3, label=kind)
        if np.isfinite(other).any():
            beside = next(name for name in _SOURCES if name != source)
            ax.scatter(
                np.clip(other, 0, _FARTHEST), places, s=22, facecolors="none", edgecolors=SKY, zorder=4, label=beside
            )
        ax.set_yticks(places, own["name"].tolist(), fontsize="small")
        ax.tick_params(axis="y", length=0)
        ax.set(ylim=(len(own) - 0.5, -0.5), xlabel="magnitude\n(1: the effects of both alone add up)")
        ax.legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(1.0, 1.0), alignment="left")
        finish(ax, f"interactions, {source}")
    return ax
