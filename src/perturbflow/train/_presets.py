"""Named recipes of a fit: every choice of model and training at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from perturbflow._checks import check_one_of, listing
from perturbflow.flow import FlowConfig, TrainingSettings


@dataclass(frozen=True)
class Preset:
    """Choices that make a recipe.

    Parameters
    ----------
    options
        Settings of :class:`perturbflow.flow.FlowConfig`.
    settings
        Settings of :class:`perturbflow.flow.TrainingSettings`.
    """

    options: Mapping[str, Any]
    settings: Mapping[str, Any]


PRESETS: Mapping[str, Preset] = {
    "default": Preset(
        options={
            "parametrisation": "zero_inflated",
            "source": "control",
            "network": "mlp",
            "method": "multistep",
        },
        settings={
            "max_steps": 1500,
            "batch_size": 256,
            "learning_rate": 1e-3,
            "condition_dropout": 0.2,
            "part_dropout": 0.3,
        },
    ),
    # The prior alone, in closed form: predictions enter the path at its end, where the network has no say.
    "prior": Preset(
        options={
            "parametrisation": "zero_inflated",
            "source": "control",
            "network": "mlp",
            "width": 8,
            "n_blocks": 1,
            "start": 1.0,
        },
        settings={},
    ),
    # PRiMeFlow (arXiv 2604.13986): gene space, noise, independent coupling, U-Net, plain velocity, Dopri5. Its batches of
    # 38 to 54 cells are those of one of several devices that accumulate: several hundred in all. What the paper's text
    # leaves open (widths, optimiser) is chosen such that small panels are learned to the end on a CPU.
    "primeflow": Preset(
        options={
            "parametrisation": "velocity",
            "source": "noise",
            "network": "unet",
            "width": 16,
            "n_blocks": 1,
            "network_options": {"multipliers": (1, 2, 2, 2)},
            "stratified": False,
            "method": "dopri5",
        },
        settings={
            "max_steps": 1500,
            "batch_size": 256,
            "learning_rate": 2e-3,
            "condition_dropout": 0.2,
            "part_dropout": 0.0,
        },
    ),
}


# What may be given where no network is trained.
_WITHOUT_NETWORK = {"seed", "precision", "compile_network"}


def resolve(
    preset: str, choices: Mapping[str, Any], *, inherited: Mapping[str, Any] | None = None
) -> tuple[dict[str, Any], TrainingSettings]:
    """Settings of a preset, with a user's own choices in their place.

    Parameters
    ----------
    preset
        Name in :data:`PRESETS`.
    choices
        Settings of the configuration and of training by name; None stands for the preset's.
    inherited
        Settings of the network that an earlier flow has, in place of the preset's; there None stands for the network's.

    Returns
    -------
    Settings of the configuration, and how to train.

    Raises
    ------
    ValueError
        If the preset is unknown, or trains no network and choices for one are made.
    """
    check_one_of(preset, PRESETS, name="preset")
    chosen = {name: value for name, value in choices.items() if value is not None}
    if preset == "prior":
        _check_no_network(chosen, inherited)
    base = dict(PRESETS[preset].options) | dict(inherited or {})
    if "network_options" in chosen and inherited:
        chosen["network_options"] = {**inherited["network_options"], **chosen["network_options"]}
    if chosen.get("network", base["network"]) != base["network"]:
        # The sizes of one network say nothing about another.
        base = {name: value for name, value in base.items() if name not in ("width", "n_blocks", "network_options")}
    of_training = {field.name for field in fields(TrainingSettings)}
    of_flow = {field.name for field in fields(FlowConfig)}
    options = base | {name: value for name, value in chosen.items() if name in of_flow}
    settings = {**PRESETS[preset].settings, **{name: value for name, value in chosen.items() if name in of_training}}
    return options, TrainingSettings(**settings)


def _check_no_network(chosen: Mapping[str, Any], inherited: Mapping[str, Any] | None) -> None:
    of_network = sorted({*chosen} - _WITHOUT_NETWORK | ({"init_from"} if inherited else set()))
    if of_network:
        msg = (
            f"Expected no {listing(of_network)} with `preset='prior'`, which has no network to train, found some. Leave "
            "them out, or take another preset."
        )
        raise ValueError(msg)


def check_plan_options(options: Mapping[str, Any] | None, elsewhere: tuple[str, ...]) -> dict[str, Any]:
    """Settings of training that a user gave as a mapping.

    Parameters
    ----------
    options
        Settings by name; ``lr`` stands for ``learning_rate``, as in scvi-tools.
    elsewhere
        Settings that are arguments of their own.

    Returns
    -------
    The settings.

    Raises
    ------
    TypeError
        If a name is none of a setting, or is an argument of its own.
    """
    given = {("learning_rate" if name == "lr" else name): value for name, value in (options or {}).items()}
    known = [field.name for field in fields(TrainingSettings) if field.name not in elsewhere]
    unknown = [name for name in given if name not in known]
    if unknown:
        own = f" {', '.join(elsewhere)} are arguments of their own." if set(unknown) & set(elsewhere) else ""
        msg = f"Expected settings of training in `plan_kwargs`, of {known}, found {unknown}.{own}"
        raise TypeError(msg)
    return given
