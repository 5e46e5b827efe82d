from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import logit

from perturbflow.datasets import simulated_perturb_seq
from perturbflow.flow import (
    NETWORKS,
    AdditiveHurdlePrior,
    CellData,
    ConditionalFlow,
    FlowConfig,
    TrainingSettings,
    point_on_path,
)
from perturbflow.models import FittedFlow
from perturbflow.predict import write_flow
from perturbflow.screen import PerturbationFields
from perturbflow.screen._conditions import Vocabulary
from perturbflow.train import inherited_options, train_flow, transfer_weights
from perturbflow.train._transfer import N_NEIGHBOURS, _Panel, resolve_init

GENES = tuple(f"G{i:02d}" for i in range(24))
COVARIATES = (("line", ("K562", "RPE1")),)
SIZES: dict[str, Any] = {
    "mlp": {"width": 16, "n_blocks": 1},
    "unet": {"width": 4, "n_blocks": 1, "network_options": {"patch": 2, "multipliers": [1, 2]}},
    "token_unet": {"width": 4, "network_options": {"n_tokens": 8}},
}


def make_cells(genes, vocabulary, *, doses=(1.0,), n=12, seed=0):
    """Cells of every component and control in every context; the distribution of a gene depends on its name alone."""
    rng = np.random.default_rng(seed)
    level = np.array([0.3 + (sum(map(ord, gene)) % 7) / 10 for gene in genes])
    rows = [np.zeros(len(vocabulary.components))]
    rows += [dose * unit for unit in np.eye(len(vocabulary.components)) for dose in doses]
    codes = np.stack(np.meshgrid(*[range(len(names)) for _, names in vocabulary.covariates], indexing="ij"), -1)
    codes = codes.reshape(-1, len(vocabulary.covariates))
    perturbations = np.tile(np.repeat(rows, n, axis=0), (len(codes), 1))
    # The k-th component moves every (k + 2)-th gene.
    effect = np.array([np.arange(len(genes)) % (k + 2) == 0 for k in range(len(vocabulary.components))])
    value = 1 + level + 0.5 * (perturbations @ effect) + 0.3 * rng.random((len(perturbations), len(genes)))
    x = (rng.random(value.shape) < level) * value
    return CellData(x, perturbations, np.repeat(codes, n * len(rows), axis=0))


def make_flow(genes, vocabulary, *, seed, network="mlp", doses=(1.0,), features=None, **options):
    options = SIZES.get(network, {}) | options
    config = FlowConfig(
        n_genes=len(genes),
        n_components=len(vocabulary.components),
        n_categories=tuple(len(names) for _, names in vocabulary.covariates),
        **{"network": network, **options},
    )
    cells = make_cells(genes, vocabulary, doses=doses)
    return ConditionalFlow(config, AdditiveHurdlePrior.fit(cells, features=features), seed=seed)


def make_fitted(*, genes=GENES, vocabulary=None, **options) -> FittedFlow:
    """A flow whose weights are all different from zero and from each other."""
    vocabulary = vocabulary or Vocabulary(("A", "B", "C"), COVARIATES)
    flow = make_flow(genes, vocabulary, seed=1, **options)
    generator = torch.Generator().manual_seed(2)
    for parameter in flow.network.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    return FittedFlow(
        flow=flow.eval(),
        genes=tuple(genes),
        fields=PerturbationFields("perturbation", vocabulary, tuple(key for key, _ in vocabulary.covariates)),
        history={},
        fitted_splits=("train",),
    )


def transferred(fitted, genes, vocabulary=None, *, doses=(1.0,)):
    vocabulary = vocabulary or fitted.vocabulary
    flow = make_flow(genes, vocabulary, seed=5, doses=doses, **inherited_options(fitted, genes)).eval()
    return flow, transfer_weights(fitted, flow, genes, vocabulary)


