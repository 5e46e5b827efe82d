from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from perturbflow.dynamics import (
    SPARSITIES,
    DynamicsSettings,
    DynamicsTrainer,
    FieldConfig,
    Trajectory,
    _matching,
    _shooting,
    _training,
)
from perturbflow.dynamics._optimiser import ProximalAdam

QUICK: dict[str, Any] = {
    "strengths": (0.01, 0.1),
    "n_candidates": 2,
    "matching_steps": 10,
    "path_steps": 5,
    "elimination_steps": 2,
    "shooting_steps": 4,
    "solving_steps": 2,
}
STAGES = ("choose_strength", "match", "eliminate", "shoot", "solve")


@cache
def runs(n=4, n_times=12, *, clamped=False) -> list[Trajectory]:
    """Gene 0 decays and drives gene 1, which represses gene 2."""
    rng = np.random.default_rng(1)
    time = np.linspace(0, 2, n_times)
    found = []
    for k in range(n):
        a, b, c = rng.uniform(0.3, 1.2, 3)
        x = a * np.exp(-time)
        y = (b + 2 * a * time) * np.exp(-time)
        z = c * np.exp(-2 * time) + 0.5 / (1 + y)
        values = np.column_stack([x, y, z])
        held = np.array([clamped and k == 0, False, False])
        values[:, held] = 0.25
        found.append(Trajectory(f"run {k}", time, values, np.ones(n_times), held))
    return found


def config(**options) -> FieldConfig:
    return FieldConfig(3, (0, 1, 2), **({"hidden": (4,)} | options))


def trainer(trajectories=None, *, field=None, factors=None, **settings) -> DynamicsTrainer:
    trajectories = runs() if trajectories is None else trajectories
    return DynamicsTrainer(
        trajectories, config() if field is None else field, DynamicsSettings(**(QUICK | settings)), factors=factors
    )


@pytest.fixture
def solves(monkeypatch):
    """Whole solutions are fitted even if short training has left them far from the observations."""
    monkeypatch.setattr(_training, "UNUSABLE", np.inf)


