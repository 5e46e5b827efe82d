"""Divide cells into training, validation and test by a named rule."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from perturbflow._checks import (
    check_between,
    check_key,
    check_none,
    check_one_of,
    check_text,
    check_type,
    check_unique_names,
    check_whole_number,
    listing,
)
from perturbflow.pp._check_split import (
    check_rules,
    check_split_key,
    held_out_table,
    warn_without_validation,
    write_split,
)
from perturbflow.pp._held_out import Conditions, Wanted, check_training, divide_cells, known_components
from perturbflow.pp._scenarios import SCENARIOS, Scenario, draw_split, halve
from perturbflow.screen._fields import PerturbationFields, read_fields, writable
from perturbflow.screen._modality import takes_modality
from perturbflow.screen._splits import condition_frame

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData
    from numpy.typing import NDArray

    from perturbflow.screen._conditions import Vocabulary


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

    Conditions are those of :func:`perturbflow.pp.split_perturbations`. Half of what the rules of PerturBench hold out is
    for the test and half for validation, in every context as nearly as possible. Of the control cells of every context
    and batch half are in training, one at least, and a quarter each in validation and test.

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
        it is to be halved, ``split`` ("valid" or "test"), such as ``uns["split"]["held_out"]`` of another study. Or
        covariates with their values: the one to leave out (``{"cell_type": "B"}``), or the contexts of the rule of
        Jiang24 and Frangieh21 in other words (``{"condition": "Co-culture"}``).
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

    conditions = Conditions.of(adata, fields)
    if rule.task == "covariate_transfer" and not fields.covariate_keys:
        msg = (
            f"Expected registered covariates for {scenario!r}, found none. Register `covariate_keys` with "
            "`pf.pp.setup_perturbation`."
        )
        raise ValueError(msg)
    rng = np.random.default_rng(rule.seed)
    if isinstance(held_out, pd.DataFrame):
        chosen = split_by_table(held_out, conditions, fields.vocabulary, task=rule.task, rng=rng)
    else:
        rule = _with_contexts(rule, held_out, conditions)
        chosen = draw_split(conditions, rule, rng=rng)
    check_training(chosen, conditions)
    check_rules(conditions, chosen, task=rule.task, advice="Leave fewer contexts out, or change the table `held_out`.")
    split = chosen[conditions.codes]
    is_control = conditions.table["is_control"].to_numpy(dtype=bool)[conditions.codes]
    split[is_control] = _divide_controls(adata, is_control, rule, fields)
    warn_without_validation(split, f"Found no conditions to validate on for {scenario!r}")

    adata = writable(adata, copy=copy)
    more = known_components(conditions) if rule.task == "combination" else None
    record = _record(rule, held_out, held_out_table(conditions, chosen, more))
    write_split(adata, split, record, key=key_added, fields=fields, conditions=conditions)
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
    expected = f"{suits.get(rule.rule, 'a table of conditions (a pandas.DataFrame)')} for {rule.name!r}"
    if held_out is not None and not isinstance(held_out, pd.DataFrame):
        check_type(held_out, Mapping if rule.rule in suits else (), name="held_out", expected=expected)
    if rule.rule == "left_out_value" and held_out is None:
        msg = f"Expected the value to hold out for {rule.name!r}, found none. Pass it, for example held_out={{'cell_type': 'B'}}."
        raise ValueError(msg)
    if fraction is not None:
        if isinstance(held_out, pd.DataFrame) or rule.rule == "left_out_value":
            msg = f"Expected no `fraction` for {rule.name!r} with this `held_out`, which draws nothing at random, found {fraction!r}."
            raise ValueError(msg)
        check_between(fraction, 0, 1, name="fraction")
        rule = replace(rule, fraction=float(fraction))
    if seed is not None:
        check_whole_number(seed, name="seed")
        rule = replace(rule, seed=int(seed))
    return rule


def _with_contexts(rule: Scenario, held_out: Mapping[str, Any] | None, conditions: Conditions) -> Scenario:
    """Put the user's contexts into the rule, and check that they are there."""
    if held_out is not None:
        contexts = read_contexts(held_out, conditions, only_one=rule.rule == "left_out_value")
        return replace(rule, contexts=contexts)
    for key, values in rule.contexts:
        hint = f"Register it, or use the contexts of the data, for example held_out={{{key!r}: {list(values)!r}}}."
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


