"""Fields that cells along time and cells at rest have in common."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from perturbflow._checks import check_key, listing
from perturbflow.screen._fields import text_column
from perturbflow.screen._labels import canonical_label, parse_label

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

AGAIN = "Run `pf.pp.setup_dynamics(adata, ...)` again."
_OPTIONS = ("perturbation_key", "layer")


@dataclass(frozen=True, kw_only=True)
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
        return {
            **self._set(_OPTIONS),
            "control": self.control,
            "separator": self.separator,
            "regulators": list(self.regulators),
            **({"other_controls": list(self.other_controls)} if self.other_controls else {}),
        }

    def _set(self, names: Iterable[str]) -> dict[str, str]:
        """Options that are not None."""
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

    @staticmethod
    def common(values: Mapping[str, Any], options: Iterable[str] = ()) -> dict[str, Any]:
        """Read what :meth:`to_dict` wrote, and further options, also after a file has turned lists into arrays."""
        return {
            **{name: str(values[name]) for name in (*_OPTIONS, *options) if name in values},
            "control": str(values["control"]),
            "separator": str(values["separator"]),
            "regulators": tuple(map(str, values.get("regulators", ()))),
            "other_controls": tuple(map(str, values.get("other_controls", ()))),
        }

    def check_present(self, adata: AnnData, *columns: str | None) -> None:
        """Check that columns, the layer and the regulators are still there."""
        for key in (*columns, self.perturbation_key):
            if key is not None:
                check_key(key, adata.obs.columns, where="adata.obs", hint=AGAIN)
        if self.layer is not None:
            check_key(self.layer, adata.layers, where="adata.layers", hint=AGAIN)
        missing = [gene for gene in self.regulators if gene not in adata.var_names]
        if missing:
            msg = (
                f"Expected the {len(self.regulators)} registered regulators in `adata.var_names`, found that "
                f"{len(missing)} are missing: {listing(missing)}. {AGAIN}"
            )
            raise ValueError(msg)
