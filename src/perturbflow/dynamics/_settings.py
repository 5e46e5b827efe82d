"""Settings of the fit of a field, as plain values."""

from __future__ import annotations

from dataclasses import dataclass

STRENGTHS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)


@dataclass(frozen=True)
class DynamicsSettings:
    """Settings of the fit of a field.

    Parameters
    ----------
    sparsity
        A name in ``SPARSITIES``.
    strength
        Strength of sparsity; None to choose it on held-out trajectories or times.
    strengths
        Strengths to choose from, ascending.
    eliminate
        Whether inputs are then removed one by one, with a network per target.
    n_candidates
        Inputs of a target that elimination begins with, at most.
    matching_steps, path_steps, elimination_steps, shooting_steps, solving_steps
        Steps of integral matching at the first strength and at each further one, after each removal of an input, of
        short solutions, and of solutions of whole trajectories.
    learning_rate
        Learning rate of Adam.
    segment
        Intervals between observations of a short solution.
    window
        Length of the windows of integral matching, a share of the number of observations.
    displacement
        Spread of the displaced copies of the curves from which solutions are taught to come back; 0 for none.
        Short solutions say nothing of states beside the observed ones and undo it: then no ``shooting_steps``.
    seed
        Seed of everything random.

    Examples
    --------
    >>> import perturbflow as pf
    >>> settings = pf.dynamics.DynamicsSettings(sparsity="l1", strength=0.01, eliminate=False)
    >>> settings.matching_steps, settings.sparsity in pf.dynamics.SPARSITIES
    (1000, True)
    """

    sparsity: str = "group_lasso"
    strength: float | None = None
    strengths: tuple[float, ...] = STRENGTHS
    eliminate: bool = True
    n_candidates: int = 8
    matching_steps: int = 1000
    path_steps: int = 300
    elimination_steps: int = 150
    shooting_steps: int = 150
    solving_steps: int = 300
    learning_rate: float = 0.01
    segment: int = 5
    window: float = 1 / 6
    displacement: float = 0.0
    seed: int = 0
