"""Questions asked of perturbed cells: how many, and which of them were held out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from perturbflow.report._summary import Step
from perturbflow.report._words import call_with, counted, listed
from perturbflow.screen._fields import read_fields, read_screen
from perturbflow.screen._splits import read_split
from perturbflow.train._validation import MIN_CELLS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData

    from perturbflow.screen._fields import PerturbationFields

HELD_OUT = ("test", "valid")
FEW_CONDITIONS = 2  # or fewer do not tell which of two settings is better


@dataclass(frozen=True)
class ScreenCounts:
    """Numbers of cells and conditions of a screen.

    ``n_usable`` is how many of the validation conditions have enough cells to choose settings on. The task of the split is empty
    if it is not one of perturbflow, its column None where there is no split.
    """

    fields: PerturbationFields
    n_cells: int
    n_controls: int
    n_genes: int
    n_single: int
    n_combined: int
    n_contexts: int
    split_key: str | None
    n_conditions: Mapping[str, int]
    n_usable: int
    task: str

    @classmethod
    def of(cls, adata: AnnData, split_key: str) -> ScreenCounts:
        """Count registered cells; no expression is read."""
        fields = read_fields(adata)
        screen = read_screen(adata, fields=fields)
        whole = screen.grouping()
        doses = whole.doses[~whole.is_control].tocsr()
        ends = zip(doses.indptr[:-1], doses.indptr[1:], strict=True)
        sizes = np.array([len(components) for components in {frozenset(doses.indices[i:j].tolist()) for i, j in ends}])
        has_split = split_key in adata.obs
        split = read_split(adata, split_key) if has_split else np.full(adata.n_obs, "train")
        numbers, usable = {}, 0
        for name in ("train", *HELD_OUT):
            groups = screen.part(split == name).grouping()
            numbers[name] = int((~groups.is_control).sum())
            if name == "valid":
                usable = int((~groups.is_control & (groups.n_cells >= MIN_CELLS)).sum())
        record: Any = adata.uns.get(split_key, {})
        return cls(
            fields=fields,
            n_cells=adata.n_obs,
            n_controls=int(screen.is_control.sum()),
            n_genes=adata.n_vars,
            n_single=int((sizes == 1).sum()),
            n_combined=int((sizes > 1).sum()),
            n_contexts=len(np.unique(whole.covariates, axis=0)),
            split_key=split_key if has_split else None,
            n_conditions=numbers,
            n_usable=usable,
            task=str(record.get("task", "")) if hasattr(record, "get") else "",
        )

    @property
    def n_held_out(self) -> int:
        """Conditions that are not in training."""
        return sum(self.n_conditions[name] for name in HELD_OUT)

    def sentences(self) -> list[str]:
        """Say what was measured, and what was held out."""
        kinds = [f"{self.n_single:,} alone"] if self.n_single else []
        kinds += [f"{self.n_combined:,} in combination"] if self.n_combined else []
        keys = self.fields.context_keys
        contexts = f" in {counted(self.n_contexts, 'context')} ({listed(keys)})" if keys else ""
        said = [
            f"{counted(self.n_single + self.n_combined, 'perturbation')} ({', '.join(kinds)}){contexts}, measured in "
            f"{self.n_cells:,} cells of {counted(self.n_genes, 'gene')}; {self.n_controls:,} of the cells are controls."
        ]
        if self.split_key is None or not self.n_held_out:
            said.append("No condition is held out: all cells are training cells.")
            return said
        task = f" for the task {self.task!r}" if self.task else ""
        held_out = [f"{self.n_conditions['test']:,} for test"] if self.n_conditions["test"] else []
        held_out += [f"{self.n_conditions['valid']:,} for validation"] if self.n_conditions["valid"] else []
        said.append(
            f"Held out{task}: {' and '.join(held_out)}, of "
            f"{counted(sum(self.n_conditions.values()), 'perturbed condition')} (a perturbation in a context)."
        )
        return said

    def split_step(self) -> Step:
        """Say how to hold conditions out, as the data allow."""
        task = (
            "combination"
            if self.n_combined > 1
            else "covariate_transfer"
            if self.n_contexts > 1
            else "unseen_perturbation"
        )
        return Step("Hold out conditions as you want to predict them", call_with("pp.split_perturbations", task=task))