def assert_same(one, other) -> None:
    for name, value in one.field.state_dict().items():
        assert torch.equal(value, other.field.state_dict()[name]), name
    for name in ("start", "states", "evidence"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    assert (one.history, one.strength, one.threshold) == (other.history, other.strength, other.threshold)
    assert repr(one.path) == repr(other.path)


def test_result_holds_all_there_is_to_know(solves):
    one = trainer()
    model = one.fit()
    assert not one.interrupted
    assert model.names == tuple(t.name for t in runs())
    assert model.start.shape == (4, 3)
    np.testing.assert_array_equal(model.span, np.tile([0.0, 2.0], (4, 1)))
    assert list(model.path["strength"]) == [0.01, 0.1]
    assert sum(model.path["chosen"]) == 1
    assert model.strength in (0.01, 0.1)
    assert dict.fromkeys(model.history["stage"]).keys() == {"path", "matching", "shooting", "solving"}
    assert model.history["step"] == list(range(len(model.history["loss"])))
    assert np.isfinite(model.history["loss"]).all()
    assert model.evidence.shape == (3, 3)
    assert np.isfinite(model.solve(model.start, np.linspace(0, 4, 5))).all()
    assert not any(parameter.requires_grad for parameter in model.field.parameters())
    assert not model.support().diagonal().any()


def test_same_seed_same_fit():
    one, again, other = (trainer(seed=seed).fit() for seed in (3, 3, 4))
    assert_same(one, again)
    assert not torch.equal(one.field.matrices[0], other.field.matrices[0])


def test_errors_fall():
    model = trainer(strength=0.01, eliminate=False, matching_steps=60, shooting_steps=40).fit()
    table: dict[str, list[float]] = {str(stage): [] for stage in model.history["stage"]}
    for stage, loss in zip(model.history["stage"], model.history["loss"], strict=True):
        table[stage].append(loss)
    assert table["path"][59] < 0.8 * table["path"][0]
    assert table["shooting"][-1] < table["shooting"][0]


def test_given_strength_is_the_only_one():
    model = trainer(strength=0.03).fit()
    assert model.path["strength"] == [0.03]
    assert model.strength == 0.03
    assert model.path["chosen"] == [True]


@pytest.mark.parametrize("sparsity", ["group_lasso", "l0"])
def test_state_after_a_part_continues_to_the_same_result(solves, sparsity):
    whole = trainer(sparsity=sparsity)
    states: list[tuple[dict, dict]] = []

    def keep() -> None:
        tensors, values = whole.state()
        states.append(({name: tensor.clone() for name, tensor in tensors.items()}, deepcopy(values)))

    expected = whole.fit(after_part=keep)
    # Two strengths, all candidates and three rounds without one, and the stage; likewise the elimination of all data.
    assert [values["n_done"] for _, values in states] == [0] * 5 + [1, 2, 2, 2, 2, 3, 4, 5]
    for tensors, values in (states[2], states[6], states[-2]):  # tests of checkpoints go on from every part
        second = trainer(sparsity=sparsity)
        second.load_state(tensors, values)
        assert_same(second.fit(), expected)


@pytest.mark.parametrize(("n_done", "chosen"), [(-1, 0), (6, 0), (0, -1), (0, 2), (5, 2)])
def test_a_state_that_cannot_be_is_refused(n_done, chosen):
    tensors, values = trainer().state()
    values |= {"strengths": [0.01, 0.1], "n_edges": [1, 1]}
    with pytest.raises(ValueError, match=f"{n_done} stages and choice {chosen} of 2"):
        trainer().load_state(tensors, values | {"n_done": n_done, "chosen": chosen})


@pytest.mark.parametrize("stage", ["path", "matching", "shooting", "solving"])
def test_interrupted_step_keeps_what_was_learned(solves, stage):
    one = trainer()

    def stop(now: str, step: int, loss: float) -> None:
        del step, loss
        if now == stage:
            raise KeyboardInterrupt

    one.on_step = stop
    model = one.fit()
    assert one.interrupted
    assert model.history["stage"][-1] == stage
    assert np.isfinite(model.solve(model.start, [0.0, 1.0, 2.0])).all()
    assert np.isfinite(model.jacobian().mean.numpy()).all()


def test_interruption_before_anything_was_learned_is_one(monkeypatch):
    def stop(self) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(DynamicsTrainer, "choose_strength", stop)
    with pytest.raises(KeyboardInterrupt):
        trainer().fit()


@pytest.mark.parametrize("eliminate", [True, False])
def test_interruption_between_strengths_leaves_the_best_so_far(eliminate):
    expected = trainer(strengths=(0.01, 0.1), eliminate=eliminate)
    expected.choose_strength()
    one = trainer(strengths=(0.01, 0.1, 1.0), eliminate=eliminate)

    def stop(stage: str, step: int, loss: float) -> None:
        del loss
        if stage == "path" and step == 18:  # of the third strength: 10 of the first, 5 of every other
            raise KeyboardInterrupt

    one.on_step = stop
    one.fit()
    assert one.interrupted
    assert one.path.strengths == [0.01, 0.1]
    assert one.chosen == expected.chosen
    if not eliminate:
        expected.result()  # which fixes the support
    for name, value in expected.field.state_dict().items():
        if name != "allowed":
            assert torch.equal(value, one.field.state_dict()[name]), name


def nan_after(n_calls: int, whole, gene: int = 1):
    """Errors of which those of a gene are NaN from some call on, whose gradients spoil everything."""
    calls = []

    def errors(*args, **kwargs):
        calls.append(1)
        found = whole(*args, **kwargs)
        first = found[0] if isinstance(found, tuple) else found
        if len(calls) > n_calls and first.requires_grad:
            mask = torch.zeros_like(first)
            mask[gene] = torch.nan
            first = first + mask * first.detach()
        return (first, *found[1:]) if isinstance(found, tuple) else first

    return errors


@pytest.mark.parametrize("n_before", [0, 30])
def test_a_loss_that_is_not_finite_keeps_the_best_weights(monkeypatch, n_before):
    monkeypatch.setattr(_matching, "window_errors", nan_after(n_before, _matching.window_errors))
    one = trainer(strength=0.01, matching_steps=40)
    one.choose_strength()
    assert one.diverged["path"] == [1]
    losses = one.history["loss"]
    assert len(losses) == n_before
    assert np.isfinite(losses).all()
    expected = trainer(strength=0.01, matching_steps=40)
    if n_before:  # the steps before the copy at the 25th

        def stop(stage: str, step: int, loss: float) -> None:
            del stage, loss
            if step == 24:
                raise KeyboardInterrupt

        expected.on_step = stop
        monkeypatch.undo()
        with pytest.raises(KeyboardInterrupt):
            expected.choose_strength()
    else:
        expected = trainer(strength=0.01, matching_steps=0)
        expected.choose_strength()
    for name, value in expected.field.state_dict().items():
        assert torch.equal(value, one.field.state_dict()[name]), name


@pytest.mark.parametrize(
    ("module", "name", "stage"),
    [(_matching, "window_errors", "path"), (_shooting, "solution_errors", "shooting")],
)
def test_what_is_not_finite_ends_one_stage_and_not_the_fit(monkeypatch, solves, module, name, stage):
    monkeypatch.setattr(module, name, nan_after(3, getattr(module, name)))
    one = trainer()
    model = one.fit()
    assert one.diverged[stage] == [1]
    assert one.n_done == 5
    assert all(np.isfinite(value.numpy()).all() for value in model.field.state_dict().values())
    assert np.isfinite(model.solve(model.start, [0.0, 1.0])).all()


def test_a_mechanism_that_diverges_in_elimination_is_taken_back(monkeypatch):
    step = ProximalAdam.step

    def spoil(self, loss, *, strength):
        step(self, loss, strength=strength)
        if hasattr(self.field, "candidates"):  # in elimination
            with torch.no_grad():
                self.field.biases[0][self.field.targets == 2] = torch.nan

    monkeypatch.setattr(ProximalAdam, "step", spoil)
    one = trainer()
    model = one.fit()
    assert one.diverged["elimination"] == [2]
    assert all(np.isfinite(value.numpy()).all() for value in model.field.state_dict().values())
    assert not np.isnan(model.evidence).any()


@pytest.mark.parametrize("n_done", range(1, 5))
def test_interrupted_stage_leaves_those_before_it(n_done, monkeypatch):
    expected = trainer()
    for stage in STAGES[:n_done]:
        getattr(expected, stage)()

    def stop(self) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(DynamicsTrainer, STAGES[n_done], stop)
    one = trainer()
    model = one.fit()
    assert one.interrupted
    assert one.n_done == n_done
    assert_same(model, expected.result())


def test_interrupted_solution_is_that_of_short_solutions(solves):
    """In a line search weights are trials."""
    before = trainer()
    for stage in STAGES[:4]:
        getattr(before, stage)()
    one = trainer(solving_steps=40)
    seen = []

    def stop(stage: str, step: int, loss: float) -> None:
        del step, loss
        seen.append(stage)
        if seen.count("solving") == 4:
            raise KeyboardInterrupt

    one.on_step = stop
    model = one.fit()
    assert one.interrupted
    for name, value in model.field.state_dict().items():
        assert torch.equal(value, before.field.state_dict()[name]), name


def test_interrupted_solution_has_the_starts_of_its_weights(solves, monkeypatch):
    monkeypatch.setattr(_shooting, "WORTHWHILE", -1.0)  # goes on whatever it saves
    monkeypatch.setattr(_shooting, "ROUND", 2)
    expected, one = trainer(solving_steps=2), trainer(solving_steps=40)
    model = expected.fit()
    n_of_first = expected.history["stage"].count("solving")

    def stop(stage: str, step: int, loss: float) -> None:
        del loss
        if stage == "solving" and step == len(expected.history["step"]):  # of the second round
            raise KeyboardInterrupt

    one.on_step = stop
    found = one.fit()
    assert one.interrupted
    assert n_of_first > 0
    np.testing.assert_array_equal(found.start, model.start)
    for name, value in model.field.state_dict().items():
        assert torch.equal(value, found.field.state_dict()[name]), name


@pytest.mark.parametrize("sparsity", SPARSITIES)
def test_every_sparsity_gives_a_field_with_a_support(sparsity):
    kind = SPARSITIES[sparsity]
    for structure in kind.structures:
        hidden = {"linear": (), "dense": (6,)}.get(structure, (4,))
        field = config(structure=structure, hidden=hidden, skip=kind.needs_skip)
        for eliminate in (True, False) if structure == "per_target" else (True,):
            options: dict[str, Any] = {
                "sparsity": sparsity,
                "eliminate": eliminate,
                "strengths": (0.03,),
                "n_candidates": 1,
            }
            model = trainer(field=field, matching_steps=5, shooting_steps=2, **options).fit()
            assert np.isfinite(model.solve(model.start, [0.0, 1.0])).all(), structure
            assert (model.evidence.size > 0) == (eliminate and structure != "dense")
            weight = model.jacobian().magnitude.numpy()
            assert (weight[~model.support()] == 0).all()


def test_unknown_pair_of_field_and_sparsity():
    field = config(structure="dense", hidden=(4,))
    with pytest.raises(ValueError, match=r"Expected a field of structure \['per_target'\] .* found 'dense'"):
        trainer(field=field, sparsity="lassonet")


def test_prior_is_preferred_but_not_forced():
    factors = torch.ones(3, 3)
    factors[1] = torch.tensor([100.0, 1.0, 0.01])  # gene 0, the true regulator, is penalised
    options: dict[str, Any] = {"strength": 0.3, "eliminate": False, "matching_steps": 60, "learning_rate": 0.03}
    free, guided = trainer(**options).fit(), trainer(factors=factors, **options).fit()
    for model, stronger in ((free, 0), (guided, 2)):
        weight = model.jacobian().magnitude.numpy()[1]
        assert weight.argmax() == stronger


def test_held_gene_is_kept_at_what_was_observed(solves):
    model = trainer(runs(clamped=True), solving_steps=10).fit()
    found = model.solve(model.start, np.linspace(0, 2, 5), clamped=model.clamped)
    np.testing.assert_allclose(found[0, :, 0], 0.25, rtol=1e-4)
    assert np.ptp(found[1, :, 0]) > 0.1


@pytest.mark.parametrize(("n", "n_times"), [(1, 5), (2, 6), (1, 12)])
def test_little_data_is_enough(n, n_times):
    model = trainer(runs(n, n_times)).fit()
    assert np.isfinite(model.solve(model.start, [0.0, 1.0])).all()
    assert (model.threshold is None) == (n_times < 8)
    assert np.isnan(model.path["valid_error"]).all() == (n_times < 8)


def test_support_alone():
    one = trainer(strength=0.01)
    one.fit_support(0.0)
    full = one.result()
    assert {"matching"} == set(full.history["stage"])
    other = trainer(strength=0.01)
    other.fit_support(1e6)
    assert not other.result().support().any()
    assert full.support().sum() > 0
    third = trainer(strength=0.01)
    third.fit_support(None)
    assert third.threshold is None
    assert third.result().evidence.shape == (3, 3)


def test_second_order_knows_usual_rates():
    field = config(order=2, decay=False, production="free", self_regulation=True)
    model = trainer(field=field).fit()
    assert model.rates.shape == (4, 3)
    assert model.evidence.shape == (3, 6)
    x = model.states.astype(float)
    design = np.column_stack([np.ones(len(x)), x[:, :3]])
    # Residuals of least squares are orthogonal to the design.
    np.testing.assert_allclose(design.T @ (x[:, 3:] - design @ model.rates) / len(x), 0, atol=1e-6)


def test_many_states_are_drawn(monkeypatch):
    monkeypatch.setattr(_training, "STATES_OF_JACOBIAN", 17)
    assert trainer(strength=0.01, eliminate=False).fit().states.shape == (17, 3)


def test_steps_are_counted_up_to_whole_solutions():
    one = trainer()
    stages = one.fit().history["stage"]
    assert abs(one.n_steps() - (len(stages) - stages.count("solving"))) <= QUICK["solving_steps"]


def with_gene_at_rest(trajectories, level):
    """Put a gene that stays at a level between genes 0 and 1."""
    return [
        replace(t, values=np.insert(t.values, 1, level, axis=1), clamped=np.insert(t.clamped, 1, t.clamped[0]))
        for t in trajectories
    ]


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        ({}, {}),
        ({"order": 2, "decay": False, "production": "free", "self_regulation": True}, {}),
        ({"structure": "dense"}, {"sparsity": "l0"}),
        ({}, {"sparsity": "pathreg_edge", "eliminate": False}),
        ({"skip": True}, {"sparsity": "lassonet"}),
    ],
    ids=["default", "second order", "dense", "gates", "lassonet"],
)
def test_fit_is_that_without_the_genes_at_rest(options, settings):
    trajectories = runs(4, clamped=True)
    without = trainer(trajectories, field=config(**options), **settings).fit()
    field = FieldConfig(4, (0, 2, 3), **({"hidden": (4,), "at_rest": (1,)} | options))
    also = with_gene_at_rest(trajectories, 3.0)
    found = trainer(also, field=field, **settings).fit()
    moving = [0, 2, 3]
    np.testing.assert_allclose(found.units.scale[moving], without.units.scale)
    assert found.units.time == pytest.approx(without.units.time)
    assert (found.strength, found.threshold) == (without.strength, without.threshold)
    assert not found.support()[1].any()
    np.testing.assert_array_equal(found.support()[moving], without.support())
    for one, other in ((found.evidence, without.evidence), (found.jacobian().signed, without.jacobian().signed)):
        assert not len(one) or not one[1].any()
        np.testing.assert_allclose(one[moving] if len(one) else one, other, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found.path["valid_error"], without.path["valid_error"], rtol=1e-4)
    np.testing.assert_array_equal(found.clamped, [t.clamped for t in also])
    time = [0.0, 1.0, 3.0]
    solved = found.solve(found.start, time, clamped=found.clamped)
    expected = without.solve(without.start, time, clamped=without.clamped)
    np.testing.assert_allclose(solved[..., moving], expected, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(solved[..., 1], 3.0, rtol=1e-6)
    levels = np.array([[0.5, 7.0, 0.2, 1.0]])
    solved = found.solve(found.state(levels), time)
    np.testing.assert_allclose(solved[..., moving], without.solve(without.state(levels[:, moving]), time), atol=1e-4)
    np.testing.assert_allclose(solved[..., 1], 7.0, rtol=1e-6)
