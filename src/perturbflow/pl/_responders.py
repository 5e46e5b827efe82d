"""Plot of how far single cells respond: control, observed and predicted cells along the direction of the response."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from perturbflow.metrics._responders import LEVEL
from perturbflow.metrics._response_axis import ResponseAxis, responding_share
from perturbflow.pl._drawing import SOURCES, colors_of, drawing, finish
from perturbflow.pl._predictions import Comparison, of_prediction, read_comparison
from perturbflow.pl._shown_and_saved import plot

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData
    from numpy.typing import NDArray

N_BINS = 40
OUTERMOST = 0.002  # share of the cells beyond either end of the axis, which are drawn in its last bins


@plot
@of_prediction
def responders(
    adata: AnnData | MuData,
    perturbation: str,
    *,
    covariates: Mapping[str, str] | None = None,
    level: float = LEVEL,
    key: str = "predicted",
    modality: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: bool | str | None = None,
) -> Axes:
    """Draw histograms of how far cells respond, between controls (0) and the mean of the real cells (1).

    Cells are scored along the direction of the real change or, without real cells of the perturbation, of the predicted
    one, from the mean of the controls of their context; see :func:`perturbflow.metrics.error_of_responders`. Two
    modes are responders and others; one broad mode is a graded response. The dashed line is the ``level`` quantile of the
    controls, and the legend has the share of cells beyond it, less the share of controls that is: the fraction of
    responders.

    Parameters
    ----------
    level
        Share of the controls that do not count as responding.

    Raises
    ------
    KeyError
        If there is no prediction, with the call that makes it.
    ValueError
        If there are fewer than two cells of a kind, no gene changes, or the level is not between 0 and 1.

    Examples
    --------
    >>> import perturbflow as pf
    >>> adata = pf.datasets.simulated_responders(fractions=(0.3, 0.6), n_controls=100, n_cells=100)
    >>> pf.pp.setup_perturbation(adata, perturbation_key="perturbation", control="control")
    >>> pf.tl.fit_flow(adata, max_steps=20, progress_bar=False)
    >>> pf.tl.predict_perturbation(adata, "P1")
    >>> ax = pf.pl.responders(adata, "P1")
    >>> [text.get_text().split(":")[0] for text in ax.get_legend().get_texts()]
    ['control', 'observed', 'predicted']
    """
    comparison = read_comparison(adata, perturbation, covariates=covariates, key=key)
    scores = _scores(comparison)
    fractions = {name: responding_share(values, scores["control"], level) for name, values in scores.items()}
    threshold = float(np.quantile(scores["control"], level))
    colors = colors_of(adata, key, list(SOURCES), SOURCES)
    low, high = np.quantile(np.concatenate(list(scores.values())), [OUTERMOST, 1 - OUTERMOST])
    bins = np.linspace(low, high, N_BINS + 1)
    with drawing(ax, figsize=(6.4, 3.2)) as ax:
        for name, values in scores.items():
            ax.hist(
                np.clip(values, low, high),
                bins=bins.tolist(),
                weights=np.full(len(values), 100 / len(values)),
                histtype="stepfilled",
                facecolor=(colors[name], 0.25),
                edgecolor=colors[name],
                linewidth=1.2,
                label=f"{name}: {100 * fractions[name]:.0f} % respond",
            )
        ax.axvline(threshold, color="black", linewidth=0.8, linestyle="--")
        ax.set(xlim=(low, high), xlabel="response (0: controls, 1: mean of the condition)", ylabel="cells (%)")
        finish(ax, comparison.title(covariates))
        ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize="small")
    return ax


def _scores(comparison: Comparison) -> dict[str, NDArray[np.float64]]:
    """Scores of the cells of every source, from the mean of the controls of their context."""
    cells = {name: np.array(values, dtype=np.float64) for name, values in comparison.sources().items()}
    for _, places in comparison.contexts():
        mean = cells["control"][places["control"]].mean(axis=0)
        for name in cells:
            cells[name][places[name]] -= mean
    target = "observed" if comparison.is_observed else "predicted"
    few = [name for name in ("control", target) if len(cells[name]) < 2]
    if few:
        msg = f"Expected at least 2 {few[0]} cells to see a response in, found {len(cells[few[0]])}. Add cells."
        raise ValueError(msg)
    axis = ResponseAxis.of(cells[target], cells["control"])
    if np.isnan(axis.origin):
        msg = (
            f"Expected genes that change between control and {target} cells of {comparison.label!r}, found none. "
            "Choose another perturbation."
        )
        raise ValueError(msg)
    return {name: axis.scores(values) for name, values in cells.items()}
