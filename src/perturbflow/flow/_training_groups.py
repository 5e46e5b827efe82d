"""Looking training conditions up: by their doses and context, and by the components that they have."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from perturbflow.flow._grouping import group_keys

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class TrainingGroups:
    """Perturbed groups of training cells, found in a time that does not grow with their number."""

    doses: sparse.csr_matrix  # of every component in every group (g, P), CSR
    contexts: NDArray[np.int64]  # of every group (g,)

    def find(self, doses: sparse.csr_matrix, contexts: NDArray[np.integer]) -> NDArray[np.intp]:
        """Groups with these doses (n, P), without stored zeros, in these contexts (n,); -1 where there is none (n,)."""
        codes = np.asarray(contexts, dtype=np.int64).reshape(-1, 1)
        return np.array([self._numbers.get(name, -1) for name in group_keys(doses, codes)], dtype=np.intp)

    def with_component(self, component: int) -> NDArray[np.int32]:
        """Groups that have a component, ascending."""
        starts, groups = self._of_component
        return groups[starts[component] : starts[component + 1]]

    def here(self, component: int, context: int | None) -> NDArray[np.int32]:
        """Groups that have a component in a context."""
        groups = self.with_component(component)
        return groups[self.contexts[groups] == (-1 if context is None else context)]

    def has_components(self, components: NDArray[np.integer], context: int) -> bool:
        """Return whether a group of a context has these components (ascending) and no others, at whatever doses."""
        return (np.asarray(components, dtype=np.int64).tobytes(), context) in self._component_sets

    @cached_property
    def all_contexts(self) -> NDArray[np.int64]:
        """Numbers of the contexts that have groups, ascending."""
        return np.unique(self.contexts)

    @cached_property
    def _numbers(self) -> dict[tuple[bytes, bytes, bytes], int]:
        codes = self.contexts.astype(np.int64).reshape(-1, 1)
        return {name: i for i, name in enumerate(group_keys(self.doses, codes))}

    @cached_property
    def _component_sets(self) -> set[tuple[bytes, int]]:
        return {(name, int.from_bytes(codes, sys.byteorder)) for name, _, codes in self._numbers}

    @cached_property
    def _of_component(self) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        columns = sparse.csc_matrix(self.doses)
        columns.sort_indices()
        return columns.indptr, columns.indices
