"""What is typed in any order, with or without types, is understood by every function, and errors say where it was typed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import perturbflow as pf
from perturbflow.screen._conditions import Vocabulary, place, typed_label

LABELS = ("control", "A", "B", "B+A")
CONTEXTS = {"K": "act", "L": "rep"}  # each with a type of its own


def screen(*, typed: bool) -> AnnData:
    """Cells of two contexts at two doses, each perturbation with genes of its own."""
    rng = np.random.default_rng(0)
    rows, levels = [], []
    for context in CONTEXTS:
        for label in LABELS:
            for dose in ("1", "10") if label in {"A", "B"} else ("1",):
                level = np.full(12, 3.0)
                for name in label.split("+") if label != "control" else ():
                    level["AB".index(name) * 3 : "AB".index(name) * 3 + 3] *= 1.5 if dose == "1" else 2.5
                levels.append(np.log1p(rng.poisson(np.tile(level, (12, 1))).astype(np.float32)))
                rows += [(label, context, dose)] * 12
    obs = pd.DataFrame(rows, columns=["perturbation", "line", "dose"], index=[f"cell{k}" for k in range(len(rows))])
    obs["kind"] = obs["line"].map(CONTEXTS)
    adata = AnnData(np.concatenate(levels) + np.float32(0.01), obs=obs)
    adata.var_names = [*"AB", *(f"g{k}" for k in range(10))]
    pf.pp.setup_perturbation(
        adata,
        perturbation_key="perturbation",
        control="control",
        covariate_keys=["line"],
        dose_key="dose",
        perturbation_type_key="kind" if typed else None,
    )
    adata.obs["split"] = "train"
    pf.tl.fit_flow(adata, preset="prior", progress_bar=False)
    return adata


@pytest.fixture(scope="module")
def plain() -> AnnData:
    return screen(typed=False)


@pytest.fixture(scope="module")
def typed() -> AnnData:
    return screen(typed=True)


@pytest.fixture(scope="module")
def at_rest() -> AnnData:
    adata = screen(typed=False)
    adata.var["is_regulator"] = True
    pf.pp.setup_dynamics(adata, regulators="is_regulator")
    pf.tl.fit_dynamics(adata, progress_bar=False)
    return adata


# One line a function: the argument that takes a label, the call, and what of the result must be the same. Each gets an
# AnnData with a flow, a label, and covariates where it takes them.


def predicted(adata: AnnData, label: str, *, covariates: Mapping[str, str] | None = None) -> Any:
    pf.tl.predict_perturbation(adata, label, dose=1, covariates=covariates)
    return adata.uns["predicted"]["perturbations"], adata.obsm["predicted"].toarray()


def ranked(adata: AnnData, label: str) -> Any:
    pf.tl.rank_perturbations(adata, {"line": "K"}, candidates=[label], from_cells={"line": "L"}, dose=1)
    return adata.uns["ranked_perturbations"]


def ranked_toward(adata: AnnData, label: str) -> Any:
    pf.tl.rank_perturbations(adata, {"perturbation": label}, candidates=["A:act"] if ":" in label else ["B"], dose=1)
    return adata.uns["ranked_perturbations"]


def chosen(adata: AnnData, label: str) -> Any:
    pf.tl.next_perturbations(adata, [label], n=1, dose=1)
    return adata.uns["next_perturbations"]


def scored(adata: AnnData, label: str) -> Any:
    pf.tl.interaction_scores(adata, [label], dose=1)
    return adata.uns["interaction_scores"]


def divided(adata: AnnData, label: str) -> Any:
    pf.pp.split_perturbations(
        adata, task="covariate_transfer", held_out=[(label, {"line": "K"})], valid_fraction=0, key_added="named"
    )
    return adata.uns["named"]["held_out"]


def drawn(name: str) -> Callable[..., Any]:
    def draw(adata: AnnData, label: str, *, covariates: Mapping[str, str] | None = None) -> Any:
        if not label.startswith("X"):
            pf.tl.predict_perturbation(adata, ["A+B", "A"], dose=1)
        axes = getattr(pf.pl, name)(adata, label, covariates=covariates, show=False)
        return np.atleast_1d(axes)[0].get_title(loc="left")

    return draw


def judged(adata: AnnData, label: str) -> Any:
    own = adata[(adata.obs["perturbation"] != "control").to_numpy()].copy()
    own.obs["perturbation"] = own.obs["perturbation"].replace("B+A", label)
    pf.tl.evaluate(adata, own, key=None, metrics=["rmse_of_mean_effects"], baselines=[], n_resamples=10)
    table = adata.uns["evaluation"]
    return table[table["model"] == "predicted"]


def held(adata: AnnData, label: str) -> Any:
    pf.tl.simulate_knockout(adata, label)
    return adata.uns["knockout"]["interventions"].sort_values("gene", ignore_index=True), adata.uns["knockout"][
        "perturbed"
    ]


CALLS: dict[str, tuple[str, Callable[..., Any]]] = {
    "predict_perturbation": ("perturbations", predicted),
    "rank_perturbations": ("candidates", ranked),
    "rank_perturbations_target": ("target", ranked_toward),
    "next_perturbations": ("candidates", chosen),
    "interaction_scores": ("combinations", scored),
    "split_perturbations": ("held_out", divided),
    "embedding": ("perturbation", drawn("embedding")),
    "expression": ("perturbation", drawn("expression")),
    "perturbation_effect": ("perturbation", drawn("perturbation_effect")),
    "responders": ("perturbation", drawn("responders")),
    "evaluate": ("predicted", judged),
    "simulate_knockout": ("genes", held),
}


def same(found: Any, expected: Any) -> bool:
    if isinstance(expected, tuple):
        return all(same(one, other) for one, other in zip(found, expected, strict=True))
    if isinstance(expected, pd.DataFrame):
        return found.equals(expected)
    return bool(np.all(np.asarray(found) == np.asarray(expected)))


@pytest.fixture
def cells(request, plain, at_rest) -> AnnData:
    """The cells that a function of ``CALLS`` needs."""
    return (at_rest if request.getfixturevalue("name") == "simulate_knockout" else plain).copy()


@pytest.mark.parametrize("name", CALLS)
def test_components_are_in_any_order_with_controls_among_them(name, cells):
    call = CALLS[name][1]
    expected = call(cells.copy(), "A+B")
    for label in ("B+A", " B + A ", "B+control+A"):
        assert same(call(cells.copy(), label), expected), label


@pytest.mark.parametrize("name", CALLS)
def test_errors_name_the_argument_and_what_is_similar(name, cells):
    argument, call = CALLS[name]
    with pytest.raises((ValueError, KeyError)) as error:
        call(cells, "X+A")
    said = str(error.value)
    assert argument in said
    assert "X" in said
    if name not in {
        "embedding",
        "expression",
        "perturbation_effect",
        "responders",
        "evaluate",
    }:  # these list what there is
        assert "A" in said.split("imilar")[1]


def test_types_are_those_of_the_context(typed):
    """A label without types is that of the type in the contexts that are meant, one with types is understood as well."""
    here: dict[str, str] = {"line": "K"}
    for label in ("B+A", "A:act+B", "A+B:act", "B:act+A:act"):
        assert predicted(typed.copy(), label, covariates=here)[0] == ["A:act+B:act"]
        assert "A:act+B:act" in drawn("expression")(typed.copy(), label, covariates=here)
    assert set(scored(typed.copy(), "B+A")["perturbation"]) == {"A:act+B:act", "A:rep+B:rep"}
    distances = []
    for label in ("A", "A:act"):
        pf.tl.rank_perturbations(adata := typed.copy(), {"perturbation": label}, candidates=["A"], dose=1)
        distances.append(adata.uns["ranked_perturbations_params"]["distance"])
    assert distances[0] != distances[1]


def test_held_out_labels_need_types_only_where_several_are_there(typed):
    for label in ("A:act+B", "B+A:act"):
        adata = typed.copy()
        pf.pp.split_perturbations(adata, task="combination", held_out=[label], valid_fraction=0, key_added="named")
        assert adata.uns["named"]["held_out"]["perturbation"].tolist() == ["A:act+B:act"]
    with pytest.raises(ValueError, match=r"found 'B\+A' in `held_out`, which could be any of \['A:act\+B:act', 'A:rep"):
        pf.pp.split_perturbations(typed, task="combination", held_out=["B+A"], key_added="named")


def test_interactions_without_names_are_those_of_all_types(typed):
    pf.tl.interaction_scores(adata := typed.copy())
    assert set(adata.uns["interaction_scores"]["perturbation"]) == {"A:act+B:act", "A:rep+B:rep"}


def test_pairs_of_candidates_have_the_types_of_their_contexts(typed):
    adata = typed.copy()
    pf.tl.rank_perturbations(
        adata, {"perturbation": "A:act"}, candidates=["B", "A"], combinations=True, from_cells={"line": "K"}, dose=1
    )
    assert set(adata.uns["ranked_perturbations"]["perturbation"]) == {"A:act", "B:act", "A:act+B:act"}


def test_doses_by_name_and_curves_are_those_of_all_types(typed):
    adata = typed.copy()
    pf.tl.predict_perturbation(adata, "A+B", dose={"B": 10, "A:act": 1, "A:rep": 10})
    assert adata.uns["predicted"]["doses"] == ["1+10", "10+10"]
    pf.tl.dose_response(adata, ["A"], perturbations=["A", "A:act"])
    assert set(adata.uns["dose_response"]["perturbation"]) == {"A:act", "A:rep"}
    table = adata.uns["dose_response"]
    adata.uns["dose_response"] = table[table["perturbation"] == "A:act"]
    assert "A:act" in pf.pl.dose_response(adata, " A ", show=False).get_title(loc="left")
    adata.uns["dose_response"] = table
    with pytest.raises(ValueError, match=r"found 'A' in `perturbation`, which could be any of \['A:act', 'A:rep'\]"):
        pf.pl.dose_response(adata, "A", show=False)
    with pytest.raises(ValueError, match="known perturbation, found 'C' in `perturbations`. The most similar"):
        pf.tl.dose_response(adata, ["A"], perturbations=["C"])
    with pytest.raises(ValueError, match="known perturbation, found 'C' in `dose`. The most similar"):
        pf.tl.predict_perturbation(adata, "A", dose={"C": 1})


def test_errors_name_the_context_where_types_depend_on_it(typed):
    adata = typed.copy()
    adata.obs["kind"] = "off"  # a type that no perturbation has
    with pytest.raises(ValueError, match=r"found 'A:off' in `perturbations` for line='K'. The most similar"):
        pf.tl.predict_perturbation(adata, "A")
    pf.tl.predict_perturbation(adata := typed.copy(), "A", dose=1)
    with pytest.raises(
        ValueError, match=r"one type, found 'A' in `perturbation`, which could be any of .* or a context"
    ):
        pf.pl.expression(adata, "A", show=False)


KNOWN = Vocabulary(("A:act", "A:rep", "B:act", "C:act"), has_types=True)


def test_readings_of_a_label():
    assert KNOWN.readings("B+A") == ("A:act+B:act", "A:rep+B:act")
    assert KNOWN.readings("A:rep+control") == ("A:rep",)
    assert KNOWN.readings("control") == ("control",)
    assert KNOWN.readings("A+X") == KNOWN.readings("A++B") == ()


def test_typed_label_is_one_of_the_options():
    def read(label: str, *options: str) -> str:
        return typed_label(KNOWN, label, options, argument="held_out", what="a thing", context={"line": "K"})

    assert read("B+A", "A:rep+B:act", "B:act") == "A:rep+B:act"
    with pytest.raises(
        ValueError, match=r"one type, found 'A' in `held_out` for line='K', which could be any of \['A:act', "
    ):
        read("A", "A:act", "A:rep")
    with pytest.raises(ValueError, match="known perturbation, found 'Z' in `held_out` for line='K'. The most similar"):
        read("Z", "A:act")
    with pytest.raises(
        ValueError, match=r"Expected `held_out` to name a thing for line='K', found 'C:act'. The most similar"
    ):
        read("C", "A:act")
    with pytest.raises(ValueError, match="Expected non-empty components"):
        read("A++B", "A:act")


def test_place_of_a_label():
    assert place("candidates") == " in `candidates`"
    assert place("held_out", {"line": "K", "donor": "1"}) == " in `held_out` for line='K', donor='1'"
