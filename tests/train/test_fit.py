from __future__ import annotations

import os
import signal
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from perturbflow.evaluation import registered_cells
from perturbflow.flow import AdditiveHurdlePrior, ConditionalFlow, FlowConfig, TrainingSettings
from perturbflow.metrics import energy_in_programs
from perturbflow.models import FlowOptions, fit
from perturbflow.train import HeldOutConditions
from perturbflow.train._flow_plan import FlowPlan
from perturbflow.train._validation import ENTRY_TIMES, GUIDANCES, MIN_CELLS, N_DRAWS, Scores

OPTIONS: Any = {"width": 16, "n_blocks": 1}


def settings(**changes):
    return TrainingSettings(**({"max_steps": 20, "batch_size": 32, "validate_every": 5, "warmup_steps": 5} | changes))


def fitted(adata, *, options=None, checkpoint=None, split_key="split", **changes):
    return fit(
        adata,
        FlowOptions(OPTIONS | (options or {}), settings(**changes), calibrate=False),
        split_key=split_key,
        checkpoint=checkpoint,
        progress_bar=False,
    )


@pytest.fixture(scope="module")
def whole(_registered):
    """Fits without a break, by the column with the split."""
    return {key: fitted(_registered.copy(), split_key=key) for key in ("split", "none")}


def assert_same_weights(first, second):
    one, other = (flow.flow.network.state_dict() for flow in (first, second))
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


@pytest.fixture(scope="module")
def prior(_registered):
    """The prior of the training cells, which no test changes."""
    return AdditiveHurdlePrior.fit(
        registered_cells(_registered).subset(np.flatnonzero(_registered.obs["split"] == "train"))
    )


@pytest.fixture
def held_out_of(prior):
    """Make the held-out conditions, and an untrained flow with the prior of the training cells."""

    def make(adata, *, source="control"):
        split = adata.obs["split"].to_numpy()
        training = registered_cells(adata).subset(np.flatnonzero(split == "train"))
        config = FlowConfig(n_genes=adata.n_vars, n_components=4, n_categories=(2,), source=source, **OPTIONS)
        flow = ConditionalFlow(config, prior)
        return HeldOutConditions(
            training, registered_cells(adata).subset(np.flatnonzero(split == "valid")), seed=0
        ), flow

    return make


class Energies:
    """Stands in for the energies: a table of means, with noise shared by all choices and noise of their own."""

    def __init__(self, means, *, noise=0.0, n=12):
        self.means, self.noise, self.n = means, noise, n

    def __call__(self, flow, *, entry_time, correction_scale, n_draws=1):
        shared = np.random.default_rng(0).normal(10, 5, self.n)
        own = np.random.default_rng([round(100 * entry_time), round(100 * correction_scale)]).normal(
            0, self.noise, self.n
        )
        return shared + own - own.mean() + self.means.get((entry_time, correction_scale), 1.0)


# --- interruption and checkpoints


def interrupt_at(monkeypatch, moment, *, after_step=False):
    """Interrupt training once, at a step (before or after its work), or in its first validation."""
    step, energies = FlowPlan.training_step, HeldOutConditions.energies
    state = {"armed": True}

    def fire():
        if state["armed"]:
            state["armed"] = False
            raise KeyboardInterrupt

    def train_step(plan, batch, batch_idx):
        if not after_step and batch.number == moment:
            fire()
        loss = step(plan, batch, batch_idx)
        if after_step and batch.number + 1 == moment:
            fire()
        return loss

    def validate(self, flow, **options):
        if moment == "validation":
            fire()
        return energies(self, flow, **options)

    monkeypatch.setattr(FlowPlan, "training_step", train_step)
    monkeypatch.setattr(HeldOutConditions, "energies", validate)


@pytest.mark.parametrize(
    ("moment", "after_step", "split_key"),
    [
        *((moment, after_step, "none") for moment in (12, 10) for after_step in (False, True)),
        (12, False, "split"),
        (10, True, "split"),
        (4, True, "split"),
        ("validation", False, "split"),
    ],
)
def test_continued_fit_equals_an_uninterrupted_one(
    registered, whole, tmp_path, monkeypatch, moment, after_step, split_key
):
    expected = whole[split_key]
    interrupt_at(monkeypatch, moment, after_step=after_step)
    folder = tmp_path / "checkpoint"
    first = fitted(registered, split_key=split_key, checkpoint=folder)
    assert first.settings["interrupted"] is True
    assert folder.is_dir() == (moment not in (4, "validation"))
    continued = fitted(registered, split_key=split_key, checkpoint=folder)
    assert continued.settings["interrupted"] is False
    assert_same_weights(continued, expected)
    assert continued.config == expected.config
    for name in ("step", "loss", "learning_rate", "valid_step", "valid_energy"):
        np.testing.assert_array_equal(continued.history[name], expected.history[name], err_msg=name)
    assert not folder.exists()


