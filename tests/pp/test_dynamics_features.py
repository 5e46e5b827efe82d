"""Features of perturbations from dynamics at rest."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import pdist

import perturbflow as pf
from perturbflow.screen import read_fields


@pytest.fixture(scope="module")
def registered():
    """Knock-outs of five of eight regulators, with two cell types."""
    adata = pf.datasets.simulated_perturb_seq(
        1200, 30, n_perturbations=5, n_combinations=1, n_regulators=8, modes=["knockout"], seed=1
    )
    pf.pp.setup_perturbation(adata, perturbation_key="perturbation", control="control", covariate_keys=["cell_type"])
    pf.pp.setup_dynamics(adata, regulators="is_regulator")
    return adata


@pytest.fixture
def adata(registered):
    return registered.copy()


def table_of(adata, **options) -> pd.DataFrame:
    assert pf.pp.perturbation_features(adata, source="dynamics", **options) is None
    return adata.uns["perturbation_feature_table"]


def new_regulators(adata):
    known = set(read_fields(adata).vocabulary.components)
    return sorted(set(adata.var_names[adata.var["is_regulator"]]) - known)


def test_every_measured_perturbation_has_features(adata):
    found = table_of(adata)
    assert found.index.tolist() == list(read_fields(adata).vocabulary.components)
    np.testing.assert_allclose(found.mean(), 0, atol=1e-9)
    assert found.shape == (5, 4)  # five responses span four dimensions about their mean


def test_a_regulator_that_nothing_perturbed_gets_features_and_can_be_predicted(adata):
    new = new_regulators(adata)[:1]
    found = table_of(adata, components=new)
    assert new[0] in found.index
    assert len(found) == 6
    assert np.linalg.norm(found.loc[new[0]]) > 0
    pf.tl.fit_flow(adata, preset="prior", plan_kwargs={"calibrate": False}, progress_bar=False)
    with pytest.warns(UserWarning, match="No training cells of"):
        cells = pf.tl.predict_perturbation(adata, new, as_anndata=True)
    assert cells is not None
    assert set(cells.obs["perturbation"]) == set(new)
    assert np.isfinite(cells.to_df().to_numpy()).all()


def test_cells_that_are_held_out_do_not_count(adata):
    name = read_fields(adata).vocabulary.components[0]
    is_test = adata.obs["perturbation"].str.contains(name).to_numpy()
    adata.obs["split"] = np.where(is_test, "test", "train")
    changed = adata.copy()
    changed.X = changed.X.toarray()
    changed.X[is_test] += 1.0
    pd.testing.assert_frame_equal(table_of(changed), table_of(adata))
    other = adata.copy()
    del other.obs["split"]
    assert not np.allclose(pdist(table_of(other)), pdist(table_of(adata)), rtol=1e-3)


def test_the_split_may_have_another_name(adata):
    name = read_fields(adata).vocabulary.components[0]
    column = np.where(adata.obs["perturbation"].str.contains(name), "test", "train")
    adata.obs["fold"], adata.obs["split"] = column, "train"
    by_fold = table_of(adata.copy(), split_key="fold")
    adata.obs["split"] = column
    pd.testing.assert_frame_equal(table_of(adata), by_fold)


def test_screens_without_registered_dynamics_are_refused(registered, unchanged):
    adata = registered.copy()
    del adata.uns["dynamics_fields"]
    with unchanged(adata), pytest.raises(ValueError, match="steady-state dynamics for `source='dynamics'`, found none"):
        pf.pp.perturbation_features(adata, source="dynamics")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param({"components": ["aspirin"]}, r"perturbations of genes .*found \['aspirin'\]", id="no_gene"),
        pytest.param({"features": pd.DataFrame()}, "neither `features` nor `kind`", id="features"),
        pytest.param({"kind": "genes"}, "neither `features` nor `kind`", id="kind"),
        pytest.param({"source": "graph"}, "`source` to be", id="source"),
        pytest.param({"seed": -1}, "`seed`", id="seed"),
    ],
)
def test_bad_input(adata, unchanged, options, message):
    with unchanged(adata), pytest.raises(ValueError, match=message):
        pf.pp.perturbation_features(adata, **{"source": "dynamics", **options})


def test_kinds_of_a_perturbation_are_held_in_their_own_direction():
    adata = pf.datasets.simulated_perturb_seq(
        1500, 30, n_perturbations=6, n_combinations=0, n_regulators=8, cell_types=1, seed=2
    )
    modes = adata.uns["simulation"]["perturbation_modes"]
    labels = adata.obs["perturbation"].astype(str)
    adata.obs["kind"] = labels.map(modes).fillna("").to_numpy()
    pf.pp.setup_perturbation(adata, perturbation_key="perturbation", perturbation_type_key="kind", control="control")
    pf.pp.setup_dynamics(adata, regulators="is_regulator")
    gene = new_regulators_of(adata)[0]
    found = table_of(adata, components=[f"{gene}:knockout", f"{gene}:overexpression"], max_features=3)
    down, up = found.loc[f"{gene}:knockout"], found.loc[f"{gene}:overexpression"]
    middle = (down + up) / 2
    assert (down - middle) @ (up - middle) < 0  # opposite directions


def new_regulators_of(adata):
    known = {name.split(":")[0] for name in read_fields(adata).vocabulary.components}
    return sorted(set(adata.var_names[adata.var["is_regulator"]]) - known)
