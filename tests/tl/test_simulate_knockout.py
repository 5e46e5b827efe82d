from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from scipy import sparse

from perturbflow.pp import setup_dynamics
from perturbflow.predict import read_dynamics
from perturbflow.tl import fit_dynamics, forecast, simulate_knockout

CHAIN = [(0, 1), (1, 2), (3, 2)]  # gene 4 is alone


@pytest.fixture
def chain(fitted_dynamics) -> AnnData:
    """Fitted dynamics whose edges are known: 0 drives 1, 1 and 3 drive 2."""
    stored = read_dynamics(fitted_dynamics)
    field = stored.model.field
    with torch.no_grad():
        field.allowed.zero_()
        for source, target in CHAIN:
            field.allowed[target, source] = 1.0
        first = field.matrices[0]
        first.copy_(torch.randn(first.shape, generator=torch.Generator().manual_seed(0)))
        field.raw_range.fill_(1.0)
    fitted_dynamics.uns["dynamics"] = stored.to_dict()
    return fitted_dynamics


def test_gene_is_at_its_level_and_only_what_follows_it_changes(chain):
    simulate_knockout(chain, "gene1", until=3.0, n_times=31)
    found = chain.uns["knockout"]
    assert found["perturbed"].shape == found["unperturbed"].shape == (6, 31, 5)
    np.testing.assert_allclose(found["time"], np.linspace(0, 3, 31))
    assert (found["perturbed"][..., 1] == 0).all()
    change = found["perturbed"] - found["unperturbed"]
    assert (change[..., [0, 3, 4]] == 0).all()
    assert (change[..., [1, 2]] != 0).any(axis=(0, 1)).all()
    assert (change[:, 0, 2] == 0).all()  # what follows needs time
    with pytest.warns(UserWarning, match="'gene4' regulates no other gene"):
        simulate_knockout(chain, "gene4")
    change = chain.uns["knockout"]["perturbed"] - chain.uns["knockout"]["unperturbed"]
    assert (change[..., :4] == 0).all()
    assert (change[..., 4] != 0).any()


def test_unperturbed_run_is_the_forecast(chain):
    forecast(chain, until=2.5, n_times=11)
    simulate_knockout(chain, "gene0", until=2.5, n_times=11)
    found = chain.uns["knockout"]
    # Starts of the runs without intervention.
    assert found["trajectories"].tolist() == [f"{k}|control" for k in range(6)]
    np.testing.assert_allclose(found["unperturbed"], chain.uns["forecast"]["values"][:6], rtol=1e-5)
    assert found["genes"].tolist() == list(chain.var_names)


def test_levels_of_the_kinds(chain):
    model = read_dynamics(chain).model
    observed = model.states[:, 0] * model.units.scale[0]
    expected = {"knockout": 0.0, "knockdown": 0.25 * observed.mean(), "overexpression": 1.5 * observed.max()}
    for kind, level in expected.items():
        simulate_knockout(chain, "gene0", kind=kind)  # type: ignore[arg-type]
        found = chain.uns["knockout"]
        table = found["interventions"]
        assert table[["gene", "kind"]].to_numpy().tolist() == [["gene0", kind]]
        assert table["value"].item() == pytest.approx(level)
        np.testing.assert_allclose(found["perturbed"][..., 0], level, rtol=1e-6)


def test_chosen_levels_of_several_genes(chain):
    simulate_knockout(chain, {"gene3": 2.0, "gene0": 0.0, "gene1": 0.01})
    found = chain.uns["knockout"]
    assert found["interventions"]["gene"].tolist() == ["gene3", "gene0", "gene1"]
    assert found["interventions"]["kind"].tolist() == ["overexpression", "knockout", "knockdown"]
    for gene, level in ((3, 2.0), (0, 0.0), (1, 0.01)):
        np.testing.assert_allclose(found["perturbed"][..., gene], level, rtol=1e-6)
    both = found["perturbed"]
    # With gene 1 held, gene 0 has no way to act on gene 2.
    simulate_knockout(chain, {"gene3": 2.0, "gene1": 0.01})
    np.testing.assert_array_equal(chain.uns["knockout"]["perturbed"][..., 2], both[..., 2])
    simulate_knockout(chain, ["gene0", "gene3"])
    assert (chain.uns["knockout"]["perturbed"][..., [0, 3]] == 0).all()


