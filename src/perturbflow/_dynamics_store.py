"""Where fitted dynamics are kept in AnnData."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from perturbflow._checks import check_key, check_no_slash, check_text, listing, nearest
from perturbflow._dynamics_fields import DynamicsFields
from perturbflow._torch_state import usual_torch

if TYPE_CHECKING:
    from anndata import AnnData

    from perturbflow.dynamics import FittedDynamics

FORMAT = 1
_PARTS = ("config", "weights", "genes", "sparsity_path")


@dataclass
class StoredDynamics:
    """Fitted dynamics with the names of their genes.

    Attributes
    ----------
    model
        The fitted model.
    genes
        Names of the d genes.
    fields
        The fields that the cells were registered with.
    settings
        How it was fitted, plain values.
    """

    model: FittedDynamics
    genes: list[str]
    fields: DynamicsFields
    settings: dict[str, Any]

    @property
    def regulators(self) -> list[str]:
        """Names of the genes that may regulate others."""
        return [self.genes[k] for k in self.model.config.regulators]

    def position(self, gene: str) -> int:
        """Return the position of a gene.

        Raises
        ------
        KeyError
            If it is none of the genes, with those of similar names.
        """
        if gene not in self.genes:
            msg = f"Expected one of the {len(self.genes)} genes of the fit, found {gene!r}. Similar names: "
            raise KeyError(msg + f"{nearest(gene, self.genes, n=3)}.")
        return self.genes.index(gene)

    def to_dict(self) -> dict[str, Any]:
        """Return plain arrays, values and tables."""
        return {
            "format": FORMAT,
            **self.model.to_dict(),
            "genes": np.array(self.genes, dtype=object),
            "fields": self.fields.to_dict(),
            "settings": self.settings,
            "n_edges": int(self.model.support().sum()),
            "sparsity_path": pd.DataFrame(self.model.path),
            "history": pd.DataFrame(self.model.history),
        }

    @classmethod
    @usual_torch()
    def from_dict(cls, values: Mapping[str, Any]) -> StoredDynamics:
        """Read what :meth:`to_dict` wrote, also after a file has turned lists into arrays.

        Raises
        ------
        ValueError
            If it was written by a later version.
        """
        from perturbflow.dynamics import FittedDynamics  # here, because it loads torch

        if int(values["format"]) > FORMAT:
            msg = (
                f"Expected fitted dynamics of format {FORMAT} or earlier, found {int(values['format'])}. "
                "Update perturbflow, or fit again."
            )
            raise ValueError(msg)
        model = FittedDynamics.from_dict(values)
        model.path = values["sparsity_path"].to_dict("list")
        model.history = values["history"].to_dict("list")
        return cls(
            model=model,
            genes=[str(gene) for gene in values["genes"]],
            fields=DynamicsFields.from_dict(values["fields"]),
            settings=dict(values["settings"]),
        )


def write_dynamics(adata: AnnData, stored: StoredDynamics, *, key: str = "dynamics") -> None:
    """Write fitted dynamics to ``uns[key]``."""
    adata.uns[key] = stored.to_dict()


def read_dynamics(adata: AnnData, key: str = "dynamics", *, same_genes: bool = True) -> StoredDynamics:
    """Read fitted dynamics from ``uns[key]``.

    Raises
    ------
    KeyError
        If there are none, with the function to run first, or genes of the fit are missing.
    ValueError
        If the entry is something else.
    """
    check_key(key, adata.uns, where="adata.uns", hint=f"Run `pf.tl.fit_dynamics(adata, key_added={key!r})` first.")
    if not _is_dynamics(adata.uns[key]):
        msg = (
            f"Expected fitted dynamics in `adata.uns[{key!r}]`, found something else. "
            "Run `pf.tl.fit_dynamics(adata, key_added=...)` with a key of its own."
        )
        raise ValueError(msg)
    stored = StoredDynamics.from_dict(adata.uns[key])
    missing = [gene for gene in stored.genes if gene not in adata.var_names] if same_genes else []
    if missing:
        msg = (
            f"Expected the {len(stored.genes)} genes that the dynamics were fitted to in `adata.var_names`, found "
            f"{len(missing)} missing: {listing(missing)}. Use the cells of the fit, or fit again."
        )
        raise KeyError(msg)
    return stored


def check_dynamics_key(adata: AnnData, key: str) -> None:
    """Raise before a fit if its result could not be written or would overwrite something else."""
    check_result_key(adata, key, parts=_PARTS, what="earlier dynamics")


def check_result_key(adata: AnnData, key: str, *, parts: Collection[str], what: str) -> None:
    """Raise if ``key`` is no name for an entry of AnnData, or ``uns[key]`` is something else than an earlier result.

    Parameters
    ----------
    adata
        Cells.
    key
        Where the result is to go.
    parts
        Some keys that tell such a result from other entries.
    what
        How the message calls an earlier one.
    """
    check_text(key, name="key_added")
    check_no_slash([key], what="`key_added`", hint="Choose another name.")
    if key in adata.uns and not _has(adata.uns[key], parts):
        msg = (
            f"Expected `key_added` to be free or {what}, found {key!r} with other content in `adata.uns`. "
            "Choose another `key_added`, or delete that first."
        )
        raise ValueError(msg)


def _is_dynamics(entry: object) -> bool:
    return _has(entry, _PARTS)


def _has(entry: object, parts: Collection[str]) -> bool:
    return isinstance(entry, Mapping) and entry.keys() >= set(parts)
