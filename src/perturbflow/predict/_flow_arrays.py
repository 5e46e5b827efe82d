"""Specification of the arrays of a fitted flow."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from perturbflow.store._stored_checks import Array, probabilities

# Fields of `AdditiveHurdlePrior`. C contexts, K covariates, P components with F features, L dose levels, g groups, G genes.
PRIOR: Mapping[str, Array] = MappingProxyType(
    {
        "contexts": Array(("C", "K"), low=0),
        "n_controls": Array(("C",), above=0),
        "control_expressed": probabilities("C", "G"),
        "control_mean": Array(("C", "G"), low=0),
        "control_profile": Array(("C", "G"), low=0),
        "distance_unit": Array((1,), above=0),
        "carry": Array((2, "ways", 5), low=0),
        "pool_expressed": probabilities("G"),
        "all_expressed": probabilities("G"),
        "all_mean": Array(("G",), low=0),
        "variance": Array(("G",), above=0),
        "level_components": Array(("L",), low=0),
        "level_doses": Array(("L",), above=0),
        "trained": probabilities("P"),
        "shared": Array((2, "C", "G")),
        "effect_codes": Array((2, "L", "C", "G")),
        "effect_steps": Array((2, "L", "C"), above=0),
        "group_starts": Array(("g + 1",), low=0),
        "group_components": Array(("doses",), low=0),
        "group_amounts": Array(("doses",), above=0),
        "group_contexts": Array(("g",), low=0),
        "group_cells": Array(("g",), above=0),
        "interaction_codes": Array((2, "g", "G")),
        "interaction_steps": Array((2, "g"), above=0),
        "effect_sds": Array((2, "L", "G"), low=0),
        "interaction_variances": Array((2, "G"), low=0),
        "context_variances": Array((2, "G"), low=0),
        "told_variances": Array((2, "C", "G"), low=0),
        "base_precisions": Array((2, "C", "G"), low=0),
        "features": Array(("P", "F")),
        "fraction": probabilities(2, 1),
        "level_factors": Array((2, "L", "factors")),
        "context_factors": Array((2, "C", "factors")),
        "gene_factors": Array((2, "factors", "G")),
        "slope": Array((2, 1), low=0),
        "read_variances": Array((2, "G"), low=0),
    }
)

# Fields of `Responses`. r latents, Q quantiles of amounts, S states of control cells.
RESPONSES: Mapping[str, Array] = MappingProxyType(
    {
        "groups": Array(("r",), low=0),
        "loading_codes": Array((2, "r", "G")),
        "loading_steps": Array((2, "r"), above=0),
        "amounts": Array(("r", "Q")),
        "couplings": Array(("r", "S"), low=-1, high=1),
        "evidence": Array(("r",), low=0),
        "tested": probabilities("g"),
        "state_loadings": Array(("S", "G")),
        "state_covariances": Array(("S", "G")),
    }
)

# Fields of `GeneSupport`.
SUPPORT: Mapping[str, Array] = MappingProxyType(
    {name: Array(("G",), low=0) for name in ("smallest", "largest", "zero_below")},
)

# Fields of `Calibration`: kinds, strata and scales.
CALIBRATION: Mapping[str, Array] = MappingProxyType(
    {
        "scales": Array(("scales",), above=0),
        "edges": Array(("kinds", "strata - 1"), finite=False),
        "offsets": Array(("kinds", "strata")),
        "weights": probabilities("kinds", "strata", "scales"),
        "factors": Array(("kinds", "strata"), low=0),
        "n_conditions": Array(("kinds",), low=0),
        "codependence": Array(("kinds",), low=0),
    }
)