def outputs(flow, x, perturbations, covariates):
    """Outputs of the network per gene (n, n_outputs, G)."""
    t = torch.linspace(0.1, 0.9, len(x))[:, None]
    condition = flow.encode(np.asarray(perturbations, dtype=np.float32), np.asarray(covariates))
    with torch.inference_mode():
        return flow.network(x, t, condition).unflatten(-1, (flow.parametrisation.n_outputs, -1))


def points(n_genes, *, n=6):
    return torch.randn((n, n_genes), generator=torch.Generator().manual_seed(3))


DOSES, CODES = [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [0, 1, 1]], [[0], [1], [0], [1], [0], [1]]


@pytest.fixture(params=sorted(NETWORKS))
def network(request) -> str:
    return request.param


# --- what is kept


def test_same_panel_and_conditions_give_the_same_network(network):
    fitted = make_fitted(network=network)
    flow, _ = transferred(fitted, GENES)
    x = points(len(GENES))
    before = outputs(fitted.flow, x, DOSES, CODES)
    assert before.abs().min() > 0
    assert torch.equal(outputs(flow, x, DOSES, CODES), before)


@pytest.mark.parametrize(
    ("name", "options"),
    [*((name, {}) for name in sorted(NETWORKS)), ("unet", {"gene_order": list(range(len(GENES)))[::-1]})],
)
def test_permuted_genes_permute_the_outputs(name, options):
    options = SIZES[name].get("network_options", {}) | options
    fitted = make_fitted(network=name, **{**SIZES[name], "network_options": options})
    order = np.random.default_rng(0).permutation(len(GENES))
    flow, report = transferred(fitted, [GENES[i] for i in order])
    x = points(len(GENES))
    before, after = outputs(fitted.flow, x, DOSES, CODES), outputs(flow, x[:, order], DOSES, CODES)
    torch.testing.assert_close(after, before[..., order], rtol=1e-4, atol=1e-4)
    assert report["new_genes"] == []
    assert report["n_dropped_genes"] == 0


def test_conditions_are_found_by_name(network):
    fitted = make_fitted(network=network)
    vocabulary = Vocabulary(("B", "C", "D", "E"), (("donor", ("x", "y")), ("line", ("HEK", "K562", "RPE1"))))
    flow, report = transferred(fitted, GENES, vocabulary)
    x = points(len(GENES), n=4)
    old = outputs(fitted.flow, x, [[0, 0, 0], [0, 1, 0], [0, 0, 1], [0, 1, 1]], [[0], [1], [0], [1]])
    new = outputs(flow, x, [[0, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [1, 1, 0, 0]], [[0, 1], [1, 2], [1, 1], [0, 2]])
    torch.testing.assert_close(new, old, rtol=1e-4, atol=1e-4)
    assert report["known_components"] == ["B", "C"]
    assert report["new_components"] == ["D", "E"]
    assert report["known_categories"] == ["line: K562", "line: RPE1"]
    assert report["new_categories"] == ["donor: x", "donor: y", "line: HEK"]


def test_new_conditions_start_as_not_known(network):
    fitted = make_fitted(network=network)
    flow, _ = transferred(fitted, GENES, Vocabulary(("A", "D"), (("line", ("HEK", "K562")),)))
    x, t = points(len(GENES), n=1), torch.full((1, 1), 0.5)
    new = flow.encode(np.array([[0.0, 1.0]]), np.array([[0]]))
    with torch.inference_mode():
        of_new = flow.network(x, t, new)
        of_flag = fitted.flow.network(x, t, torch.eye(fitted.flow.encoder.size)[:1])
    torch.testing.assert_close(of_new, of_flag, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param((1.0,), (1.0, 4.0), id="one_more_above"),
        pytest.param((1.0,), (4.0,), id="above"),
        pytest.param((1.0, 4.0), (1.0,), id="one_less"),
        pytest.param((1.0, 10.0), (1.0, 10.0, 100.0), id="decades"),
    ],
)
def test_doses_that_both_know_are_seen_as_before(before, after):
    fitted = make_fitted(doses=before)
    flow, _ = transferred(fitted, GENES, doses=after)
    assert flow.prior.dose_unit.tolist() == [max(after)] * 3
    x = points(len(GENES))
    for dose in set(before) & set(after) or {min(before)}:
        asked = dose * np.array(DOSES)
        torch.testing.assert_close(
            outputs(flow, x, asked, CODES), outputs(fitted.flow, x, asked, CODES), rtol=1e-4, atol=1e-4
        )


