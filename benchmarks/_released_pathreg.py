"""PathReg as it was released, with its flaws, to be measured beside models without them.

Own implementation of what the released code does (Aliee et al. 2022, *Sparsity in Continuous-Depth Neural Networks*,
and its repository theislab/PathReg), which differs from the paper in the following:

- a gate belongs to an input unit of a layer, not to a weight: the product of the gates along paths is the same for
  every target (`gate_paths`);
- gates are sampled anew at every call of the right-hand side, so the adaptive solver sees a discontinuous vector field;
- gates are penalised by the values of one sample, not by the probability to be open;
- the learning rate is halved whenever the loss, which is noisy for these two reasons, has not improved for 20 steps.
"""

from __future__ import annotations

import time
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from _hematopoiesis import View
from torch import nn
from torchdiffeq import odeint, odeint_dense

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

STRENGTH = 0.01
GATE_STRENGTH = 0.1  # of the penalty of gates, relative to that of weights
HIDDEN = 100
DROP_RATES = (0.2, 0.5, 0.5)
TEMPERATURE, LOWER, UPPER = 2 / 3, -0.1, 1.1
TOLERANCE = 1e-3
LEARNING_RATE = 0.01
PLATEAU = {"factor": 0.5, "patience": 20, "threshold": 1e-6, "min_lr": 1e-16}
# Within a step the solver interpolates with a polynomial of degree 4, so levels at five points say what it is.
NODES = np.linspace(0.1, 0.9, 5)
TO_POWERS = torch.from_numpy(np.linalg.inv(np.vander(NODES, increasing=True)))
SMALLEST = 1e-5  # weights and products below it count as 0


class GatedLinear(nn.Module):
    """Linear layer with one hard-concrete gate for each of its inputs (Louizos, Welling & Kingma 2018, eq. 10 to 13)."""

    def __init__(self, n_in: int, n_out: int, *, drop_rate: float, generator: torch.Generator) -> None:
        super().__init__()
        self.generator = generator
        self.weight = nn.Parameter(torch.randn(n_out, n_in, generator=generator) * (2 / n_in) ** 0.5)
        self.bias = nn.Parameter(torch.zeros(n_out))
        log_odds = np.log((1 - drop_rate) / drop_rate)
        self.log_alpha = nn.Parameter(log_odds + 0.01 * torch.randn(n_in, generator=generator))

    def gates(self, *, sampled: bool) -> Tensor:
        """Values of the gates in [0, 1], shape (n_in,): a sample, or what replaces it in evaluation."""
        logit, temperature = self.log_alpha, 1.0
        if sampled:
            uniform = torch.rand(self.log_alpha.shape, generator=self.generator).clamp(1e-6, 1 - 1e-6)
            logit, temperature = logit + torch.logit(uniform), TEMPERATURE
        return (torch.sigmoid(logit / temperature) * (UPPER - LOWER) + LOWER).clamp(0, 1)


class ReleasedField(nn.Module):
    """Right-hand side d -> 100 -> ELU -> 100 -> d: no activation before the last layer, no decay, no time.

    In evaluation mode, which the released code never enters, gates are not sampled. ``together`` interpolates all
    times of a step at once: steps and levels are the same, and a solution at hundreds of times costs a fraction.
    """

    def __init__(self, n_genes: int, *, hidden: int = HIDDEN, together: bool = False, seed: int = 0) -> None:
        super().__init__()
        self.together = together
        generator = torch.Generator().manual_seed(seed)
        widths = (n_genes, hidden, hidden, n_genes)
        self.layers = nn.ModuleList(
            GatedLinear(n_in, n_out, drop_rate=rate, generator=generator)
            for n_in, n_out, rate in zip(widths[:-1], widths[1:], DROP_RATES, strict=True)
        )
        self.n_calls = 0
        self.accepted: list[tuple[Tensor, Tensor]] = []

    def forward(self, _: Tensor, state: Tensor) -> Tensor:
        """Rate of change of the levels, of the shape of the levels (..., d)."""
        self.n_calls += 1
        gates = self.gates()
        for i, layer in enumerate(self.layers):
            state = nn.functional.linear(state * gates[i], layer.weight, layer.bias)
            if i == 0:
                state = nn.functional.elu(state)
        return state

    def gates(self) -> list[Tensor]:
        """Gates of the layers: a new sample in training mode."""
        return [layer.gates(sampled=self.training) for layer in self.layers]

    def weight_path(self) -> Tensor:
        """Mean entry of ``|W3| |W2| |W1|``: no gates in it."""
        return reduce(
            lambda path, layer: layer.weight.abs() @ path, self.layers[1:], self.layers[0].weight.abs()
        ).mean()

    def solve(self, start: Tensor, at: Tensor) -> Tensor:
        """Levels at all times, shape (n, d), by the adaptive solver of the released code."""
        options = {"rtol": TOLERANCE, "atol": TOLERANCE, "method": "dopri5"}
        if not self.together:
            return odeint(self, start, at, **options)
        between = odeint_dense(self, start, at[0], at[-1], **options)
        accepted, self.accepted = self.accepted, []
        levels = [start[None]]
        for begin, length in accepted:
            inside = at[(at > begin) & (at <= begin + length)]
            nodes = torch.stack([between(begin + length * node) for node in NODES])
            powers = ((inside - begin) / length)[:, None] ** torch.arange(len(NODES))
            levels.append((powers @ TO_POWERS).to(nodes.dtype) @ nodes)
        return torch.cat(levels)

    def callback_accept_step(self, begin: Tensor, _: Tensor, length: Tensor) -> None:
        """Note a step that the solver makes, of which only `odeint_dense` needs to be told."""
        if self.together:
            self.accepted.append((begin, length))