@pytest.mark.parametrize(
    ("genes", "idle"),
    [
        ("gene2", ["'gene2' regulates no other gene in these dynamics"]),
        (["gene1", "gene4"], ["'gene4' regulates no other gene in these dynamics"]),
        ({"gene3": 0.5}, ["'gene3' is at 0.5 even without intervention"]),
        (
            {"gene3": 0.5, "gene2": 1.0},
            ["'gene3' is at 0.5 even without intervention", "'gene2' regulates no other gene in these dynamics"],
        ),
        ({"gene3": 0.4, "gene0": 0.0}, []),
    ],
)
def test_what_changes_no_other_gene_is_said(chain, genes, idle, recwarn):
    stored = read_dynamics(chain)
    field = stored.model.field
    with torch.no_grad():
        field.raw_range[3], field.raw_decay[3] = -100.0, -100.0  # neither produced nor lost
    stored.model.start[:, 3] = 0.5 / stored.model.units.scale[3]
    chain.uns["dynamics"] = stored.to_dict()
    simulate_knockout(chain, genes)
    assert [str(one.message) for one in recwarn] == [
        f"Holding {[reason.split(chr(39))[1] for reason in idle]} changes no other gene: {'; '.join(idle)}. "
        "Genes that regulate others here: ['gene0', 'gene1', 'gene3']."
    ] * bool(idle)
    change = chain.uns["knockout"]["response"].set_index("gene")["largest_change"]
    others = [gene for gene in chain.var_names if gene not in genes]
    assert (change[others] != 0).any() == ("gene1" in genes or "gene0" in genes)


def test_only_registered_regulators_act(time_courses):
    setup_dynamics(time_courses, time_key="time", trajectory_key="trajectory", regulators=["gene0"])
    fit_dynamics(time_courses, effort=0.01, strength=0.0, eliminate=False, progress_bar=False)
    with pytest.warns(UserWarning, match=r"'gene4' is not a regulator in .*others here: \['gene0'\]"):
        simulate_knockout(time_courses, "gene4")
    simulate_knockout(time_courses, "gene0")
    assert (time_courses.uns["knockout"]["response"]["largest_change"] != 0).all()


def test_response_is_the_mean_change(chain):
    simulate_knockout(chain, "gene0")
    found = chain.uns["knockout"]
    table = found["response"].set_index("gene")
    change = (found["perturbed"] - found["unperturbed"]).mean(axis=0)
    assert sorted(table.index) == sorted(chain.var_names)
    for k, gene in enumerate(chain.var_names):
        assert table.loc[gene, "change"] == pytest.approx(change[-1, k])
        at = np.abs(change[:, k]).argmax()
        assert table.loc[gene, "largest_change"] == pytest.approx(change[at, k])
        assert table.loc[gene, "time_of_largest"] == found["time"][at]
    assert found["response"]["largest_change"].abs().is_monotonic_decreasing
    assert (table.loc[["gene3", "gene4"], "largest_change"] == 0).all()


def test_new_cells_and_another_order_of_genes(chain):
    start = np.linspace(0.1, 1.0, 5)
    simulate_knockout(chain, "gene0", start=start)
    expected = chain.uns["knockout"]
    assert expected["trajectories"].tolist() == ["start 0"]
    np.testing.assert_allclose(expected["unperturbed"][0, 0], start, rtol=1e-6)
    np.testing.assert_allclose(expected["perturbed"][0, 0], np.where(np.arange(5) == 0, 0, start), rtol=1e-6)
    other = chain[:, ::-1].copy()
    simulate_knockout(other, "gene0", start=start[::-1])
    np.testing.assert_array_equal(other.uns["knockout"]["perturbed"], expected["perturbed"])


def test_only_runs_under_intervention_are_starts_of_their_own(fitted_dynamics):
    stored = read_dynamics(fitted_dynamics)
    stored.model.clamped[:, 1] = True
    fitted_dynamics.uns["dynamics"] = stored.to_dict()
    simulate_knockout(fitted_dynamics, "gene0")
    assert len(fitted_dynamics.uns["knockout"]["trajectories"]) == 8