def test_untrained_components_are_not_known():
    vocabulary = Vocabulary(("A", "B", "C"), COVARIATES)
    fitted = make_fitted()
    trained = np.array([True, False, True])
    fitted.flow.prior = replace(fitted.flow.prior, trained=trained)
    _, report = transferred(fitted, GENES, vocabulary)
    assert report["known_components"] == ["A", "C"]
    assert report["new_components"] == ["B"]


FEATURES = np.array([[1.0, 0.0], [0.0, 2.0], [-1.0, 1.0]])


@pytest.mark.parametrize(
    ("components", "features", "kept"),
    [
        pytest.param("ABC", FEATURES, True, id="same"),
        pytest.param("BCD", [[0.0, 2.0], [-1.0, 1.0], [5.0, 5.0]], True, id="same_of_shared_components"),
        pytest.param("ABC", FEATURES[:, ::-1], False, id="rotated"),
        pytest.param("ABC", FEATURES[:, :1], False, id="fewer"),
        pytest.param("DEF", FEATURES, False, id="no_shared_components"),
    ],
)
def test_features_keep_their_weights_where_they_mean_the_same(components, features, kept):
    """What the network sees of a perturbation by its features alone."""

    def seen(flow, doses):
        condition = flow.encode(np.array([doses], dtype=np.float32), np.array([[0]]))[0]
        place = slice(1 + flow.config.n_components, -2)
        return flow.network.state_dict()["condition.weight"][:, place] @ condition[place]

    fitted = make_fitted(features=FEATURES)
    vocabulary = Vocabulary(tuple(components), COVARIATES)
    flow = make_flow(GENES, vocabulary, seed=5, features=np.array(features), **inherited_options(fitted, GENES))
    transfer_weights(fitted, flow, GENES, vocabulary)
    if kept:
        old, new = [float(name == "C") for name in "ABC"], [float(name == "C") for name in components]
        torch.testing.assert_close(seen(flow, new), seen(fitted.flow, old))
    else:
        assert (seen(flow, [1, 1, 1]) == 0).all()


# --- genes


def test_fewer_genes_keep_their_weights(network):
    fitted = make_fitted(network=network)
    kept = [gene for i, gene in enumerate(GENES) if i % 3]
    flow, report = transferred(fitted, kept)
    places = [GENES.index(gene) for gene in kept]
    assert_weights_of_genes(flow, fitted, range(len(kept)), places)
    assert report["n_shared_genes"] == len(kept)
    assert report["new_genes"] == []
    assert report["n_dropped_genes"] == len(GENES[::3])


def test_new_genes_get_a_mean_of_shared_ones_and_leave_these_alone(network):
    fitted = make_fitted(network=network)
    genes = ["new1", *GENES[:10], "new2", *GENES[14:]]
    flow, report = transferred(fitted, genes)
    shared = [i for i, gene in enumerate(genes) if gene in GENES]
    assert_weights_of_genes(flow, fitted, shared, [GENES.index(genes[i]) for i in shared])
    for old, new in gene_rows(flow, fitted):
        low, high = old.min(0).values - 1e-5, old.max(0).values + 1e-5
        assert ((new[[0, 11]] >= low) & (new[[0, 11]] <= high)).all()
        assert (new[[0, 11]] != 0).all()
    assert report["n_shared_genes"] == 20
    assert report["new_genes"] == ["new1", "new2"]
    assert report["n_dropped_genes"] == 4


