from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib.colors import to_rgb

from perturbflow.pl import trajectories

GREY = "#A8A8A8"
PALETTE = ["#D55E00", "#0072B2", "#009E73", "#E69F00", "#56B4E9", "#663300"]

GENES = ["a", "b", "c", "d", "e"]
NAMES = ["0|control", "1|control", "2|b"]
GRID = np.linspace(0.0, 4.0, 9)


@pytest.fixture
def adata():
    """Three trajectories of five genes with four times, of which the first has two cells each; forecast to time 4."""
    rng = np.random.default_rng(0)
    time = np.concatenate([np.repeat([0.0, 1.0, 2.0, 3.0], 2), np.tile([0.0, 1.0, 2.0, 2.5], 2)])
    obs = pd.DataFrame(
        {
            "hour": time,
            "run": np.repeat(["0", "1", "2"], [8, 4, 4]),
            "perturbation": np.repeat(["control", "control", "b"], [8, 4, 4]),
        },
        index=[f"cell{number}" for number in range(16)],
    )
    adata = AnnData(rng.random((16, 5)).astype(np.float32), obs=obs)
    adata.var_names = GENES
    adata.uns["dynamics_fields"] = {
        "time_key": "hour",
        "trajectory_key": "run",
        "perturbation_key": "perturbation",
        "control": "control",
        "separator": "+",
        "regulators": GENES,
        "has_prior": False,
    }
    adata.uns["forecast"] = {
        "time": GRID,
        "trajectories": NAMES,
        "values": rng.random((3, 9, 5)).astype(np.float32),
        "genes": GENES,
        "observed_until": np.array([3.0, 2.5, 2.5]),
    }
    return adata


def lines(ax: Any, style: str) -> list[Any]:
    return [line for line in ax.lines if line.get_linestyle() == style]


def test_a_panel_a_gene_with_what_was_forecast(adata):
    figure = trajectories(adata, ["c", "a"])
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["c", "a"]
    assert [ax.get_xlabel() for ax in figure.axes] == ["hour", "hour"]
    assert [ax.get_ylabel() for ax in figure.axes] == ["expression", ""]
    values = adata.uns["forecast"]["values"]
    for ax, column in zip(figure.axes, (2, 0), strict=True):
        for row, n_past in enumerate((7, 6, 6)):
            fitted, forecast = lines(ax, "-")[row], lines(ax, "--")[row]
            np.testing.assert_allclose(fitted.get_xydata(), np.column_stack([GRID, values[row, :, column]])[:n_past])
            beyond = np.column_stack([GRID, values[row, :, column]])[n_past - 1 :]
            np.testing.assert_allclose(forecast.get_xydata(), beyond)
            assert fitted.get_color() == forecast.get_color()
        spans = [(patch.get_x(), patch.get_x() + patch.get_width()) for patch in ax.patches]  # type: ignore[attr-defined]
        assert spans == [(2.5, 4.0), (3.0, 4.0)]


def test_points_are_means_of_the_cells_of_a_time(adata):
    axes: Any = trajectories(adata, "d").axes
    (ax,) = axes
    first = np.asarray(adata.X[:8, 3]).reshape(4, 2).mean(axis=1)
    np.testing.assert_allclose(ax.collections[0].get_offsets(), np.column_stack([range(4), first]), rtol=1e-6)
    assert len(ax.collections) == 3


def test_some_trajectories(adata):
    figure: Any = trajectories(adata, "a", trajectories="2|b")
    assert len(lines(figure.axes[0], "-")) == 1
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["2, b", "observed", "fitted", "forecast"]


def test_colours_that_are_kept(adata):
    adata.uns["run_colors"] = ["#111111", "#222222", "#333333"]
    (ax,) = trajectories(adata, "a").axes
    assert [line.get_color() for line in lines(ax, "-")] == ["#111111", "#222222", "#333333"]
    subset = trajectories(adata, "a", trajectories=["1|control"]).axes[0]
    assert lines(subset, "-")[0].get_color() == "#222222"


def test_trajectory_that_is_only_forecast(adata):
    adata.uns["forecast"] |= {"trajectories": ["new"], "observed_until": np.array([-1.0])}
    adata.uns["forecast"]["values"] = adata.uns["forecast"]["values"][:1]
    (ax,) = trajectories(adata, "a").axes
    assert (len(lines(ax, "-")), len(lines(ax, "--")), len(ax.collections)) == (0, 1, 0)
    assert lines(ax, "--")[0].get_xdata()[0] == 0.0


def test_nothing_beyond_the_observed_time(adata):
    adata.uns["forecast"]["observed_until"] = np.full(3, 4.0)
    figure: Any = trajectories(adata, "a")
    assert (lines(figure.axes[0], "--"), list(figure.axes[0].patches)) == ([], [])
    assert "forecast" not in [text.get_text() for text in figure.legends[0].get_texts()]


