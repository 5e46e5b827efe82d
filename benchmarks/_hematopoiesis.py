"""Bone-marrow trajectories of the PathReg study (Aliee et al. 2022, GSE194122), prepared in two ways.

`paper_views` are the views that the released code trains on: levels without logarithm, every cell a time point, every
trajectory scaled with its own extremes, one noisy start of five cells. `honest_views` use of a donor that is predicted
nothing but its pseudotime and what is compared: logarithms, a scale of each gene that the training donors alone set,
and means of equally many cells.

The folder of the data is $PERTURBFLOW_DATA, by default ``../shared/data`` beside the checkout; `missing_data` says what
to do when it is not there.
"""

from __future__ import annotations

import gzip
import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

LINEAGES = ("eryth", "mono", "B")
DONORS = {"s1d1": "11", "s1d2": "12", "s2d1": "21", "s2d4": "24"}
TRAINING_DONOR = "s1d2"
TEST_DONORS = ("s2d1", "s1d1")
# The released code discards these many cells at the two ends of a trajectory, and starts from the mean of the next.
FIRST_DISCARDED, LAST_DISCARDED, START_CELLS = 10, 20, 5
BASE_NETWORK = "TFs_Targets/tf_targets_baseGRN_human_matrix.csv.gz"
TimeScale = Literal["trajectory", "donor", "training"]


class View(NamedTuple):
    """One trajectory as a model sees it."""

    time: NDArray[np.float64]  # (n,), strictly increasing
    values: NDArray[np.float64]  # (n, d)
    start: NDArray[np.float64]  # (d,), where a solution begins at time[0]


