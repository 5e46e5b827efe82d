from __future__ import annotations

import warnings
from types import SimpleNamespace
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

import perturbflow as pf
from perturbflow.flow._data import TrainingGroups
from perturbflow.predict._controls import DosesToPredict, new_doses, recorded_dose
from perturbflow.screen._conditions import Vocabulary

VOCABULARY = Vocabulary(("A", "B", "C", "D"), covariates=(("cell_type", ("T", "B cell")),))
# Doses of A, B, C and D, and the context; D has no cells.
GROUPS = [
    ((100, 0, 0, 0), 0),
    ((0, 1, 0, 0), 0),
    ((0, 10, 0, 0), 1),
    ((50, 0, 2, 0), 0),
    ((50, 0, 4, 0), 1),
]


def fitted_to(groups, *, dose_key="dose") -> Any:
    """What is needed of a flow: the doses of its training groups."""
    doses = np.array([row for row, _ in groups], dtype=np.float32)
    prior = SimpleNamespace(
        contexts=np.array([[0], [1]]),
        groups=TrainingGroups(sparse.csr_matrix(doses), np.array([context for _, context in groups])),
        group_contexts=np.array([context for _, context in groups]),
        trained=doses.any(axis=0),
    )
    fields = SimpleNamespace(dose_key=dose_key)
    return SimpleNamespace(flow=SimpleNamespace(prior=prior), fields=fields, vocabulary=VOCABULARY)


def doses_of(name, asked=None, *, contexts=((0,), (1,)), groups=GROUPS, **options):
    doses = DosesToPredict(fitted_to(groups, **options), asked, np.array(contexts))
    found = [VOCABULARY.dose_label(row) for row in doses.of(name, None)]
    doses.check_names()
    return found


@pytest.mark.parametrize(
    ("name", "contexts", "expected"),
    [
        pytest.param("A", [[0]], ["100"], id="alone_and_not_in_the_combination"),
        pytest.param("A", [[1]], ["100"], id="in_another_context"),
        pytest.param("B", [[0]], ["1"], id="in_this_context"),
        pytest.param("B", [[1]], ["10"], id="in_the_other_context"),
        pytest.param("B", [[0], [1]], ["1", "10"], id="in_both"),
        pytest.param("B", [[7]], ["1", "10"], id="in_a_new_context"),
        pytest.param("C", [[0]], ["2"], id="never_alone"),
        pytest.param("A+C", [[0]], ["50+2"], id="measured_combination"),
        pytest.param("C + A", [[1]], ["50+4"], id="measured_combination_in_another_order"),
        pytest.param("A+C", [[0], [1]], ["50+2", "50+4"], id="measured_combination_in_both"),
        pytest.param("B+A", [[0]], ["100+1"], id="own_doses_of_components"),
        pytest.param("control", [[0]], ["0"], id="controls"),
    ],
)
def test_a_dose_left_out_is_the_measured_one(name, contexts, expected):
    assert doses_of(name, contexts=contexts) == expected


@pytest.mark.parametrize(
    ("name", "asked", "expected"),
    [
        ("A+B", 3, ["3+3"]),
        ("B+A", "3+0.5", ["0.5+3"]),
        ("B+A", [3, 0.5], ["0.5+3"]),
        ("B+A", np.array([3, 0.5]), ["0.5+3"]),
        ("B+A", {"A": 0.5, "B": 3}, ["0.5+3"]),
        ("B+A", pd.Series({"A": 0.5, "B": "3"}), ["0.5+3"]),
        ("B+A", {"B": 3}, ["100+3"]),  # and A its own
        ("A+C", {"C": 4}, ["50+4"]),  # as in the combination that was measured
        ("A+C", {"C": 3}, ["100+3"]),
        ("A+B", {"A": 0, "B": 1}, ["1"]),
        ("D", {"D": 7}, ["7"]),
    ],
)
def test_doses_that_are_asked_for(name, asked, expected):
    assert doses_of(name, asked) == expected


def test_where_no_doses_are_registered_they_are_one():
    assert doses_of("A+D", dose_key=None) == ["1+1"]
    assert doses_of("A+D", {"D": 0.5}, dose_key=None) == ["1+0.5"]


