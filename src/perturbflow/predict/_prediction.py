"""Predicting conditions from control cells, for the tool and for the model class alike."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from perturbflow._checks import check_type, check_whole_number, listing
from perturbflow._warnings import warn
from perturbflow.predict._controls import ControlCells, DosesToPredict, new_doses
from perturbflow.predict._fitted_flow import CONTROL_TOTALS, FittedFlow
from perturbflow.screen._conditions import Vocabulary, place
from perturbflow.screen._scale import warn_of_totals

CELLS_AT_ONCE = 2048
FAR = 2.0  # distances in units of those between nearest perturbations in training
LEAST_FRACTION = 0.05  # of the variance of effects that features have to explain


@dataclass(frozen=True, eq=False)
class PredictedCondition:
    """One perturbation in one context."""

    label: str  # canonical label
    dose_label: str  # doses in the order of the label
    perturbation: NDArray[np.float32]  # dose of every component (P,)
    covariates: NDArray[np.int64]  # codes of the covariates (K,)
    members: NDArray[np.intp]  # places of its control cells among the controls (n,)

    @property
    def codes(self) -> tuple[int, ...]:
        """The covariates as a key."""
        return tuple(self.covariates.tolist())


def conditions_to_predict(
    flow: FittedFlow,
    controls: ControlCells,
    names: Sequence[str],
    dose: Any,
    *,
    argument: str = "perturbations",
    every_dose: bool = False,
) -> list[PredictedCondition]:
    """List every perturbation in every context of the control cells, each once, or with ``every_dose`` at all doses."""
    vocabulary, contexts = flow.vocabulary, controls.contexts()
    doses = DosesToPredict(flow, dose, np.array([covariates for covariates, _, _ in contexts]))
    found: dict[tuple[str, str, tuple[int, ...]], tuple[NDArray[np.float32], list[NDArray[np.intp]]]] = {}
    for covariates, kind, members in contexts:
        rows: dict[tuple[str, str], NDArray[np.float32]] = {}
        where = place(argument, controls.named(covariates))
        for name in names:
            vocabulary.canonical(name, perturbation_type=kind, where=where)
            measured = doses.of(name, kind)
            if len(measured) > 1 and not every_dose:
                msg = (
                    f"Expected a dose of {vocabulary.label(measured[0])!r}, which was measured at "
                    f"{listing(map(vocabulary.dose_label, measured))}, found none. Pass one as `dose`."
                )
                raise ValueError(msg)
            rows |= {(vocabulary.label(row), vocabulary.dose_label(row)): row for row in measured}
        labels = [label for label, _ in rows]
        for label in labels if not every_dose else ():
            if labels.count(label) > 1:
                several = [dose_label for other, dose_label in rows if other == label]
                msg = f"Expected one dose of {label!r}, found {several}. Predict them in separate calls."
                raise ValueError(msg)
        for (label, dose_label), row in rows.items():
            # Contexts that differ only in the type written beside their control cells are one.
            key = (label, dose_label, tuple(covariates.tolist()))
            found.setdefault(key, (row, []))[1].append(members)
    doses.check_names()
    order = {pair: place for place, pair in enumerate(dict.fromkeys(key[:2] for key in found))}
    together: dict[tuple[int, ...], NDArray[np.intp]] = {}  # control cells of a context are listed once for all
    conditions = []
    for (label, dose_label, codes), (row, parts) in sorted(found.items(), key=lambda item: order[item[0][:2]]):
        same = tuple(map(id, parts))
        if same not in together:
            together[same] = np.sort(np.concatenate(parts))
        conditions.append(PredictedCondition(label, dose_label, row, np.array(codes, dtype=np.int64), together[same]))
    return conditions


def warn_of_scale(flow: FittedFlow, controls: ControlCells) -> None:
    """Warn of control cells that are normalised to another total than those of the fit."""
    known = flow.settings.get(CONTROL_TOTALS, ())
    for codes, _, members in controls.contexts():
        labels = controls.named(codes)
        what = f"The control cells of {labels}" if labels else "The control cells"
        warn_of_totals(
            controls.x.part(rows=members), known, unit=flow.fields.natural_per_unit, what=what, than="those of the fit"
        )


def warn_of_extrapolation(flow: FittedFlow, conditions: Sequence[PredictedCondition]) -> None:
    """Warn of components without training cells, of doses between those in training and of doses above."""
    components = np.array(flow.vocabulary.components, dtype=object)
    prior = flow.flow.prior
    asked = np.array([condition.perturbation for condition in conditions])
    unseen = np.flatnonzero(asked.any(axis=0) & ~prior.trained)
    if len(unseen):
        warn(_unseen_message(flow, unseen))
    between = new_doses(flow, asked)
    if between:
        warn(
            f"Doses that were not measured: {listing(between)}. The response is interpolated, with a larger uncertainty "
            "than at measured doses."
        )
    beyond = components[(asked > prior.dose_unit).any(axis=0) & prior.trained]
    if len(beyond):
        warn(
            f"The dose of {listing(beyond.tolist())} is above the highest training dose and is treated as the highest, "
            "because responses beyond it are unknown."
        )


def _unseen_message(flow: FittedFlow, unseen: NDArray[np.intp]) -> str:
    """Return what predictions of components without training cells rest on."""
    prior = flow.flow.prior
    names = listing([flow.vocabulary.components[j] for j in unseen])
    on_average = f"No training cells of {names}: the prediction is the mean effect of perturbations"
    if not prior.features.shape[1]:
        return (
            f"{on_average}. For a specific prediction, fit with cells of these perturbations, or register features with "
            "`pf.pp.perturbation_features`."
        )
    if prior.fraction.max() < LEAST_FRACTION:
        return f"{on_average}, because their features explain nothing of the effects in training. Use other features."
    distances = {flow.vocabulary.components[j]: prior.feature_distance(int(j)) for j in unseen}
    far = {name: distance for name, distance in distances.items() if distance > FAR}
    text = f"No training cells of {names}: the prediction rests on their features"
    if not far:
        return f"{text}. The nearest training perturbation is as close as training perturbations are to each other."
    shown = listing([f"{name} ({distance:.1f})" for name, distance in far.items()])
    return (
        f"{text}. For {shown}, the nearest training perturbation is more than {FAR:g} times as far as usual: expect "
        "little more than the mean effect. See `feature_distance` in the record of the prediction."
    )


@dataclass(frozen=True, eq=False)
class ConditionSampler:
    """Predicts cells of a condition from control cells, a batch at a time."""

    flow: FittedFlow
    controls: ControlCells
    guidance: float | None  # weight of classifier-free guidance, by default that of the fit
    n_steps: int | None  # of the solver, by default those of the flow
    seed: int  # what a condition gets from it does not depend on other conditions

    def __post_init__(self) -> None:
        check_whole_number(self.seed, name="seed")
        if self.n_steps is not None:
            check_whole_number(self.n_steps, name="n_steps", least=1)
        if self.guidance is not None:
            is_bool = isinstance(self.guidance, bool)
            check_type(self.guidance, () if is_bool else Real, name="guidance", expected="a number")
            if not np.isfinite(self.guidance):
                msg = f"Expected `guidance` to be finite, found {self.guidance!r}."
                raise ValueError(msg)

    @property
    def changes(self) -> dict[str, float | int]:
        """Settings of prediction that differ from those of the fit."""
        chosen = {"guidance": self.guidance, "n_steps": self.n_steps}
        return {name: value for name, value in chosen.items() if value is not None}

    def batches(
        self, condition: PredictedCondition, members: NDArray[np.intp]
    ) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """Predict cells from control cells at some places (n,): where a batch is among these, and its cells (m, G)."""
        # A context without training controls is known by its control cells alone: they have to stay together.
        is_known = (self.flow.flow.prior.contexts == condition.covariates).all(axis=1).any()
        size = CELLS_AT_ONCE if is_known else len(members)
        rng = self.rng(condition, "flow")
        for first in range(0, len(members), size):
            batch = slice(first, min(first + size, len(members)))
            yield (
                batch,
                self.flow.sample(
                    self.controls.dense(members[batch]),
                    condition.perturbation,
                    condition.covariates,
                    rng=rng,
                    **self.changes,
                ),
            )

    def rng(self, condition: PredictedCondition, purpose: str) -> np.random.Generator:
        """Generate randomness that belongs to one condition."""
        text = f"{purpose}|{condition.label}|{condition.dose_label}"
        return np.random.default_rng([self.seed, zlib.crc32(text.encode()), *condition.covariates.tolist()])


def candidate_labels(
    flow: FittedFlow, candidates: Sequence[str] | None, *, combinations: bool, untrained: bool = False
) -> list[str]:
    """Labels of all candidates, by default of components with cells or features, and of their pairs."""
    vocabulary, prior = flow.vocabulary, flow.flow.prior
    if candidates is None:
        known = prior.trained | (untrained or bool(prior.features.shape[1]))
        names = [name for name, keep in zip(vocabulary.components, known, strict=True) if keep]
    else:
        names = [candidates] if isinstance(candidates, str) else list(candidates)
    if not names:
        msg = "Expected at least one perturbation in `candidates`, found none."
        raise ValueError(msg)
    if combinations:
        singles = sorted(
            {name for name in (_unambiguous(vocabulary, each) for each in names) if vocabulary.separator not in name}
        )
        names += [vocabulary.separator.join(pair) for pair in itertools.combinations(singles, 2)]
    return names


def candidate_conditions(
    flow: FittedFlow,
    controls: ControlCells,
    candidates: Sequence[str] | None,
    dose: Any,
    *,
    combinations: bool,
    untrained: bool = False,
) -> list[PredictedCondition]:
    """Candidates, see :func:`candidate_labels`, in every context and at every dose at which they were measured."""
    labels = candidate_labels(flow, candidates, combinations=combinations, untrained=untrained)
    conditions = conditions_to_predict(flow, controls, labels, dose, argument="candidates", every_dose=True)
    if not all(condition.perturbation.any() for condition in conditions):
        msg = f"Expected perturbations in `candidates`, found {flow.fields.control!r} or a dose of 0. Omit it."
        raise ValueError(msg)
    return conditions


def _unambiguous(vocabulary: Vocabulary, name: str) -> str:
    """Return the one label that a name stands for; where its type is left to the context, the name as it is."""
    readings = vocabulary.readings(name)
    return readings[0] if len(readings) == 1 else vocabulary.written(name)


def n_training_cells(
    flow: FittedFlow, perturbation: NDArray[np.floating], covariates: NDArray[np.integer] | None = None
) -> int:
    """Number of training cells of a perturbation at these doses, in one context or, where none is given, in all."""
    prior = flow.flow.prior
    where = prior.groups.all_contexts
    if covariates is not None:
        where = np.flatnonzero((prior.contexts == covariates).all(axis=1))
    doses = np.minimum(np.asarray(perturbation, dtype=np.float32), prior.dose_unit)
    same = prior.groups.find(sparse.csr_matrix(np.repeat(doses[None], len(where), axis=0)), where)
    return int(prior.group_cells[same[same >= 0]].sum())