def gate_paths(gates: Sequence[Tensor], *, n_targets: int) -> Tensor:
    """Sum over paths of the products of gates along them, shape (n_targets, n_inputs).

    The gate of a unit stands for all weights that leave it, ``G_l = 1 z_l^T`` of shape (n_out, n_in), so
    ``G3 G2 G1 = (sum z3) (sum z2) 1 z1^T``: all rows are equal, no target has regulators of its own.
    """
    widths = [*(gate.shape[0] for gate in gates[1:]), n_targets]
    masks = [gate.expand(n_out, -1) for gate, n_out in zip(gates, widths, strict=True)]
    return reduce(lambda path, mask: mask @ path, masks)


@dataclass(frozen=True, eq=False)
class Released:
    """A fitted model with the protocol of its training.

    ``history`` has a row for every iteration: seconds that the process had computed since the beginning, total and data
    loss before the step, both path terms, the learning rate after the scheduler's step, and calls of the right-hand side
    in the solves of all lineages. ``states`` are the parameters after chosen numbers of iterations and after the last.
    """

    model: ReleasedField
    views: Mapping[str, View]
    history: pd.DataFrame
    states: dict[int, dict[str, Tensor]] = field(repr=False)

    def at(self, iteration: int) -> Released:
        """Return the model as it was after so many iterations, one of ``states``."""
        model = deepcopy(self.model)
        model.load_state_dict(self.states[iteration])
        return replace(self, model=model)

    @property
    def seconds_per_iteration(self) -> float:
        """Seconds of computation that one iteration took."""
        return float(self.history["seconds"].iloc[-1] / len(self.history))


def fit_released(
    views: Mapping[str, View],
    *,
    strength: float = STRENGTH,
    max_iterations: int = 5000,
    seed: int = 0,
    seconds: float | None = None,
    keep: Sequence[int] = (),
    hidden: int = HIDDEN,
    together: bool = False,
    constant_rate: bool = False,
) -> Released:
    """Train as the released code does, on all lineages of one donor at every iteration.

    Loss: ``sum of the lineages' MSE + strength mean(|W3| |W2| |W1|) + 0.1 strength mean(G3 G2 G1)`` with newly sampled
    gates in the last term, Adam at .01, and a scheduler that looks at this loss.

    Parameters
    ----------
    views
        Trajectories by lineage, of `paper_views`.
    strength
        Weight of the penalties.
    max_iterations
        Number of steps; the released code makes 5,000.
    seed
        Seed of parameters and gates.
    seconds
        Stop after so many seconds of computation of this process.
    keep
        Numbers of iterations after which the parameters are kept for `Released.at`.
    hidden
        Width of the hidden layers, less only in small trials.
    together
        Interpolate all times of a step at once, see `ReleasedField`: the same protocol at its cheapest.
    constant_rate
        Leave out the scheduler, to see what it does.
    """
    model = ReleasedField(next(iter(views.values())).start.size, hidden=hidden, together=together, seed=seed)
    data = [_tensors(view) for view in views.values()]
    optimiser = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimiser, **PLATEAU)
    rows, states = [], {}
    began = time.process_time()
    for iteration in range(1, max_iterations + 1):
        calls = model.n_calls
        optimiser.zero_grad()
        data_loss = torch.stack([((model.solve(start, at) - values) ** 2).mean() for at, values, start in data]).sum()
        calls = model.n_calls - calls
        weight_path = model.weight_path()
        gate_path = gate_paths(model.gates(), n_targets=data[0][2].shape[0]).mean()
        loss = data_loss + strength * (weight_path + GATE_STRENGTH * gate_path)
        loss.backward()
        optimiser.step()
        if not constant_rate:
            scheduler.step(loss.detach())
        terms = [term.item() for term in (loss, data_loss, weight_path, gate_path)]
        spent = time.process_time() - began
        rows.append((iteration, spent, *terms, optimiser.param_groups[0]["lr"], calls))
        out_of_time = seconds is not None and spent > seconds
        if iteration in keep or iteration == max_iterations or out_of_time:
            states[iteration] = {name: value.clone() for name, value in model.state_dict().items()}
        if out_of_time:
            break
    columns = ["iteration", "seconds", "loss", "data_loss", "weight_path", "gate_path", "learning_rate", "n_calls"]
    return Released(model, dict(views), pd.DataFrame(rows, columns=columns), states)


