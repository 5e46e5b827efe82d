"""Fitting a sparse vector field to trajectories, stage by stage."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from perturbflow.dynamics._elimination import Backward, Elimination, on_support
from perturbflow.dynamics._field import TargetField, VectorField, build_field, mean_jacobian
from perturbflow.dynamics._fitted import FittedDynamics, keep_support, strong_inputs, usual_rates
from perturbflow.dynamics._matching import match, matching_error
from perturbflow.dynamics._movement import rest
from perturbflow.dynamics._penalties import SPARSITIES, GroupLasso, Sparsity
from perturbflow.dynamics._problem import Problem, hold_out, start_from_data, with_returns
from perturbflow.dynamics._progress import StrengthPath, Unfinished, restore, state_of, states_of
from perturbflow.dynamics._settings import DynamicsSettings, FieldConfig
from perturbflow.dynamics._shooting import UNUSABLE, UNUSABLE_ATTRACTED, make_segments, shoot, solve
from perturbflow.dynamics._trajectory import Trajectory

SMALLEST_PATH = 0.01  # share of a target's strongest path below which an input is taken for absent
STATES_OF_JACOBIAN = 2000
USUAL_THRESHOLD = 0.1  # of evidence, where nothing is held out

OnStep = Callable[[str, int, float], None]


def _nothing() -> None:
    """Do nothing after a part of the fit."""


class DynamicsTrainer:
    """Fits a field in stages, each ready for use when it is done or interrupted.

    Integral matching along the strengths of sparsity, on a part of the data, chooses the strength; matching at that
    strength on all data and backward elimination give the support; with the support fixed, short solutions from many
    starts and then whole trajectories fit the observations themselves.

    Parameters
    ----------
    trajectories
        Observations.
    config
        What the field is made of.
    settings
        How it is fitted.
    factors
        How much each input of each gene is penalised (d, n_inputs), from a prior.
    on_step
        Called with the stage, the step and the loss.

    Raises
    ------
    ValueError
        If the sparsity is not one of fields of this structure.

    Examples
    --------
    >>> import perturbflow as pf
    >>> time = np.linspace(0.0, 6.0, 31)
    >>> circle = np.column_stack([np.cos(time), np.sin(time)])  # dx/dt = -y, dy/dt = x
    >>> run = pf.dynamics.Trajectory("run", time, circle, np.ones(31), np.zeros(2, dtype=bool))
    >>> config = pf.dynamics.FieldConfig(
    ...     2, (0, 1), structure="linear", decay=False, production="free", self_regulation=True
    ... )
    >>> settings = pf.dynamics.DynamicsSettings(
    ...     sparsity="none", strength=0.0, eliminate=False, matching_steps=400, shooting_steps=5, solving_steps=5
    ... )
    >>> fitted = pf.dynamics.DynamicsTrainer([run], config, settings).fit()
    >>> found = fitted.jacobian().mean  # of dx/dt and dy/dt by x and y
    >>> bool(np.allclose(found, [[0, -1], [1, 0]], atol=0.05))
    True
    """

    @torch.inference_mode(mode=False)
    def __init__(
        self,
        trajectories: Sequence[Trajectory],
        config: FieldConfig,
        settings: DynamicsSettings,
        *,
        factors: Tensor | None = None,
        on_step: OnStep | None = None,
    ) -> None:
        kind = SPARSITIES[settings.sparsity]
        if config.structure not in kind.structures:
            msg = (
                f"Expected a field of structure {list(kind.structures)} for sparsity {settings.sparsity!r}, found "
                f"{config.structure!r}. Choose another `field` or `sparsity`."
            )
            raise ValueError(msg)
        self.config, self.settings, self.factors = config, settings, factors
        self.trajectories = list(trajectories)
        at_rest = np.isin(np.arange(config.n_genes), config.at_rest)
        self.moving = [rest(t, at_rest) for t in trajectories]
        self.on_step = on_step
        self.generator = torch.Generator().manual_seed(settings.seed)
        self.whole = Problem.of(self.moving, order=config.order, window=settings.window)
        self.field = build_field(config, seed=settings.seed)
        self.sparsity = self._sparsity(self.field)
        self.path, self.chosen, self.n_done = StrengthPath(), 0, 0
        self.threshold: float | None = None
        self.evidence = torch.zeros(0, 0)
        self.start = make_segments(self.whole, order=config.order).start
        self.history: dict[str, list] = {"stage": [], "step": [], "loss": []}
        self.interrupted = False
        self.diverged: dict[str, list[int]] = {}  # genes, by the stage that their errors ended
        self.unfinished = Unfinished()
        self.after_part: Callable[[], None] = _nothing

    @torch.inference_mode(mode=False)
    @torch.enable_grad()
    def fit(self, *, after_part: Callable[[], None] | None = None) -> FittedDynamics:
        """Run all that is not done; Ctrl-C ends it with what was learned so far.

        Parameters
        ----------
        after_part
            Called when :meth:`state` has something new: after each strength, removal of inputs, and stage.

        Returns
        -------
        The model.

        Raises
        ------
        KeyboardInterrupt
            If nothing was learned before.
        """
        self.after_part = after_part or _nothing
        stages = (self.choose_strength, self.match, self.eliminate, self.shoot, self.solve)
        try:
            for stage in stages[self.n_done :]:
                stage()
                self.n_done += 1
                self.unfinished = Unfinished()
                self.after_part()
        except KeyboardInterrupt:
            if not self.history["step"]:
                raise
            self.interrupted = True
            if self.unfinished.tried and self.unfinished.removals is None:  # between two strengths, with half a fit
                self._take_chosen()
        return self.result()

    def fit_support(self, threshold: float | None) -> None:
        """Find only the support, at the given strength and threshold of evidence, without holding anything out.

        Parameters
        ----------
        threshold
            Evidence that an input needs to stay in elimination; that of a fit without held-out data if None.
        """
        self.threshold = threshold
        start_from_data(self.field, self.whole.chunks)
        self._match(
            self.whole,
            self.settings.strength or 0.0,
            n_steps=self.settings.matching_steps,
            learning_rate=self.settings.learning_rate,
            fresh=True,
            stage="matching",
        )
        self.eliminate()

    def n_steps(self) -> int:
        """Return the number of steps of all stages, those of elimination not among them.

        Returns
        -------
        The number, for progress bars.
        """
        settings = self.settings
        n_strengths = len(settings.strengths) if settings.strength is None else 1
        path = settings.matching_steps + (n_strengths - 1) * settings.path_steps
        return path + settings.matching_steps // 2 + settings.shooting_steps

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return what the next stages need, tensors and plain values.

        Returns
        -------
        Tensors by name, and plain values by name.
        """
        return state_of(self)

    def load_state(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Continue from what :meth:`state` returned.

        Parameters
        ----------
        tensors
            Tensors by name.
        values
            Plain values by name.
        """
        restore(self, tensors, values)

    def choose_strength(self) -> None:
        """Fit along the strengths on a part of the data, and judge on the rest."""
        settings = self.settings
        strengths = settings.strengths if settings.strength is None else (settings.strength,)
        train, valid, _ = hold_out(self.moving, order=self.config.order, seed=settings.seed, window=settings.window)
        if not self.path.strengths:
            start_from_data(self.field, self.whole.chunks)
        for k, strength in list(enumerate(strengths))[len(self.path.strengths) :]:
            self._match(
                train,
                strength,
                n_steps=settings.matching_steps if k == 0 else settings.path_steps,
                learning_rate=settings.learning_rate * (1.0 if k == 0 else 0.5),
                fresh=k == 0,
                stage="path",
            )
            weights = self.sparsity.expected(self.field.weights())
            error = matching_error(self.field, train.chunks, weights)
            outside = None if valid is None else matching_error(self.field, valid.chunks, weights)
            n_edges = int(strong_inputs(self.field, weights, smallest=SMALLEST_PATH).sum())
            self.path.add(strength, error, outside, n_edges)
            self.unfinished.tried.append(states_of(self.field, self.sparsity))
            # Elimination makes it sparse: what it begins with should lack nothing.
            self.chosen = self.path.best() if self._eliminates else self.path.choose()
            self.after_part()
        self._take_chosen()
        if self._eliminates and valid is not None:
            self.threshold = self._eliminate(train, valid).choose_threshold()

    def _take_chosen(self) -> None:
        """Go back to the weights at the strength that is chosen."""
        field_state, sparsity_state = self.unfinished.tried[self.chosen]
        self.field.load_state_dict(field_state)
        self.sparsity.load_state_dict(sparsity_state)

    @property
    def _eliminates(self) -> bool:
        return self.settings.eliminate and isinstance(self.field, TargetField)

    @property
    def strength(self) -> float:
        """The strength that was chosen, or given."""
        return self.path.strengths[self.chosen] if self.path.strengths else 0.0

    def match(self) -> None:
        """Fit all data at the chosen strength; where the penalty decides the support, with its adaptive factors."""
        if isinstance(self.sparsity, GroupLasso) and not self._eliminates:
            self.sparsity.adapt(self.field)
        self._match(
            self.whole,
            self.strength,
            n_steps=self.settings.matching_steps // 2,
            learning_rate=self.settings.learning_rate,
            fresh=False,
            stage="matching",
        )

    def eliminate(self) -> None:
        """Fix the support: by elimination, or as the penalty left it."""
        if self._eliminates:
            elimination = self._eliminate(self.whole, None)
            self.evidence = elimination.evidence
            field = elimination.field(USUAL_THRESHOLD if self.threshold is None else self.threshold)
            self.field.load_state_dict(field.state_dict())
        else:
            keep_support(self.field, self.sparsity.expected(self.field.weights()), smallest=SMALLEST_PATH)
        self.sparsity = Sparsity(self.field)

    def shoot(self) -> None:
        """Fit short solutions from starts on the smooth curves to the observations."""
        with on_support(self.field) as field:
            genes = shoot(
                field,
                make_segments(self.whole, order=self.config.order, n_intervals=self.settings.segment),
                n_steps=self.settings.shooting_steps,
                learning_rate=0.3 * self.settings.learning_rate,
                generator=self.generator,
                on_step=self._recorder("shooting"),
            )
        self._note("shooting", genes)

    def solve(self) -> None:
        """Fit solutions of whole trajectories to the observations, and where they start."""
        with on_support(self.field) as field:
            genes = solve(
                field,
                make_segments(self.whole, order=self.config.order),
                start=self.start,
                n_steps=self.settings.solving_steps,
                unusable=UNUSABLE_ATTRACTED if self.settings.displacement > 0 else UNUSABLE,
                on_step=self._recorder("solving"),
            )
        self._note("solving", genes)

    def result(self) -> FittedDynamics:
        """Return the model as it is now.

        Returns
        -------
        The model, of its own: further training does not change it.
        """
        if type(self.sparsity) is not Sparsity:  # interrupted before the support was fixed
            keep_support(self.field, self.sparsity.expected(self.field.weights()), smallest=SMALLEST_PATH)
        states = self.whole.chunks.state[:, :-1][self.whole.chunks.step > 0]
        if len(states) > STATES_OF_JACOBIAN:
            states = states[torch.randperm(len(states), generator=self.generator)[:STATES_OF_JACOBIAN]]
        field = copy.deepcopy(self.field).requires_grad_(False)
        return FittedDynamics(
            field=field,
            units=self.whole.units,
            names=tuple(t.name for t in self.trajectories),
            start=self.start.double().numpy(),
            span=np.array([[t.time[0], t.time[-1]] for t in self.trajectories]),
            clamped=np.stack([t.clamped for t in self.trajectories]),
            states=states.numpy(),
            rates=usual_rates(states.double().numpy(), self.config),
            evidence=(self.field.of_all_genes(self.evidence) if self.evidence.numel() else self.evidence).numpy(),
            path=self.path.to_columns(self.chosen) if self.path.strengths else {},
            history=self.history,
            strength=self.strength,
            threshold=self.threshold,
        )

    def _sparsity(self, field: VectorField) -> Sparsity:
        kind = SPARSITIES[self.settings.sparsity]
        factors = None if self.factors is None else self.factors[field.targets]
        return kind(field, factors=factors)

    def _match(
        self, problem: Problem, strength: float, *, n_steps: int, learning_rate: float, fresh: bool, stage: str
    ) -> None:
        genes = match(
            self.field,
            self.sparsity,
            with_returns(problem, self.settings, self.config).chunks,
            strength=strength,
            n_steps=n_steps,
            learning_rate=learning_rate,
            generator=self.generator,
            n_free_steps=n_steps // 10 if fresh else 0,
            on_step=self._recorder(stage),
        )
        self._note(stage, genes)

    def _note(self, stage: str, genes: list[int]) -> None:
        """Note genes whose errors became infinite or NaN."""
        if genes:
            self.diverged[stage] = sorted({*self.diverged.get(stage, []), *genes})

    def _eliminate(self, train: Problem, valid: Problem | None) -> Elimination:
        assert isinstance(self.field, TargetField)
        settings = self.settings
        backward = Backward(
            with_returns(train, self.settings, self.config).chunks,
            None if valid is None else valid.chunks,
            n_steps=settings.elimination_steps,
            learning_rate=settings.learning_rate,
            generator=self.generator,
        )
        removals = self.unfinished.removals
        if removals is None:
            weights = self.sparsity.expected(self.field.weights())
            states = self.whole.chunks.state[:, :-1][self.whole.chunks.step > 0]
            states = states[torch.randperm(len(states), generator=self.generator)[:STATES_OF_JACOBIAN]]
            importance = mean_jacobian(self.field, states, weights).magnitude * self.field.allowed
            field = copy.deepcopy(self.field)
            keep_support(field, weights, smallest=0.0)
            removals = backward.begin(field, importance, n_candidates=settings.n_candidates)
            self.unfinished.removals = removals
            self.after_part()
        while backward.remove(removals):
            self.after_part()
        self.unfinished.removals = None
        self._note("elimination", self.field.targets[removals.diverged].tolist())
        return removals

    def _recorder(self, stage: str) -> Callable[[float], None]:
        def record(loss: float) -> None:
            step = len(self.history["step"])
            self.history["stage"].append(stage)
            self.history["step"].append(step)
            self.history["loss"].append(loss)
            if self.on_step is not None:
                self.on_step(stage, step, loss)

        return record
