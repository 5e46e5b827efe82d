from __future__ import annotations

import math
import os
import signal
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.loggers import CSVLogger
from scipy import sparse

from perturbflow.flow import (
    AdditiveHurdlePrior,
    CellData,
    ConditionalFlow,
    FlowConfig,
    TrainingConditions,
    TrainingSettings,
)
from perturbflow.train import AveragedWeights, Checkpoint, train_flow
from perturbflow.train._checkpoint import LightningState
from perturbflow.train._flow_plan import NonFiniteLossError

N_GENES = 16


def toy_cells(n=1500, seed=0):
    """Half the genes follow a hidden state of the cell, half its opposite; the perturbation shifts means."""
    rng = np.random.default_rng(seed)
    state, perturbed = rng.random((2, n)) < 0.5
    active = np.where(np.arange(N_GENES) < N_GENES // 2, state[:, None], ~state[:, None])
    expressed = rng.random((n, N_GENES)) < np.where(active, 0.9, 0.1)
    x = np.where(expressed, rng.normal(2, 0.3, (n, N_GENES)) + 0.5 * perturbed[:, None], 0)
    return CellData(x.astype(np.float32), perturbed[:, None], np.zeros((n, 1), dtype=int))


CELLS = toy_cells()
PRIOR = AdditiveHurdlePrior.fit(CELLS)


def new_flow(width=32, **settings):
    return ConditionalFlow(FlowConfig(N_GENES, 1, (1,), width=width, **settings), PRIOR)


class Steps(Callback):
    """Calls a function with the plan and the averaged weights after every step."""

    def __init__(self, call):
        self.call = call

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        averaged = next(own for own in trainer.callbacks if isinstance(own, AveragedWeights))
        self.call(batch.number + 1, pl_module, averaged.average)


def train(flow, cells=CELLS, *, validate=None, on_step=None, callbacks=(), checkpoint=None, options=None, **settings):
    settings = {"max_steps": 12, "batch_size": 32, "validate_every": 3, "warmup_steps": 4} | settings
    callbacks = [*callbacks, *([] if on_step is None else [Steps(on_step)])]
    return train_flow(
        flow,
        cells,
        TrainingSettings(**settings),
        validate=validate,
        checkpoint=None if checkpoint is None else Checkpoint(checkpoint, LightningState(), fit={"fit": 1}),
        trainer_options={"callbacks": callbacks} | (options or {}),
    )


def weights(flow):
    return {name: tensor.clone() for name, tensor in flow.network.state_dict().items()}


def equal(a, b):
    assert a.keys() == b.keys()
    return all(torch.equal(a[name], b[name]) for name in a)


def scores(values):
    """A validation that gives these scores in turn, and keeps the weights it was shown."""
    seen = []

    def validate(flow):
        seen.append(weights(flow))
        return values[len(seen) - 1]

    return validate, seen


@pytest.fixture(scope="module")
def trained():
    flow = new_flow(width=64, source="noise")
    trained = train(flow, max_steps=250, batch_size=128, validate_every=25, learning_rate=3e-3)
    return flow, trained.history


def test_training_lowers_the_loss(trained):
    _, history = trained
    assert history["loss"][-1] < 0.85 * history["loss"][0]
    assert (np.diff(history["loss"])[:4] < 0).all()


def test_training_learns_the_dependence_between_genes(trained):
    flow, _ = trained
    doses, codes, n = np.ones(1, dtype=np.float32), np.zeros(1, dtype=int), 1500

    def dependence(correction_scale):
        cells = flow.sample(
            np.zeros((n, N_GENES), dtype=np.float32),
            doses,
            codes,
            rng=np.random.default_rng(0),
            correction_scale=correction_scale,
        )
        return np.corrcoef(cells.T)[np.triu_indices(N_GENES, 1)]

    rows = np.flatnonzero(CELLS.perturbations.toarray()[:, 0])
    truth = np.corrcoef(CELLS.x[rows].T)[np.triu_indices(N_GENES, 1)]
    errors = {
        correction_scale: np.sqrt(np.mean((dependence(correction_scale) - truth) ** 2))
        for correction_scale in (0.0, 1.0)
    }
    assert errors[0.0] > 0.4
    assert errors[1.0] < 0.4 * errors[0.0]


def test_two_runs_are_identical():
    flows = [new_flow(), new_flow()]
    torch.manual_seed(0)
    first = train(flows[0]).history
    torch.manual_seed(1)  # nothing depends on the global generator
    second = train(flows[1]).history
    assert equal(weights(flows[0]), weights(flows[1]))
    assert (first["loss"] == second["loss"]).all()
    other = new_flow()
    train(other, seed=1)
    assert not equal(weights(flows[0]), weights(other))


def test_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    train(new_flow())
    assert (torch.get_rng_state() == before).all()


def test_sparse_cells_train_the_same_flow():
    flows = [new_flow(), new_flow()]
    train(flows[0])
    train(flows[1], CellData(sparse.csr_matrix(CELLS.x), CELLS.perturbations, CELLS.covariates))
    assert equal(weights(flows[0]), weights(flows[1]))


def test_history_and_schedule():
    steps, rates = [], []

    def record(step, plan, average):
        steps.append(step)
        rates.append(plan.optimizers().param_groups[0]["lr"])

    trained = train(
        new_flow(),
        max_steps=20,
        validate_every=8,
        learning_rate=1e-2,
        validate=scores([3.0, 2.0, 1.0])[0],
        on_step=record,
    )
    history = trained.history
    assert steps == list(range(1, 21))
    assert history["step"].tolist() == history["valid_step"].tolist() == [8, 16, 20]
    assert history["valid_energy"].tolist() == [3, 2, 1]
    assert (np.diff(history["seconds"]) > 0).all()
    cosine = [0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * i / 20)) for i in range(20)]
    expected = [1e-2 * min(1, (i + 1) / 4) * c for i, c in enumerate(cosine)]
    assert rates == pytest.approx([*expected[1:], 1e-2 * 0.01])  # after the step, that of the next one
    assert history["learning_rate"].tolist() == pytest.approx([expected[7], expected[15], expected[19]])


