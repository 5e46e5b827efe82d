"""Fitting a sparse vector field to trajectories, stage by stage."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from perturbflow.dynamics._compact import on_support
from perturbflow.dynamics._elimination import Elimination, eliminate
from perturbflow.dynamics._field import TargetField, VectorField, build_field
from perturbflow.dynamics._field_config import FieldConfig
from perturbflow.dynamics._fitted import FittedDynamics, keep_support, usual_rates
from perturbflow.dynamics._group_lasso import GroupLasso
from perturbflow.dynamics._held_out import hold_out
from perturbflow.dynamics._jacobian import mean_jacobian
from perturbflow.dynamics._match import match, matching_error
from perturbflow.dynamics._movement import rest
from perturbflow.dynamics._penalties import SPARSITIES
from perturbflow.dynamics._polish import shoot, solve
from perturbflow.dynamics._problem import Problem, start_from_data
from perturbflow.dynamics._settings import DynamicsSettings
from perturbflow.dynamics._shooting import make_segments
from perturbflow.dynamics._sparsity import Sparsity
from perturbflow.dynamics._strength import StrengthPath, count_edges
from perturbflow.dynamics._trajectory import Trajectory

SMALLEST_PATH = 0.01  # share of a target's strongest path below which an input is taken for absent
STATES_OF_JACOBIAN = 2000
USUAL_THRESHOLD = 0.1  # of evidence, where nothing is held out

OnStep = Callable[[str, int, float], None]


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
    >>> import numpy as np
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
        self.path = StrengthPath()
        self.chosen = 0
        self.threshold: float | None = None
        self.evidence = torch.zeros(0, 0)
        self.n_done = 0
        self.start = make_segments(self.whole, order=config.order).start
        self.history: dict[str, list] = {"stage": [], "step": [], "loss": []}
        self.interrupted = False

    @torch.inference_mode(mode=False)
    @torch.enable_grad()
    def fit(self, *, after_stage: Callable[[], None] | None = None) -> FittedDynamics:
        """Run all stages that are not done; Ctrl-C ends them with what was learned so far.

        Parameters
        ----------
        after_stage
            Called after each stage.

        Returns
        -------
        The model.
        """
        stages = (self.choose_strength, self.match, self.eliminate, self.shoot, self.solve)
        try:
            for stage in stages[self.n_done :]:
                stage()
                self.n_done += 1
                if after_stage is not None:
                    after_stage()
        except KeyboardInterrupt:
            self.interrupted = True
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
        tensors = {f"field.{name}": v.contiguous() for name, v in self.field.state_dict().items()}
        tensors |= {f"sparsity.{name}": v.contiguous() for name, v in self.sparsity.state_dict().items()}
        tensors |= {"start": self.start, "generator": self.generator.get_state(), "evidence": self.evidence}
        if self.path.strengths:
            tensors |= {"train": torch.stack(self.path.train), "valid": torch.stack(self.path.valid)}
        values = {
            "n_done": self.n_done,
            "chosen": self.chosen,
            "threshold": self.threshold,
            "strengths": self.path.strengths,
            "n_edges": self.path.n_edges,
            "history": self.history,
            "fixed": type(self.sparsity) is Sparsity,
        }
        return tensors, values

    def load_state(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Continue from what :meth:`state` returned.

        Parameters
        ----------
        tensors
            Tensors by name.
        values
            Plain values by name.
        """

        def part(prefix: str) -> dict[str, Tensor]:
            return {name.removeprefix(prefix): v for name, v in tensors.items() if name.startswith(prefix)}

        self.field.load_state_dict(part("field."))
        if values["fixed"]:
            self.sparsity = Sparsity(self.field)
        self.sparsity.load_state_dict(part("sparsity."))
        self.start, self.evidence = tensors["start"], tensors["evidence"]
        self.generator.set_state(tensors["generator"])
        self.n_done, self.chosen, self.threshold = values["n_done"], values["chosen"], values["threshold"]
        self.history = dict(values["history"])
        self.path = StrengthPath(
            strengths=list(values["strengths"]),
            train=list(tensors["train"]) if "train" in tensors else [],
            valid=list(tensors["valid"]) if "valid" in tensors else [],
            n_edges=list(values["n_edges"]),
        )

    def choose_strength(self) -> None:
        """Fit along the strengths on a part of the data, and judge on the rest."""
        settings = self.settings
        strengths = settings.strengths if settings.strength is None else (settings.strength,)
        train, valid, _ = hold_out(self.moving, order=self.config.order, seed=settings.seed, window=settings.window)
        start_from_data(self.field, self.whole.chunks)
        states = []
        for k, strength in enumerate(strengths):
            self._match(
                train,
                strength,
                n_steps=settings.matching_steps if k == 0 else settings.path_steps,
                learning_rate=settings.learning_rate * (1.0 if k == 0 else 0.5),
                fresh=k == 0,
                stage="path",
            )
            error, _ = matching_error(self.field, self.sparsity, train.chunks)
            outside = None if valid is None else matching_error(self.field, self.sparsity, valid.chunks)[0]
            expected = self.sparsity.expected(self.field.weights())
            n_edges = count_edges(*self.sparsity.split(expected), smallest=SMALLEST_PATH)
            self.path.add(strength, error, outside, n_edges)
            states.append((copy.deepcopy(self.field.state_dict()), copy.deepcopy(self.sparsity.state_dict())))
            # Elimination makes it sparse: what it begins with should lack nothing.
            self.chosen = self.path.best() if self._eliminates else self.path.choose()
        field_state, sparsity_state = states[self.chosen]
        self.field.load_state_dict(field_state)
        self.sparsity.load_state_dict(sparsity_state)
        if self._eliminates and valid is not None:
            self.threshold = self._eliminate(train, valid).choose_threshold()

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
            shoot(
                field,
                make_segments(self.whole, order=self.config.order, n_intervals=self.settings.segment),
                n_steps=self.settings.shooting_steps,
                learning_rate=0.3 * self.settings.learning_rate,
                generator=self.generator,
                on_step=self._recorder("shooting"),
            )

    def solve(self) -> None:
        """Fit solutions of whole trajectories to the observations, and where they start."""
        with on_support(self.field) as field:
            self.start = solve(
                field,
                make_segments(self.whole, order=self.config.order),
                start=self.start,
                n_steps=self.settings.solving_steps,
                on_step=self._recorder("solving"),
            )

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
        return kind(field, factors=factors, **self.settings.sparsity_options)

    def _match(
        self, problem: Problem, strength: float, *, n_steps: int, learning_rate: float, fresh: bool, stage: str
    ) -> None:
        match(
            self.field,
            self.sparsity,
            problem.chunks,
            strength=strength,
            n_steps=n_steps,
            learning_rate=learning_rate,
            generator=self.generator,
            n_free_steps=n_steps // 10 if fresh else 0,
            on_step=self._recorder(stage),
        )

    def _eliminate(self, train: Problem, valid: Problem | None) -> Elimination:
        assert isinstance(self.field, TargetField)
        settings = self.settings
        weights = self.sparsity.expected(self.field.weights())
        states = self.whole.chunks.state[:, :-1][self.whole.chunks.step > 0]
        states = states[torch.randperm(len(states), generator=self.generator)[:STATES_OF_JACOBIAN]]
        importance = mean_jacobian(self.field, states, weights).magnitude * self.field.allowed
        field = copy.deepcopy(self.field)
        keep_support(field, weights, smallest=0.0)
        return eliminate(
            field,
            importance,
            train.chunks,
            None if valid is None else valid.chunks,
            n_candidates=settings.n_candidates,
            n_steps=settings.elimination_steps,
            learning_rate=settings.learning_rate,
            generator=self.generator,
        )

    def _recorder(self, stage: str) -> Callable[[float], None]:
        def record(loss: float) -> None:
            step = len(self.history["step"])
            self.history["stage"].append(stage)
            self.history["step"].append(step)
            self.history["loss"].append(loss)
            if self.on_step is not None:
                self.on_step(stage, step, loss)

        return record
