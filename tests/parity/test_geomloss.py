"""PerturBench's "MMD" is geomloss's energy loss.

geomloss has three traits that change the number: distances below 1e-4 count as 1e-4, so a cell is not at 0 from itself;
cells are not centred; and computation is in the precision of the input, which PerturBench leaves at float32.
"""

from __future__ import annotations

import numpy as np
import pytest

from perturbflow.metrics import energy_loss
from perturbflow.metrics._energy import cross_energy
from perturbflow.metrics._principal_components import PrincipalComponents, cosine_in_components

torch = pytest.importorskip("torch", reason="geomloss computes with torch")
geomloss = pytest.importorskip("geomloss", reason="the reference implementation of the energy loss")

RNG = np.random.default_rng(0)
GENE_MEANS = RNG.gamma(0.3, size=300)


def expression(n, *, fold=1.0):
    counts = np.random.default_rng(n).poisson(GENE_MEANS * fold, (n, 300)).astype(np.float64)
    return np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4)


def reference(x, y, *, dtype=torch.float64):
    loss = geomloss.SamplesLoss("energy", p=2)
    return float(loss(torch.as_tensor(x, dtype=dtype), torch.as_tensor(y, dtype=dtype)))


CASES = {
    "normal": (RNG.normal(size=(40, 10)), RNG.normal(0.5, size=(55, 10))),
    "one_dimension": (RNG.normal(size=(40, 1)), RNG.normal(size=(30, 1))),
    "one_cell_each": (RNG.normal(size=(1, 5)), RNG.normal(size=(1, 5))),
    "far_from_the_origin": (RNG.normal(100, 1, size=(20, 10)), RNG.normal(100, 1, size=(25, 10))),
    "expression": (expression(120), expression(90, fold=1.3)),
    "copied_cells": (expression(50)[:30], expression(50)),
    "equal_cells": (np.repeat(expression(3), 10, axis=0), np.repeat(expression(4), 5, axis=0)),
    "nearer_than_the_floor": (np.full((3, 2), 1e-6), np.zeros((4, 2))),
    "nothing_expressed": (np.zeros((4, 3)), np.zeros((6, 3))),
}


@pytest.mark.parametrize("case", CASES)
def test_agrees_in_double_precision(case):
    x, y = CASES[case]
    assert energy_loss(x, y) == pytest.approx(reference(x, y), abs=1e-9)


def test_the_floor_is_what_the_diagonal_adds():
    x, y = CASES["expression"]
    without = energy_loss(x, y, shortest=0.0)
    assert reference(x, y) - without == pytest.approx(-0.5e-4 * (1 / len(x) + 1 / len(y)), abs=1e-10)
    # With two cells a side it is 5e-5, beyond the sixth digit.
    assert reference(x[:2], y[:2]) - energy_loss(x[:2], y[:2], shortest=0.0) == pytest.approx(-5e-5, abs=1e-10)


def test_single_precision_loses_digits():
    # A cell is then at the root of the rounding error of its squared norm from itself, here about 6e-3, not 1e-4.
    x, y = CASES["expression"]
    exact = energy_loss(x, y)
    assert -2e-4 < reference(x, y, dtype=torch.float32) - exact < -2e-5
    assert energy_loss(x.astype(np.float32), y.astype(np.float32)) == pytest.approx(exact, abs=1e-7)
    # Without centring, one gene at 1,000 in all cells costs the third digit.
    far_x, far_y = (np.column_stack([cells[:, :10], np.full(len(cells), 1000.0)]) for cells in (x, y))
    assert abs(reference(far_x, far_y, dtype=torch.float32) - energy_loss(far_x, far_y)) > 5e-4


def test_all_conditions_at_once():
    predictions, references = [expression(n) for n in (20, 33)], [expression(n, fold=1.3) for n in (25, 18)]
    expected = [[reference(x, y) for y in references] for x in predictions]
    # Half of the energy distance lacks the floor, which adds up to 5e-5 (1/n + 1/m).
    np.testing.assert_allclose(0.5 * cross_energy(predictions, references, unbiased=False), expected, atol=7e-6)


@pytest.fixture(scope="module")
def real_cells(data_folder):
    path = data_folder / "perturbench_devel" / "devel.h5ad"
    if not path.is_file():
        pytest.skip("no perturbench_devel/devel.h5ad among the data sets")
    anndata = pytest.importorskip("anndata", reason="reads the real cells")
    adata = anndata.read_h5ad(path)
    return adata[adata.obs["dataset"] == "norman19"]


def condition(adata, label):
    return adata.X[(adata.obs["condition"] == label).to_numpy()]


@pytest.mark.parametrize(("one", "other"), [("SGK1", "MAP3K21"), ("control", "SGK1")])
def test_agrees_on_real_cells_in_genes_and_in_components(real_cells, one, other):
    decomposition = pytest.importorskip("sklearn.decomposition", reason="the reference principal components")
    x, y = condition(real_cells, one), condition(real_cells, other)
    assert energy_loss(x, y) == pytest.approx(reference(x.toarray(), y.toarray()), abs=1e-9)

    components = PrincipalComponents.of(real_cells.X)
    pca = decomposition.PCA(n_components=100, svd_solver="full").fit(real_cells.X.toarray())
    projected = pca.transform(x.toarray()), pca.transform(y.toarray())
    assert energy_loss(components.project(x), components.project(y)) == pytest.approx(reference(*projected), abs=1e-8)

    mean_x, mean_y = (cells.mean(axis=0) for cells in projected)
    expected = mean_x @ mean_y / np.linalg.norm(mean_x) / np.linalg.norm(mean_y)
    means = (components.project(cells).mean(axis=0) for cells in (x, y))
    assert cosine_in_components(*means) == pytest.approx(expected, abs=1e-8)
