"""What is fitted in a modality survives a file of the MuData."""

from __future__ import annotations

import mudata
import numpy as np
import pandas as pd
import pytest

import perturbflow as pf


@pytest.fixture
def reopened(tmp_path):
    def write_and_read(mdata):
        mdata.write_h5mu(tmp_path / "cells.h5mu")
        return mudata.read_h5mu(tmp_path / "cells.h5mu")

    return write_and_read


def test_a_flow(fitted, with_protein, reopened):
    mdata = with_protein(fitted)
    pf.tl.predict_perturbation(mdata, "B+D", modality="rna")
    again = reopened(mdata)
    np.testing.assert_array_equal(again["rna"].obsm["predicted"].toarray(), mdata["rna"].obsm["predicted"].toarray())
    expected = again["rna"].obsm.pop("predicted").toarray()
    pf.tl.predict_perturbation(again, "B+D", modality="rna")
    np.testing.assert_array_equal(again["rna"].obsm["predicted"].toarray(), expected)
    pf.pl.perturbation_effect(again, "B+D", modality="rna")


def test_a_graph(fitted_dynamics, with_protein, reopened):
    mdata = with_protein(fitted_dynamics)
    pf.tl.infer_graph(mdata, n_bootstraps=0, modality="rna")
    pf.tl.forecast(mdata, modality="rna")
    again = reopened(mdata)
    found, expected = again["rna"], mdata["rna"]
    pd.testing.assert_frame_equal(
        found.uns["dynamics_graph"]["edges"], expected.uns["dynamics_graph"]["edges"], check_dtype=False
    )
    assert (found.varp["dynamics_graph"] != expected.varp["dynamics_graph"]).nnz == 0
    values = found.uns["forecast"]["values"]
    pf.tl.forecast(again, modality="rna")
    np.testing.assert_array_equal(found.uns["forecast"]["values"], values)
    pf.pl.dynamics_graph(again, modality="rna")
