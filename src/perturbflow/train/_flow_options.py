"""Options of a fit of a flow, and the presets that give the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from types import MappingProxyType
from typing import Any, Literal, TypedDict

from perturbflow._checks import check_one_of, check_options, check_type, listing
from perturbflow.flow import TrainingSettings

# Where else a setting is given than in a dictionary that it was found in.
_ARGUMENTS = dict.fromkeys(("max_steps", "seed"), "an argument of its own")
_OF_TRAINER = {"precision": "one of the trainer's options: '32-true' or 'bf16-mixed'", "lr": "called `learning_rate`"}
_FROM_CONTROLS = {"parametrisation": "zero_inflated", "source": "control", "network": "mlp"}
# Recipes: every choice that differs from the defaults of the configuration and of training.
PRESETS: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = MappingProxyType(
    {
        "default": ({**_FROM_CONTROLS, "method": "multistep"}, {}),
        # The prior alone, in closed form: predictions enter the path at its end, where the network has no say.
        "prior": ({**_FROM_CONTROLS, "width": 8, "n_blocks": 1, "entry_time": 1.0}, {}),
        # PRiMeFlow (arXiv 2604.13986): gene space, noise, independent coupling, U-Net, plain velocity, Dopri5. Its batches of
        # 38 to 54 cells are those of one of several devices that accumulate: several hundred in all. What the paper's text
        # leaves open (widths, optimiser) is chosen such that small panels are learned to the end on a CPU.
        "primeflow": (
            {
                "parametrisation": "velocity",
                "source": "noise",
                "network": "unet",
                "width": 16,
                "n_blocks": 1,
                "network_options": {"multipliers": (1, 2, 2, 2)},
                "stratified": False,
                "method": "dopri5",
            },
            {"learning_rate": 2e-3, "part_dropout": 0.0},
        ),
    }
)


class FlowModelKwargs(TypedDict, total=False):
    """Options of the model; the preset decides what is left out.

    Attributes
    ----------
    parametrisation
        What the network's output means: the correction of the exact velocity of independent zero-inflated genes
        ("zero_inflated", the default), the same for Gaussian genes ("gaussian"), or the velocity itself ("velocity"), as in
        the paper.
    source
        What a prediction starts from: control cells, moved by the prior ("control", the default), or noise as in the paper.
    network
        The velocity network: "mlp" (the default), "unet" or "token_unet", the names in ``perturbflow.flow.NETWORKS``.
    width
        Hidden width of the network; for a U-Net the channels of its first level.
    n_blocks
        Number of its residual blocks; for a U-Net those of every level.
    network_options
        Further options of the network, for example ``{"multipliers": [1, 2, 4]}``; see its class in
        ``perturbflow.flow``.
    zeros
        Which small values are zeros where the parametrisation makes none of its own: those below thresholds of every gene
        that give training cells' share of zeros ("learned", the default), those nearer to zero than to the smallest value
        that was seen ("rounded"), or "none".
    guidance
        Weight of classifier-free guidance in predictions. "auto", the default, chooses it on the validation conditions (the
        lowest energy distance, in doubt the smaller weight); without any it is 1.

    Examples
    --------
    >>> import perturbflow as pf
    >>> chosen = pf.models.FlowModelKwargs(network="unet", width=8)
    >>> pf.models.FlowOptions.of(model_kwargs=chosen).model["width"]
    8
    """

    parametrisation: Literal["zero_inflated", "gaussian", "velocity"]
    source: Literal["control", "noise"]
    network: Literal["mlp", "unet", "token_unet"]
    width: int
    n_blocks: int
    network_options: Mapping[str, Any]
    zeros: Literal["learned", "rounded", "none"]
    guidance: float | Literal["auto"]


class FlowPlanKwargs(TypedDict, total=False):
    """Options of the fit; the preset decides what is left out. Defaults are those of the default preset.

    Attributes
    ----------
    batch_size
        Cells a step; 256.
    learning_rate
        Peak learning rate of AdamW, after a linear warm-up and before a cosine decay; 0.001.
    weight_decay
        Weight decay of AdamW; 0.01.
    warmup_steps
        Steps of the warm-up; 50.
    gradient_clip
        Largest norm of the gradient; 1.
    condition_dropout
        Probability that the whole condition is dropped in training, for classifier-free guidance; 0.2.
    part_dropout
        Probability that the network is not told the perturbations, and each covariate, apart; 0.3.
    max_minutes
        Stop training after this many minutes; no limit by default. Two runs are then no longer identical.
    validate_every
        Steps between validations; 100.
    patience
        Validations without improvement before training stops; 8.
    window
        Neighbouring cells that are drawn together; each for itself by default. For files of very many cells, of which whole
        windows are read faster.
    compile_network
        Whether ``torch.compile`` translates the network; not by default. It pays in long fits on a GPU.
    calibrate
        Whether the prior is cross-validated (about twenty fits of it, in closed form), so that the uncertainties that
        predictions state are calibrated; True. Otherwise they are those of the prior's posterior.

    Examples
    --------
    >>> import perturbflow as pf
    >>> pf.models.FlowOptions.of(plan_kwargs=pf.models.FlowPlanKwargs(patience=3)).training.patience
    3
    """

    batch_size: int
    learning_rate: float
    weight_decay: float
    warmup_steps: int
    gradient_clip: float
    condition_dropout: float
    part_dropout: float
    max_minutes: float
    validate_every: int
    patience: int
    window: int
    compile_network: bool
    calibrate: bool


_NOT_OF_PLAN = dict.fromkeys(FlowModelKwargs.__annotations__, "one of the model's options") | _ARGUMENTS | _OF_TRAINER
_NOT_OF_MODEL = dict.fromkeys(FlowPlanKwargs.__annotations__, "a key of `plan_kwargs`") | _ARGUMENTS | _OF_TRAINER


@dataclass(frozen=True)
class FlowOptions:
    """Checked options of a fit of a flow, with everything else as the preset has it.

    Parameters
    ----------
    model
        Settings of :class:`perturbflow.flow.FlowConfig`, without its numbers of genes, components and categories.
    training
        How the network is trained.
    guidance
        Weight of classifier-free guidance, or "auto" to choose it on the validation conditions.
    calibrate
        Whether to cross-validate the prior, so that stated uncertainties are calibrated.

    Examples
    --------
    >>> import perturbflow as pf
    >>> options = pf.models.FlowOptions.of("primeflow", max_steps=100)
    >>> options.model["network"], options.training.max_steps, options.training.batch_size
    ('unet', 100, 256)
    >>> pf.models.FlowOptions.of(plan_kwargs={"learning_rat": 0.01})
    Traceback (most recent call last):
    TypeError: Expected keys of `plan_kwargs` among ['batch_size', ...
    """

    model: Mapping[str, Any]
    training: TrainingSettings
    guidance: float | Literal["auto"] = "auto"
    calibrate: bool = True

    @classmethod
    def of(
        cls,
        preset: str = "default",
        *,
        model_kwargs: FlowModelKwargs | None = None,
        plan_kwargs: FlowPlanKwargs | None = None,
        max_steps: int = 1500,
        seed: int = 0,
        inherited: Mapping[str, Any] | None = None,
    ) -> FlowOptions:
        """Return the options of a preset with a user's own choices in their place.

        Parameters
        ----------
        preset, model_kwargs, plan_kwargs, max_steps, seed
            As in :func:`perturbflow.tl.fit_flow`.
        inherited
            Settings of the network that an earlier flow has, in place of the preset's.

        Returns
        -------
        The options.

        Raises
        ------
        TypeError
            If a key is unknown, or a value of the wrong type.
        ValueError
            If the preset is unknown, a value is out of its range, or the preset trains no network and choices for one
            are made.
        """
        check_one_of(preset, PRESETS, name="preset")
        model = check_options(
            model_kwargs, FlowModelKwargs.__annotations__, name="model_kwargs", elsewhere=_NOT_OF_MODEL
        )
        plan = check_options(plan_kwargs, FlowPlanKwargs.__annotations__, name="plan_kwargs", elsewhere=_NOT_OF_PLAN)
        guidance, calibrate = model.pop("guidance", "auto"), plan.pop("calibrate", True)
        if guidance != "auto":
            kind = () if isinstance(guidance, bool) else Real
            check_type(guidance, kind, name="guidance", expected='"auto" or a number')
        check_type(calibrate, bool, name="calibrate", expected="True or False")
        of_model, of_plan = PRESETS[preset]
        training = TrainingSettings(**{**of_plan, **plan, "max_steps": max_steps, "seed": seed})
        if preset == "prior":
            steps = ["max_steps"] if max_steps != TrainingSettings.max_steps else []
            chosen = sorted([*model, *plan, *steps, *(["init_from"] if inherited else [])])
            if chosen:
                msg = (
                    f"Expected no {listing(chosen)} with `preset='prior'`, which has no network to train, found some. Omit "
                    "them, or choose another preset."
                )
                raise ValueError(msg)
        return cls(_merged(of_model, model, inherited or {}), training, guidance, calibrate)


def _merged(preset: Mapping[str, Any], chosen: dict[str, Any], inherited: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of the configuration: those that were chosen, else those of an earlier flow, else those of the preset."""
    base = {**preset, **inherited}
    if chosen.get("network", base["network"]) != base["network"]:
        # The sizes of one network say nothing about another.
        base = {name: value for name, value in base.items() if name not in ("width", "n_blocks", "network_options")}
    further = {**base.get("network_options", {}), **chosen.get("network_options", {})}
    return base | chosen | ({"network_options": further} if further else {})