@torch.no_grad()
def predict_released(
    fitted: Released, views: Mapping[str, View], *, sampled: bool = True, start: str = "own"
) -> dict[str, NDArray[np.float64]]:
    """Levels at the times of some views, by lineage.

    Parameters
    ----------
    fitted
        What `fit_released` returned.
    views
        Trajectories of any donor.
    sampled
        Sample gates, as the released code does also when it evaluates, or use their evaluation values.
    start
        Begin at the five cells of each trajectory ("own"), or at those of the training donor ("train").
    """
    if start not in {"own", "train"}:
        msg = f'Expected start "own" or "train", found {start!r}. Choose one of these.'
        raise ValueError(msg)
    fitted.model.train(sampled)
    begin = fitted.views if start == "train" else views
    solved = {
        lineage: fitted.model.solve(_tensors(begin[lineage])[2], _tensors(view)[0]) for lineage, view in views.items()
    }
    fitted.model.train()
    return {lineage: levels.numpy().astype(np.float64) for lineage, levels in solved.items()}


def evaluate_released(
    fitted: Released, views: Mapping[str, View], *, sampled: bool = True, start: str = "own", n_draws: int = 1
) -> float:
    """Sum of the mean squared errors of the lineages, averaged over draws of the gates; see `predict_released`."""
    totals = []
    for _ in range(n_draws):
        solved = predict_released(fitted, views, sampled=sampled, start=start)
        totals.append(sum(float(((solved[name] - view.values) ** 2).mean()) for name, view in views.items()))
    return float(np.mean(totals))


@torch.no_grad()
def gate_states(fitted: Released, *, is_regulator: NDArray[np.bool_] | None = None) -> pd.DataFrame:
    """Sparsity in the measures of the released code, from one sample of the gates and from their evaluation values.

    Fractions of gates that are closed, of each layer (that of the first is the "feature sparsity"), and of those of
    genes that regulate nothing in the base network ("spurious sparsity", if these are given); fraction of gated weights
    below 1e-5 ("model sparsity"); number of different rows in the gates' path product, which has one row for each target.
    """
    rows = {}
    for mode in ("sampled", "evaluation"):
        gates = [layer.gates(sampled=mode == "sampled") for layer in fitted.model.layers]
        paths = gate_paths(gates, n_targets=gates[0].shape[0])
        weights = [
            (layer.weight * gate).abs() < SMALLEST for layer, gate in zip(fitted.model.layers, gates, strict=True)
        ]
        row = {f"closed_{i + 1}": float((gate < SMALLEST).double().mean()) for i, gate in enumerate(gates)}
        row |= {f"mean_{i + 1}": float(gate.mean()) for i, gate in enumerate(gates)}
        row["feature_sparsity"] = float((paths < SMALLEST).double().mean())
        if is_regulator is not None:
            row["spurious_sparsity"] = float((paths[:, ~torch.from_numpy(is_regulator)] < SMALLEST).double().mean())
        row["model_sparsity"] = float(torch.cat([weight.flatten() for weight in weights]).double().mean())
        row["different_targets"] = len(torch.unique(paths, dim=0))
        rows[mode] = row
    return pd.DataFrame.from_dict(rows, orient="index")


def reasons_of_failure(fitted: Released, donors: Mapping[str, Mapping[str, View]], *, n_draws: int = 5) -> pd.DataFrame:
    """Errors of every donor by what is evaluated: as released, gates not sampled, and start of the training donor."""
    cases = {
        "as released": {"sampled": True, "start": "own"},
        "start of the training donor": {"sampled": True, "start": "train"},
        "evaluation mode": {"sampled": False, "start": "own"},
        "evaluation mode, start of the training donor": {"sampled": False, "start": "train"},
    }
    return pd.DataFrame(
        {
            donor: {
                case: evaluate_released(fitted, views, n_draws=n_draws if options["sampled"] else 1, **options)
                for case, options in cases.items()
            }
            for donor, views in donors.items()
        }
    )


def _tensors(view: View) -> tuple[Tensor, Tensor, Tensor]:
    """Times, values and start; times stay in double precision, in which neighbours differ."""
    return (
        torch.from_numpy(view.time),
        torch.from_numpy(view.values).float(),
        torch.from_numpy(view.start).float(),
    )
