"""Fitted dynamics of cells at rest: how AnnData keeps them, and what they say of genes that are held at a level."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from perturbflow._checks import check_genes_of_fit, check_key, position_of
from perturbflow._warnings import warn
from perturbflow.dynamics import StandingDynamics
from perturbflow.store._entry import Entry
from perturbflow.store._keys import is_standing
from perturbflow.store._stored_checks import Array, check_arrays, check_below, check_equal
from perturbflow.trajectories._snapshot_fields import SnapshotFields

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

# Of d genes, r of them regulators, and m perturbations.
STANDING: Mapping[str, Array] = MappingProxyType(
    {
        "weights": Array(("d", "r")),
        "regulators": Array(("r",), low=0, or_empty=True),
        "shared": Array(("d",)),
        "held": Array(("m", "d"), low=0, high=1, or_empty=True),
        "shift": Array(("m", "d"), or_empty=True),
        "offset": Array(("m", "d"), or_empty=True),
        "stretch": Array(("m", "d"), or_empty=True),
        "shared_stretch": Array(("d",)),
        "noise": Array(("d",), above=0),
        "centre": Array(("d",)),
        "scale": Array(("d",), above=0),
        "strength": Array((), low=0),
    }
)
_ENTRY = Entry(
    what="dynamics of cells at rest",
    format=1,
    names=frozenset({"standing", "evidence", "sign", "genes", "perturbations", "fields", "seed"}),
    advice="Fit again with `pf.tl.fit_dynamics`, or read what you had stored again.",
)


@dataclass
class StoredStanding:
    """Dynamics of cells at rest with the names of their genes."""

    model: StandingDynamics
    evidence: NDArray[np.float32]  # for every edge from a regulator (r, d)
    sign: NDArray[np.float32]  # of its effect (r, d)
    genes: list[str]  # names of the d genes
    perturbations: list[str]  # names of the measured perturbations, m
    fields: SnapshotFields  # the fields that the cells were registered with
    seed: int  # seed of the fit

    def __repr__(self) -> str:
        return (
            f"StoredStanding({len(self.genes)} genes, {len(self.model.regulators)} regulators, "
            f"{len(self.perturbations)} perturbations)"
        )

    def position(self, gene: str) -> int:
        """Return the position of a gene."""
        return position_of(gene, self.genes)

    def to_dict(self) -> dict[str, Any]:
        """Return plain arrays and values."""
        return _ENTRY.sealed(
            {
                "standing": self.model.to_dict(),
                "evidence": self.evidence,
                "sign": self.sign,
                "genes": np.array(self.genes, dtype=object),
                "perturbations": np.array(self.perturbations, dtype=object),
                "fields": self.fields.to_dict(),
                "seed": self.seed,
            }
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, where: str = "`values`") -> StoredStanding:
        """Read what :meth:`to_dict` wrote, also after a file has turned lists into arrays."""
        return _ENTRY.opened(values, where=where, check=_check, build=cls._from_parts)

    @classmethod
    def _from_parts(cls, values: Mapping[str, Any]) -> StoredStanding:
        return cls(
            model=StandingDynamics.from_dict(values["standing"]),
            evidence=np.asarray(values["evidence"], dtype=np.float32),
            sign=np.asarray(values["sign"], dtype=np.float32),
            genes=[str(gene) for gene in values["genes"]],
            perturbations=[str(name) for name in values["perturbations"]],
            fields=SnapshotFields.from_dict(values["fields"]),
            seed=int(values["seed"]),
        )


def _check(values: Mapping[str, Any]) -> None:
    """Raise unless the parts are those of a fit and fit each other."""
    d, standing = len(values["genes"]), values["standing"]
    sizes = {"d": d, "r": len(standing["regulators"]), "m": len(values["perturbations"])}
    check_arrays({name: standing[name] for name in STANDING}, STANDING, part="standing", sizes=sizes)
    check_below(standing["regulators"], d, what="a regulator")
    pairs = {"evidence": Array(("r", "d"), low=0, high=1), "sign": Array(("r", "d"), low=-1, high=1)}
    check_arrays({name: values[name] for name in pairs}, pairs, part="", sizes=sizes)
    check_equal(len(standing["shared"]), d, what="genes")


def has_standing(adata: AnnData, key: str) -> bool:
    """Return whether ``uns[key]`` has dynamics of cells at rest."""
    return key in adata.uns and is_standing(adata.uns[key])


def read_standing(adata: AnnData, key: str) -> StoredStanding:
    """Read dynamics of cells at rest from ``uns[key]``."""
    check_key(key, adata.uns, where="adata.uns", hint=f"Run `pf.tl.fit_dynamics(adata, key_added={key!r})` first.")
    stored = StoredStanding.from_dict(adata.uns[key], where=f"`adata.uns[{key!r}]`")
    check_genes_of_fit(stored.genes, adata.var_names, where="adata.var_names")
    return stored


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
