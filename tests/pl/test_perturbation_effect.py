from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from matplotlib.text import Text

from perturbflow.baselines import AdditiveEffect
from perturbflow.evaluation import registered_cells
from perturbflow.pl import perturbation_effect


def points(ax):
    """Drawn points (n, 2) by the first line of their label."""
    return {each.get_label().splitlines()[0]: np.asarray(each.get_offsets()) for each in ax.collections}


def test_points_are_the_effects(compared, adata):
    label = adata.uns["label"]
    ax: Any = perturbation_effect(adata, label)
    effects = compared(adata, label).mean_effects()
    drawn = points(ax)
    assert set(drawn) == {"predicted", "additive effect"}
    np.testing.assert_allclose(drawn["predicted"], np.column_stack([effects["observed"], effects["predicted"]]))
    np.testing.assert_allclose(drawn["additive effect"][:, 0], effects["observed"])
    assert ax.get_xlabel() == "observed effect (mean change, log1p expression)"
    assert ax.get_ylabel() == "predicted effect (mean change, log1p expression)"
    assert ax.get_xlim() == ax.get_ylim()


def test_baseline_is_fitted_on_training_cells(compared, adata):
    label = adata.uns["label"]
    cells: Any = registered_cells(adata)
    sampler = AdditiveEffect().fit(cells.subset((adata.obs["split"] == "train").to_numpy()))
    comparison: Any = compared(adata, label, covariates={"cell_type": "type_1"})
    controls = cells.x[comparison.control].toarray()
    code = cells.covariates[comparison.control[0]]
    shifted = sampler.sample(controls, comparison.perturbation, code, rng=np.random.default_rng(0))
    ax: Any = perturbation_effect(adata, label, covariates={"cell_type": "type_1"})
    expected = shifted.mean(axis=0, dtype=float) - controls.mean(axis=0, dtype=float)
    np.testing.assert_allclose(points(ax)["additive effect"][:, 1], expected, atol=1e-6)
    assert ax.get_title(loc="left") == f"{label}, type_1"


def test_legend_has_correlation_and_error(adata):
    ax: Any = perturbation_effect(adata, adata.uns["label"], baseline=None)
    x, y = points(ax)["predicted"].T
    (text,) = (each.get_text() for each in ax.get_legend().get_texts())
    assert text == f"predicted\nr = {np.corrcoef(x, y)[0, 1]:.2f}, RMSE = {np.sqrt(np.mean((x - y) ** 2)):.3f}"


@pytest.mark.parametrize("n_labels", [0, 3])
def test_largest_observed_effects_are_named(adata, n_labels):
    ax: Any = perturbation_effect(adata, adata.uns["label"], n_labels=n_labels)
    observed = points(ax)["predicted"][:, 0]
    top = adata.var_names[np.argsort(-np.abs(observed))[:n_labels]]
    assert [text.get_text() for text in ax.texts] == top.tolist()


def test_labels_cover_neither_each_other_nor_the_legend(adata):
    ax: Any = perturbation_effect(adata, adata.uns["label"], n_labels=15)
    ax.figure.draw_without_rendering()
    # Not the extent of the annotation, which has the line to the point too.
    legend = ax.get_legend().get_window_extent()
    assert legend.y0 >= ax.get_window_extent().y1 - 1  # so that it hides no point
    boxes = [*(Text.get_window_extent(text) for text in ax.texts), legend]
    assert len(boxes) > 8
    for place, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[place + 1 :])


def test_unobserved_is_drawn_against_the_baseline(unobserved):
    ax: Any = perturbation_effect(unobserved, unobserved.uns["label"])
    assert set(points(ax)) == {"predicted"}
    assert ax.get_xlabel() == "additive effect (mean change, log1p expression)"
    with pytest.raises(ValueError, match="Expected real cells of .* Pass a `baseline`"):
        perturbation_effect(unobserved, unobserved.uns["label"], baseline=None)


def test_unknown_baseline(adata):
    with pytest.raises(ValueError, match="Expected `baseline` to be one of .*additive effect"):
        perturbation_effect(adata, adata.uns["label"], baseline="additive")


def test_colours_of_the_user(adata):
    adata.uns["predicted_colors"] = ["black", "green", "red"]
    ax: Any = perturbation_effect(adata, adata.uns["label"], baseline=None)
    np.testing.assert_allclose(ax.collections[0].get_facecolor()[0, :3], [1, 0, 0])
    adata.uns["predicted_colors"] = ["black"]
    with pytest.raises(ValueError, match=r"3 colours in `adata.uns\['predicted_colors'\]`.*found 1"):
        perturbation_effect(adata, adata.uns["label"])