def split_by_table(
    table: pd.DataFrame, conditions: Conditions, vocabulary: Vocabulary, *, task: str, rng: np.random.Generator
) -> NDArray[np.str_]:
    """Split of every condition (P,) by a table; one without the column ``split`` is divided in halves."""
    keys = list(conditions.covariate_keys) if task == "covariate_transfer" else []
    for column in ("perturbation", *keys):
        check_key(column, table.columns, where="held_out.columns", hint="Add the column, or rename one.")
    if table.empty:
        msg = "Expected at least one condition in the table `held_out`, found none. Omit it for a random choice."
        raise ValueError(msg)
    rows_of: dict[tuple[str, ...], list[int]] = {}
    for row, part in enumerate(conditions.components):
        if len(part) > (task == "combination"):
            name = tuple(conditions.table.iloc[row][["perturbation", *keys]])
            rows_of.setdefault(name, []).append(row)

    covariates = table[keys].astype(str).to_numpy(dtype=object)
    names = [
        (vocabulary.canonical(str(label)), *values)
        for label, values in zip(table["perturbation"], covariates, strict=True)
    ]
    missing = [" in ".join(name) for name in dict.fromkeys(names) if name not in rows_of]
    kind = "combinations" if task == "combination" else "perturbed conditions"
    hint = "Remove these rows, or correct the names."
    check_none(missing, f"{kind} with cells in the table `held_out`", found=f"{len(missing)} others: ", hint=hint)
    if "split" not in table:
        held_out = [row for name in dict.fromkeys(names) for row in rows_of[name]]
        return halve(conditions, held_out, task, rng=rng)

    given = table["split"].astype(str).tolist()
    wrong = sorted(set(given) - {"valid", "test"}) or ([] if "test" in given else ["valid"])
    hint = "Rename the values with `held_out['split'].map({...})`, or omit the column to divide the conditions into halves."
    check_none(wrong, "'valid' or 'test' in `held_out['split']`, at least once 'test'", hint=hint)
    pairs = dict.fromkeys(zip(names, given, strict=True))
    twice = [" in ".join(name) for name, n in Counter(name for name, _ in pairs).items() if n > 1]
    check_none(twice, "one split per condition in `held_out`", found="two for ", hint="Remove one of the rows.")
    split = np.full(len(conditions.table), "train")
    for name, of in pairs:
        split[rows_of[name]] = of
    return split


def read_contexts(
    held_out: Mapping[str, object], conditions: Conditions, *, only_one: bool
) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Read covariates with one or several values each, such as ``{"cell_type": ["B", "NK"]}``."""
    if not held_out or (only_one and len(held_out) > 1):
        number = "one covariate" if only_one else "covariates"
        msg = f"Expected {number} in `held_out`, such as {{'cell_type': 'B'}}, found {dict(held_out)!r}."
        raise ValueError(msg)
    contexts = []
    for key, value in held_out.items():
        check_type(key, str, name="held_out", expected="a mapping of covariates to values")
        check_key(
            key, conditions.covariate_keys, where="covariate_keys", hint="Register it, or choose another covariate."
        )
        several = isinstance(value, list | tuple | set | np.ndarray | pd.Index | pd.Series)
        values = tuple(sorted({str(one) for one in value})) if several else (str(value),)  # type: ignore[attr-defined]
        check_values(key, values, conditions)
        contexts.append((key, values))
    return tuple(contexts)


def check_values(key: str, values: Sequence[str], conditions: Conditions) -> None:
    """Raise if a covariate has not all of the values."""
    known = sorted(set(conditions.table[key]))
    missing = [value for value in values if value not in known]
    if missing or not values:
        msg = (
            f"Expected values of {key!r} among {listing(known)} to hold out, found {listing(missing)}. "
            f"Use values of `adata.obs[{key!r}]`, for example held_out={{{key!r}: {known[0]!r}}}."
        )
        raise ValueError(msg)