def test_new_gene_starts_from_those_with_its_statistics():
    """Two kinds of genes, and a new one of the second kind."""
    fitted = make_fitted()
    genes = [*GENES, "new"]
    flow = make_flow(genes, fitted.vocabulary, seed=5, **inherited_options(fitted, genes))
    second = np.arange(len(genes)) >= 12
    flow.prior = replace(
        flow.prior,
        all_expressed=np.where(second, 0.9, 0.1).astype(np.float32),
        all_mean=np.where(second, 3.0, 1.0) + np.linspace(0, 0.01, len(genes)),
        variance=np.full(len(genes), 0.2, dtype=np.float32),
    )
    read = fitted.flow.network.state_dict()["read.weight"]
    read[:, :12], read[:, 12:] = -1, 1
    transfer_weights(fitted, flow, genes, fitted.vocabulary)
    torch.testing.assert_close(flow.network.state_dict()["read.weight"][:, -1], torch.ones(16))


def test_one_shared_gene_is_enough(network):
    fitted = make_fitted(network=network)
    genes = ["G05", *(f"new{i}" for i in range(9))]
    flow, report = transferred(fitted, genes)
    assert report["n_shared_genes"] == 1
    for old, new in gene_rows(flow, fitted):
        torch.testing.assert_close(new, old[[5]].expand_as(new))


@pytest.mark.parametrize(
    ("order", "genes", "expected"),
    [
        pytest.param(None, "abcd", None, id="same"),
        pytest.param([2, 0, 1, 3], "abcd", [2, 0, 1, 3], id="same_in_order"),
        pytest.param(None, "badc", [1, 0, 3, 2], id="permuted"),
        pytest.param(None, "xacd", [1, 0, 2, 3], id="new_gene_in_the_place_of_a_dropped_one"),
        pytest.param(None, "ad", None, id="gaps_are_closed"),
        pytest.param([3, 2, 1, 0], "xabcd", [4, 3, 2, 1, 0], id="new_gene_comes_last"),
    ],
)
def test_positions_of_shared_genes_stay(order, genes, expected):
    options = {"gene_order": order} if order else {}
    fitted = make_fitted(genes=tuple("abcd"), network="unet", network_options=options)
    assert inherited_options(fitted, list(genes))["network_options"]["gene_order"] == expected


def gene_rows(flow, fitted):
    """Weights indexed by genes, genes first: old (G, ...) and new (G', ...), one pair per block."""
    old, new = fitted.flow.network.state_dict(), flow.network.state_dict()
    for name, axes in flow.network.axes().items():
        for axis, kind in axes:
            if kind != "condition":
                pair = [
                    tensor.movedim(axis, 0).unflatten(0, (-1, n))
                    for tensor, n in ((old[name], fitted.flow.config.n_genes), (new[name], flow.config.n_genes))
                ]
                yield from zip(*pair, strict=True)


def assert_weights_of_genes(flow, fitted, new_places, old_places):
    pairs = list(gene_rows(flow, fitted))
    assert pairs
    for old, new in pairs:
        assert torch.equal(new[list(new_places)], old[list(old_places)])
    axes, old = flow.network.axes(), fitted.flow.network.state_dict()
    for name, tensor in flow.network.state_dict().items():
        if name not in axes:
            assert torch.equal(tensor, old[name]), name


# --- what it is good for


def loss_on(flow, cells):
    """Flow-matching loss under fixed noise."""
    generator = torch.Generator().manual_seed(0)
    x1 = torch.as_tensor(cells.x.toarray())
    t, x0 = torch.rand((len(x1), 1), generator=generator), torch.randn(x1.shape, generator=generator)
    doses = cells.perturbations.toarray()
    with torch.inference_mode():
        distribution, condition = (
            flow.gene_distribution(flow.prior.distributions(doses, cells.covariates)),
            flow.encode(doses, cells.covariates),
        )
        return float((flow.velocity(point_on_path(x0, x1, t), t, distribution, condition) - (x1 - x0)).square().mean())


def trained(flow, cells, steps):
    train_flow(flow, cells, TrainingSettings(max_steps=steps, batch_size=128, warmup_steps=10))
    return flow


