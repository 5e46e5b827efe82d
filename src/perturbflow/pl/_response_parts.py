"""Plot of the parts that responses consist of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from perturbflow._checks import check_whole_number
from perturbflow.pl._drawing import BLUE, DARK, GREY, ORANGE, VERMILLION, drawing, legend_above
from perturbflow.pl._shown_and_saved import plot
from perturbflow.store._keys import read_record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData

_COLORS = {"template": ORANGE, "conserved": BLUE, "interaction": VERMILLION, "own": VERMILLION, "noise": GREY}
_WORDS = {
    "template": "template: what all perturbations do",
    "conserved": "conserved over contexts",
    "interaction": "of this context alone",
    "own": "of this perturbation alone",
    "noise": "noise",
}
_NOT_LABELS = {
    *("n_cells", "total", "effect", "template", "own", "conserved", "interaction", "noise"),
    *("reliability", "own_reliability"),
}


@plot
def response_parts(
    adata: AnnData | MuData,
    *,
    n_top: int = 25,
    key: str = "response_parts",
    modality: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: bool | str | None = None,
) -> Axes:
    """Bars of what the largest responses consist of, with their reliability.

    The parts of a bar add up to the squared size of the measured effect; those below 0 are drawn to the left of it. Where
    a perturbation was measured in one context only, what it has of its own is not divided. Numbers are the split-half
    reliability of the profile, and in brackets that without the template.

    Parameters
    ----------
    adata
        Cells with an explanation (:func:`perturbflow.tl.explain_response`).
    n_top
        How many conditions to draw, largest effects first.
    key
        The explanation in ``adata.uns``.

    Raises
    ------
    KeyError
        If there is no explanation, with the call that makes it.
    ValueError
        If the entry is something else.

    Examples
    --------
    >>> import perturbflow as pf
    >>> adata = pf.datasets.simulated_contexts(3, 5, n_genes=40)
    >>> pf.pp.setup_perturbation(adata, perturbation_key="perturbation", control="control", covariate_keys=["context"])
    >>> pf.tl.explain_response(adata)
    >>> ax = pf.pl.response_parts(adata, n_top=4)
    >>> len(ax.get_yticks())
    4
    """
    hint = f"Run `pf.tl.explain_response(adata, key_added={key!r})` first."
    table: pd.DataFrame = read_record(adata, key, "response_parts", what="an explanation", hint=hint)
    check_whole_number(n_top, name="n_top", least=1)
    table = table.sort_values("effect", ascending=False, kind="stable").iloc[:n_top]
    labels = [name for name in table.columns if name not in _NOT_LABELS]
    names = [", ".join(map(str, row)) for row in table[labels].itertuples(index=False)]
    divided = table["interaction"].notna().to_numpy()
    parts = table.assign(
        own=np.where(divided, np.nan, table["own"].fillna(table["effect"])),
        conserved=table["conserved"].where(divided),
    )
    longest = max(map(len, names), default=0)
    with drawing(ax, figsize=(4.6 + 0.065 * longest, 1.3 + 0.2 * max(len(table), 3))) as ax:
        places = np.arange(len(table))
        right, left = np.zeros(len(table)), np.zeros(len(table))
        for part, color in _COLORS.items():
            values = parts[part].to_numpy(dtype=np.float64)
            if np.isnan(values).all():
                continue
            values = np.nan_to_num(values)
            start = np.where(values > 0, right, left)
            ax.barh(places, values, left=start, color=color, height=0.75, label=_WORDS[part])
            right, left = right + np.maximum(values, 0), left + np.minimum(values, 0)
        for place, end, text in zip(places, right, _reliabilities(table), strict=True):
            ax.annotate(
                text, (end, place), xytext=(4, 0), textcoords="offset points", va="center", fontsize=7, color=DARK
            )
        ax.axvline(0.0, color=DARK, linewidth=0.8)
        ax.set_yticks(places, names, fontsize="small")
        ax.tick_params(axis="y", length=0)
        ax.set(
            ylim=(len(table) - 0.4, -0.6),
            xlim=(min(float(left.min(initial=0)), 0) * 1.05, max(float(right.max(initial=0)), 1e-9) * 1.25),
            xlabel="mean squared effect of a gene\n(numbers: reliability, without the template)",
        )
        legend_above(ax, "parts of responses", n_lines=2, ncols=2)
    return ax


def _reliabilities(table: pd.DataFrame) -> Sequence[str]:
    return [
        f"{whole:.2f} ({'–' if np.isnan(own) else f'{own:.2f}'})"
        for whole, own in zip(table["reliability"], table["own_reliability"], strict=True)
    ]
