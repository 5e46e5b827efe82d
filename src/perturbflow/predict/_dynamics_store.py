"""Storage of fitted dynamics in AnnData, along time or of cells at rest, and of their graphs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from perturbflow._checks import check_genes_of_fit, check_key, position_of
from perturbflow._warnings import warn
from perturbflow.dynamics import FittedDynamics, StandingDynamics
from perturbflow.predict._torch_state import usual_torch
from perturbflow.store._entry import Entry
from perturbflow.store._keys import is_record, is_standing
from perturbflow.store._stored_checks import Array, check_arrays, check_below, check_equal, probabilities
from perturbflow.trajectories._fields import DynamicsFields
from perturbflow.trajectories._snapshot_fields import SnapshotFields

# Of fitted dynamics: N trajectories and d genes with s states.
DYNAMICS: Mapping[str, Array] = MappingProxyType(
    {
        "scale": Array(("d",), above=0),
        "time_scale": Array((), above=0),
        "names": Array(("N",), is_text=True),
        "start": Array(("N", "s")),
        "span": Array(("N", 2)),
        "clamped": probabilities("N", "d"),
        "states": Array(("B", "s")),
        "rates": Array(("d + 1", "d"), or_empty=True),
        "evidence": Array(("d", "n"), finite=False, or_empty=True),
        "strength": Array((), low=0),
    }
)

INTERRUPTED = "interrupted"
"""Setting that is True if the fit was interrupted."""
_ENTRY = Entry(
    what="fitted dynamics",
    format=1,
    names=frozenset(
        {*DYNAMICS, "config", "weights", "genes", "fields", "settings", "n_edges", "sparsity_path", "history"}
    ),
    optional=frozenset({"threshold"}),
    may_change=("history",),  # nothing is solved from it
    advice="Fit again with `pf.tl.fit_dynamics`, or read what you had stored again.",
)


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
_STANDING_ENTRY = Entry(
    what="steady-state dynamics",
    format=1,
    names=frozenset({"standing", "evidence", "sign", "genes", "perturbations", "fields", "seed"}),
    advice="Fit again with `pf.tl.fit_dynamics`, or read what you had stored again.",
)


@dataclass
class StoredDynamics:
    """Fitted dynamics with the names of their genes, the fields of the cells, and how they were fitted."""

    model: FittedDynamics
    genes: list[str]
    fields: DynamicsFields
    settings: dict[str, Any]

    def __repr__(self) -> str:
        n_edges = int(self.model.support().sum())
        return (
            f"StoredDynamics({len(self.genes)} genes, {len(self.model.config.regulators)} regulators, "
            f"{len(self.model.names)} trajectories, {n_edges} inputs kept)"
        )

    @property
    def regulators(self) -> list[str]:
        """Names of the genes that may regulate others."""
        return [self.genes[k] for k in self.model.config.regulators]

    @property
    def interrupted(self) -> bool:
        """Return whether the fit was cut short; earlier versions did not say so."""
        return bool(self.settings.get(INTERRUPTED, False))

    def position(self, gene: str) -> int:
        """Return the position of a gene."""
        return position_of(gene, self.genes)

    def to_dict(self) -> dict[str, Any]:
        """Return plain arrays, values and tables."""
        return _ENTRY.sealed(
            {
                **self.model.to_dict(),
                "genes": np.array(self.genes, dtype=object),
                "fields": self.fields.to_dict(),
                "settings": self.settings,
                "n_edges": int(self.model.support().sum()),
                "sparsity_path": pd.DataFrame(self.model.path),
                "history": pd.DataFrame(self.model.history),
            }
        )

    @classmethod
    @usual_torch()
    def from_dict(cls, values: Mapping[str, Any], *, where: str = "`values`") -> StoredDynamics:
        """Read what :meth:`to_dict` wrote, also after a file has turned lists into arrays."""
        return _ENTRY.opened(values, where=where, check=_check, build=cls._from_parts)

    @classmethod
    def _from_parts(cls, values: Mapping[str, Any]) -> StoredDynamics:
        """Rebuild from parts that fit each other."""
        from perturbflow.dynamics import FittedDynamics  # here, because it loads torch

        model = FittedDynamics.from_dict(values)
        model.path = values["sparsity_path"].to_dict("list")
        model.history = values["history"].to_dict("list")
        return cls(
            model=model,
            genes=[str(gene) for gene in values["genes"]],
            fields=DynamicsFields.from_dict(values["fields"]),
            settings={name: plain(value) for name, value in values["settings"].items()},
        )


def _check(values: Mapping[str, Any]) -> None:
    """Raise unless the parts are those of fitted dynamics and fit each other."""
    from perturbflow.dynamics import FieldConfig  # here, because it loads torch

    config = FieldConfig.from_dict(values["config"])
    check_equal(len(values["genes"]), config.n_genes, what="genes")
    check_below(config.regulators, config.n_genes, what="a regulator")
    check_below(config.at_rest, config.n_genes, what="a gene held at rest")
    sizes = {
        "d": config.n_genes,
        "s": config.order * config.n_genes,
        "n": config.n_inputs,
        "N": len(values["names"]),
    }
    check_arrays({name: values[name] for name in DYNAMICS}, DYNAMICS, part="", sizes=sizes)
    check_arrays(values["weights"], {}, part="weights")
    # A field of the widths that it claims is only made if it has the weights for it.
    for layer, width in enumerate(() if config.structure == "linear" else config.hidden):
        check_equal(width, np.shape(values["weights"][f"matrices_{layer}"])[-2], what=f"units in layer {layer + 1}")


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
        return _STANDING_ENTRY.sealed(
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
        return _STANDING_ENTRY.opened(values, where=where, check=_check_standing, build=cls._from_parts)

    @classmethod
    def _from_parts(cls, values: Mapping[str, Any]) -> StoredStanding:
        from perturbflow.dynamics import StandingDynamics  # here, because it loads torch

        return cls(
            model=StandingDynamics.from_dict(values["standing"]),
            evidence=np.asarray(values["evidence"], dtype=np.float32),
            sign=np.asarray(values["sign"], dtype=np.float32),
            genes=[str(gene) for gene in values["genes"]],
            perturbations=[str(name) for name in values["perturbations"]],
            fields=SnapshotFields.from_dict(values["fields"]),
            seed=int(values["seed"]),
        )


def _check_standing(values: Mapping[str, Any]) -> None:
    """Raise unless the parts are those of a fit and fit each other."""
    d, standing = len(values["genes"]), values["standing"]
    sizes = {"d": d, "r": len(standing["regulators"]), "m": len(values["perturbations"])}
    check_arrays({name: standing[name] for name in STANDING}, STANDING, part="standing", sizes=sizes)
    check_below(standing["regulators"], d, what="a regulator")
    pairs = {"evidence": Array(("r", "d"), low=0, high=1), "sign": Array(("r", "d"), low=-1, high=1)}
    check_arrays({name: values[name] for name in pairs}, pairs, part="", sizes=sizes)
    check_equal(len(standing["shared"]), d, what="genes")


def plain(value: Any) -> Any:
    """Turn what a file has made of a plain value back into one."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    return value.item() if isinstance(value, np.generic) else value


