"""Doses at which perturbations have half of their effect, and what two of them do together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from perturbflow._checks import check_between, check_whole_number
from perturbflow.predict._dose_curves import DoseCurves, measured_response, predicted_response, readout_weights
from perturbflow.predict._predicted_uncertainty import MeasuredMeans, contexts_of, measured_screen, warn_of_new_contexts
from perturbflow.predict._prediction import PredictedCondition
from perturbflow.screen._conditions import place
from perturbflow.screen._labels import dose_text
from perturbflow.screen._modality import takes_modality
from perturbflow.tl._common import check_result, flow_and_controls, of_flow, without_none, written

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData
    from mudata import MuData
    from numpy.typing import NDArray
    from scipy import sparse

    from perturbflow.flow import Context
    from perturbflow.predict._controls import ControlCells
    from perturbflow.predict._dose_curves import Response
    from perturbflow.predict._fitted_flow import FittedFlow


@takes_modality
@of_flow
def dose_response(
    adata: AnnData | MuData,
    readout: str | Sequence[str] | Mapping[str, float] | pd.Series,
    perturbations: Sequence[str] | None = None,
    *,
    full_effect: float | None = None,
    level: float = 0.95,
    min_cells: int = 10,
    key: str = "flow",
    key_added: str = "dose_response",
    seed: int = 0,
    modality: str | None = None,
    copy: bool = False,
) -> AnnData | MuData | None:
    r"""Find the doses at which perturbations have half of their effect on a readout, and how two act together.

    The change of the readout against the controls is fitted by a Hill curve, :math:`E\, d^h / (EC_{50}^h + d^h)`, in every
    context of the control cells: once as it was *measured* in ``adata``, and once as the fit *predicts* it at the doses of
    training. The half-maximal dose and h are on a grid (up to a hundred times below and above the doses; h from 0.5
    to 4), the plateau E follows in closed form, and each curve counts by its evidence, so that intervals say how much
    the doses leave open.

    Of combinations of two, responses are shares of the full effect. Beyond what is expected of both alone,

    .. math:: f_{12} - (f_1 + f_2 - f_1 f_2), \qquad f_{12} - f \;\text{with}\; d_1 / D_1(f) + d_2 / D_2(f) = 1,

    is the excess over Bliss, for drugs that act independently, and over Loewe, for doses of what could be one drug, where
    D(f) is the dose that has the response f alone.

    Parameters
    ----------
    adata
        Cells with control cells and a fitted flow with registered doses. Measured are cells of all splits.
    readout
        What is looked at in every cell: a gene, a list of genes, whose mean is taken, or weights of genes, which are divided by the sum
        of their sizes.
    perturbations
        Labels of single perturbations; by default all with training cells at two doses or more. Combinations of two of them in
        ``adata`` are looked at too.
    full_effect
        Change of the readout that counts as 1 for combinations; by default the plateau of largest size in the context.
    seed
        Seed of the draws behind the intervals of combinations.

    Returns
    -------
    None, or the copy with the entries

    `adata.uns["dose_response" | key_added]` : DataFrame
        One row a perturbation, context and ``source`` ("measured" or "predicted"): ``ec50`` (the median of what is known), ``plateau``, both with ``_lower`` and
        ``_upper``, ``steepness`` h, ``n_doses``, ``lowest_dose``, ``highest_dose``, and ``status``:

        - "covered": the interval of the half-maximal dose lies within the doses;
        - "above the highest dose", "below the lowest dose": it is more likely outside than not;
        - "not determined": else, where the interval reaches beyond the doses;
        - "no response": the readout does not change at any dose by more than sampling;
        - "too few doses": fewer than three.
    `adata.uns["dose_response_points" | f"{key_added}_points"]` : DataFrame
        The responses: ``dose``, ``effect``, ``sd`` and ``n_cells`` (0 for predictions).
    `adata.uns["dose_response_curves" | f"{key_added}_curves"]` : DataFrame
        The curves between the lowest and the highest dose: ``dose``, ``effect``, ``lower`` and ``upper``.
    `adata.uns["dose_response_combinations" | f"{key_added}_combinations"]` : DataFrame
        One row a combination, its doses, context and source, empty where there is none: ``response``, ``bliss_expected``, ``bliss_excess``,
        ``loewe_expected``, ``loewe_excess``, the excesses with ``_lower`` and ``_upper``.
    `adata.uns["dose_response_params" | f"{key_added}_params"]` : dict
        The parameters, and the weights of the genes of the readout.

    Notes
    -----
    Errors at different doses share those of the controls and count as independent else. A prediction between doses is an interpolation
    (:func:`perturbflow.tl.predict_perturbation`); the curve is fitted at training doses alone. Curves that turn are no
    Hill curves: look at the points (:func:`perturbflow.pl.dose_response`).

    References
    ----------
    Bliss (1939), The toxicity of poisons applied jointly. Annals of Applied Biology 26, 585-615. Loewe and Muischnek
    (1926), Über Kombinationswirkungen. Archiv für experimentelle Pathologie und Pharmakologie 114, 313-326.

    Examples
    --------
    >>> import perturbflow as pf
    >>> adata = pf.datasets.simulated_perturb_seq(
    ...     n_cells=800, n_genes=30, n_perturbations=3, n_combinations=0, doses=(0.1, 0.3, 1.0)
    ... )
    >>> pf.pp.setup_perturbation(adata, perturbation_key="perturbation", control="control", dose_key="dose")
    >>> adata.obs["split"] = "train"
    >>> pf.tl.fit_flow(adata, preset="prior", progress_bar=False)
    >>> gene = adata.obs["perturbation"].cat.categories[0]
    >>> pf.tl.dose_response(adata, gene, [gene])
    >>> adata.uns["dose_response"]["source"].tolist()
    ['measured', 'predicted']
    """
    check_result(adata, key_added, "dose_response", copy=copy)
    check_between(level, 0.01, 0.999, name="level")
    check_whole_number(min_cells, name="min_cells", least=2)
    check_whole_number(seed, name="seed")
    if full_effect is not None and not (np.isfinite(full_effect) and full_effect != 0):
        msg = f"Expected `full_effect` to be finite and not 0, found {full_effect!r}. Leave it out for the largest plateau."
        raise ValueError(msg)
    flow, controls = flow_and_controls(adata, key)
    if flow.fields.dose_key is None:
        msg = "Expected registered doses, found none. Run pf.pp.setup_perturbation with `dose_key`, and fit again."
        raise ValueError(msg)
    weights = readout_weights(readout, flow.genes)
    components = _components(flow, perturbations)
    screen = measured_screen(adata, flow, controls.vocabulary)
    wanted = _conditions(flow.flow.prior.groups.doses, components)
    there = wanted if screen is None else _conditions(screen.distinct, components)
    means = None if screen is None else MeasuredMeans(screen, there, min_cells=min_cells, readout=weights)

    tables: dict[str, list[dict[str, Any]]] = {suffix: [] for suffix in ("", "_points", "_curves", "_combinations")}
    for codes, context in _contexts(flow, controls).items():
        covariates = np.array(codes, dtype=np.int64)
        where = controls.named(codes)
        measured: dict[tuple[float, ...], Response] = {}
        for row in there if means is not None else ():
            found = measured_response(means, row, covariates) if means is not None else None
            if found is not None:
                measured[tuple(row.tolist())] = found
        # Combinations are predicted at the doses of training, and where they were measured in a part that was held out.
        asked = {tuple(row.tolist()): row for row in (*wanted, *(row for row in there if np.count_nonzero(row) == 2))}
        predicted = {name: predicted_response(flow, weights, row, context) for name, row in asked.items()}
        for source, responses in (("measured", measured), ("predicted", predicted)):
            curves = _curves(responses)
            about = where | {"source": source}
            for component in [one for one in components if one in curves.singles]:
                label = {"perturbation": flow.vocabulary.components[component]} | about
                tables[""].append(label | curves.curve_row(component, level=level))
                tables["_points"] += [label | point for point in curves.points(component)]
                tables["_curves"] += [label | point for point in curves.curve(component, level=level)]
            for pair in sorted(pair for pair in curves.pairs if set(pair) <= set(curves.singles)):
                full = curves.full_effect() if full_effect is None else full_effect
                label = {"perturbation": flow.vocabulary.separator.join(flow.vocabulary.components[j] for j in pair)}
                for row in curves.combination_rows(
                    pair, full_effect=full, level=level, rng=np.random.default_rng([seed, *pair, *codes])
                ):
                    doses = flow.vocabulary.separator.join(map(dose_text, row.pop("doses")))
                    tables["_combinations"].append(label | {"dose": doses} | about | row)

    params = without_none(
        key=key,
        level=level,
        min_cells=min_cells,
        seed=seed,
        full_effect=None if full_effect is None else float(full_effect),
        readout={flow.genes[place]: float(weights[place]) for place in np.flatnonzero(weights)},
    )
    results: dict[str, Any] = {f"{key_added}{suffix}": pd.DataFrame(rows) for suffix, rows in tables.items()}
    return written(adata, copy=copy, uns=results | {f"{key_added}_params": params})


def _components(flow: FittedFlow, perturbations: Sequence[str] | None) -> list[int]:
    """Numbers of the components to look at."""
    vocabulary, prior = flow.vocabulary, flow.flow.prior
    if perturbations is not None:
        labels = [perturbations] if isinstance(perturbations, str) else list(perturbations)
        numbers = []
        for label in labels:  # without a type it stands for all of them, of which every context has its own
            names = vocabulary.readings(label) or (vocabulary.canonical(label, where=place("perturbations")),)
            if not set(names) <= set(vocabulary.components):
                msg = f"Expected single perturbations in `perturbations`, found {label!r}. Combinations of them are found."
                raise ValueError(msg)
            numbers += [vocabulary.components.index(name) for name in names]
        numbers = list(dict.fromkeys(numbers))
    else:
        levels = [prior.levels.of_component(j) for j in range(len(vocabulary.components))]
        numbers = [j for j, own in enumerate(levels) if prior.trained[j] and own.stop - own.start > 1]
    if not numbers:
        msg = (
            "Expected perturbations that were measured at two doses or more, found none. Name some in `perturbations`."
        )
        raise ValueError(msg)
    return numbers


def _conditions(doses: sparse.csr_matrix, components: Sequence[int]) -> NDArray[np.float32]:
    """Different rows of doses (n, P) of one or two of the components and nothing else."""
    counts = doses.getnnz(axis=1)
    own = doses[:, list(components)].getnnz(axis=1)
    return np.unique(doses[(counts == own) & (counts > 0) & (counts < 3)].toarray(), axis=0)


def _contexts(flow: FittedFlow, controls: ControlCells) -> dict[tuple[int, ...], Context]:
    """Return the places of the control cells, with a warning of what the fit does not know."""
    together: dict[tuple[int, ...], list[NDArray[np.intp]]] = {}
    for covariates, _, members in controls.contexts():  # those of different types of perturbations are one
        together.setdefault(tuple(covariates.tolist()), []).append(members)
    nothing = np.zeros(len(flow.vocabulary.components), dtype=np.float32)
    conditions = [
        PredictedCondition(
            flow.fields.control, "0", nothing, np.array(codes, dtype=np.int64), np.sort(np.concatenate(parts))
        )
        for codes, parts in together.items()
    ]
    warn_of_new_contexts(flow, controls, conditions)
    return contexts_of(flow, controls, conditions)


def _curves(responses: Mapping[tuple[float, ...], Response]) -> DoseCurves:
    """Responses by component and dose."""
    curves = DoseCurves()
    for row, response in responses.items():
        active = tuple(np.flatnonzero(row).tolist())
        if len(active) == 1:
            curves.singles.setdefault(active[0], {})[row[active[0]]] = response
        else:
            curves.pairs.setdefault((active[0], active[1]), {})[row[active[0]], row[active[1]]] = response
    return curves