def test_checkpoint_of_a_crash_while_choosing_is_complete(registered, whole, tmp_path, monkeypatch):
    def crash(self, flow):
        msg = "crash"
        raise RuntimeError(msg)

    with monkeypatch.context() as patch:
        patch.setattr(HeldOutConditions, "choose", crash)
        with pytest.raises(RuntimeError, match="crash"):
            fitted(registered, checkpoint=tmp_path)
    steps = []
    step = FlowPlan.training_step

    def train_step(plan, batch, batch_idx):
        steps.append(batch.number)
        return step(plan, batch, batch_idx)

    monkeypatch.setattr(FlowPlan, "training_step", train_step)
    assert_same_weights(fitted(registered, checkpoint=tmp_path), whole["split"])
    assert steps == []


@pytest.mark.parametrize("phase", ["choose", "guidance_curve", "calibrate"])
def test_interruption_after_training_keeps_the_trained_flow(registered, whole, monkeypatch, caplog, tmp_path, phase):
    expected = whole["split"]

    def interrupt(*args, **kwargs):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
        pytest.fail("the signal was not noticed")

    handler = signal.getsignal(signal.SIGTERM)
    if phase == "calibrate":
        monkeypatch.setattr("perturbflow.train._fit.Calibration.fit", interrupt)
    else:
        monkeypatch.setattr(HeldOutConditions, phase, interrupt)
    flow = fit(registered, FlowOptions(OPTIONS, settings()), checkpoint=tmp_path, progress_bar=False)
    assert_same_weights(flow, expected)
    assert flow.settings["interrupted"] is True
    assert "Interrupted after training: the trained flow is kept" in caplog.text
    assert flow.fitted_splits == (("train", "valid") if phase == "calibrate" else ("train",))
    assert (flow.config["entry_time"] == expected.config["entry_time"]) or phase == "choose"
    assert (tmp_path / "training.safetensors").is_file()  # so that the same call completes it
    assert signal.getsignal(signal.SIGTERM) == handler


def test_loss_that_is_not_finite_names_genes_and_conditions(registered, monkeypatch, unchanged):
    errors = FlowPlan.errors

    def spoilt(plan, batch):
        batch.x[batch.group == 3, 5] = torch.inf  # as cells of a file may have them, of which some are looked at
        return errors(plan, batch)

    monkeypatch.setattr(FlowPlan, "errors", spoilt)
    with unchanged(registered), pytest.raises(FloatingPointError, match="at step .* from genes ") as raised:
        fitted(registered, split_key="split")
    assert f"genes {registered.var_names[5]!r} in conditions '" in str(raised.value)


