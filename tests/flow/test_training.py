from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from scipy import sparse

from perturbflow.flow import AdditiveHurdlePrior, CellData, ConditionalFlow, FlowConfig, FlowTrainer, TrainingSettings

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


def new_trainer(flow=None, cells=CELLS, **settings):
    settings = {"max_steps": 12, "batch_size": 32, "validate_every": 3, "warmup_steps": 4} | settings
    return FlowTrainer(new_flow() if flow is None else flow, cells, TrainingSettings(**settings))


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
    trainer = new_trainer(flow, max_steps=250, batch_size=128, validate_every=25, learning_rate=3e-3)
    return flow, trainer.run()


def test_training_lowers_the_loss(trained):
    _, history = trained
    assert history["loss"][-1] < 0.85 * history["loss"][0]
    assert (np.diff(history["loss"])[:4] < 0).all()


def test_training_learns_the_dependence_between_genes(trained):
    flow, _ = trained
    doses, codes, n = np.ones(1, dtype=np.float32), np.zeros(1, dtype=int), 1500

    def dependence(trust):
        cells = flow.sample(
            np.zeros((n, N_GENES), dtype=np.float32), doses, codes, rng=np.random.default_rng(0), trust=trust
        )
        return np.corrcoef(cells.T)[np.triu_indices(N_GENES, 1)]

    rows = np.flatnonzero(CELLS.perturbations.toarray()[:, 0])
    truth = np.corrcoef(CELLS.x[rows].T)[np.triu_indices(N_GENES, 1)]
    errors = {trust: np.sqrt(np.mean((dependence(trust) - truth) ** 2)) for trust in (0.0, 1.0)}
    assert errors[0.0] > 0.4
    assert errors[1.0] < 0.4 * errors[0.0]


def test_two_runs_are_identical():
    flows = [new_flow(), new_flow()]
    torch.manual_seed(0)
    first = new_trainer(flows[0]).run()
    torch.manual_seed(1)  # nothing depends on the global generator
    second = new_trainer(flows[1]).run()
    assert equal(weights(flows[0]), weights(flows[1]))
    assert (first["loss"] == second["loss"]).all()
    other = new_flow()
    new_trainer(other, seed=1).run()
    assert not equal(weights(flows[0]), weights(other))


def test_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    new_trainer().run()
    assert (torch.get_rng_state() == before).all()


def test_sparse_cells_train_the_same_flow():
    flows = [new_flow(), new_flow()]
    new_trainer(flows[0]).run()
    new_trainer(flows[1], CellData(sparse.csr_matrix(CELLS.x), CELLS.perturbations, CELLS.covariates)).run()
    assert equal(weights(flows[0]), weights(flows[1]))


def test_history_and_schedule():
    steps, rates = [], []

    def record(trainer):
        steps.append(trainer.step)
        rates.append(trainer.optimiser.param_groups[0]["lr"])

    trainer = new_trainer(max_steps=20, validate_every=8, learning_rate=1e-2)
    history = trainer.run(
        validate=scores([3.0, 2.0, 1.0])[0],
        on_step=record,
    )
    assert steps == list(range(1, 21))
    assert history["step"].tolist() == history["valid_step"].tolist() == [8, 16, 20]
    assert history["valid_energy"].tolist() == [3, 2, 1]
    assert history["learning_rate"].tolist() == [rates[7], rates[15], rates[19]]
    assert (np.diff(history["seconds"]) > 0).all()
    cosine = [0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * i / 20)) for i in range(20)]
    assert rates == pytest.approx([1e-2 * min(1, (i + 1) / 4) * c for i, c in enumerate(cosine)])


def test_averaged_weights_follow_the_network():
    flow = new_flow()
    trainer = new_trainer(flow, max_steps=3)
    shown, averages = [], []

    def record(trainer):
        shown.append(weights(flow))
        averages.append(trainer._averaged_weights())

    trainer.run(on_step=record)
    assert equal(averages[0], shown[0])  # the initial weights are forgotten
    for name in shown[0]:
        torch.testing.assert_close(averages[1][name], shown[0][name].lerp(shown[1][name], 1 - 2 / 11))
        torch.testing.assert_close(averages[2][name], averages[1][name].lerp(shown[2][name], 1 - 3 / 12))
    assert equal(weights(flow), averages[2])


def test_the_best_weights_are_kept():
    flow = new_flow()
    validate, seen = scores([3.0, 1.0, 2.0, 5.0])
    trainer = new_trainer(flow)
    trainer.run(validate=validate)
    assert trainer.step == 12
    assert trainer.best_score == 1.0
    assert equal(weights(flow), seen[1])
    assert not equal(seen[1], seen[3])
    assert not flow.training


def test_early_stopping():
    flow = new_flow()
    validate, seen = scores([1.0, 2.0, 0.5, 0.6, 0.7, 0.1])
    trainer = new_trainer(flow, max_steps=100, patience=2)
    history = trainer.run(validate=validate)
    assert trainer.step == 15
    assert history["valid_step"].tolist() == [3, 6, 9, 12, 15]
    assert equal(weights(flow), seen[2])
    assert not trainer.interrupted


