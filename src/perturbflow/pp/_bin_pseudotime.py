"""Average cells that are neighbours along pseudotime."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from perturbflow._checks import check_columns, check_text, check_type, check_whole_number, listing
from perturbflow.pp._check_labels import control_labels
from perturbflow.screen._fields import check_in_memory
from perturbflow.screen._modality import takes_modality
from perturbflow.store._keys import check_registration
from perturbflow.trajectories._fields import (
    DYNAMICS_FIELDS_KEY,
    DYNAMICS_PRIOR_KEY,
    DynamicsFields,
    check_not_merged,
    finite_expression,
    mean_of_groups,
    sum_of_groups,
    time_column,
    trajectory_groups,
)

if TYPE_CHECKING:
    from mudata import MuData
    from numpy.typing import NDArray

logger = logging.getLogger(__name__)

ERROR_LAYER = "standard_error"
SIZE_COLUMN = "n_cells"
BINS_KEY = "bin_pseudotime"
MIN_TIMES = 3  # with two, no change of the derivative can be seen


@takes_modality
def bin_pseudotime(
    adata: AnnData | MuData,
    *,
    time_key: str,
    trajectory_key: str | None = None,
    n_bins: int = 20,
    perturbation_key: str | None = None,
    control: str | Sequence[str] = "control",
    separator: str = "+",
    layer: str | None = None,
    scale_time: bool = True,
    drop_missing: bool = False,
    modality: str | None = None,
) -> AnnData:
    """Average the cells of every trajectory in bins of equal numbers of cells along pseudotime.

    In bins of equal counts every mean has the same number of cells behind it, to within one. Cells of equal time are put
    in the order of their names.

    Parameters
    ----------
    adata
        Cells with finite expression: an array or a CSR or CSC matrix. It is not changed.
    time_key
        Column of ``obs`` with the pseudotime.
    trajectory_key
        Column of ``obs`` with the trajectory of every cell. By default all cells are of one.
    n_bins
        Number of bins of every trajectory, and under every perturbation; each needs as many distinct times.
    perturbation_key, control, separator
        Column of ``obs`` with the intervention on every cell, and how it is written, as in
        :func:`~perturbflow.pp.setup_dynamics`. Cells under different interventions are never averaged.
    layer
        Layer with the expression; by default ``X``.
    scale_time
        Whether times are mapped to 0 to 1: by the least and the greatest time over all trajectories together, so that
        trajectories stay comparable.
    drop_missing
        Whether cells without a time or a trajectory, such as those outside all lineages, are left out. By default they
        are an error.

    Returns
    -------
    A new AnnData, one row per bin, with the names "<trajectory>_<bin>" (with perturbations
    "<trajectory>|<perturbation>_<bin>"), trajectory by trajectory along time. What describes genes (``var``, ``varm``,
    ``varp``) and ``uns``, except registered fields and neighbourhoods of cells, are copied. It has:

    `.X` : float32, or float64 where that was given
        Mean expression.
    `.layers["standard_error"]`
        Standard error of the mean; NaN for a single cell.
    `.obs[time_key]` : float64
        Mean time.
    `.obs[trajectory_key]`, `.obs[perturbation_key]`
        As they were.
    `.obs["n_cells"]`
        Number of cells.
    other categorical columns of ``obs``
        The most frequent category.
    `.uns["bin_pseudotime"]`
        ``time_offset`` and ``time_scale`` (the given time is offset + scale · time), ``n_bins``, and ``n_left_out``,
        the number of cells that were left out.

    Raises
    ------
    KeyError
        If a column or the layer is missing.
    TypeError
        If an argument or the expression is of the wrong type.
    ValueError
        If times or trajectories are missing and not to be left out, times are infinite or no numbers, a trajectory has
        fewer distinct times than bins, or the expression is not finite.

    Examples
    --------
    >>> import anndata, numpy as np, pandas as pd, perturbflow as pf
    >>> obs = pd.DataFrame({"pseudotime": np.arange(12.0)}, index=[f"cell_{i}" for i in range(12)])
    >>> adata = anndata.AnnData(np.arange(24.0).reshape(12, 2), obs=obs)
    >>> bins = pf.pp.bin_pseudotime(adata, time_key="pseudotime", n_bins=3)
    >>> bins.X
    array([[ 3.,  4.],
           [11., 12.],
           [19., 20.]])
    >>> bins.obs["n_cells"].to_dict()
    {'all_0': 4, 'all_1': 4, 'all_2': 4}
    """
    one, *others = control_labels(control)
    fields = DynamicsFields(
        time_key=time_key,
        trajectory_key=trajectory_key,
        perturbation_key=perturbation_key,
        control=one,
        other_controls=tuple(others),
        separator=separator,
        layer=layer,
    )
    check_fields(adata, fields)
    check_registration(adata, BINS_KEY)
    keys = [key for key in (trajectory_key, perturbation_key) if key is not None]
    if SIZE_COLUMN in (time_key, *keys):
        msg = f"Expected columns other than {SIZE_COLUMN!r}, which this function adds, found {[time_key, *keys]}. Rename it."
        raise ValueError(msg)
    check_whole_number(n_bins, name="n_bins", least=MIN_TIMES)
    for name, value in {"scale_time": scale_time, "drop_missing": drop_missing}.items():
        check_type(value, bool, name=name, expected="True or False")

    kept = _with_time(adata, fields) if drop_missing else adata
    x = finite_expression(kept, layer)
    time = time_column(kept, time_key)
    offset, scale = (time.min(), np.ptp(time) or 1.0) if scale_time else (0.0, 1.0)
    time = (time - offset) / scale
    groups, codes = trajectory_groups(kept, fields)
    advice = (
        "Lower `n_bins`, or remove these cells. Cells at a few real time points need no bins: "
        "`pf.pp.setup_dynamics` averages cells with equal times."
    )
    check_distinct_times(time, groups["name"], codes, least=n_bins, advice=advice)
    check_not_merged(kept, fields)

    order, bins = _equal_counts(kept.obs_names, time, codes, n_bins=n_bins)
    first = order[np.flatnonzero(np.diff(bins[order], prepend=-1))]
    sizes = np.bincount(bins)
    mean = mean_of_groups(x, bins, n_groups=len(sizes))
    error = _standard_error(x, bins, mean=mean, sizes=sizes)
    dtype = np.float64 if x.dtype == np.float64 else np.float32

    names = [f"{name}_{number}" for name in groups["name"] for number in range(n_bins)]
    # Rounding must not make two times of bins whose cells all have the same.
    last = np.cumsum(sizes) - 1
    mean_time = np.clip(np.bincount(bins, weights=time) / sizes, time[first], time[order[last]])
    obs = pd.DataFrame({time_key: mean_time}, index=names)
    for key in keys:
        obs[key] = kept.obs[key].iloc[first].array
    obs[SIZE_COLUMN] = sizes
    for key, column in kept.obs.items():
        if isinstance(column.dtype, pd.CategoricalDtype) and key not in obs:
            obs[key] = _most_frequent(column, bins, n_bins=len(sizes))

    binned = AnnData(
        mean.astype(dtype),
        obs=obs,
        layers={ERROR_LAYER: error.astype(dtype)},
        **parts_of_genes(adata),
    )
    n_left_out = adata.n_obs - kept.n_obs
    binned.uns[BINS_KEY] = {
        "time_offset": float(offset),
        "time_scale": float(scale),
        "n_bins": n_bins,
        "n_left_out": n_left_out,
    }
    logger.info("Averaged %d cells of %d trajectories in %d bins each.", kept.n_obs, len(groups), n_bins)
    if n_left_out:
        logger.info("Left out %d of %d cells, which have no time or no trajectory.", n_left_out, adata.n_obs)
    return binned


def check_fields(adata: AnnData, fields: DynamicsFields) -> None:
    """Raise unless names are text, columns are there and have one role each, and the cells are in memory."""
    optional = ("trajectory_key", "perturbation_key", "layer")
    for name in ("time_key", *optional, "separator"):
        if getattr(fields, name) is not None or name not in optional:
            check_text(getattr(fields, name), name=name)
    check_in_memory(adata)
    keys = (fields.time_key, fields.trajectory_key, fields.perturbation_key)
    check_columns(adata.obs.columns, [key for key in keys if key is not None])


def check_distinct_times(
    time: NDArray[np.float64], names: pd.Series, codes: NDArray[np.intp], *, least: int, advice: str
) -> None:
    """Raise unless every trajectory has at least so many distinct times; ``codes`` says which a cell is of (n,)."""
    n_times = pd.Series(time).groupby(codes).nunique().to_numpy()
    few = n_times < least
    if few.any():
        n_cells = np.bincount(codes, minlength=len(names))
        found = [
            f"{name}: {times} ({cells} cells)"
            for name, times, cells in zip(names[few], n_times[few], n_cells[few], strict=True)
        ]
        msg = (
            f"Expected at least {least} distinct times for every trajectory and perturbation, found fewer for "
            f"{few.sum()} of {len(names)}: {listing(found)}. {advice}"
        )
        raise ValueError(msg)


def _with_time(adata: AnnData, fields: DynamicsFields) -> AnnData:
    """Return the cells that have a time and a trajectory."""
    present = ~np.isnan(time_column(adata, fields.time_key, allow_missing=True))
    if fields.trajectory_key is not None:
        present &= adata.obs[fields.trajectory_key].notna().to_numpy()
    if not present.any():
        msg = f"Expected cells with a time in `adata.obs[{fields.time_key!r}]` and a trajectory, found none."
        raise ValueError(msg)
    return adata if present.all() else adata[present]


def _equal_counts(
    names: pd.Index, time: NDArray[np.float64], codes: NDArray[np.intp], *, n_bins: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Cells in order of trajectory and time (n,), and the number of the bin of every cell (n,), over all trajectories."""
    ties = pd.factorize(names, sort=True)[0]
    order = np.lexsort((ties, time, codes))
    sizes = np.bincount(codes)
    place = np.arange(len(codes)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    bins = np.empty_like(codes)
    bins[order] = codes[order] * n_bins + place * n_bins // sizes[codes[order]]
    return order, bins


def _standard_error(
    x: Any, bins: NDArray[np.intp], *, mean: NDArray[np.float64], sizes: NDArray[np.intp]
) -> NDArray[np.float64]:
    """Standard error of the mean of every bin, sqrt(sum (x - mean)² / (n (n - 1))); NaN where n = 1.

    Deviations are summed, not squares, whose difference would be rounding alone for a gene of little spread. Zeros of a
    sparse matrix deviate by the mean, and only their number is needed.
    """
    if sparse.issparse(x):
        x = sparse.csr_matrix(x)
        if not x.has_canonical_format:
            x = x.copy()
            x.sum_duplicates()
        row_bins = np.repeat(bins, np.diff(x.indptr))
        where = (row_bins, x.indices)
        deviation = sparse.csr_matrix((np.square(x.data - mean[where]), where), shape=mean.shape).toarray()
        n_stored = sparse.csr_matrix((np.ones(x.nnz), where), shape=mean.shape).toarray()
        total = deviation + (sizes[:, None] - n_stored) * np.square(mean)
    else:
        total = sum_of_groups(np.square(x - mean[bins]), bins, n_groups=len(sizes))
    n = sizes[:, None].astype(np.float64)
    return np.sqrt(np.divide(total, n * (n - 1), out=np.full_like(total, np.nan), where=n > 1))


def _most_frequent(column: pd.Series, bins: NDArray[np.intp], *, n_bins: int) -> pd.Categorical:
    """Most frequent category of every bin, the first of equally frequent ones; none where no cell has any."""
    codes = column.cat.codes.to_numpy()
    known = codes >= 0
    shape = (n_bins, len(column.cat.categories))
    counts = sparse.coo_matrix((np.ones(known.sum()), (bins[known], codes[known])), shape=shape).toarray()
    most = counts.argmax(axis=1) if shape[1] else np.full(n_bins, -1)
    most = np.where(counts.sum(axis=1) > 0, most, -1)
    return pd.Categorical.from_codes(most, dtype=column.dtype)


def parts_of_genes(adata: AnnData) -> dict[str, Any]:
    """Copies of what is about genes or about no cell, for an AnnData of other rows: neighbours and registrations are not."""
    return {
        "var": adata.var.copy(),
        "varm": {key: value.copy() for key, value in adata.varm.items()},
        "varp": {key: value.copy() for key, value in adata.varp.items() if key != DYNAMICS_PRIOR_KEY},
        "uns": {
            key: deepcopy(value)
            for key, value in adata.uns.items()
            if key != DYNAMICS_FIELDS_KEY and not (isinstance(value, dict) and "connectivities_key" in value)
        },
    }
