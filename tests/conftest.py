from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import Phase, settings
from scipy import sparse

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

os.environ["MPLBACKEND"] = "Agg"
settings.register_profile("any machine", deadline=None, derandomize=True, max_examples=50)
# `--hypothesis-profile=search` looks for new faults.
settings.register_profile("search", deadline=None, max_examples=500, phases=[Phase.explicit, Phase.generate])
settings.load_profile("any machine")

CHECKOUT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of public data sets; tests that need it are skipped where it is absent."""
    folder = Path(os.environ.get("PERTURBFLOW_DATA", CHECKOUT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no data sets in {folder}; name their folder in PERTURBFLOW_DATA")
    return folder


def _dense(x):
    return x.toarray() if sparse.issparse(x) else np.array(x)


def _contents(adata: AnnData) -> dict:
    """Everything in ``adata``, copied."""
    return {
        "is_view": adata.is_view,
        "type": type(adata.X),
        "obs": adata.obs.copy(),
        "var": adata.var.copy(),
        "uns": deepcopy(dict(adata.uns)),
        "X": _dense(adata.X),
        "layers": {key: _dense(adata.layers[key]) for key in adata.layers if key is not None},
        "obsm": {key: _dense(adata.obsm[key]) for key in adata.obsm},
        "varm": {key: adata.varm[key].copy() for key in adata.varm},
        "varp": {key: _dense(adata.varp[key]) for key in adata.varp},
    }


def _assert_same(found, expected) -> None:
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key in expected:
            _assert_same(found[key], expected[key])
    elif isinstance(expected, pd.DataFrame):
        pd.testing.assert_frame_equal(found, expected)
    elif isinstance(expected, np.ndarray):
        np.testing.assert_array_equal(found, expected)
    else:
        assert found == expected


@pytest.fixture(scope="session")
def unchanged() -> Callable[[AnnData], AbstractContextManager[None]]:
    """Context in which an AnnData must stay what it is, down to its last entry."""

    @contextmanager
    def guard(adata: AnnData) -> Iterator[None]:
        before = _contents(adata)
        yield
        _assert_same(_contents(adata), before)

    return guard


@pytest.fixture(scope="session")
def rewrite() -> Callable[..., None]:
    """Change the arrays and values of a stored file, whose checksum is right afterwards."""
    from perturbflow.store._file import read_file, write_file

    def changed(path: Path, change: Callable[[dict, dict], Any], *, kind: str) -> None:
        arrays, values = read_file(path, kind=kind, advice="")
        change(arrays, values)
        write_file(path, arrays, values, kind=kind)

    return changed


@pytest.fixture
def assert_same_cells() -> Callable[[AnnData, AnnData], None]:
    """Assert that two AnnData are equal down to their last entry."""
    return lambda found, expected: _assert_same(_contents(found), _contents(expected))


FORMS = ("CSC", "backed", "backed dense", "lazy h5ad", "lazy zarr", "lazy dense zarr", "lazy files", "dask")


@pytest.fixture(scope="module", params=FORMS)
def stored_elsewhere(request, tmp_path_factory) -> Iterator[Callable[[AnnData], AnnData]]:
    """Store cells in one of the forms in which a large screen may come; every test with it is run for all of them."""
    opened: list[AnnData] = []
    folder = tmp_path_factory.mktemp("elsewhere")

    def store(adata: AnnData) -> AnnData:
        import anndata

        form, copy = request.param, adata.copy()
        copy.X = sparse.csc_matrix(copy.X) if form == "CSC" else copy.X
        copy.X = _dense(copy.X) if "dense" in form else copy.X
        path = folder / f"cells_{len(opened)}"
        opened.append(copy)
        if form == "CSC":
            return copy
        if form.startswith("backed"):
            copy.write_h5ad(path)
            opened[-1] = anndata.read_h5ad(path, backed="r")
            return opened[-1]
        array = pytest.importorskip("dask.array", reason="lazy AnnData and arrays of dask need dask")
        if form == "dask":
            copy.X = array.from_array(copy.X, chunks=(97, copy.n_vars))
            return copy
        if form == "lazy files":
            files = [path.with_name(f"{path.name}_{part}.h5ad") for part in ("first", "second")]
            for file, rows in zip(files, (slice(0, 150), slice(150, None)), strict=True):
                copy[rows].copy().write_h5ad(file)
            parts = [anndata.experimental.read_lazy(file) for file in files]
            cells = anndata.concat(parts, merge="first")
            cells.uns.update(parts[0].uns)  # whose merging would leave out what is empty
            return cells
        path = path.with_suffix(".h5ad" if "h5ad" in form else ".zarr")
        copy.write_h5ad(path) if "h5ad" in form else copy.write_zarr(path, chunks=(113, copy.n_vars))
        return anndata.experimental.read_lazy(path)

    yield store
    for adata in opened:
        if adata.isbacked:
            adata.file.close()


@pytest.fixture(scope="session")
def _registered() -> AnnData:
    from perturbflow.datasets import simulated_perturb_seq
    from perturbflow.pp import setup_perturbation, split_perturbations

    adata = simulated_perturb_seq(n_cells=600, n_genes=40, n_perturbations=4, n_combinations=2)
    labels = adata.obs["perturbation"].astype(str)
    singles = sorted(label for label in set(labels) - {"control"} if "+" not in label)
    for single, letter in zip(singles, "ABCD", strict=True):
        labels = labels.str.replace(single, letter)
    adata.obs["perturbation"] = labels.astype("category")
    setup_perturbation(adata, perturbation_key="perturbation", control="control", covariate_keys=["cell_type"])
    split_perturbations(adata, task="combination", test_fraction=0.5, valid_fraction=0.5)
    return adata


@pytest.fixture(scope="session")
def _fitted(_registered: AnnData) -> AnnData:
    from perturbflow.tl import fit_flow

    adata = _registered.copy()
    fit_flow(
        adata,
        model_kwargs={"width": 16, "n_blocks": 1},
        max_steps=10,
        plan_kwargs={"batch_size": 32, "learning_rate": 0.01},
        progress_bar=False,
    )
    # What validation chooses after so few steps is the prior alone; here the network is to have a say.
    adata.uns["flow"]["config"] |= {"entry_time": 0.5, "correction_scale": 1.0}
    return adata


@pytest.fixture
def registered(_registered: AnnData) -> AnnData:
    """600 cells of 40 genes and two types: control, A to D, and B+D and C+D, of which one is for validation, one for test."""
    return _registered.copy()


@pytest.fixture
def fitted(_fitted: AnnData) -> AnnData:
    """The same cells with a flow."""
    return _fitted.copy()


@pytest.fixture(scope="session")
def _time_courses() -> AnnData:
    from perturbflow.datasets import hill_network
    from perturbflow.pp import setup_dynamics

    adata = hill_network(
        n_genes=5, n_trajectories=6, n_times=20, noise=0.02, knockouts=["gene1"], n_knockout_trajectories=2, seed=1
    )
    setup_dynamics(adata, time_key="time", trajectory_key="trajectory", perturbation_key="perturbation")
    return adata


@pytest.fixture(scope="session")
def _fitted_dynamics(_time_courses: AnnData) -> AnnData:
    from perturbflow.tl import fit_dynamics

    adata = _time_courses.copy()
    fit_dynamics(adata, effort=0.05, progress_bar=False)
    return adata


@pytest.fixture
def time_courses(_time_courses: AnnData) -> AnnData:
    """Five genes at 20 times in six wild-type runs and two in which gene1 is held at 0; registered."""
    return _time_courses.copy()


@pytest.fixture
def fitted_dynamics(_fitted_dynamics: AnnData) -> AnnData:
    """The same cells with fitted dynamics."""
    return _fitted_dynamics.copy()


@pytest.fixture
def with_protein() -> Iterator[Callable[[AnnData], MuData]]:
    """Make a MuData of an AnnData, as its modality "rna", and three proteins that are noise."""
    import mudata
    from anndata import AnnData

    def make(adata: AnnData) -> MuData:
        values = np.random.default_rng(0).random((adata.n_obs, 3), dtype=np.float32)
        names = pd.DataFrame(index=["CD3", "CD19", "CD56"])
        protein = AnnData(values, obs=pd.DataFrame(index=adata.obs_names), var=names)
        return mudata.MuData({"rna": adata, "protein": protein})

    # mudata before 0.4 warns that this will be the default.
    is_old = hasattr(mudata, "set_options")
    with mudata.set_options(pull_on_update=False) if is_old else nullcontext():
        yield make


@pytest.fixture
def mdata(registered: AnnData, with_protein: Callable[[AnnData], MuData]) -> MuData:
    """The registered cells as the modality "rna" of a MuData."""
    return with_protein(registered)