def test_fine_tuning_on_half_the_cells_needs_a_third_of_the_steps():
    """Two screens of one network of genes: other cells, other perturbations, 40 of 50 genes in common."""
    adata = simulated_perturb_seq(n_cells=3000, n_genes=60, n_perturbations=6, n_combinations=0, cell_types=1)
    labels = adata.obs["perturbation"].astype(str).to_numpy()
    names = sorted(set(labels) - {"control"})
    in_first = np.where(labels == "control", np.arange(len(labels)) % 2 == 0, np.isin(labels, names[:3]))
    options: Any = {"network": "mlp", "width": 64, "n_blocks": 2, "parametrisation": "velocity"}

    def screen(rows, genes):
        vocabulary = Vocabulary.from_labels(labels[rows], control="control", separator="+")
        doses = vocabulary.encode_perturbations(labels[rows])
        return CellData(adata[rows, genes].X, doses, np.zeros((rows.sum(), 0), dtype=int)), vocabulary

    def untrained(cells, vocabulary, seed):
        config = FlowConfig(n_genes=50, n_components=len(vocabulary.components), n_categories=(), **options)
        return ConditionalFlow(config, AdditiveHurdlePrior.fit(cells), seed=seed)

    cells, vocabulary = screen(in_first, adata.var_names[:50])
    first = trained(untrained(cells, vocabulary, 0), cells, 300)
    fields = PerturbationFields("perturbation", vocabulary)
    fitted = FittedFlow(first, tuple(adata.var_names[:50]), fields, {}, ("train",))

    cells, vocabulary = screen(~in_first, adata.var_names[10:])
    fresh = np.arange(len(cells)) % 5 == 0
    training, held_out = cells.subset(~fresh), cells.subset(fresh)
    half = training.subset(np.arange(len(training)) % 2 == 0)
    from_scratch = loss_on(trained(untrained(training, vocabulary, 1), training, 150), held_out)
    short = loss_on(trained(untrained(half, vocabulary, 1), half, 50), held_out)
    tuned = untrained(half, vocabulary, 1)
    report = transfer_weights(fitted, tuned, adata.var_names[10:], vocabulary)
    fine_tuned = loss_on(trained(tuned, half, 50), held_out)
    assert report["n_shared_genes"] == 40
    assert report["known_components"] == []
    assert fine_tuned < 0.95 * from_scratch < 0.8 * short


# --- reports and messages


def test_report_is_plain_values():
    fitted = make_fitted()
    _, report = transferred(fitted, [*GENES[:20], "new"], Vocabulary(("A", "D"), (("line", ("HEK", "K562")),)))
    assert report == {
        "n_shared_genes": 20,
        "n_new_genes": 1,
        "n_dropped_genes": 4,
        "new_genes": ["new"],
        "known_components": ["A"],
        "new_components": ["D"],
        "known_categories": ["line: K562"],
        "new_categories": ["line: HEK"],
    }


def unchanged_after(flow, fitted, genes, match):
    before = {name: tensor.clone() for name, tensor in flow.network.state_dict().items()}
    with pytest.raises(ValueError, match=match):
        transfer_weights(fitted, flow, genes, fitted.vocabulary)
    assert all(torch.equal(tensor, before[name]) for name, tensor in flow.network.state_dict().items())


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"width": 8}, "found `width` 8 instead of 16. Omit these settings"),
        ({"parametrisation": "velocity"}, "`parametrisation` 'velocity' instead of 'zero_inflated'"),
        ({"network": "unet", "width": 16, "n_blocks": 1}, "`network` 'unet' instead of 'mlp'.*`multipliers`"),
        ({"width": 8, "n_blocks": 2}, "`width` 8 instead of 16, `n_blocks` 2 instead of 1"),
    ],
)
def test_other_network_raises_and_changes_nothing(options, match):
    fitted = make_fitted()
    unchanged_after(make_flow(GENES, fitted.vocabulary, seed=5, **options), fitted, GENES, match)


