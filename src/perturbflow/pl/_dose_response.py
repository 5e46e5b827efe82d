"""Curves of a readout over doses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from perturbflow._checks import check_key, check_one_of, check_type
from perturbflow.pl._drawing import DARK, SOURCES, drawing, legend_above, plot
from perturbflow.pl._predictions import fields_of
from perturbflow.screen._conditions import Vocabulary, typed_label
from perturbflow.screen._fields import FIELDS_KEY
from perturbflow.store._keys import read_record

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData

_COLORS = {"measured": SOURCES["observed"], "predicted": SOURCES["predicted"]}


@plot
def dose_response(
    adata: AnnData | MuData,
    perturbation: str | None = None,
    *,
    covariates: Mapping[str, str] | None = None,
    key: str = "dose_response",
    modality: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: bool | str | None = None,
) -> Axes:
    """Responses to the doses of a perturbation, measured and predicted, with their curves and half-maximal doses.

    Points have an interval of one standard deviation, curves one of the ``level`` of the analysis, and the bars at the bottom are the
    intervals of the half-maximal doses, as far as they lie in the figure, where there is a response.

    Parameters
    ----------
    adata
        Cells with curves (:func:`perturbflow.tl.dose_response`).
    perturbation
        Which one to draw; the first in the table if None.
    covariates
        The context, as values of covariates; the first in the table if None.
    key
        The curves in ``adata.uns``.

    Examples
    --------
    >>> import perturbflow as pf
    >>> adata = pf.datasets.simulated_perturb_seq(
    ...     n_cells=800, n_genes=30, n_perturbations=3, n_combinations=0, doses=(0.1, 0.3, 1.0)
    ... )
    >>> pf.pp.setup_perturbation(adata, perturbation_key="perturbation", control="control", dose_key="dose")
    >>> adata.obs["split"] = "train"
    >>> pf.tl.fit_flow(adata, preset="prior", progress_bar=False)
    >>> gene = adata.obs["perturbation"].cat.categories[0]
    >>> pf.tl.dose_response(adata, gene, [gene])
    >>> ax = pf.pl.dose_response(adata)
    >>> len(ax.lines) >= 2
    True
    """
    hint = f"Run `pf.tl.dose_response(adata, readout, key_added={key!r})` first."
    table: pd.DataFrame = read_record(adata, key, "dose_response", what="curves", hint=hint)
    for suffix in ("_points", "_curves", "_params"):
        check_key(f"{key}{suffix}", adata.uns, where="adata.uns", hint=hint)
    known = list(dict.fromkeys(map(str, table["perturbation"])))
    if perturbation not in known:
        perturbation = known[0] if perturbation is None else _typed(adata, key, perturbation, known, covariates)
    wanted = {"perturbation": perturbation} | _context(table[table["perturbation"] == perturbation], covariates)
    fits, points, curves = (_part(adata.uns[f"{key}{suffix}"], wanted) for suffix in ("", "_points", "_curves"))
    readout = list(adata.uns[f"{key}_params"]["readout"])
    with drawing(ax, figsize=(4.4, 3.4)) as ax:
        ax.axhline(0.0, color=DARK, linewidth=0.6, linestyle=(0, (4, 3)), zorder=0)
        for offset, (source, color) in enumerate(_COLORS.items()):
            own, line = points[points["source"] == source], curves[curves["source"] == source]
            if own.empty:
                continue
            ax.fill_between(line["dose"], line["lower"], line["upper"], color=color, alpha=0.18, linewidth=0)
            ax.plot(line["dose"], line["effect"], color=color, linewidth=1.4, label=source)
            ax.errorbar(
                own["dose"], own["effect"], yerr=own["sd"], color=color, fmt="o", markersize=4, elinewidth=1.0, zorder=3
            )
            fit = fits[fits["source"] == source].iloc[0]
            if fit["status"] != "no response":
                low, high = (
                    float(np.clip(fit[end], own["dose"].min(), own["dose"].max()))
                    for end in ("ec50_lower", "ec50_upper")
                )
                ax.plot(
                    [low, high], [0.02 + 0.03 * offset] * 2, color=color, linewidth=2.5, solid_capstyle="butt",
                    transform=ax.get_xaxis_transform(), zorder=4,
                )  # fmt: skip
        if (points["dose"] > 0).all() and points["dose"].max() > 3 * points["dose"].min():
            ax.set_xscale("log")
        shown = readout[0] if len(readout) == 1 else f"readout of {len(readout)} genes"
        ax.set(xlabel=f"dose of {perturbation}", ylabel=f"change of {shown}")
        ax.margins(y=0.15)
        legend_above(ax, ", ".join(wanted.values()))
    return ax


def _typed(
    adata: AnnData, key: str, perturbation: str, known: Sequence[str], covariates: Mapping[str, str] | None
) -> str:
    """Return which perturbation of the table a label stands for."""
    check_type(perturbation, str, name="perturbation", expected="a label")
    flow_key = adata.uns[f"{key}_params"].get("key")
    is_known = FIELDS_KEY in adata.uns or flow_key in adata.uns
    vocabulary = fields_of(adata, flow_key).vocabulary if is_known else Vocabulary(tuple(known))
    what = f"a perturbation of `adata.uns[{key!r}]`"
    return typed_label(vocabulary, perturbation, known, argument="perturbation", what=what, context=covariates)


def _context(table: pd.DataFrame, covariates: Mapping[str, str] | None) -> dict[str, str]:
    """Values of covariates: those asked for, and the first of the others."""
    keys = list(table.columns[1 : table.columns.get_loc("source")])
    for name in covariates or {}:
        check_key(name, keys, where="the covariates of the table")
    found: dict[str, str] = {}
    for name in keys:
        values = list(dict.fromkeys(map(str, table[name])))
        found[name] = str((covariates or {}).get(name, values[0]))
        check_one_of(found[name], values, name=f"covariates[{name!r}]")
        table = table[table[name].astype(str) == found[name]]
    return found


def _part(table: pd.DataFrame, wanted: Mapping[str, str]) -> pd.DataFrame:
    for name, value in wanted.items():
        table = table[table[name].astype(str) == value]
    return table
