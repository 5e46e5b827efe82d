"""The design of a simulated screen: which perturbations, doses, cell types and times, and how many cells of each."""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perturbflow._checks import check_whole_number

CONTROL = "control"
PRODUCTION = {"knockout": 0.0, "overexpression": 5.0}  # at dose 1, relative to that without perturbation


@dataclass(frozen=True)
class Screen:
    """The C conditions of a screen of R regulators.

    ``conditions`` has one row a condition, indexed by its name, with the columns perturbation, cell_type, dose and time;
    ``factor`` (C, R) is the production of every regulator relative to that without perturbation.
    """

    conditions: pd.DataFrame
    cell_type: NDArray[np.intp]
    factor: NDArray[np.floating]
    n_cells: NDArray[np.intp]
    modes: dict[str, str]

    @classmethod
    def random(
        cls,
        regulators: Sequence[str],
        *,
        n_cells: int,
        n_perturbations: int,
        n_combinations: int,
        cell_types: Sequence[str],
        modes: Sequence[str],
        doses: Sequence[float],
        time_points: Sequence[float],
        control_fraction: float,
        rng: np.random.Generator,
    ) -> Screen:
        """Draw regulators to perturb and pairs of them; cross them with doses, cell types and times."""
        singles = np.sort(rng.choice(len(regulators), n_perturbations, replace=False)).tolist()
        mode_of = dict(zip(singles, rng.permutation(np.resize(modes, n_perturbations)).tolist(), strict=True))
        pairs = list(itertools.combinations(singles, 2))
        chosen = np.sort(rng.choice(len(pairs), n_combinations, replace=False)).tolist() if n_combinations else []

        # A treatment is a dose of every perturbed regulator; the control is the empty one.
        targets = [(single,) for single in singles] + [pairs[i] for i in chosen]
        treatments: list[dict[int, float]] = [{}]
        for target in targets:
            treatments += [
                dict(zip(target, dose, strict=True)) for dose in itertools.product(doses, repeat=len(target))
            ]

        rows = []
        factor = []
        for treatment, cell_type, time in itertools.product(treatments, cell_types, time_points):
            perturbation = "+".join(regulators[position] for position in treatment) or CONTROL
            dose = "+".join(f"{d:g}" for d in treatment.values()) or "0"
            name = [perturbation, cell_type]
            name += [f"dose={dose}"] if len(doses) > 1 else []
            name += [f"time={time:g}"] if len(time_points) > 1 else []
            rows.append(("|".join(name), perturbation, cell_type, dose, time))
            production = {position: 1 + d * (PRODUCTION[mode_of[position]] - 1) for position, d in treatment.items()}
            factor.append([production.get(position, 1.0) for position in range(len(regulators))])

        conditions = pd.DataFrame(rows, columns=["condition", "perturbation", "cell_type", "dose", "time"])
        is_control = (conditions["perturbation"] == CONTROL).to_numpy()
        if len(doses) == 1:  # the dose of all components
            conditions["dose"] = np.where(is_control, 0.0, doses[0])
        return cls(
            conditions=conditions.set_index("condition"),
            cell_type=np.array([cell_types.index(cell_type) for cell_type in conditions["cell_type"]]),
            factor=np.array(factor),
            n_cells=_allocate(n_cells, is_control, control_fraction=control_fraction),
            modes={regulators[position]: mode for position, mode in mode_of.items()},
        )


def _allocate(n_cells: int, is_control: NDArray[np.bool_], *, control_fraction: float) -> NDArray[np.intp]:
    """Divide the cells evenly among the control conditions and evenly among the others."""
    allocation = np.empty(len(is_control), dtype=np.intp)
    n_control = round(control_fraction * n_cells)
    for conditions, total in ((is_control, n_control), (~is_control, n_cells - n_control)):
        allocation[conditions] = np.diff(np.arange(conditions.sum() + 1) * total // conditions.sum())
    if allocation.min() < 1:
        msg = (
            f"Expected at least one cell in each of {len(is_control)} conditions ({is_control.sum()} of them control), "
            f"found n_cells={n_cells} and control_fraction={control_fraction:g}. Raise `n_cells`, or simulate fewer "
            "perturbations, doses, time points or cell types."
        )
        raise ValueError(msg)
    return allocation


def check_parameters(parameters: Mapping[str, Any]) -> None:
    """Raise unless every parameter is in its range and the screen fits the genes."""
    counts = ("n_cells", "n_genes", "n_perturbations", "n_combinations", "cell_types", "n_regulators", "embedding_size")
    for name in counts:
        check_whole_number(parameters[name], name=name, least=0 if name == "n_combinations" else 1)
    if parameters["n_pathways"] is not None:
        check_whole_number(parameters["n_pathways"], name="n_pathways", least=1)
    ranges: dict[str, tuple[tuple[str, ...], Callable[[float], bool]]] = {
        "to be a finite number of at least 0": (
            ("mean_regulators", "effect_strength", "cell_state_sd", "library_size_sd", "embedding_noise"),
            lambda value: 0 <= value < math.inf,
        ),
        "to be a finite number above 0": (("mean_library_size", "target_sum"), lambda value: 0 < value < math.inf),
        "between 0 and 1": (("control_fraction",), lambda value: 0 < value < 1),
        "to be at least 0 and below 1": (("dropout",), lambda value: 0 <= value < 1),
    }
    for expected, (names, is_within) in ranges.items():
        for name in names:
            if not is_within(parameters[name]):
                msg = f"Expected `{name}` {expected}, found {parameters[name]!r}."
                raise ValueError(msg)

    if not set(parameters["modes"]) <= set(PRODUCTION) or len(parameters["modes"]) == 0:
        msg = f"Expected `modes` from {sorted(PRODUCTION)}, found {parameters['modes']!r}."
        raise ValueError(msg)
    highest = 1.0 if "knockout" in parameters["modes"] else sys.float_info.max
    for name, limit in {"doses": highest, "time_points": math.inf}.items():
        values = parameters[name]
        if len(values) == 0 or len(set(values)) < len(values) or not all(0 <= value <= limit for value in values):
            msg = f"Expected `{name}` to be distinct numbers from 0 to {limit:g}, found {values!r}."
            raise ValueError(msg)

    n_perturbations, n_regulators = parameters["n_perturbations"], parameters["n_regulators"]
    if not n_perturbations <= n_regulators <= parameters["n_genes"]:
        msg = (
            f"Expected n_perturbations <= n_regulators <= n_genes, found {n_perturbations}, {n_regulators} and "
            f"{parameters['n_genes']}. Only regulators are perturbed: lower `n_perturbations` or raise `n_genes`."
        )
        raise ValueError(msg)
    n_pairs = math.comb(n_perturbations, 2)
    if parameters["n_combinations"] > n_pairs:
        msg = (
            f"Expected at most {n_pairs} combinations of {n_perturbations} perturbations, found "
            f"n_combinations={parameters['n_combinations']}. Lower it, or raise `n_perturbations`."
        )
        raise ValueError(msg)
