"""Divide cells into training, validation and test by a named rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from perturbflow._checks import (
    check_between,
    check_key,
    check_one_of,
    check_text,
    check_type,
    check_unique_names,
    check_whole_number,
)
from perturbflow.pp._check_split import check_rules
from perturbflow.pp._held_out import Conditions, Wanted, check_training, divide_cells, known_components
from perturbflow.pp._held_out_table import check_values, read_contexts, split_by_table
from perturbflow.pp._scenarios import SCENARIOS, Scenario, draw_split
from perturbflow.pp._split_record import (
    check_split_key,
    held_out_table,
    merge_doses,
    warn_without_validation,
    write_split,
)
from perturbflow.screen._condition_frame import condition_frame
from perturbflow.screen._fields import PerturbationFields, read_fields, writable
from perturbflow.screen._modality import takes_modality

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData
    from numpy.typing import NDArray


@takes_modality
def split_scenario(
    adata: AnnData | MuData,
    scenario: str,
    *,
    held_out: pd.DataFrame | Mapping[str, str | Sequence[str]] | None = None,
    fraction: float | None = None,
    seed: int | None = None,
    key_added: str = "split",
    modality: str | None = None,
    copy: bool = False,
) -> AnnData | MuData | None:
    """Divide cells into training, validation and test by a named rule, so that studies can be compared.

    As in :func:`perturbflow.pp.split_perturbations`, a condition is a perturbation in a context (a combination of
    covariates, without the batch), in all doses, and the split depends on the names of conditions and control cells and
    on the seed, not on their order. Half of what the rules of PerturBench hold out is for the test and half for
    validation, in every context as nearly as possible. Of the control cells of every context and batch half are in
    training, one at least, and a quarter each in validation and test.

    Parameters
    ----------
    adata
        Cells with fields registered by :func:`perturbflow.pp.setup_perturbation`.
    scenario
        ``"perturbench_norman19"``: 0.7 of the combinations, at most 200, in all contexts; all single perturbations are
        in training. Seed 42.

        ``"perturbench_combination"``: the same with 0.3, the default of PerturBench.

        ``"perturbench_srivatsan20"``: transfer over contexts. Perturbations in the order of their number of contexts,
        the most first, each draw a context to be held out in, of those that have not reached their limit of 0.3 of
        their perturbations and 200; one context at least stays in training. Seed 42.

        ``"perturbench_jiang24"``: 0.7 of the perturbations in each context with ``cell_type`` k562, mcf7, ht29 or hap1
        and ``treatment`` IFNG, INS or TGFB, of those that are in other contexts, too. Seed 0.

        ``"perturbench_frangieh21"``: the same for ``treatment`` co-culture.

        ``"leave_one_out"``: all perturbations in the contexts with the value of a covariate that ``held_out`` names,
        such as a cell type, are the test. Those with another value, drawn with the seed 0, are for validation, unless a
        perturbation would be left without training. All controls are in training.
    held_out
        What to hold out. A table with the columns ``perturbation``, one a covariate (not for combinations) and, unless
        it is to be divided in halves, ``split`` ("valid" or "test"), such as ``uns["split"]["held_out"]`` of another
        study: it takes the place of the random choice. Or covariates with their values: the one to leave out
        (``{"cell_type": "B"}``), or the contexts of the rule of Jiang24 and Frangieh21 in other words (``{"condition":
        "Co-culture"}``).
    fraction, seed
        Instead of those of the scenario.
    key_added
        Where to write in ``obs`` and ``uns``.

    Returns
    -------
    None, or the copy. Sets:

    `adata.obs["split" | key_added]` : categorical
        ``"train"``, ``"valid"`` or ``"test"``.
    `adata.uns["split" | key_added]`
        ``scenario``; ``parameters``, its rule with the fraction, the seed, the limits and the contexts;
        ``conditions``, "drawn" or "given"; and ``task``, ``seed``, ``held_out``, ``fields``, ``n_cells``, ``hash`` and
        ``cell_hash`` as of :func:`perturbflow.pp.split_perturbations`.

    Raises
    ------
    KeyError
        If no fields are registered, or a covariate is not registered.
    TypeError
        If an argument is of the wrong type.
    ValueError
        If the scenario is not known, there are too few conditions for it, ``held_out`` names something that is not
        there, would leave a perturbation without training, or does not suit the scenario, or ``key_added`` is taken.

    Notes
    -----
    The rules, fractions and seeds are those of PerturBench (https://github.com/altoslabs/perturbench, 2024); the draw
    is not: there it depends on the order of the cells. To compare with numbers on the very conditions of another study,
    give these as a table, and compare ``hash``. Further, in PerturBench: a limit counts controls as a perturbation and
    may be passed by less than one (57 rather than 56 of 188); a held-out pair that is alone in its context is in no
    split, here in training; controls are not divided by context; and a combination is held out in some of the contexts,
    here in all.

    Examples
    --------
    >>> import perturbflow as pf
    >>> adata = pf.datasets.simulated_perturb_seq(n_cells=600, n_genes=50, n_perturbations=6, n_combinations=10)
    >>> pf.pp.setup_perturbation(
    ...     adata, perturbation_key="perturbation", control="control", covariate_keys=["cell_type"]
    ... )
    >>> pf.pp.split_scenario(adata, "perturbench_norman19")
    >>> adata.uns["split"]["held_out"].groupby("split")["perturbation"].nunique().to_dict()
    {'test': 4, 'valid': 3}
    >>> pf.pp.split_scenario(adata, "leave_one_out", held_out={"cell_type": "type_1"}, key_added="left_out")
    >>> pf.pp.check_split(adata, split_key="left_out")
    """
    check_text(scenario, name="scenario")
    check_one_of(scenario, SCENARIOS, name="scenario")
    rule = _with_options(SCENARIOS[scenario], held_out, fraction=fraction, seed=seed)
    fields = read_fields(adata)
    check_split_key(adata, key_added, fields)

    table, codes = condition_frame(adata, fields=fields, with_batch=False)
    merged, conditions, rows = merge_doses(table, fields)
    _check_covariates(rule, conditions)
    rng = np.random.default_rng(rule.seed)
    if isinstance(held_out, pd.DataFrame):
        chosen = split_by_table(held_out, conditions, fields.vocabulary, task=rule.task, rng=rng)
    else:
        rule = _with_contexts(rule, held_out, conditions)
        chosen = draw_split(conditions, rule, rng=rng)
    check_training(chosen, conditions.components)
    check_rules(conditions, chosen, task=rule.task, advice="Leave fewer contexts out, or change the table `held_out`.")
    split = chosen[rows][codes]
    is_control = table["is_control"].to_numpy(dtype=bool)[codes]
    split[is_control] = _divide_controls(adata, is_control, rule, fields)
    warn_without_validation(split, f"Found no conditions to validate on for {scenario!r}")

    adata = writable(adata, copy=copy)
    more = known_components(conditions) if rule.task == "combination" else None
    write_split(
        adata, split, _record(rule, held_out, held_out_table(merged, chosen, fields, more)),
        key=key_added, fields=fields, conditions=(table, codes),
    )  # fmt: skip
    return adata if copy else None


def _record(rule: Scenario, held_out: object, table: pd.DataFrame) -> dict[str, Any]:
    is_given = isinstance(held_out, pd.DataFrame)
    parameters = rule.parameters()
    if is_given:  # what the draw depends on says nothing about this split
        kept = ("rule", "seed", "valid_control_fraction", "test_control_fraction")
        parameters = {name: parameters[name] for name in kept}
    return {
        "task": rule.task,
        "scenario": rule.name,
        "parameters": parameters,
        "conditions": "given" if is_given else "drawn",
        "seed": rule.seed,
        "held_out": table,
    }


def _with_options(rule: Scenario, held_out: object, *, fraction: float | None, seed: int | None) -> Scenario:
    """Put the user's fraction and seed into the rule, and check that ``held_out`` suits it."""
    suits = {
        "left_out_value": "a table of conditions, or a covariate with its value",
        "contexts": "a table of conditions, or covariates with their values",
    }
    takes_mapping = rule.rule in suits
    if held_out is not None and not isinstance(held_out, pd.DataFrame):
        kinds = (Mapping,) if takes_mapping else ()
        check_type(
            held_out,
            kinds,
            name="held_out",
            expected=suits.get(rule.rule, "a table of conditions (a pandas.DataFrame)") + f" for {rule.name!r}",
        )
    if rule.rule == "left_out_value" and held_out is None:
        msg = (
            f"Expected the value to leave out for {rule.name!r}, found none. Give it, as held_out={{'cell_type': 'B'}}."
        )
        raise ValueError(msg)
    if fraction is not None:
        if isinstance(held_out, pd.DataFrame) or rule.rule == "left_out_value":
            msg = f"Expected no `fraction` where {rule.name!r} with this `held_out` draws no part, found {fraction!r}."
            raise ValueError(msg)
        check_between(fraction, 0, 1, name="fraction")
        rule = replace(rule, fraction=float(fraction))
    if seed is not None:
        check_whole_number(seed, name="seed")
        rule = replace(rule, seed=int(seed))
    return rule


def _check_covariates(rule: Scenario, conditions: Conditions) -> None:
    """Raise if there are no contexts to transfer between."""
    if rule.task == "covariate_transfer" and not conditions.covariate_keys:
        msg = (
            f"Expected registered covariates for {rule.name!r}, found none. "
            "Register `covariate_keys` with `pf.pp.setup_perturbation`."
        )
        raise ValueError(msg)


def _with_contexts(rule: Scenario, held_out: Mapping[str, Any] | None, conditions: Conditions) -> Scenario:
    """Put the user's contexts into the rule, and check that they are there."""
    if held_out is not None:
        contexts = read_contexts(held_out, conditions, only_one=rule.rule == "left_out_value")
        return replace(rule, contexts=contexts)
    for key, values in rule.contexts:
        hint = f"Register it, or name the contexts as in the data, as held_out={{{key!r}: {list(values)!r}}}."
        check_key(key, conditions.covariate_keys, where="covariate_keys", hint=hint)
        check_values(key, values, conditions)
    return rule


def _divide_controls(
    adata: AnnData, is_control: NDArray[np.bool_], rule: Scenario, fields: PerturbationFields
) -> NDArray[np.str_]:
    """Split of the control cells, in the same shares in every context and batch, of which each keeps one in training."""
    wanted = Wanted(rule.test_control_fraction, rule.valid_control_fraction)
    if wanted.test_fraction == wanted.valid_fraction == 0 or not is_control.any():
        return np.full(is_control.sum(), "train")
    names = adata.obs_names[is_control]
    check_unique_names(
        names, what="names of control cells in `adata.obs_names`", hint="Run `adata.obs_names_make_unique()` first."
    )
    # A stream of its own: the same controls whether the conditions are drawn or given.
    _, codes = condition_frame(adata, fields=fields)
    return divide_cells(codes[is_control], names, wanted, rng=np.random.default_rng([rule.seed, 1]))