def test_a_component_without_cells_has_the_doses_that_all_others_have():
    common = [((dose, 0, 0, 0), 0) for dose in (1, 10)] + [((0, dose, 0, 0), 1) for dose in (10, 1)]
    assert doses_of("D", groups=common) == ["1", "10"]
    assert doses_of("D", groups=common[:1]) == ["1"]
    with pytest.raises(
        ValueError, match=r"dose of 'D', which has no training cells .* found none. Pass one .*\{'D': 1\}"
    ):
        doses_of("D")


@pytest.mark.parametrize(
    ("name", "asked", "message"),
    [
        ("A+B", None, r"dose of 'B' in combinations, where it was measured at \['1', '10'\], found none.*\{'B': 10\}"),
        ("A", {"B": 1}, r"Expected components of the perturbations in `dose`, found \['B'\]. Omit them"),
        ("A", {"AB": 1}, "Expected a known perturbation, found 'AB'"),
        ("A+B", {"A+B": 1}, r"Expected single perturbations in `dose`, found 'A\+B'"),
        ("A", {"A": True}, "Expected a dose to be a finite number .* found True"),
        ("A", {"A": [1, 2]}, "one for each of 1 components, found 2"),
        ("A+B", [1, 2, 3], r"found 3 in dose \(1, 2, 3\) of 'A\+B'. Pass one value per component"),
    ],
)
def test_doses_that_cannot_be_told(name, asked, message):
    with pytest.raises(ValueError, match=message):
        doses_of(name, asked)


def test_new_doses_name_their_neighbours():
    flow = fitted_to([((dose, 0, 0, 0), 0) for dose in (100, 10)])
    asked = np.array([[31, 0, 0, 0], [0.5, 0, 0, 0], [100, 0, 0, 0], [300, 0, 0, 0], [0, 0, 0, 5]], dtype=np.float32)
    assert new_doses(flow, asked) == ["A at 0.5 (between no effect at 0 and 10)", "A at 31 (between 10 and 100)"]


@pytest.mark.parametrize(
    ("asked", "recorded"),
    [(2, 2.0), ("1+0.5", "1+0.5"), ((1, "0.5"), [1.0, 0.5]), (np.array([1, 2]), [1.0, 2.0]), ({"A": "3"}, {"A": 3.0})],
)
def test_doses_are_recorded_as_plain_values(asked, recorded):
    assert recorded_dose(asked) == recorded


@pytest.fixture(scope="module")
def _screen() -> AnnData:
    """Strong was only given at 100, Weak at 1, Drug at two doses."""
    rng = np.random.default_rng(0)
    given = {"control": (0, 0), "Strong": (100, 1.5), "Weak": (1, 0.4), "Drug": (10, 1)}
    labels = np.repeat(list(given), [80, 40, 40, 80])
    x = np.where(rng.random((len(labels), 12)) < 0.6, rng.normal(2, 0.3, (len(labels), 12)).clip(0.5), 0)
    x[:, :6] += np.array([given[label][1] for label in labels])[:, None]
    obs = pd.DataFrame({"p": labels, "dose": [float(given[label][0]) for label in labels]})
    obs.loc[obs.index[-40:], "dose"] = 1000.0
    adata = AnnData(x.astype(np.float32), obs=obs.set_index(obs.index.astype(str)))
    pf.pp.setup_perturbation(adata, perturbation_key="p", control="control", dose_key="dose")
    options: Any = {
        "model_kwargs": {"width": 8, "n_blocks": 1},
        "max_steps": 3,
        "plan_kwargs": {"calibrate": False},
        "progress_bar": False,
    }
    pf.tl.fit_flow(adata, **options)
    return adata


@pytest.fixture
def screen(_screen: AnnData) -> AnnData:
    return _screen.copy()


def test_predictions_at_the_measured_dose(screen):
    cells = pf.tl.predict_perturbation(screen, "Strong", as_anndata=True)
    assert cells is not None
    assert cells.obs["dose"].unique().tolist() == ["100"]
    mean = {label: screen.X[(screen.obs["p"] == label).to_numpy()].mean(axis=0) for label in ("control", "Strong")}
    effect = mean["Strong"] - mean["control"]
    assert (cells.X.mean(axis=0) - mean["control"]) @ effect / (effect @ effect) > 0.85