def test_settings_equal_to_the_defaults_need_not_be_named():
    fitted = make_fitted(network="unet", network_options={"patch": 2})
    options = {"patch": 2, "multipliers": [1, 2, 4, 8], "n_heads": 1, "dropout": 0.1}
    flow = make_flow(GENES, fitted.vocabulary, seed=5, network="unet", network_options=options)
    assert transfer_weights(fitted, flow, GENES, fitted.vocabulary)["n_shared_genes"] == len(GENES)


def test_features_of_the_old_panel_are_not_inherited():
    fitted = make_fitted(network="unet", network_options={"gene_features": np.eye(len(GENES)), "n_heads": 2})
    assert inherited_options(fitted, GENES)["network_options"] == {"n_heads": 2, "gene_order": None}


def test_panels_without_a_common_gene_raise_and_change_nothing():
    fitted = make_fitted()
    genes = [f"ENSG{i}" for i in range(len(GENES))]
    match = r"such as \['G00', 'G01', 'G02'\] and 21 more, found none of them, but \['ENSG0', .*symbols or identifiers"
    unchanged_after(make_flow(genes, fitted.vocabulary, seed=5), fitted, genes, match)
    with pytest.raises(ValueError, match="found none of them"):
        inherited_options(fitted, genes)


def test_repeated_genes_raise_and_change_nothing():
    fitted = make_fitted()
    genes = ["G00", *GENES[:-1]]
    unchanged_after(make_flow(genes, fitted.vocabulary, seed=5), fitted, genes, r"found repeated \['G00'\]")


# --- where to start from


def test_flow_is_found_wherever_it_is(registered, tmp_path):
    fitted = make_fitted()
    other = registered.copy()
    write_flow(other, fitted)
    write_flow(registered, make_fitted(width=8), key="small")
    fitted.save(tmp_path / "flow")
    assert resolve_init(fitted, registered) is fitted
    assert resolve_init(other, registered).flow.config.width == 16
    assert resolve_init("small", registered).flow.config.width == 8
    assert resolve_init(tmp_path / "flow", registered).genes == GENES
    assert resolve_init(str(tmp_path / "flow"), registered).genes == GENES


def test_place_without_flow_raises(registered, tmp_path):
    with pytest.raises(ValueError, match=r"found 'nowhere' but only the keys \[.*'perturbation_fields'"):
        resolve_init("nowhere", registered)
    with pytest.raises(ValueError, match=r"Expected a fitted flow in `adata.uns\['perturbation_fields'\]`"):
        resolve_init("perturbation_fields", registered)
    with pytest.raises(KeyError, match="fit_flow"):
        resolve_init(registered, registered)
    with pytest.raises(FileNotFoundError, match="found no fitted flow"):
        resolve_init(tmp_path, registered)
    with pytest.raises(TypeError, match="Expected `init_from` to be a fitted flow, an AnnData, a key"):
        resolve_init(3, registered)


def test_new_genes_start_from_those_of_similar_statistics():
    vocabulary = Vocabulary(("A", "B", "C"), COVARIATES)
    flow = make_flow((*GENES, "new"), vocabulary, seed=0)
    prior, source = flow.prior, np.append(np.arange(len(GENES)), -1)
    panel = _Panel.match(source, prior)
    statistics = np.stack([logit(prior.all_expressed), prior.all_mean, np.log(prior.variance)], axis=1)
    statistics = statistics / statistics[:-1].std(axis=0)
    distance = np.linalg.norm(statistics[:-1] - statistics[-1], axis=1)
    nearest = np.argsort(distance)[:N_NEIGHBOURS]
    kernel = np.exp(-(distance[nearest] ** 2) / (2 * distance[nearest].max() ** 2))
    assert set(panel.neighbours[0]) == set(nearest)
    found = dict(zip(panel.neighbours[0], panel.shares[0], strict=True))
    np.testing.assert_allclose([found[one] for one in nearest], kernel / kernel.sum(), rtol=1e-4)
    old = torch.arange(float(len(GENES)))[:, None]
    expected = (kernel * nearest).sum() / kernel.sum()
    assert float(panel.rows(old)[-1]) == pytest.approx(expected, rel=1e-4)
