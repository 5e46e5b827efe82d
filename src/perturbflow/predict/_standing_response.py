"""The new standing distribution after genes are held at a level."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from perturbflow._warnings import warn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from perturbflow.predict._standing_store import StoredStanding

BEYOND = 0.5  # of the measured range of a gene, how far beyond it a level is still believed


def default_level(stored: StoredStanding, gene: str, kind: str) -> float:
    """Return the level of a gene under a kind of intervention, 0 in a knockout.

    Else it is that of the measured perturbation of this gene alone that moved it down or up most; without one, a
    quarter of its mean, or its mean and three standard deviations.
    """
    if kind == "knockout":
        return 0.0
    model, place = stored.model, stored.position(gene)
    alone = (model.held.sum(axis=1) == 1) & model.held[:, place]
    moved = model.shift[alone, place] * (-1 if kind == "knockdown" else 1)
    if len(moved) and moved.max() > 0:
        change = moved.max() * (-1 if kind == "knockdown" else 1)
        return float(model.centre[place] + change * model.scale[place])
    mean = model.centre[place]
    return float(0.25 * mean if kind == "knockdown" else mean + 3 * model.scale[place])


def standing_response(stored: StoredStanding, levels: Mapping[str, float]) -> dict[str, Any]:
    """Return means and spreads (d,) with and without held genes, and the table ``response`` of what changes."""
    model = stored.model
    places = {stored.position(gene): level for gene, level in levels.items()}
    mean, spread = model.hold(places)
    genes = np.array(stored.genes, dtype=object)
    response = pd.DataFrame(
        {
            "gene": genes,
            "change": mean - model.centre,
            "standardised_change": (mean - model.centre) / model.scale,
            "sd_ratio": spread / model.scale,
        }
    )
    order = np.argsort(-response["standardised_change"].abs().to_numpy(), kind="stable")
    _warn_of_response(stored, levels, mean)
    return {
        "genes": genes,
        "unperturbed": model.centre,
        "perturbed": mean,
        "unperturbed_sd": model.scale,
        "perturbed_sd": spread,
        "response": response.iloc[order].reset_index(drop=True),
    }


def _warn_of_response(stored: StoredStanding, levels: Mapping[str, float], mean: np.ndarray) -> None:
    """Say what makes a response hard to believe."""
    model = stored.model
    known = [gene for gene in levels if stored.position(gene) in model.regulators]
    unable = [gene for gene in levels if gene not in known and not model.held[:, stored.position(gene)].any()]
    if unable:
        warn(
            f"Holding {unable} changes no other gene by the fit: they are no registered regulators, and no measured "
            "perturbation held them. Name them in `pf.pp.setup_dynamics(adata, regulators=...)`."
        )
    low = np.minimum(model.shift.min(axis=0, initial=0.0), -3.0)
    high = np.maximum(model.shift.max(axis=0, initial=0.0), 3.0)
    change = (mean - model.centre) / model.scale
    reach = BEYOND * (high - low)
    far = (change < low - reach) | (change > high + reach)
    far[[stored.position(gene) for gene in levels]] = False
    if far.any():
        names = [stored.genes[k] for k in np.flatnonzero(far)]
        warn(
            f"The response leaves the observed range of {len(names)} genes, among them {names[:5]}: do not trust it there."
        )
