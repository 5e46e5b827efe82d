"""Conditions to be judged: real cells of a perturbation in a context, with the controls of that context."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from perturbflow.flow import CellData
from perturbflow.screen._conditions import Vocabulary
from perturbflow.screen._expression import dense as as_array
from perturbflow.screen._fields import read_cells, read_fields, read_screen
from perturbflow.screen._screen import Screen
from perturbflow.screen._splits import read_split, split_names

Cells: TypeAlias = CellData | Screen
"""Cells that give those of some rows, in memory or where they are stored."""


@dataclass(frozen=True)
class Condition:
    """One perturbation in one context and split, with the rows of its real cells and of the controls to start from.

    Attributes
    ----------
    labels
        Names: ``split``, ``perturbation`` and what else tells conditions apart.
    perturbation
        Dose of every perturbation component (P,).
    covariates
        Codes of the covariates (K,), the context.
    rows
        Rows of the real cells.
    control_rows
        Rows of the controls.

    Examples
    --------
    >>> labels = {"split": "test", "perturbation": "A"}
    >>> one = Condition(labels, np.ones(1, np.float32), np.zeros(0, np.int64), np.arange(5, 9), np.arange(5))
    >>> one.block
    ('test', ())
    """

    labels: Mapping[str, str]
    perturbation: NDArray[np.float32]
    covariates: NDArray[np.int64]
    rows: NDArray[np.intp]
    control_rows: NDArray[np.intp]

    @property
    def block(self) -> tuple[str, tuple[int, ...]]:
        """Conditions that are compared with each other: those of one split and context."""
        return self.labels["split"], tuple(self.covariates.tolist())

    @property
    def identity(self) -> tuple[bytes, bytes]:
        """Perturbation and context, whatever the split."""
        return identity(self.perturbation, self.covariates)


def identity(perturbation: NDArray[np.floating], covariates: NDArray[np.integer]) -> tuple[bytes, bytes]:
    """Name a perturbation in a context by its numbers."""
    return np.asarray(perturbation, np.float32).tobytes(), np.asarray(covariates, np.int64).tobytes()


def named_conditions(cells: Cells, vocabulary: Vocabulary, *, has_doses: bool) -> dict[tuple[bytes, bytes], str]:
    """Names of the perturbed conditions of some cells, such as "A+B (1+0.5) in T", by their identity."""
    names = {}
    for group, _ in groups_of(cells, np.arange(len(cells))):
        if group.perturbation.any():
            dose = f" ({vocabulary.dose_label(group.perturbation)})" if has_doses else ""
            context = ", ".join(vocabulary.named(group.covariates).values())
            name = f"{vocabulary.label(group.perturbation)}{dose}{' in ' * bool(context)}{context}"
            names[identity(group.perturbation, group.covariates)] = name
    return names


def conditions_of(
    cells: Cells,
    split: NDArray[np.str_],
    *,
    fitted: NDArray[np.intp],
    splits: Sequence[str],
    vocabulary: Vocabulary,
    has_doses: bool,
    min_cells: int,
) -> tuple[list[Condition], pd.DataFrame]:
    """List the conditions that have enough cells, block by block, and tabulate those that have not."""
    controls = {
        tuple(group.covariates.tolist()): rows
        for group, rows in groups_of(cells, fitted)
        if not group.perturbation.any()
    }
    conditions, left_out = [], []
    for name in splits:
        for group, rows in groups_of(cells, np.flatnonzero(split == name)):
            if not group.perturbation.any():
                continue
            context = vocabulary.named(group.covariates)
            labels = {"split": name, "perturbation": vocabulary.label(group.perturbation), **context}
            if has_doses:
                labels["dose"] = vocabulary.dose_label(group.perturbation)
            control_rows = controls.get(tuple(group.covariates.tolist()))
            if control_rows is None:
                msg = (
                    f"Expected control cells among the training cells of every context, found none for "
                    f"{context or 'the data'}. Mark its controls as training cells, or register fewer covariates with "
                    "pf.pp.setup_perturbation."
                )
                raise ValueError(msg)
            if min(len(rows), len(control_rows)) < min_cells:
                reason = f"{len(rows)} real cells, {len(control_rows)} control cells"
                left_out.append(labels | {"reason": f"{reason}; `min_cells` is {min_cells}"})
            else:
                conditions.append(Condition(labels, group.perturbation, group.covariates, rows, control_rows))
    columns = ["split", "perturbation", *(key for key, _ in vocabulary.covariates), *(["dose"] if has_doses else [])]
    order = {name: place for place, name in enumerate(splits)}
    conditions.sort(key=lambda condition: (order[condition.block[0]], condition.block[1]))
    return conditions, pd.DataFrame(left_out, columns=[*columns, "reason"], dtype=object)


def groups_of(cells: Cells, rows: NDArray[np.intp]) -> Iterator[tuple[Any, NDArray[np.intp]]]:
    """Groups among some rows, each with its rows in ``cells``; no expression is copied."""
    bare = CellData(np.empty((len(rows), 0), dtype=np.float32), cells.perturbations[rows], cells.covariates[rows])
    for group in bare.groups():
        yield group, rows[group.rows]


def draw(rows: NDArray[np.intp], n_cells: int | None, rng: np.random.Generator) -> NDArray[np.intp]:
    """Rows, or so many of them at random, in order."""
    if n_cells is None or len(rows) <= n_cells:
        return rows
    return np.sort(rng.choice(rows, n_cells, replace=False))


def generator(seed: int, place: object) -> np.random.Generator:
    """A generator of one place, so that its numbers do not depend on which other places are judged."""
    return np.random.default_rng([seed, zlib.crc32(repr(place).encode())])


def dense(cells: Cells, rows: NDArray[np.intp]) -> NDArray[np.float32]:
    """Expression of some rows as an array (n, G)."""
    return as_array(cells.x[rows])


def registered_cells(adata: AnnData) -> CellData:
    """Return expression, doses and contexts of all cells as arrays.

    Parameters
    ----------
    adata
        Cells with registered fields (:func:`perturbflow.pp.setup_perturbation`).

    Returns
    -------
    The cells, in their order: expression (n, G), doses of the perturbation components (n, P) in alphabetical order, and
    codes of the covariates (n, K).

    Raises
    ------
    KeyError
        If fields are not registered, or have gone since.

    Examples
    --------
    >>> import perturbflow as pf
    >>> adata = pf.datasets.simulated_perturb_seq(n_cells=300, n_genes=20, n_perturbations=4, n_combinations=2)
    >>> pf.pp.setup_perturbation(adata, perturbation_key="perturbation", control="control")
    >>> cells = pf.evaluation.registered_cells(adata)
    >>> cells.x.shape, cells.perturbations.shape, cells.covariates.shape
    ((300, 20), (300, 4), (300, 0))
    """
    return read_cells(adata)


def judged_conditions(
    adata: AnnData,
    *,
    splits: str | Sequence[str] = ("train", "valid", "test"),
    fitted_splits: Sequence[str] = ("train",),
    split_key: str = "split",
    min_cells: int = 10,
) -> list[Condition]:
    """Return the conditions of some splits that have enough cells, block by block.

    Parameters
    ----------
    adata
        Cells with registered fields and a split (:func:`perturbflow.pp.split_perturbations`).
    splits
        The split to judge, or several, in the order of the result.
    fitted_splits
        Splits whose control cells models start from.
    split_key
        Column of ``adata.obs`` with the split.
    min_cells
        Conditions with fewer real cells, and contexts with fewer controls, are left out.

    Returns
    -------
    The conditions; rows are those of ``adata``.

    Raises
    ------
    KeyError
        If fields or the split are missing.
    ValueError
        If a context has no control cells in ``fitted_splits``.

    Examples
    --------
    >>> import perturbflow as pf
    >>> adata = pf.datasets.simulated_perturb_seq(n_cells=300, n_genes=20, n_perturbations=4, n_combinations=2)
    >>> pf.pp.setup_perturbation(adata, perturbation_key="perturbation", control="control")
    >>> pf.pp.split_perturbations(adata, task="combination", test_fraction=0.5)
    >>> [one.labels["split"] for one in pf.evaluation.judged_conditions(adata, splits="test")]
    ['test']
    """
    fields = read_fields(adata)
    split = read_split(adata, split_key)
    conditions, _ = conditions_of(
        read_screen(adata, fields=fields),
        split,
        fitted=np.flatnonzero(np.isin(split, fitted_splits)),
        splits=split_names(splits),
        vocabulary=fields.vocabulary,
        has_doses=fields.dose_key is not None,
        min_cells=min_cells,
    )
    return conditions
