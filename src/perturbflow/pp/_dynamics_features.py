"""Features of perturbations from dynamics at rest: how all genes would respond."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from perturbflow._checks import listing
from perturbflow.dynamics import left_out_responses
from perturbflow.screen._conditions import TYPE_MARK
from perturbflow.screen._splits import check_no_leakage
from perturbflow.trajectories._fields import DYNAMICS_FIELDS_KEY
from perturbflow.trajectories._snapshot_fields import is_snapshot, read_snapshot_fields, snapshot_of

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

    from perturbflow.dynamics import Snapshot
    from perturbflow.screen._fields import PerturbationFields


def dynamics_vectors(
    adata: AnnData, fields: PerturbationFields, components: Sequence[str], *, split_key: str, seed: int
) -> pd.DataFrame:
    """Return the simulated response of all genes to every component (P, d), from training cells.

    Each is simulated by dynamics that saw no cell in which its gene was held, at the level that it was measured at. One
    that was never measured alone is held as far from its mean as others of its type are on average, in the direction of most.
    """
    if DYNAMICS_FIELDS_KEY not in adata.uns or not is_snapshot(adata):
        msg = (
            "Expected cells at rest for `source='dynamics'`, found none registered. Run `pf.pp.setup_dynamics(adata, "
            "regulators=...)` without `time_key` first."
        )
        raise ValueError(msg)
    parts = [name.split(TYPE_MARK) if fields.vocabulary.has_types else [name] for name in components]
    unknown = sorted({gene for gene, *_ in parts} - {*map(str, adata.var_names)})
    if unknown:
        msg = (
            f"Expected perturbations of genes in `adata.var_names`, found {listing(unknown)}. Dynamics know no others: "
            "pass a table of features."
        )
        raise ValueError(msg)
    if split_key in adata.obs:
        adata = adata[check_no_leakage(adata, split_key, fields=fields) == "train"]
    cells = snapshot_of(adata, read_snapshot_fields(adata))
    places = adata.var_names.get_indexer([gene for gene, *_ in parts])
    kinds = ["|".join(kind) for _, *kind in parts]
    shifts = _held_shifts(cells, places, ["|".join(part) for part in parts], kinds)
    # Contexts share their standard levels; the unit of the model is the mean over contexts.
    share = np.bincount(cells.context, minlength=len(cells.centre)) / len(cells.context)
    centre = share @ cells.centre
    levels = [
        {int(place): float(centre[place] + shift * cells.scale[place])}
        for place, shift in zip(places, shifts, strict=True)
    ]
    return pd.DataFrame(left_out_responses(cells, levels, seed=seed), index=list(components))


def _held_shifts(
    cells: Snapshot, places: NDArray[np.intp], names: Sequence[str], kinds: Sequence[str]
) -> NDArray[np.float64]:
    """By how much every component moves its own gene, in standard deviations; of those not measured what is usual."""
    position = {name: row for row, name in enumerate(cells.names)}
    rows = np.array([position.get(name, -1) for name in names])
    found = np.where(rows >= 0, cells.shift[rows, places], np.nan)
    for kind in set(kinds):
        mine = np.array([other == kind for other in kinds])
        known = found[mine & (rows >= 0)]
        upwards = (known > 0).sum() > len(known) / 2
        same = known[(known > 0) == upwards]
        found[mine & (rows < 0)] = same.mean() if len(same) else -1.0
    return found