def test_validation_does_not_change_training():
    flows, last = [new_flow(), new_flow()], []
    for flow, validate in zip(flows, (None, scores([1.0] * 4)[0]), strict=True):
        new_trainer(flow).run(
            validate=validate, on_step=lambda t: last.append(weights(t.flow)) if t.step == 12 else None
        )
    assert equal(last[0], last[1])


def interrupt_at(step):
    def on_step(trainer):
        if trainer.step == step:
            raise KeyboardInterrupt

    return on_step


def test_interruption_keeps_the_best_weights():
    flow = new_flow()
    validate, seen = scores([1.0, 2.0, 3.0])
    trainer = new_trainer(flow)
    trainer.run(validate=validate, on_step=interrupt_at(7))
    assert trainer.interrupted
    assert trainer.step == 7
    assert equal(weights(flow), seen[0])
    assert not flow.training


def test_interruption_before_any_validation_keeps_the_average():
    flow = new_flow()
    trainer = new_trainer(flow)
    trainer.run(on_step=interrupt_at(2))
    assert trainer.interrupted
    assert equal(weights(flow), trainer._averaged_weights())


def test_interruption_within_a_validation():
    flow = new_flow()
    validate, seen = scores([1.0])  # the second call fails

    def interrupted(flow):
        if seen:
            raise KeyboardInterrupt
        return validate(flow)

    trainer = new_trainer(flow)
    trainer.run(validate=interrupted)
    assert trainer.interrupted
    assert equal(weights(flow), seen[0])


def test_other_errors_are_not_swallowed():
    def fails(_):
        msg = "no"
        raise RuntimeError(msg)

    with pytest.raises(RuntimeError, match="no"):
        new_trainer().run(on_step=fails)


def test_time_limit():
    flow = new_flow()
    validate, seen = scores([1.0])
    trainer = new_trainer(flow, max_minutes=1e-9)
    history = trainer.run(validate=validate)
    assert trainer.step == 1  # and that step is validated
    assert history["valid_step"].tolist() == [1]
    assert equal(weights(flow), seen[0])


@pytest.mark.parametrize("stop", [2, 3, 7])
def test_a_resumed_run_is_the_uninterrupted_one(stop):
    values = [3.0, 1.0, 2.0, 4.0]
    saved = {}

    def save(trainer):
        if trainer.step == stop:
            saved["tensors"], saved["values"] = trainer.state()

    whole = new_trainer()
    expected = whole.run(validate=scores(values)[0], on_step=save)
    assert saved["values"]["step"] == stop  # a copy: training went on

    resumed = new_trainer()
    resumed.load_state(saved["tensors"], json.loads(json.dumps(saved["values"])))
    found = resumed.run(validate=scores(values[stop // 3 :])[0])
    assert equal(weights(resumed.flow), weights(whole.flow))
    assert equal(resumed._averaged_weights(), whole._averaged_weights())
    for name in expected:
        if name != "seconds":
            assert (found[name] == expected[name]).all()


def test_state_is_a_copy():
    trainer = new_trainer()
    saved = []
    trainer.run(on_step=lambda t: saved.append(t.state()) if t.step == 4 else None)
    tensors, values = saved[0]
    other = new_trainer()
    other.load_state(tensors, values)
    other.run()
    assert values["history"]["step"] == [3]
    assert not torch.equal(tensors["network/write.weight"], other.flow.network.state_dict()["write.weight"])


def test_loss_that_is_not_finite():
    x = CELLS.x.copy()
    x[:, 0] = np.inf
    flow = new_flow()
    before = weights(flow)
    trainer = new_trainer(flow, CellData(x, CELLS.perturbations, CELLS.covariates))
    with pytest.raises(FloatingPointError, match=r"finite loss, found .* at step 1\. Lower `learning_rate`"):
        trainer.run()
    assert equal(weights(flow), before)


def test_dropped_conditions_get_the_pooled_law():
    batches = new_trainer().batches
    generator = torch.Generator().manual_seed(0)
    _, law, condition = batches.draw(64, generator, whole=1.0, part=0.0)
    pooled = PRIOR.pooled_law()
    assert (condition == 0).all()
    assert (law.expressed.numpy() == pooled.expressed).all()
    assert (law.mean.numpy() == pooled.mean).all()
    # A part that is dropped is only hidden from the network: the law stays that of the condition.
    _, law, condition = batches.draw(64, generator, whole=0.0, part=1.0)
    assert (condition[:, 0] == 1).all()
    assert (condition[:, 1:] == 0).all()
    assert not (law.mean.numpy() == pooled.mean).all(1).any()


def test_batches_hold_cells_with_their_own_condition():
    x, law, condition = new_trainer().batches.draw(200, torch.Generator().manual_seed(0), whole=0.0, part=0.0)
    rows = [int(np.flatnonzero((CELLS.x == cell).all(1))[0]) for cell in x.numpy()]
    doses = CELLS.perturbations.toarray()[rows, 0]
    assert (condition[:, 1].numpy() == doses).all()
    laws = [PRIOR.law(np.array([dose]), PRIOR.context(np.zeros(1, dtype=int))) for dose in (0, 1)]
    assert (law.mean.numpy() == np.stack([laws[int(dose)].mean for dose in doses])).all()
    assert (law.expressed.numpy() == np.stack([laws[int(dose)].expressed for dose in doses])).all()


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