def test_averaged_weights_follow_the_network():
    flow = new_flow()
    shown, averages = [], []

    def record(step, plan, average):
        shown.append(weights(flow))
        averages.append({name: tensor.clone() for name, tensor in average.items()})

    train(flow, max_steps=3, on_step=record)
    assert equal(averages[0], shown[0])  # the initial weights are forgotten
    for name in shown[0]:
        torch.testing.assert_close(averages[1][name], shown[0][name].lerp(shown[1][name], 1 - 2 / 11))
        torch.testing.assert_close(averages[2][name], averages[1][name].lerp(shown[2][name], 1 - 3 / 12))
    assert equal(weights(flow), averages[2])


@pytest.mark.parametrize("limit", [1e-3, 1e3])
def test_gradients_are_clipped(limit):
    before, after = [], []

    class Norms(Callback):
        """Notes the norm of the gradient before it is clipped, and as the optimiser has seen it."""

        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            before.append(self.norm(pl_module))

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            after.append(self.norm(pl_module))

        @staticmethod
        def norm(plan):
            gradients = [p.grad for p in plan.flow.network.parameters() if p.grad is not None]
            return float(torch.cat([gradient.flatten() for gradient in gradients]).norm())

    train(new_flow(), max_steps=3, gradient_clip=limit, callbacks=[Norms()])
    assert len(after) == 3
    assert after == pytest.approx(np.minimum(before, limit), rel=1e-3)
    assert min(before) > 1e-3  # so that the lower limit does something


def test_the_best_weights_are_kept():
    flow = new_flow()
    validate, seen = scores([3.0, 1.0, 2.0, 5.0])
    trained = train(flow, validate=validate)
    assert trained.steps == 12
    assert trained.history["valid_energy"].tolist() == [3, 1, 2, 5]
    assert equal(weights(flow), seen[1])
    assert not equal(seen[1], seen[3])
    assert not flow.training


def test_early_stopping():
    flow = new_flow()
    validate, seen = scores([1.0, 2.0, 0.5, 0.6, 0.7, 0.1])
    trained = train(flow, max_steps=100, patience=2, validate=validate)
    assert trained.steps == 15
    assert trained.history["valid_step"].tolist() == [3, 6, 9, 12, 15]
    assert equal(weights(flow), seen[2])
    assert not trained.interrupted


def test_validation_does_not_change_training():
    last = []
    for validate in (None, scores([1.0] * 4)[0]):
        train(
            new_flow(),
            validate=validate,
            on_step=lambda step, plan, average: last.append(weights(plan.flow)) if step == 12 else None,
        )
    assert equal(last[0], last[1])


def interrupt_at(moment, *, signal_number=None):
    def on_step(step, plan, average):
        if step == moment:
            if signal_number is None:
                raise KeyboardInterrupt
            os.kill(os.getpid(), signal_number)

    return on_step