def test_checkpoint_is_one_file_without_pickle(registered, tmp_path, monkeypatch):
    interrupt_at(monkeypatch, 7)
    fitted(registered, split_key="none", checkpoint=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["training.safetensors"]


def test_other_files_beside_a_checkpoint_stay(registered, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    fitted(registered, split_key="none", checkpoint=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("change", "different"),
    [
        ({"max_steps": 30}, "settings"),
        ({"seed": 1}, "settings"),
        ({"options": {"width": 8}}, "config"),
        ({"split_key": "half"}, "n_cells"),
    ],
    ids=lambda value: str(value),
)
def test_checkpoint_of_another_fit_is_refused(registered, tmp_path, monkeypatch, unchanged, change, different):
    interrupt_at(monkeypatch, 7)
    fitted(registered, split_key="none", checkpoint=tmp_path)
    registered.obs["half"] = np.where(registered.obs["perturbation"] == "A", "test", "train")
    before = (tmp_path / "training.safetensors").read_bytes()
    with (
        unchanged(registered),
        pytest.raises(ValueError, match=f"to belong to this fit, found another one: .*'{different}'"),
    ):
        fitted(registered, **({"split_key": "none", "checkpoint": tmp_path} | change))
    assert (tmp_path / "training.safetensors").read_bytes() == before


def test_checkpoint_of_other_labels_is_refused(registered, tmp_path, monkeypatch):
    interrupt_at(monkeypatch, 7)
    fitted(registered, split_key="none", checkpoint=tmp_path)
    registered.obs["perturbation"] = registered.obs["perturbation"].astype(str).replace({"A": "B", "B": "A"})
    with pytest.raises(ValueError, match=r"different \['conditions'\]"):
        fitted(registered, split_key="none", checkpoint=tmp_path)


def test_file_that_is_no_checkpoint_is_refused(registered, tmp_path, unchanged):
    (tmp_path / "training.safetensors").write_bytes(b"something else")
    with unchanged(registered), pytest.raises(ValueError, match=r"Expected a checkpoint in .*Delete it"):
        fitted(registered, split_key="none", checkpoint=tmp_path)


# --- choices on held-out conditions


def test_held_out_conditions_are_those_of_the_validation_split(registered, held_out_of):
    held_out, _ = held_out_of(registered)
    assert len(held_out) == 2
    label = registered.obs.loc[registered.obs["split"] == "valid", "perturbation"].iloc[0]
    for condition in held_out.conditions:
        assert condition.perturbation.tolist() == [0.0, *(float(part in label) for part in "BCD")]
        of_type = registered.obs["cell_type"] == f"type_{condition.covariates[0] + 1}"
        assert len(condition.controls) == (of_type & (registered.obs["perturbation"] == "control")).sum()


def test_conditions_without_enough_cells_or_controls_are_left_out(registered, held_out_of):
    few = np.flatnonzero((registered.obs["split"] == "valid") & (registered.obs["cell_type"] == "type_1"))
    keep = np.setdiff1d(np.arange(registered.n_obs), few[MIN_CELLS - 1 :])
    held_out, _ = held_out_of(registered[keep].copy())
    assert [condition.covariates.tolist() for condition in held_out.conditions] == [[1]]


def test_energies_are_paired_and_leave_the_flow_alone(registered, held_out_of):
    held_out, flow = held_out_of(registered)
    config = flow.config
    first = held_out.energies(flow, entry_time=0.5, correction_scale=0.0, n_draws=3)
    assert first.shape == (len(held_out),)
    np.testing.assert_array_equal(first, held_out.energies(flow, entry_time=0.5, correction_scale=0.0, n_draws=3))
    # An untrained network says nothing, so trusting it changes nothing.
    np.testing.assert_array_equal(first, held_out.energies(flow, entry_time=0.5, correction_scale=1.0, n_draws=3))
    assert flow.config == config


def test_sabotaged_network_is_not_trusted(registered, held_out_of):
    held_out, flow = held_out_of(registered)
    torch.nn.init.normal_(flow.network.write.weight, std=30.0, generator=torch.Generator().manual_seed(0))
    chosen = held_out.choose(flow)
    assert chosen["correction_scale"] == 0.0 or chosen["entry_time"] == 1.0
    kept = held_out.energies(flow, **chosen, n_draws=3).mean()
    assert kept < held_out.energies(flow, entry_time=0.7, correction_scale=1.0, n_draws=3).mean()


def as_scores(energies, cosines=None, asked=None, programs=None):
    """What scores choices by these energies, the same in every draw, cosines, and energies of programs."""

    def scores(flow, *, entry_time, correction_scale, limit=None):
        if asked is not None:
            asked.append((entry_time, correction_scale))
        found = energies(flow, entry_time=entry_time, correction_scale=correction_scale)
        of_programs = np.full(len(found), (programs or {}).get((entry_time, correction_scale), 0.0))
        return Scores(found, found, (cosines or {}).get((entry_time, correction_scale), 0.0), of_programs)

    return scores


def scored(held_out, monkeypatch, table, *, noise=0.0, cosines=None, programs=None):
    """Let choices have these energies, 1 elsewhere, and cosines, 0 elsewhere."""
    asked: list[tuple[float, float]] = []
    scores = as_scores(Energies(table, noise=noise), cosines, asked, programs)
    monkeypatch.setattr(held_out, "scores", scores, raising=False)
    monkeypatch.setattr(held_out, "_where_trained", lambda flow, choice: np.zeros(1), raising=False)
    return asked


def test_a_choice_that_loses_who_responds_is_not_made(registered, held_out_of, monkeypatch):
    held_out, flow = held_out_of(registered)
    table = {(0.3, 1.0): 0.0, (0.7, 1.0): 0.5}
    scored(held_out, monkeypatch, table, noise=0.3, programs={(0.3, 1.0): 0.1})
    assert held_out.choose(flow) == {"entry_time": 0.7, "correction_scale": 1.0}


def test_programs_are_those_of_the_metric(registered, held_out_of):
    held_out, flow = held_out_of(registered)
    found = held_out.scores(flow, entry_time=1.0, correction_scale=1.0).programs
    pairs = list(held_out.predictions(flow, draws=range(2), entry_time=1.0, correction_scale=1.0))
    expected = [energy_in_programs(cells, condition.real, condition.controls) for condition, cells in pairs]
    np.testing.assert_allclose(found, np.nan_to_num(np.reshape(expected, (2, -1)).mean(axis=0)))


def test_clear_winner_is_chosen(registered, held_out_of, monkeypatch):
    held_out, flow = held_out_of(registered)
    scored(held_out, monkeypatch, {(0.3, 1.0): 0.0}, noise=0.3, cosines={(0.85, 1.0): 1.0})
    assert held_out.choose(flow) == {"entry_time": 0.3, "correction_scale": 1.0}


@pytest.mark.parametrize(("noise", "expected"), [(0.0, 0.3), (2.0, 0.85)])
def test_cosine_decides_within_one_standard_error(registered, held_out_of, monkeypatch, noise, expected):
    held_out, flow = held_out_of(registered)
    # The difference of 0.3 is within the standard error of the paired difference only where there is noise; the noise
    # that all choices share is larger still and must not count. Both are better than the prior alone.
    scored(held_out, monkeypatch, {(0.3, 1.0): -9.0, (0.85, 1.0): -8.7}, noise=noise, cosines={(0.85, 1.0): 0.5})
    assert held_out.choose(flow) == {"entry_time": expected, "correction_scale": 1.0}


@pytest.mark.parametrize(("noise", "expected"), [(0.1, 0.0), (4.0, 1.0)])
def test_the_network_is_used_only_where_it_helps_beyond_a_standard_error(
    registered, held_out_of, monkeypatch, noise, expected
):
    held_out, flow = held_out_of(registered)
    scored(held_out, monkeypatch, {(0.0, 1.0): 0.7}, noise=noise, cosines={(0.0, 1.0): 1.0})
    assert held_out.choose(flow) == {"entry_time": expected, "correction_scale": 1.0}


def test_one_condition_does_not_show_that_the_network_helps(registered, held_out_of, monkeypatch):
    held_out, flow = held_out_of(registered)
    energies = Energies({(0.0, 1.0): -5.0}, n=1)
    monkeypatch.setattr(held_out, "scores", as_scores(energies), raising=False)
    assert held_out.choose(flow) == {"entry_time": 1.0, "correction_scale": 1.0}


def test_a_network_that_is_worse_where_it_was_trained_is_not_used(registered, held_out_of, monkeypatch):
    held_out, flow = held_out_of(registered)
    energies = Energies({(0.0, 1.0): -5.0})
    monkeypatch.setattr(held_out, "scores", as_scores(energies), raising=False)
    torch.nn.init.normal_(flow.network.write.weight, std=30.0, generator=torch.Generator().manual_seed(0))
    assert held_out.choose(flow) == {"entry_time": 1.0, "correction_scale": 1.0}
    assert len(held_out.seen) == 8
    training = registered[(registered.obs["split"] == "train").to_numpy()]
    known = {tuple(condition.perturbation) for condition in held_out.seen}
    assert known <= {tuple(doses) for doses in registered_cells(training).perturbations.toarray()}


def test_only_what_matters_is_chosen(registered, held_out_of, monkeypatch):
    held_out, flow = held_out_of(registered, source="noise")
    asked = scored(held_out, monkeypatch, {})
    held_out.choose(flow)
    assert asked == [(0.0, 0.0), (0.0, 1.0)]
    asked.clear()
    config = FlowConfig(n_genes=40, n_components=4, n_categories=(2,), parametrisation="velocity", **OPTIONS)
    held_out.choose(ConditionalFlow(config, flow.prior))
    assert asked == [(1.0, 1.0), *((entry_time, 1.0) for entry_time in ENTRY_TIMES if entry_time < 1)]
    asked.clear()
    assert held_out.choose(ConditionalFlow(replace(config, source="noise"), flow.prior)) == {
        "entry_time": 0.0,
        "correction_scale": 1.0,
    }
    assert asked == []
    # Half of the network's output is tried only where the whole of it helps.
    scored(held_out, monkeypatch, {(0.3, 1.0): 0.0, (0.3, 0.5): -1.0})
    zero_inflated = ConditionalFlow(replace(config, parametrisation="zero_inflated"), flow.prior)
    assert held_out.choose(zero_inflated) == {"entry_time": 0.3, "correction_scale": 0.5}


@pytest.mark.parametrize("seed", range(20))
def test_lazy_looks_at_training_conditions_choose_what_looking_at_all_of_them_does(
    registered, held_out_of, monkeypatch, seed
):
    held_out, flow = held_out_of(registered)
    rng = np.random.default_rng(seed)
    choices = [
        (1.0, 1.0),
        *(
            (entry_time, correction_scale)
            for entry_time in ENTRY_TIMES
            if entry_time < 1
            for correction_scale in (1.0, 0.5)
        ),
    ]
    scores = {
        choice: Scores(rng.normal(size=12), 0.3 * rng.normal(size=12), rng.random(), np.zeros(12)) for choice in choices
    }
    trained = {choice: 0.1 * rng.normal(size=12) + 0.1 * rng.normal() for choice in choices}
    asked = []

    def where_trained(flow, choice):
        asked.append(choice)
        return trained[choice]

    monkeypatch.setattr(held_out, "_where_trained", where_trained)
    found = held_out._best(flow, scores, choices[0])

    def not_above(one, other):
        return (one - other).mean() <= (one - other).std(ddof=1) / np.sqrt(12)

    allowed = [choice for choice in choices if not_above(trained[choice], trained[choices[0]])]
    best = min(allowed, key=lambda choice: scores[choice].energies.mean())
    as_good = [choice for choice in allowed if not_above(scores[choice].energies, scores[best].energies)]
    assert found == max(as_good, key=lambda choice: scores[choice].cosine)
    assert len(asked) == len(set(asked))  # nothing is predicted twice


def test_what_one_draw_shows_to_be_worse_is_not_drawn_again(registered, held_out_of, monkeypatch):
    held_out, flow = held_out_of(registered)
    drawn = []
    sample = ConditionalFlow.sample

    def counted(self, *cells, **changes):
        drawn.append(changes["entry_time"])
        return sample(self, *cells, **changes)

    monkeypatch.setattr(ConditionalFlow, "sample", counted)
    scores = held_out.scores(flow, entry_time=1.0, correction_scale=1.0)
    assert drawn == 2 * N_DRAWS * [1.0]
    np.testing.assert_array_equal(
        scores.energies, held_out.energies(flow, entry_time=1.0, correction_scale=1.0, n_draws=N_DRAWS)
    )
    drawn.clear()
    torch.nn.init.normal_(flow.network.write.weight, std=30.0, generator=torch.Generator().manual_seed(0))
    assert held_out.scores(flow, limit=scores, entry_time=0.0, correction_scale=1.0) is None
    assert drawn == 2 * [0.0]


def test_guidance_is_the_smallest_that_is_not_told_apart(registered, held_out_of, monkeypatch):
    held_out, flow = held_out_of(registered)
    flow.configure(entry_time=0.0)
    weight, curve = held_out.guidance_curve(flow)
    assert weight in GUIDANCES
    assert curve["weight"].tolist() == list(GUIDANCES)
    assert all(np.isfinite(curve[name]).all() and curve[name].shape == (len(GUIDANCES),) for name in curve)
    assert ((curve["recall"] >= 0) & (curve["recall"] <= 1)).all()
    # The network is untrained and the distributions differ: only the distribution of the condition itself fits.
    assert weight == 1.0
    np.testing.assert_allclose(curve["energy_distance"][0], held_out.energies(flow, guidance=1.0).mean())


def test_early_stopping_keeps_the_best_validation(registered, monkeypatch):
    scores = iter([5.0, 3.0, 4.0, 6.0, 1.0])
    monkeypatch.setattr(HeldOutConditions, "energies", lambda self, flow, **options: np.array([next(scores)]))
    monkeypatch.setattr(HeldOutConditions, "choose", lambda self, flow: {"entry_time": 0.3, "correction_scale": 0.5})
    stopped = fitted(registered, max_steps=40, patience=2)
    assert stopped.history["valid_energy"].tolist() == [5.0, 3.0, 4.0, 6.0]
    assert stopped.history["valid_step"].tolist() == [5, 10, 15, 20]
    assert (stopped.config["entry_time"], stopped.config["correction_scale"]) == (0.3, 0.5)
    # The weights are those of step 10, which another ending does not change.
    scores = iter([5.0, 3.0, 3.5, 3.5])
    assert_same_weights(stopped, fitted(registered, max_steps=40, patience=2))


# --- imports


def test_unknown_name_in_models_is_an_attribute_error():
    from perturbflow import models

    with pytest.raises(AttributeError, match=r"module 'perturbflow\.models' has no attribute 'Primeflow'"):
        models.Primeflow  # noqa: B018