def test_the_dose_is_recorded_and_finds_the_observed_cells(screen, tmp_path):
    pf.tl.predict_perturbation(screen, ["Strong", "Weak+Strong"])
    assert screen.uns["predicted"]["doses"] == ["100", "100+1"]
    assert "dose" not in screen.uns["predicted"]["params"]
    assert pf.pl.perturbation_effect(screen, "Strong").get_title(loc="left").startswith("Strong, dose 100")
    pf.tl.predict_perturbation(screen, "Strong+Drug", dose={"Drug": 10})
    assert screen.uns["predicted"]["doses"] == ["10+100"]
    screen.write_h5ad(tmp_path / "screen.h5ad")
    assert anndata.read_h5ad(tmp_path / "screen.h5ad").uns["predicted"]["params"]["dose"] == {"Drug": 10}


@pytest.mark.parametrize("options", [{}, {"as_anndata": True}])
def test_several_measured_doses_are_listed(screen, unchanged, options):
    with (
        unchanged(screen),
        pytest.raises(ValueError, match=r"dose of 'Drug', which was .* \['10', '1000'\], found none"),
    ):
        pf.tl.predict_perturbation(screen, ["Strong", "Drug"], **options)


def test_a_new_dose_lies_between_its_neighbours(screen):
    """The effect is the same at 10 and at 1,000, so that it is no other at 100, which is told as new."""
    is_drug = (screen.obs["p"] == "Drug").to_numpy()
    control = screen.X[(screen.obs["p"] == "control").to_numpy()].mean(axis=0)
    effect = screen.X[is_drug].mean(axis=0) - control
    shares, kinds, sds = [], [], []
    for dose in (10, 100, 1000, 10000):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            cells = pf.tl.predict_perturbation(screen, "Drug", dose=dose, as_anndata=True)
        assert cells is not None
        shares.append((cells.X.mean(axis=0) - control) @ effect / (effect @ effect))
        kinds.append(cells.uns["predicted"]["uncertainty"]["kind"].iloc[0])
        sds.append(cells.uns["predicted"]["uncertainty"]["rms_sd"].iloc[0])
    np.testing.assert_allclose(shares, 1, atol=0.25)  # of which a part is the sampling of 40 cells
    assert min(shares[0], shares[2]) - 0.05 < shares[1] < max(shares[0], shares[2]) + 0.05
    assert shares[3] == pytest.approx(shares[2], abs=0.05)  # nothing is known beyond
    assert kinds[:3] == ["seen", "new dose", "seen"]
    assert sds[1] > max(sds[0], sds[2])


def test_new_doses_warn_once(screen):
    with pytest.warns(UserWarning, match="Doses that were not measured") as caught:
        pf.tl.predict_perturbation(screen, ["Drug", "Strong"], dose=31)
    (warning,) = caught
    assert "['Drug at 31 (between 10 and 1000)', 'Strong at 31 (between no effect at 0 and 100)']" in str(
        warning.message
    )


def test_perturbations_are_ranked_at_their_own_doses(screen):
    pf.tl.rank_perturbations(screen, {"p": "Strong"})
    table = screen.uns["ranked_perturbations"]
    assert table.columns[:5].tolist() == ["perturbation", "dose", "score", "sd", "lower"]
    rows = table.set_index(["perturbation", "dose"])
    assert rows.index[0] == ("Strong", "100")
    assert (
        rows.loc[[("Strong", "100"), ("Weak", "1"), ("Drug", "10"), ("Drug", "1000")], "n_training_cells"].eq(40).all()
    )
    assert len(rows) == 4
    assert set(table["kind"]) == {"seen"}
    assert "Drug, dose 10" in [text.get_text() for text in pf.pl.ranked_perturbations(screen).get_yticklabels()]
    pf.tl.rank_perturbations(screen, {"p": "Strong"}, candidates=["Strong", "Weak"], combinations=True)
    table = screen.uns["ranked_perturbations"].set_index("perturbation")
    assert table["dose"].to_dict() == {"Strong": "100", "Weak": "1", "Strong+Weak": "100+1"}
    with pytest.raises(ValueError, match=r"dose of 'Drug' in combinations, where it was measured at \['10', '1000'\]"):
        pf.tl.rank_perturbations(screen, {"p": "Strong"}, combinations=True)
    pf.tl.rank_perturbations(screen, {"p": "Strong"}, combinations=True, dose={"Drug": 1000})
    assert len(screen.uns["ranked_perturbations"]) == 6