@pytest.mark.parametrize("number", [None, signal.SIGINT, signal.SIGTERM])
def test_interruption_keeps_the_best_weights(number):
    flow = new_flow()
    validate, seen = scores([1.0, 2.0, 3.0])
    handlers = [signal.getsignal(own) for own in (signal.SIGINT, signal.SIGTERM)]
    trained = train(flow, validate=validate, on_step=interrupt_at(7, signal_number=number))
    assert trained.interrupted
    assert trained.steps == 6 if number is None else 7  # a step that an error cut short does not count
    assert equal(weights(flow), seen[0])
    assert not flow.training
    assert [signal.getsignal(own) for own in (signal.SIGINT, signal.SIGTERM)] == handlers


def test_interruption_before_any_validation_keeps_the_average():
    flow, averages = new_flow(), []

    def on_step(step, plan, average):
        averages.append({name: tensor.clone() for name, tensor in average.items()})
        interrupt_at(2)(step, plan, average)

    assert train(flow, on_step=on_step).interrupted
    assert equal(weights(flow), averages[1])


def test_interruption_within_a_validation():
    flow = new_flow()
    validate, seen = scores([1.0])  # the second call fails

    def interrupted(flow):
        if seen:
            raise KeyboardInterrupt
        return validate(flow)

    assert train(flow, validate=interrupted).interrupted
    assert equal(weights(flow), seen[0])


def test_other_errors_are_not_swallowed():
    def fails(*_):
        msg = "no"
        raise RuntimeError(msg)

    with pytest.raises(RuntimeError, match="no"):
        train(new_flow(), on_step=fails)


def test_time_limit():
    flow = new_flow()
    validate, seen = scores([1.0, 2.0])
    trained = train(flow, max_minutes=1e-9, validate=validate)
    assert trained.steps == 1  # and that step is validated
    assert trained.history["valid_step"].tolist() == [1]
    assert equal(weights(flow), seen[0])


