"""Fields that cells along time and cells at rest have in common."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from perturbflow._checks import check_key, check_none
from perturbflow.screen._fields import text_column
from perturbflow.screen._labels import canonical_label, parse_label

AGAIN = "Run `pf.pp.setup_dynamics(adata, ...)` again."


@dataclasses.dataclass(frozen=True, kw_only=True)
class CellFields:
    """Registered fields of an AnnData for cells and what was done to them."""

    perturbation_key: str | None = None  # column of `obs` with the genes that an intervention holds
    control: str = "control"  # label of cells without intervention
    other_controls: tuple[str, ...] = ()  # further labels, which all stand for `control`
    separator: str = "+"  # what stands between the genes of a label
    layer: str | None = None  # layer with the expression; None for `X`
    regulators: tuple[str, ...] = ()  # genes that may regulate others

    @property
    def controls(self) -> tuple[str, ...]:
        """All labels of cells without intervention."""
        return (self.control, *self.other_controls)

    def genes_of(self, label: str) -> tuple[str, ...]:
        """Genes that a label names, none for cells without intervention."""
        return parse_label(label, control=self.controls, separator=self.separator)

    def canonical_labels(self, adata: AnnData) -> NDArray[np.object_]:
        """Label of every cell (n,), with genes in alphabetical order; the control where no perturbation is registered."""
        if self.perturbation_key is None:
            return np.full(adata.n_obs, self.control, dtype=object)
        codes, labels = pd.factorize(text_column(adata, self.perturbation_key))
        genes = map(self.genes_of, labels)
        known = [canonical_label(each, control=self.control, separator=self.separator) for each in genes]
        return np.array(known, dtype=object)[codes]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for AnnData; what is not set is left out."""
        values = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        known = {name: value for name, value in values.items() if value not in (None, ()) or name == "regulators"}
        return {"has_prior": False} | {n: list(v) if isinstance(v, tuple) else v for n, v in known.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read what :meth:`to_dict` wrote, also after a file has turned lists into arrays."""
        kinds = {each.name: type(each.default) for each in dataclasses.fields(cls) if each.name in values}
        known: dict[str, Any] = {}
        for name, kind in kinds.items():
            value = values[name]
            known[name] = tuple(map(str, value)) if kind is tuple else bool(value) if kind is bool else str(value)
        return cls(**known)

    def check_present(self, adata: AnnData, *columns: str | None) -> None:
        """Check that columns, the layer and the regulators are still there."""
        for key in (*columns, self.perturbation_key):
            if key is not None:
                check_key(key, adata.obs.columns, where="adata.obs", hint=AGAIN)
        if self.layer is not None:
            check_key(self.layer, adata.layers, where="adata.layers", hint=AGAIN)
        missing = [gene for gene in self.regulators if gene not in adata.var_names]
        expected = f"the {len(self.regulators)} registered regulators in `adata.var_names`"
        check_none(missing, expected, found=f"that {len(missing)} are missing: ", hint=AGAIN)
