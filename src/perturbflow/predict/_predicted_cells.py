"""Predicted cells that are an AnnData of their own: how many of every condition, from which control cells."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from perturbflow._progress import count
from perturbflow.predict._controls import PREDICTED_SOURCE
from perturbflow.predict._output_space import OutputSpace, repressed_genes
from perturbflow.predict._predicted_uncertainty import uncertainty_tables
from perturbflow.screen._conditions import TYPE_MARK

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

    from perturbflow.predict._prediction import ConditionSampler, PredictedCondition


def predicted_batches(
    sampler: ConditionSampler, space: OutputSpace, condition: PredictedCondition, members: NDArray[np.intp]
) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Predict from control cells as :meth:`ConditionSampler.batches` does, in the units that are wanted."""
    flow, rng = sampler.flow, sampler.rng(condition, "rounding")
    vocabulary = flow.vocabulary
    components = [vocabulary.components[place] for place in np.flatnonzero(condition.perturbation)]
    targets = repressed_genes(components, flow.genes, type_mark=TYPE_MARK if vocabulary.has_types else None)
    for batch, cells in sampler.batches(condition, members):
        yield batch, space.convert(cells, members=members[batch], targets=targets, rng=rng)
        count(len(cells))


@dataclass(frozen=True, eq=False)
class PredictedCells:
    """Cells of some conditions, each from a control cell; they are predicted when they are asked for."""

    sampler: ConditionSampler
    space: OutputSpace
    conditions: Sequence[PredictedCondition]
    members: Sequence[NDArray[np.intp]]  # places of the control cells that each condition starts from

    @classmethod
    def draw(
        cls,
        sampler: ConditionSampler,
        space: OutputSpace,
        conditions: Sequence[PredictedCondition],
        n_cells: int | None,
    ) -> PredictedCells:
        """Choose control cells: all, or ``n_cells`` of every condition, each as often as any other but for one."""
        members = [
            one.members if n_cells is None else _draw(one.members, n_cells, sampler.rng(one, "controls"))
            for one in conditions
        ]
        return cls(sampler, space, conditions, members)

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return sum(map(len, self.members))

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """Predict, a batch of one condition at a time (m, G)."""
        for condition, members in zip(self.conditions, self.members, strict=True):
            for _, cells in predicted_batches(self.sampler, self.space, condition, members):
                yield cells

    def obs(self, control_names: pd.Index) -> pd.DataFrame:
        """Table of the cells: perturbation, dose where doses are registered, covariates, source and source cell."""
        fields, vocabulary = self.sampler.flow.fields, self.sampler.controls.vocabulary
        named: dict[str, list[str]] = {fields.perturbation_key: [one.label for one in self.conditions]}
        if fields.dose_key is not None:
            named[fields.dose_key] = [one.dose_label for one in self.conditions]
        for column, (name, categories) in enumerate(vocabulary.covariates):
            named[name] = [categories[one.covariates[column]] for one in self.conditions]
        named["source"] = [PREDICTED_SOURCE] * len(self.conditions)
        sizes = [len(members) for members in self.members]
        columns: dict[str, Any] = {
            name: pd.Categorical(values).repeat(sizes)  # of every condition once, not of every cell
            for name, values in named.items()
        }
        columns["source_cell"] = control_names[np.concatenate(self.members)]
        return pd.DataFrame(columns, index=pd.Index([f"predicted_{i}" for i in range(self.n_cells)]))

    def annotations(self, adata: AnnData, params: Mapping[str, Any], *, key: str) -> dict[str, Any]:
        """Everything but the expression: ``obs``, ``var``, ``uns`` and ``varm`` of an AnnData of the cells."""
        flow, controls = self.sampler.flow, self.sampler.controls
        uncertainty, sds = uncertainty_tables(flow, controls, self.conditions)
        return {
            "obs": self.obs(adata.obs_names[controls.rows]),
            "var": adata.var.loc[list(flow.genes)].copy(),
            "uns": {key: {"params": dict(params), "uncertainty": uncertainty}},
            "varm": {f"{key}_sd": sds},
        }


def _draw(members: NDArray[np.intp], n: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Draw n of the members, each as often as any other but for one."""
    whole = np.tile(members, n // len(members))
    return np.concatenate([whole, rng.choice(members, n - len(whole), replace=False)])
