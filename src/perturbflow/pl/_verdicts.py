"""Plot of verdicts: a model against every baseline, condition by condition."""

from __future__ import annotations

from typing import TYPE_CHECKING, overload

import numpy as np

from perturbflow._checks import check_one_of
from perturbflow.evaluation._leaderboard import read_table, splits_of
from perturbflow.evaluation._tables import BASELINE_BETTER, FLOOR, MODEL_BETTER, NOT_MEASURABLE, TIE
from perturbflow.pl._drawing import BLUE, DARK, GREY, ORANGE, VERMILLION, check_split, drawing, finish, new_panels
from perturbflow.pl._shown_and_saved import plot

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData
    from numpy.typing import NDArray

_STYLES = {
    MODEL_BETTER: (BLUE, "o"),
    TIE: (ORANGE, "D"),
    BASELINE_BETTER: (VERMILLION, "s"),
    NOT_MEASURABLE: (GREY, "X"),
}
_MOST_LABELS = 60
_NOT_LABELS = {
    *("split", "model", "best_baseline", "difference", "lower", "upper", "p_value", "n_cells", "n_cells_needed"),
    *("verdict", "finding", "worse_than_controls", "worse_than_prior"),
}


@overload
def verdicts(
    adata: AnnData | MuData,
    *,
    key: str = ...,
    split: None = ...,
    model: str | None = ...,
    modality: str | None = ...,
    ax: None = ...,
    show: bool | None = ...,
    save: bool | str | None = ...,
) -> NDArray[np.object_]: ...


@overload
def verdicts(
    adata: AnnData | MuData,
    *,
    key: str = ...,
    split: str,
    model: str | None = ...,
    modality: str | None = ...,
    ax: Axes | None = ...,
    show: bool | None = ...,
    save: bool | str | None = ...,
) -> Axes: ...


@plot
def verdicts(
    adata: AnnData | MuData,
    *,
    key: str = "evaluation",
    split: str | None = None,
    model: str | None = None,
    modality: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: bool | str | None = None,
) -> Axes | NDArray[np.object_]:
    """Difference of the energy distances of a model and of the best baseline, for every condition.

    Left of 0 the model is better. Lines are the intervals (95 %), colours the verdicts, whose numbers the legend gives,
    with how often no effect at all, the control cells, is better than the model: a condition whose real cells cannot be
    told from the controls says nothing about models. Names, perturbation and context, are written where no split has more
    than 60 conditions.

    Parameters
    ----------
    adata
        Cells with an evaluation (:func:`perturbflow.tl.evaluate`).
    key
        The evaluation in ``adata.uns``.
    split
        Draw this split only; by default one panel for every split.
    model
        The model; by default the first in the table, which is the flow if there is one.
    ax
        Axes to draw on, with ``split`` only.

    Returns
    -------
    The Axes if ``split`` is given, otherwise an array with the Axes of every split, also if there is but one.

    Raises
    ------
    KeyError
        If there is no evaluation, with the call that makes it.
    ValueError
        If there are no verdicts or those of an earlier version, split or model have none, or ``ax`` is given without ``split``.

    Examples
    --------
    >>> import perturbflow as pf
    >>> adata = pf.datasets.simulated_perturb_seq(n_cells=600, n_genes=50, n_perturbations=4, n_combinations=2)
    >>> pf.pp.setup_perturbation(adata, perturbation_key="perturbation", control="control")
    >>> pf.pp.split_perturbations(adata, task="combination")
    >>> pf.tl.fit_flow(adata, max_steps=20, progress_bar=False)
    >>> pf.tl.evaluate(adata, metrics=["energy_distance"], splits=["test"], n_permutations=20, progress_bar=False)
    >>> ax = pf.pl.verdicts(adata, split="test")
    >>> len(ax.get_yticks()) == len(adata.uns["evaluation_verdicts"])
    True
    """
    table = read_table(adata, key, "verdicts")
    if table.empty:
        msg = "Expected verdicts, found an evaluation without. Evaluate a model that is no baseline, `n_permutations` > 0."
        raise ValueError(msg)
    if unknown := sorted(set(table["verdict"].astype(str)) - set(_STYLES)):
        msg = f"Expected the verdicts {list(_STYLES)}, found {unknown}, of an earlier version. Run `pf.tl.evaluate` again."
        raise ValueError(msg)
    models = list(dict.fromkeys(map(str, table["model"])))
    model = models[0] if model is None else model
    check_one_of(model, models, name="model")
    table = table[table["model"] == model]
    splits = check_split(splits_of(table, None), split, ax)
    sizes = [int((table["split"] == each).sum()) for each in splits]
    has_names = max(sizes) <= _MOST_LABELS
    height = 2.1 + (0.17 * max(sizes) if has_names else 0.04 * min(max(sizes), 150))
    longest = max(map(len, _names(table[table["split"].isin(splits)])))
    width = 3.6 + (0.055 * longest if has_names else 0.0)
    if split is not None:
        with drawing(ax, figsize=(width, height)) as ax:
            _draw(ax, table, split, model, has_names=has_names)
        return ax
    axes = new_panels(len(splits), figsize=(width * len(splits), height))
    for panel, each in zip(axes, splits, strict=True):
        _draw(panel, table, each, model, has_names=has_names)
    return axes


def _draw(ax: Axes, table: pd.DataFrame, split: str, model: str, *, has_names: bool) -> None:
    part = table[table["split"] == split].sort_values("difference", kind="stable", na_position="last")
    places = np.arange(len(part))
    found = part["verdict"].astype(str).to_numpy()
    ax.axvline(0.0, color=DARK, linewidth=0.8, linestyle=(0, (4, 2)), zorder=1)
    for verdict, (color, marker) in _STYLES.items():
        rows = np.flatnonzero(found == verdict)
        chosen = part.iloc[rows]
        ax.hlines(
            places[rows], chosen["lower"], chosen["upper"], color=color, linewidth=1.2 if has_names else 0.7, zorder=2
        )
        ax.scatter(
            chosen["difference"],
            places[rows],
            s=22 if has_names else 9,
            color=color,
            marker=marker,
            linewidths=0,
            zorder=3,
            label=f"{len(rows)} {verdict}{_no_effect(chosen) if verdict == BASELINE_BETTER else ''}",
        )
    if has_names:
        ax.set_yticks(places, _names(part), fontsize=7)
    else:
        ax.set_yticks([])
        ax.set_ylabel(f"{len(part)} conditions")
    ax.tick_params(axis="y", length=0)
    ax.set(
        ylim=(len(part) - 0.3, -0.7),
        xlabel=f"energy distance,\n{model} minus best baseline\n(below 0: the model is better)",
    )
    ax.legend(
        loc="lower left", bbox_to_anchor=(0.0, 1.0), frameon=False, fontsize=8, handletextpad=0.2, borderaxespad=0.2
    )
    finish(ax, "")
    ax.set_title(f"{split}: {model}", loc="left", fontsize="medium", pad=62)


def _no_effect(losses: pd.DataFrame) -> str:
    """In how many of some losses no effect at all is better than the model."""
    n = int(losses["finding"].astype(str).str.contains(f"no effect ({FLOOR})", regex=False).sum())
    return f"; no effect ({FLOOR}) in {n}" if n else ""


def _names(part: pd.DataFrame) -> Sequence[str]:
    """Names of conditions: perturbation and context."""
    columns = [name for name in part.columns if name not in _NOT_LABELS]
    return [", ".join(map(str, row)) for row in part[columns].itertuples(index=False)]