def test_copy_view_and_key(chain, unchanged):
    with unchanged(chain):
        copied = simulate_knockout(chain, "gene0", n_times=3, key_added="ko", copy=True)
    assert copied is not None
    view = chain[:10]
    with unchanged(chain), pytest.warns(UserWarning, match="is a view"):
        simulate_knockout(view, "gene0", n_times=3)
    np.testing.assert_array_equal(view.uns["knockout"]["perturbed"], copied.uns["ko"]["perturbed"])
    simulate_knockout(copied, "gene1", n_times=3, key_added="ko")
    assert copied.uns["ko"]["interventions"]["gene"].tolist() == ["gene1"]


@pytest.mark.parametrize(
    ("genes", "options", "error", "message"),
    [
        ("gene9", {}, KeyError, "Expected one of the 5 genes of the fit in `genes`, found 'gene9'"),
        ([], {}, ValueError, "Expected at least one gene in `genes`, found none"),
        ({}, {}, ValueError, "Expected at least one gene"),
        (["gene0", "gene0"], {}, ValueError, r"Expected every gene once in `genes`, found \['gene0', 'gene0'\]"),
        (3, {}, TypeError, "Expected `genes` to be a gene, several, or the level of each, found 3"),
        ([3], {}, TypeError, "Expected `genes` to be names of genes, found 3"),
        ({"gene0": "high"}, {}, TypeError, r"Expected `genes\['gene0'\]` to be a number"),
        ({"gene0": np.nan}, {}, ValueError, r"Expected `genes\['gene0'\]` to be from"),
        ({"gene0": np.inf}, {}, ValueError, r"Expected `genes\['gene0'\]` to be from"),
        ("gene0", {"kind": "deletion"}, ValueError, "Expected `kind` to be one of"),
        ("gene0", {"until": -1}, ValueError, "Expected `until` to be after"),
        ("gene0", {"n_times": 1}, ValueError, "Expected `n_times` to be at least 2"),
        ("gene0", {"start": np.ones(3)}, ValueError, "Expected `start` of shape"),
        ("gene0", {"key": "absent"}, KeyError, "Run `pf.tl.fit_dynamics"),
        ("gene0", {"key_added": "dynamics"}, ValueError, "found 'dynamics', which is reserved for pf.tl.fit_dynamics"),
        ("gene0", {"key_added": "a/b"}, ValueError, "without '/'"),
    ],
)
def test_bad_input(fitted_dynamics, unchanged, genes, options, error, message):
    with unchanged(fitted_dynamics), pytest.raises(error, match=message):
        simulate_knockout(fitted_dynamics, genes, **options)


def test_new_cells_by_name(fitted_dynamics):
    start = pd.Series(np.arange(5.0), index=fitted_dynamics.var_names)
    simulate_knockout(fitted_dynamics, "gene0", start=start[::-1], n_times=2)
    np.testing.assert_allclose(fitted_dynamics.uns["knockout"]["unperturbed"][0, 0], np.arange(5), atol=1e-6)
    with pytest.raises(ValueError, match=r"all 5 genes in `start`, found that 1 are missing: \['gene4'\]"):
        simulate_knockout(fitted_dynamics, "gene0", start=start[:4])


def test_genes_and_levels_may_be_in_any_collection(chain):
    simulate_knockout(chain, ["gene0", "gene3"])
    expected = chain.uns["knockout"]["perturbed"]
    for genes in (
        ("gene0", "gene3"),
        np.array(["gene0", "gene3"]),
        pd.Index(["gene0", "gene3"]),
        chain.var_names[[0, 3]],
    ):
        simulate_knockout(chain, genes)
        np.testing.assert_array_equal(chain.uns["knockout"]["perturbed"], expected)
    simulate_knockout(chain, pd.Series({"gene3": 0.0, "gene0": 0.0}))
    np.testing.assert_array_equal(chain.uns["knockout"]["perturbed"], expected)
    with pytest.raises(ValueError, match=r"the index of `genes` to be unique, found repeated \['gene0'\]"):
        simulate_knockout(chain, pd.Series([0.0, 1.0], index=["gene0", "gene0"]))
    with pytest.raises(TypeError, match="Expected `genes` to be a gene, several, or the level of each, found 3"):
        simulate_knockout(chain, 3)


def test_starts_may_be_sparse(chain):
    levels = np.array([[0.5, 0.0, 1.0, 0.2, 0.0]])
    simulate_knockout(chain, "gene0", start=levels)
    expected = chain.uns["knockout"]["perturbed"]
    simulate_knockout(chain, "gene0", start=sparse.csr_matrix(levels))
    np.testing.assert_array_equal(chain.uns["knockout"]["perturbed"], expected)
