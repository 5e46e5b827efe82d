"""Conditions as rows: what to do to reach a target, what interacts, and what responses consist of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from perturbflow._checks import check_key, check_one_of, check_whole_number
from perturbflow.pl._drawing import (
    BLUE,
    BROWN,
    DARK,
    GREEN,
    GREY,
    KIND_COLORS,
    ORANGE,
    SKY,
    VERMILLION,
    drawing,
    finish,
    labels_of_rows,
    legend_above,
    legend_beside,
    name_rows,
    plot,
    points_of_kind,
    text_behind,
)
from perturbflow.store._keys import read_record

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData

_GOALS = {
    "reach": (
        "fraction of the squared distance removed\n(0: no shift, 1: target reached",
        "perturbations towards the target",
    ),
    "follow": ("fraction of the signature in the effect\n(0: none, 1: all", "perturbations that follow the signature"),
    "reverse": (
        "fraction of the signature that is reversed\n(0: none, 1: all",
        "perturbations that reverse the signature",
    ),
}
_CLASSES = {
    "synergistic": VERMILLION,
    "suppressive": BLUE,
    "epistatic": ORANGE,
    "neomorphic": BROWN,
    "additive": GREEN,
    "undetermined": GREY,
}
_SOURCES = ("measured", "predicted")
_FARTHEST = 3.0  # magnitude
_PARTS = {
    "template": (ORANGE, "template: shared by all perturbations"),
    "conserved": (BLUE, "conserved across contexts"),
    "interaction": (VERMILLION, "specific to the context"),
    "own": (VERMILLION, "specific to the perturbation"),
    "noise": (GREY, "noise"),
}
_NOT_LABELS = {
    *("n_cells", "total", "effect", "template", "own", "conserved", "interaction", "noise"),
    *("reliability", "own_reliability"),
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
    what, title = _GOALS[str(adata.uns[f"{key}_params"].get("goal", "reach"))]
    names = table["perturbation"].astype(str).tolist()
    if "dose" in table:
        names = [f"{name}, dose {dose}" for name, dose in zip(names, table["dose"], strict=True)]
    longest = max(map(len, names), default=0)
    with drawing(ax, figsize=(4.2 + 0.065 * longest, 1.1 + 0.22 * max(len(table), 3))) as ax:
        for value in (0.0, 1.0):
            ax.axvline(value, color=GREY, linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
        for kind, color in KIND_COLORS.items():
            if len(rows := np.flatnonzero(table["kind"].astype(str) == kind)):
                points_of_kind(ax, table, ("score", "lower", "upper"), rows, color=color, s=18, label=kind)
        ax.set_xlabel(f"{what}; {level:.0%} interval)")
        name_rows(ax, names)
        legend_beside(ax, title="kind of condition")
        finish(ax, title)
    return ax


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
    table["name"] = labels_of_rows(table, labels)
    own = table[table["source"] == source].sort_values("magnitude", ascending=False, kind="stable")
    if own.empty:
        msg = f"Expected measurable combinations that are {source}, found none. Choose the other `source`."
        raise ValueError(msg)
    columns = ["magnitude", "magnitude_lower", "magnitude_upper"]
    own[columns] = own[columns].clip(0, _FARTHEST)
    other = table[table["source"] != source].set_index("name")["magnitude"].reindex(own["name"]).to_numpy()
    longest = max(map(len, own["name"]))
    with drawing(ax, figsize=(4.4 + 0.065 * longest, 1.1 + 0.22 * max(len(own), 3))) as ax:
        ax.axvline(1.0, color=DARK, linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
        for kind, color in _CLASSES.items():
            if len(rows := np.flatnonzero(own["class"].astype(str) == kind)):
                points_of_kind(ax, own, columns, rows, color=color, s=20, label=kind)
        if np.isfinite(other).any():
            beside = next(name for name in _SOURCES if name != source)
            other = np.clip(other, 0, _FARTHEST)
            ax.scatter(other, np.arange(len(own)), s=22, zorder=4, label=beside, facecolors="none", edgecolors=SKY)
        name_rows(ax, own["name"].tolist())
        ax.set_xlabel("magnitude\n(1: the single effects add up)")
        legend_beside(ax)
        finish(ax, f"interactions, {source}")
    return ax


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
    names = labels_of_rows(table, [name for name in table.columns if name not in _NOT_LABELS])
    divided = table["interaction"].notna().to_numpy()
    parts = table.assign(
        own=np.where(divided, np.nan, table["own"].fillna(table["effect"])),
        conserved=table["conserved"].where(divided),
    )
    longest = max(map(len, names), default=0)
    with drawing(ax, figsize=(4.6 + 0.065 * longest, 1.3 + 0.2 * max(len(table), 3))) as ax:
        right, left = np.zeros(len(table)), np.zeros(len(table))
        for part, (color, words) in _PARTS.items():
            values = parts[part].to_numpy(dtype=np.float64)
            if np.isnan(values).all():
                continue
            values = np.nan_to_num(values)
            start = np.where(values > 0, right, left)
            ax.barh(np.arange(len(table)), values, left=start, color=color, height=0.75, label=words)
            right, left = right + np.maximum(values, 0), left + np.minimum(values, 0)
        reliabilities = zip(table["reliability"], table["own_reliability"], strict=True)
        texts = [f"{whole:.2f} ({'–' if np.isnan(own) else f'{own:.2f}'})" for whole, own in reliabilities]
        text_behind(ax, right, texts, fontsize=7)
        ax.axvline(0.0, color=DARK, linewidth=0.8)
        name_rows(ax, names)
        ax.set(
            xlim=(min(float(left.min(initial=0)), 0) * 1.05, max(float(right.max(initial=0)), 1e-9) * 1.25),
            xlabel="mean squared effect of a gene\n(numbers: reliability, without the template)",
        )
        legend_above(ax, "components of responses", n_lines=2, ncols=2)
    return ax
