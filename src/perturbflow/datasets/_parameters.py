"""Parameters of a simulated screen, and their checks."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Any

from perturbflow._checks import check_whole_number
from perturbflow.datasets._screen import PRODUCTION


def check_parameters(parameters: Mapping[str, Any]) -> None:
    """Raise unless every parameter is in its range and the screen fits the genes."""
    counts = ("n_cells", "n_genes", "n_perturbations", "n_combinations", "cell_types", "n_regulators", "embedding_size")
    for name in counts:
        check_whole_number(parameters[name], name=name, least=0 if name == "n_combinations" else 1)
    if parameters["n_pathways"] is not None:
        check_whole_number(parameters["n_pathways"], name="n_pathways", least=1)
    for name in ("mean_regulators", "effect_strength", "cell_state_sd", "library_size_sd", "embedding_noise"):
        if not 0 <= parameters[name] < math.inf:
            msg = f"Expected `{name}` to be a finite number of at least 0, found {parameters[name]!r}."
            raise ValueError(msg)
    for name in ("mean_library_size", "target_sum"):
        if not 0 < parameters[name] < math.inf:
            msg = f"Expected `{name}` to be a finite number above 0, found {parameters[name]!r}."
            raise ValueError(msg)
    if not 0 < parameters["control_fraction"] < 1:
        msg = f"Expected `control_fraction` between 0 and 1, found {parameters['control_fraction']!r}."
        raise ValueError(msg)
    if not 0 <= parameters["dropout"] < 1:
        msg = f"Expected `dropout` to be at least 0 and below 1, found {parameters['dropout']!r}."
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
            f"n_combinations={parameters['n_combinations']}. Lower it or raise `n_perturbations`."
        )
        raise ValueError(msg)