def data_folder() -> Path:
    """Folder with ``trajectories`` and ``TFs_Targets``."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    return Path(os.environ.get("PERTURBFLOW_DATA") or beside) / "hematopoiesis"


def missing_data() -> str | None:
    """Return why nothing can be measured here, or None when the trajectories are there."""
    folder = data_folder() / "trajectories"
    if folder.is_dir():
        return None
    return (
        f"no trajectories in {folder}: get *_norm.csv of https://github.com/theislab/PathReg, and name the folder above "
        "hematopoiesis/ in PERTURBFLOW_DATA"
    )


def lineages_of(donor: str) -> tuple[str, ...]:
    """Lineages of a donor that were published; of s2d4 the erythroid one is missing."""
    reason = missing_data()
    if reason is not None:
        raise FileNotFoundError(reason)
    return tuple(lineage for lineage in LINEAGES if _path(lineage, donor).is_file())


def genes(*, n_genes: int | None = None) -> list[str]:
    """Names of the genes, in the order of all views."""
    return list(_cells(lineages_of(TRAINING_DONOR)[0], TRAINING_DONOR).columns[1:][:n_genes])


def regulators(*, n_genes: int | None = None) -> NDArray[np.bool_]:
    """Which genes are transcription factors of the base network (113 of all 529), shape (d,)."""
    with gzip.open(data_folder() / BASE_NETWORK, "rt") as lines:
        factors = {line.split(",", 1)[0] for line in lines}
    return np.array([gene in factors for gene in genes(n_genes=n_genes)])


def paper_views(donor: str, *, n_genes: int | None = None, max_cells: int | None = None) -> dict[str, View]:
    """Trajectories of a donor as the released code has them.

    Cells sorted by pseudotime, the first of equal times kept, ten cells at the beginning and twenty at the end dropped;
    every gene and the time scaled to [0, 1] within the trajectory (constant genes are 0); the start is the mean of the
    first five cells.

    Parameters
    ----------
    donor
        Donor, a key of `DONORS`.
    n_genes
        Use the first so many genes.
    max_cells
        Keep about so many cells of a trajectory, evenly along it; both are for small trials.
    """
    views = {}
    for lineage in lineages_of(donor):
        cells = _cells(lineage, donor).drop_duplicates("dpt_pseudotime")
        cells = cells.iloc[FIRST_DISCARDED : len(cells) - LAST_DISCARDED]
        if max_cells is not None:
            cells = cells.iloc[:: max(1, len(cells) // max_cells)]
        table = cells.to_numpy(np.float64)[:, : None if n_genes is None else n_genes + 1]
        lowest, highest = table.min(axis=0), table.max(axis=0)
        scaled = (table - lowest) / np.where(highest > lowest, highest - lowest, 1.0)
        views[lineage] = View(scaled[:, 0], scaled[:, 1:], scaled[:START_CELLS, 1:].mean(axis=0))
    return views


def honest_views(
    donor: str,
    *,
    training: Sequence[str] = (TRAINING_DONOR,),
    n_bins: int = 20,
    time_scale: TimeScale = "trajectory",
    n_genes: int | None = None,
) -> dict[str, View]:
    """Trajectories of a donor as means of equally many cells, on a scale that the training donors set.

    Level of a gene: mean of log1p over the cells of a bin, divided by the standard deviation of log1p over all cells of
    the training donors. Zero stays zero. Time of a bin: mean pseudotime of its cells. The start is the first bin.

    Diffusion pseudotime is a random-walk distance from the donor's first stem cell over its largest value in the donor:
    0 means the same in all donors, but the unit depends on what else was sampled (the erythroid lineage ends at 1.00 in
    s1d2 and s2d1 and at .53 in s1d1). ``time_scale`` is what 1 stands for.

    Parameters
    ----------
    donor
        Donor, a key of `DONORS`.
    training
        Donors that set the scale of the genes (and of time, if it is "training").
    n_bins
        Number of bins of a trajectory.
    time_scale
        What is mapped to [0, 1]: the times of the "trajectory", those of all lineages of the "donor", or those of the
        "training" donors, which is the only one that knows nothing of where the predicted trajectory ends.
    n_genes
        Use the first so many genes.
    """
    scale = gene_scale(tuple(training), n_genes=n_genes)
    last = slice(None if n_genes is None else n_genes)
    tables = {lineage: _cells(lineage, donor) for lineage in lineages_of(donor)}
    clocks = {"donor": [donor], "training": training}.get(time_scale)
    shared = None if clocks is None else _extent(clocks)
    views = {}
    for lineage, cells in tables.items():
        pseudotime = cells["dpt_pseudotime"].to_numpy(np.float64)
        levels = np.log1p(cells.iloc[:, 1:].to_numpy(np.float64)[:, last]) / scale
        bins = np.array_split(np.arange(len(cells)), n_bins)
        time = np.array([pseudotime[rows].mean() for rows in bins])
        values = np.array([levels[rows].mean(axis=0) for rows in bins])
        first, end = (time[0], time[-1]) if shared is None else shared
        views[lineage] = View((time - first) / (end - first), values, values[0])
    return views


@cache
def gene_scale(training: tuple[str, ...] = (TRAINING_DONOR,), *, n_genes: int | None = None) -> NDArray[np.float64]:
    """Standard deviation of log1p over the cells of the training donors, 1 where it is 0, shape (d,).

    A stem cell that is in several lineages of a donor counts once in each.
    """
    cells = [_cells(lineage, donor).iloc[:, 1:] for donor in training for lineage in lineages_of(donor)]
    spread = np.log1p(np.concatenate(cells).astype(np.float64)[:, :n_genes]).std(axis=0)
    return np.where(spread > 0, spread, 1.0)


def centred_r2(predicted: NDArray[np.float64], values: NDArray[np.float64], mean: NDArray[np.float64]) -> float:
    """Return one minus the squared error over that of the training donors' mean, over all times and genes."""
    return 1.0 - float(((values - predicted) ** 2).sum() / ((values - mean) ** 2).sum())


def _extent(donors: Sequence[str]) -> tuple[float, float]:
    times = [_cells(lineage, donor)["dpt_pseudotime"] for donor in donors for lineage in lineages_of(donor)]
    return min(float(time.min()) for time in times), max(float(time.max()) for time in times)


@cache
def _cells(lineage: str, donor: str) -> pd.DataFrame:
    """Sorted by pseudotime; cells of equal time stay in the order of the file."""
    return pd.read_csv(_path(lineage, donor), sep="\t").sort_values("dpt_pseudotime", kind="stable", ignore_index=True)


def _path(lineage: str, donor: str) -> Path:
    if donor not in DONORS:
        msg = f"Expected a donor of {sorted(DONORS)}, found {donor!r}. Choose one of these."
        raise ValueError(msg)
    return data_folder() / "trajectories" / f"{lineage}_{DONORS[donor]}_norm.csv.gz"