def read_edges(adata: AnnData, key: str) -> pd.DataFrame:
    """Edges that the graph in ``uns[key]`` keeps; KeyError, with the function to run first, if there is none."""
    edges = read_pairs(adata, key)
    return edges[edges["kept"].astype(bool)].reset_index(drop=True) if "kept" in edges else edges


def read_pairs(adata: AnnData, key: str) -> pd.DataFrame:
    """All ranked pairs of the graph in ``uns[key]``; KeyError, with the function to run first, if there is none."""
    hint = f"Run `pf.tl.infer_graph(adata, key_added={key!r})` first."
    check_key(key, adata.uns, where="adata.uns", hint=hint)
    result = adata.uns[key]
    check_key("edges", result if isinstance(result, Mapping) else (), where=f"adata.uns[{key!r}]", hint=hint)
    where = f"adata.uns[{key!r}]['edges']"
    edges = pd.DataFrame(result["edges"] if isinstance(result["edges"], pd.DataFrame | Mapping) else {})
    for column in ("source", "target", "weight", "sign", "confidence"):
        check_key(column, edges.columns, where=where, hint=hint)
    return edges


def read_dynamics(adata: AnnData, key: str = "dynamics") -> StoredDynamics:
    """Read fitted dynamics from ``uns[key]``; with a warning if their fit was interrupted."""
    check_key(key, adata.uns, where="adata.uns", hint=f"Run `pf.tl.fit_dynamics(adata, key_added={key!r})` first.")
    if is_standing(adata.uns[key]):
        msg = (
            f"Expected dynamics along time in `adata.uns[{key!r}]`, found steady-state dynamics. Register a time with "
            "`pf.pp.setup_dynamics(adata, time_key=...)` and fit again, or use `pf.tl.infer_graph` and "
            "`pf.tl.simulate_knockout`, which need no time."
        )
        raise ValueError(msg)
    if not is_record(adata.uns[key], "dynamics"):
        msg = (
            f"Expected fitted dynamics in `adata.uns[{key!r}]`, found something else. "
            "Run `pf.tl.fit_dynamics(adata, key_added=...)` with another key."
        )
        raise ValueError(msg)
    stored = StoredDynamics.from_dict(adata.uns[key], where=f"`adata.uns[{key!r}]`")
    check_genes_of_fit(stored.genes, adata.var_names, where="adata.var_names")
    if stored.interrupted:
        warn(
            f"The dynamics in `adata.uns[{key!r}]` are from an interrupted fit. Run "
            f"`pf.tl.fit_dynamics(adata, key_added={key!r}, ...)` again; with the same `checkpoint`, if any, it resumes."
        )
    return stored


def has_standing(adata: AnnData, key: str) -> bool:
    """Return whether ``uns[key]`` has dynamics of cells at rest."""
    return key in adata.uns and is_standing(adata.uns[key])


def read_standing(adata: AnnData, key: str) -> StoredStanding:
    """Read dynamics of cells at rest from ``uns[key]``."""
    check_key(key, adata.uns, where="adata.uns", hint=f"Run `pf.tl.fit_dynamics(adata, key_added={key!r})` first.")
    stored = StoredStanding.from_dict(adata.uns[key], where=f"`adata.uns[{key!r}]`")
    check_genes_of_fit(stored.genes, adata.var_names, where="adata.var_names")
    return stored