def test_many_trajectories_have_distinct_colours_and_a_short_legend(adata):
    many = [f"t{number}" for number in range(20)]
    adata.uns["forecast"] |= {"trajectories": many, "observed_until": np.full(20, 3.0)}
    adata.uns["forecast"]["values"] = np.zeros((20, 9, 5))
    figure: Any = trajectories(adata, "a")
    assert len({to_rgb(line.get_color()) for line in lines(figure.axes[0], "-")}) == 20
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts[:7] == ["t0", "t3", "t7", "t11", "t15", "t19", "… 20 in total, in this order"]


@pytest.fixture
def crowd(adata):
    """Fifty trajectories, of which the last five are of another perturbation."""
    names = [f"{number}|{'control' if number < 45 else 'b'}" for number in range(50)]
    adata.uns["forecast"] |= {"trajectories": names, "observed_until": np.full(50, 3.0)}
    adata.uns["forecast"]["values"] = np.zeros((50, 9, 5))
    return adata


def test_colours_of_many_trajectories_are_those_of_their_perturbations(crowd):
    figure: Any = trajectories(crowd, "a")
    drawn = [line.get_color() for line in lines(figure.axes[0], "-")]
    assert drawn == [GREY] * 45 + [PALETTE[0]] * 5
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts[:2] == ["control (45 trajectories)", "b (5 trajectories)"]


def test_colours_of_perturbations_that_are_kept(crowd):
    crowd.uns["perturbation_colors"] = ["#111111", "#222222"]  # of the categories: b, control
    drawn = [line.get_color() for line in lines(trajectories(crowd, "a").axes[0], "-")]
    assert drawn == ["#222222"] * 45 + ["#111111"] * 5
    assert crowd.uns["perturbation_colors"] == ["#111111", "#222222"]


def test_more_genes_than_columns(adata):
    figure = trajectories(adata, GENES)
    assert [ax.get_title(loc="left") for ax in figure.axes] == GENES
    # Three beside two, so that the lower right is empty.
    assert [bool(ax.get_xlabel()) for ax in figure.axes] == [False, False, True, True, True]
    assert [bool(ax.get_ylabel()) for ax in figure.axes] == [True, False, False, True, False]


def test_fifty_genes_stand_in_rows_of_six(adata):
    names = [*GENES, *(f"g{number}" for number in range(45))]
    wide = AnnData(np.zeros((16, 50), dtype=np.float32), obs=adata.obs)
    wide.var_names = names
    wide.uns = adata.uns | {"forecast": adata.uns["forecast"] | {"genes": names, "values": np.zeros((3, 9, 50))}}
    figure = trajectories(wide, names)
    assert [ax.get_title(loc="left") for ax in figure.axes] == names
    assert sum(bool(ax.get_ylabel()) for ax in figure.axes) == 9
    assert figure.get_figwidth() < 13
    assert figure.get_figheight() < 15


def test_forecast_of_some_genes(adata):
    adata.uns["forecast"] |= {"genes": ["e", "b"], "values": adata.uns["forecast"]["values"][:, :, :2]}
    axes: Any = trajectories(adata, "b").axes
    (ax,) = axes
    np.testing.assert_allclose(ax.collections[1].get_offsets()[:, 1], adata.X[8:12, 1])
    with pytest.raises(KeyError, match="genes of `adata.uns"):
        trajectories(adata, "a")


def test_survives_a_file(adata, tmp_path):
    import anndata

    adata.write_h5ad(tmp_path / "a.h5ad")
    read = anndata.read_h5ad(tmp_path / "a.h5ad")
    assert len(trajectories(read, ["a"], trajectories=["0|control"]).axes) == 1


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"genes": "aa"}, KeyError, r"found \['aa'\]. The most similar are \['a'"),
        ({"genes": []}, ValueError, "`genes` to name at least one"),
        ({"genes": "a", "trajectories": ["0"]}, KeyError, r"`trajectories`.*found \['0'\].*'0\|control'"),
        ({"genes": "a", "trajectories": []}, ValueError, "`trajectories` to name at least one"),
        ({"genes": "a", "key": "f"}, KeyError, r"pf\.tl\.forecast\(adata, key_added='f'\)"),
    ],
)
def test_bad_options(adata, options, error, message):
    with pytest.raises(error, match=message):
        trajectories(adata, **options)


def test_without_registration(adata):
    del adata.uns["dynamics_fields"]
    with pytest.raises(KeyError, match=r"pf\.pp\.setup_dynamics"):
        trajectories(adata, "a")