@pytest.mark.parametrize("stop", [2, 3, 7, 12])
@pytest.mark.parametrize("max_steps", [12, 14])
def test_a_resumed_run_is_the_uninterrupted_one(stop, max_steps, tmp_path):
    values = [3.0, 1.0, 2.0, 4.0, 5.0]
    whole = new_flow()
    expected = train(whole, validate=scores(values)[0], max_steps=max_steps).history

    def crash(step, plan, average):
        if step == stop:
            msg = "crash"
            raise RuntimeError(msg)

    with pytest.raises(RuntimeError, match="crash"):
        train(new_flow(), validate=scores(values)[0], on_step=crash, checkpoint=tmp_path / "saved", max_steps=max_steps)
    resumed = new_flow()
    steps = []
    found = train(
        resumed,
        validate=scores(values[(stop - 1) // 3 :])[0],
        on_step=lambda step, plan, average: steps.append(step),
        checkpoint=tmp_path / "saved",
        max_steps=max_steps,
    )
    assert steps == list(range((stop - 1) // 3 * 3 + 1, max_steps + 1))
    assert equal(weights(resumed), weights(whole))
    for name in expected:
        if name != "seconds":
            assert (found.history[name] == expected[name]).all()


def test_a_complete_run_is_not_trained_further(tmp_path):
    first, again, steps = new_flow(), new_flow(), []
    train(first, validate=scores([2.0, 1.0, 3.0, 4.0])[0], checkpoint=tmp_path)
    trained = train(again, checkpoint=tmp_path, on_step=lambda *_: steps.append(1), validate=scores([])[0])
    assert not steps
    assert trained.steps == 12
    assert equal(weights(first), weights(again))


def test_a_run_that_was_stopped_early_is_not_trained_further(tmp_path):
    first, again, steps = new_flow(), new_flow(), []
    options = {"checkpoint": tmp_path, "max_steps": 30, "patience": 1}
    train(first, validate=scores([2.0, 1.0, 3.0])[0], **options)
    trained = train(again, on_step=lambda *_: steps.append(1), validate=scores([])[0], **options)
    assert not steps
    assert trained.steps == 9
    assert equal(weights(first), weights(again))


def test_a_loss_that_is_not_finite_names_genes_and_groups():
    x = CELLS.x.copy()
    x[CELLS.perturbations.toarray()[:, 0] > 0, 3] = np.inf
    flow = new_flow()
    before = weights(flow)
    with pytest.raises(NonFiniteLossError, match=r"finite loss, found NaN or infinity at step 1\. Lower") as raised:
        train(flow, CellData(x, CELLS.perturbations, CELLS.covariates))
    assert equal(weights(flow), before)
    assert raised.value.genes == [3]
    assert raised.value.groups == [1]
    named = raised.value.named([f"gene {i}" for i in range(N_GENES)], ["control", "drug"].__getitem__)
    assert "at step 1 from genes 'gene 3' in conditions 'drug'. Check" in str(named)


def test_a_loss_that_is_not_finite_after_a_validation_keeps_the_best_weights():
    flow = new_flow()
    validate, seen = scores([1.0, 2.0])

    def spoil(step, plan, average):
        if step == 7:
            with torch.no_grad():
                next(plan.flow.network.parameters()).fill_(torch.nan)

    trained = train(flow, validate=validate, on_step=spoil)
    assert trained.interrupted
    assert trained.failure is not None
    assert trained.failure.step == 8
    assert equal(weights(flow), seen[0])


def test_callbacks_loggers_and_options_of_lightning(tmp_path):
    calls: list[Any] = []

    class Seen(Callback):
        def on_fit_start(self, trainer, pl_module):
            calls.append("start")

        def on_validation_end(self, trainer, pl_module):
            calls.append(float(trainer.callback_metrics["valid_energy"]))

        def on_fit_end(self, trainer, pl_module):
            calls.append("end")

    logger = CSVLogger(tmp_path, name="log", flush_logs_every_n_steps=1)
    train(
        new_flow(),
        validate=scores([3.0, 2.0, 1.0, 4.0])[0],
        callbacks=[Seen()],
        options={"logger": logger, "log_every_n_steps": 1},
    )
    assert calls == ["start", 3.0, 2.0, 1.0, 4.0, "end"]
    table = pd.read_csv(tmp_path / "log/version_0/metrics.csv")
    assert table["valid_energy"].dropna().tolist() == [3.0, 2.0, 1.0, 4.0]
    assert table["train_loss"].dropna().size == 12
    assert np.isfinite(table["train_loss"].dropna()).all()


def test_dropped_conditions_get_the_pooled_law():
    flow = new_flow()
    grouping = CELLS.grouping()
    conditions, group = TrainingConditions(flow, grouping), torch.arange(64) % len(grouping)
    generator = torch.Generator().manual_seed(0)
    hidden = flow.encoder.draw_mask(64, whole=1.0, part=0.0, generator=generator)
    distribution, condition = conditions.look_up(group, *hidden)
    pooled = PRIOR.pooled_distribution()
    assert (condition == 0).all()
    assert (distribution.expressed.numpy() == pooled.expressed).all()
    assert (distribution.mean.numpy() == pooled.mean).all()
    # A part that is dropped is only hidden from the network: the distribution stays that of the condition.
    hidden = flow.encoder.draw_mask(64, whole=0.0, part=1.0, generator=generator)
    distribution, condition = conditions.look_up(group, *hidden)
    assert (condition[:, 0] == 1).all()
    assert (condition[:, 1:] == 0).all()
    assert not (distribution.mean.numpy() == pooled.mean).all(1).any()


def test_cells_have_their_own_condition_and_law():
    flow, grouping = new_flow(), CELLS.grouping()
    group = torch.as_tensor(grouping.codes)
    shown = flow.encoder.draw_mask(len(CELLS), whole=0.0, part=0.0, generator=torch.Generator())
    distribution, condition = TrainingConditions(flow, grouping).look_up(group, *shown)
    doses = CELLS.perturbations.toarray()[:, 0]
    assert (condition[:, 1].numpy() == doses).all()
    distributions = [PRIOR.distribution(np.array([dose]), PRIOR.context(np.zeros(1, dtype=int))) for dose in (0, 1)]
    assert (distribution.mean.numpy() == np.stack([distributions[int(dose)].mean for dose in doses])).all()
    assert (distribution.expressed.numpy() == np.stack([distributions[int(dose)].expressed for dose in doses])).all()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"max_steps": 0}, "`max_steps` to be at least 1, found 0"),
        ({"batch_size": 0}, "`batch_size` to be at least 1, found 0"),
        ({"warmup_steps": 0}, "`warmup_steps` to be at least 1, found 0"),
        ({"validate_every": -1}, "`validate_every` to be at least 1, found -1"),
        ({"patience": 0}, "`patience` to be at least 1, found 0"),
        ({"condition_dropout": 1.0}, "`condition_dropout` to be at least 0 and below 1, found 1.0"),
        ({"part_dropout": -0.1}, "`part_dropout` to be at least 0 and below 1, found -0.1"),
        ({"learning_rate": 0.0}, "`learning_rate` to be above 0, found 0.0"),
        ({"gradient_clip": float("nan")}, "`gradient_clip` to be above 0, found nan"),
    ],
)
def test_bad_settings(changed, message):
    with pytest.raises(ValueError, match=message):
        TrainingSettings(**changed)
