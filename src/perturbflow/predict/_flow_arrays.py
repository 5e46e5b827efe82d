"""Specification of the arrays of a fitted flow, and whether what was stored is one."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from perturbflow.flow import AdditiveHurdlePrior, ConditionalFlow, FlowConfig, Responses
from perturbflow.screen._fields import PerturbationFields
from perturbflow.store._stored_checks import (
    Array,
    Damage,
    check_arrays,
    check_below,
    check_equal,
    check_like,
    probabilities,
)

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


def check_parts(values: Mapping[str, Any]) -> None:
    """Raise unless the parts are those of a flow and fit each other."""
    import torch

    fields = PerturbationFields.from_dict(values["fields"])
    config = FlowConfig.from_dict(values["config"])
    categories = [len(categories) for _, categories in fields.vocabulary.covariates]
    check_equal(len(values["genes"]), config.n_genes, what="genes")
    check_equal(len(fields.vocabulary.components), config.n_components, what="components")
    check_equal(len(categories), len(config.n_categories), what="covariates")
    for key, found, expected in zip(fields.context_keys, categories, config.n_categories, strict=False):
        check_equal(found, expected, what=f"categories of {key!r}")
    sizes = {"G": config.n_genes, "P": config.n_components, "K": len(categories)}
    check_arrays(values["prior"], PRIOR, part="prior", sizes=sizes)
    check_arrays(values["responses"], RESPONSES, part="responses", sizes=sizes)
    check_arrays(values["support"], SUPPORT, part="support", sizes=sizes)
    check_arrays(values["calibration"], CALIBRATION, part="calibration")
    check_arrays(values["weights"], {}, part="weights")
    prior = AdditiveHurdlePrior.from_arrays(values["prior"])
    check_below(prior.group_contexts, len(prior.contexts), what="a context")
    check_below(prior.level_components, config.n_components, what="a component")
    check_below(prior.group_components, config.n_components, what="a component")
    check_equal(int(prior.group_starts[-1]), len(prior.group_components), what="doses of training groups")
    prior.groups.doses.check_format()
    responses = Responses.from_arrays(values["responses"])
    check_equal(len(responses.tested), len(prior.group_contexts), what="training groups")
    check_below(responses.groups, len(prior.group_contexts), what="a training group")
    for column, size in enumerate(categories):
        check_below(prior.contexts[:, column], size, what="a category")
    # A network of the sizes that it claims is only made if it has the weights for it.
    if (config.n_blocks or 0) > len(values["weights"]):
        msg = f"{config.n_blocks} blocks with {len(values['weights'])} weights"
        raise Damage(msg)
    with torch.device("meta"):
        network = ConditionalFlow(config, prior).network.state_dict()
    shapes = {name: (tuple(each.shape), str(each.dtype).removeprefix("torch.")) for name, each in network.items()}
    check_like(values["weights"], shapes, part="weights")
