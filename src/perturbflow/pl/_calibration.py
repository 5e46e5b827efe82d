"""Plot of the coverage of intervals of predicted means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from numpy.typing import NDArray
from scipy.stats import binom

from perturbflow._checks import check_whole_number
from perturbflow.evaluation._conditions import Condition, conditions_of
from perturbflow.flow import condition_kind, mean_expression
from perturbflow.metrics._moments import moments_of
from perturbflow.metrics._uncertainty import interval_coverage
from perturbflow.pl._drawing import (
    DARK,
    KIND_COLORS,
    check_split,
    finish,
    of_evaluation,
    panels,
    plot,
)
from perturbflow.predict._fitted_flow import FittedFlow, read_flow
from perturbflow.screen._fields import read_screen
from perturbflow.screen._screen import Screen
from perturbflow.screen._splits import read_split

if TYPE_CHECKING:
    from mudata import MuData

_LEVELS = (0.05, *(round(0.1 * i, 1) for i in range(1, 10)), 0.95)
_BAND = 0.95
_LEAST_VARIANCE = 1e-6


@dataclass(frozen=True, eq=False)
class _Coverage:
    """Kind of a condition, and the share of its genes that intervals of every level hold (L,)."""

    split: str
    kind: str
    shares: NDArray[np.float64]


@plot
@of_evaluation
def calibration(
    adata: AnnData | MuData,
    *,
    key: str = "flow",
    split: str | None = None,
    split_key: str = "split",
    min_cells: int = 10,
    modality: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: bool | str | None = None,
) -> Axes | NDArray[np.object_]:
    """Share of observed means that lie in their predicted intervals, against the share that should.

    For every condition with real cells, the flow states intervals of the mean expression of all genes at levels from
    0.05 to 0.95. They are widened by the sampling error of the observed mean. Thick lines are means over conditions, by
    what the prediction rests on, thin ones single conditions; above the diagonal a prediction is less certain than it
    could be, below it is overconfident. The legend gives the number of conditions and the mean distance from the diagonal.

    The band holds 95 % of the coverages of a calibrated prediction: binomial noise around the diagonal. Genes of a
    condition err together and count for fewer independent ones, whose number follows from how much conditions differ:
    the mean over levels of ``c (1 - c)`` over the variance of the coverage between conditions, with c its mean.
    It is 1 for a single condition, and rough for a few.

    Parameters
    ----------
    adata
        Cells with a flow (:func:`perturbflow.tl.fit_flow`) and with real cells of the conditions.
    key
        The flow in ``adata.uns``.
    split
        Draw this split only; by default one panel for every split with perturbed cells. Cells that the flow was fitted
        on say little about its errors.
    split_key
        Column of ``adata.obs`` with the split.
    min_cells
        Conditions with fewer real cells, or fewer controls, are left out.

    Raises
    ------
    KeyError
        If there is no fitted flow or no split, with the call that makes it.
    ValueError
        If no condition has enough real cells, a split is unknown, or ``ax`` is given without ``split``.

    Examples
    --------
    >>> import perturbflow as pf
    >>> adata = pf.datasets.simulated_perturb_seq(n_cells=600, n_genes=50, n_perturbations=4, n_combinations=2)
    >>> pf.pp.setup_perturbation(adata, perturbation_key="perturbation", control="control")
    >>> pf.pp.split_perturbations(adata, task="combination")
    >>> pf.tl.fit_flow(adata, max_steps=20, progress_bar=False)
    >>> ax = pf.pl.calibration(adata, split="test")
    >>> ax.get_ylabel()
    'fraction of observed means in the interval'
    """
    check_whole_number(min_cells, name="min_cells", least=2)
    flow = read_flow(adata, key)
    cells = read_screen(adata, genes=flow.genes, fields=flow.fields)
    found = read_split(adata, split_key)
    known = [name for name in ("train", "valid", "test") if (found == name).any()]
    wanted = check_split(known, split, ax)
    conditions, _ = conditions_of(
        cells,
        found,
        fitted=np.flatnonzero(np.isin(found, flow.fitted_splits)),
        splits=wanted,
        vocabulary=flow.vocabulary,
        has_doses=flow.fields.dose_key is not None,
        min_cells=min_cells,
    )
    if not conditions:
        msg = f"Expected perturbed conditions with real cells, found none with {min_cells} or more. Lower `min_cells`."
        raise ValueError(msg)
    coverages = [_coverage(flow, cells, condition) for condition in conditions]
    splits = list(dict.fromkeys(coverage.split for coverage in coverages))
    axes = panels(len(splits), ax, figsize=(0.4 + 3.5 * len(splits), 3.9))
    for panel, each in zip(axes, splits, strict=True):
        members = [coverage for coverage in coverages if coverage.split == each]
        _draw(panel, each, members, is_fitted=each in flow.fitted_splits)
    for panel in axes[1:]:
        panel.set_ylabel("")
        panel.tick_params(labelleft=False)
    return axes if split is None else axes[0]


def _coverage(flow: FittedFlow, cells: Screen, condition: Condition) -> _Coverage:
    prior = flow.flow.prior
    is_known = (prior.contexts == condition.covariates).all(axis=1).any()
    context = prior.context(condition.covariates, None if is_known else cells.x[condition.control_rows])
    kind = condition_kind(prior, condition.perturbation, context)
    mean, sd = mean_expression(prior, condition.perturbation, context)
    observed = moments_of(cells.x[condition.rows], name="observed")
    standard_error = np.sqrt(observed.variance / observed.n_cells)
    shares = []
    for level in _LEVELS:
        lower, upper = flow.calibration.interval(mean, sd, kind=kind, level=level)
        shares.append(float(interval_coverage(lower, upper, observed.mean, level=level, standard_error=standard_error)))
    return _Coverage(str(condition.labels["split"]), kind, np.array(shares))


def _draw(ax: Axes, split: str, coverages: Sequence[_Coverage], *, is_fitted: bool) -> None:
    ax.plot([0, 1], [0, 1], color=DARK, linewidth=0.8, linestyle=(0, (4, 3)), zorder=2)
    levels, fine = np.array(_LEVELS), np.linspace(0.0, 1.0, 201)
    for kind, color in KIND_COLORS.items():
        shares = np.array([coverage.shares for coverage in coverages if coverage.kind == kind])
        if not len(shares):
            continue
        n = len(shares)
        n_independent = max(1, round(n * _independent_genes(shares)))
        low, high = (
            binom.ppf(tail, n_independent, fine) / n_independent for tail in ((1 - _BAND) / 2, (1 + _BAND) / 2)
        )
        ax.fill_between(fine, low, high, color=color, alpha=0.18, linewidth=0, zorder=0)
        lines = [np.column_stack([levels, row]) for row in shares]
        ax.add_collection(
            LineCollection(lines, colors=color, alpha=min(0.35, 8 / n), linewidths=0.5, zorder=1), autolim=False
        )
        mean = shares.mean(axis=0)
        ax.plot(
            levels,
            mean,
            color=color,
            marker="o",
            markersize=4.5,
            markeredgecolor="white",
            markeredgewidth=0.6,
            linewidth=1.8,
            clip_on=False,
            zorder=3,
            label=f"{kind}: {n} condition{'s' * (n != 1)}, mean deviation {np.abs(mean - levels).mean():.2f}",
        )
    ax.set(
        xlim=(0, 1),
        ylim=(0, 1),
        aspect="equal",
        xlabel="nominal level of the interval",
        ylabel="fraction of observed means in the interval",
    )
    ax.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), frameon=False, fontsize=8, borderaxespad=0.1)
    n_kinds = len({coverage.kind for coverage in coverages})
    finish(ax, "")
    ax.set_title(
        f"{split}{' (used in the fit)' if is_fitted else ''}", loc="left", fontsize="medium", pad=8 + 13 * n_kinds
    )


def _independent_genes(shares: NDArray[np.float64]) -> float:
    """Number of independent genes that would make coverages (n, L) differ as much between conditions; at least 1."""
    if len(shares) < 2:
        return 1.0
    mean, variance = shares.mean(axis=0), shares.var(axis=0, ddof=1)
    noise = float((mean * (1 - mean)).mean())
    return max(1.0, noise / max(float(variance.mean()), _LEAST_VARIANCE))
