from __future__ import annotations

import logging
from importlib.metadata import version
from pathlib import Path

import pytest

import perturbflow as pf


@pytest.fixture(autouse=True)
def _as_before():
    logger = logging.getLogger("perturbflow")
    level, handlers = logger.level, list(logger.handlers)
    before = {name: getattr(pf.settings, name) for name in ("device", "figdir", "progress_bars")}
    yield
    logger.setLevel(level)
    logger.handlers = handlers
    for name, value in before.items():
        setattr(pf.settings, name, value)


def test_version_is_that_of_the_package():
    assert pf.__version__ == version("perturbflow")


def test_defaults_are_shown():
    assert repr(pf.settings) == "Settings(verbosity='warning', device=None, figdir='figures', progress_bars=True)"


@pytest.mark.parametrize(
    ("name", "levels"),
    [("error", [False, False, False]), ("warning", [False, False, True]), ("info", [False, True, True])],
)
def test_verbosity_is_the_level_of_the_logger(name, levels):
    pf.settings.verbosity = name
    assert pf.settings.verbosity == name
    logger = logging.getLogger("perturbflow.train._fit")
    assert [logger.isEnabledFor(level) for level in (logging.DEBUG, logging.INFO, logging.WARNING)] == levels


def test_verbosity_follows_logging():
    logging.getLogger("perturbflow").setLevel(logging.CRITICAL)
    assert pf.settings.verbosity == "error"


def test_messages_go_to_the_standard_error_once(capsys, monkeypatch):
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # pytest has its own
    pf.settings.verbosity = "info"
    pf.settings.verbosity = "info"
    logging.getLogger("perturbflow.anything").info("Done in %d steps.", 3)
    assert capsys.readouterr().err == "Done in 3 steps.\n"


def test_handlers_of_others_are_left_alone(capsys, caplog):
    pf.settings.verbosity = "info"
    logging.getLogger("perturbflow.anything").info("Done.")
    assert capsys.readouterr().err == ""
    assert caplog.messages == ["Done."]


def test_directory_of_figures_is_a_path():
    pf.settings.figdir = "output/figures"
    assert pf.settings.figdir == Path("output/figures")


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        ("verbosity", "loud", ValueError, r"Expected `settings.verbosity` to be one of \['debug', 'error', 'info'"),
        ("device", 1, TypeError, "Expected `settings.device` to be a string"),
        ("device", "gpuu", ValueError, r"Expected `settings.device` to be one of .*'gpu'.*, found 'gpuu'"),
        ("device", "", ValueError, "Expected `settings.device` to be a string of at least one character"),
        ("figdir", "", ValueError, "Expected `settings.figdir` to be a directory, found ''"),
        ("figdir", None, TypeError, "Expected `settings.figdir` to be a directory"),
        ("progress_bars", "yes", TypeError, "Expected `settings.progress_bars` to be True or False"),
    ],
)
def test_wrong_values_are_refused(name, value, error, message):
    before = getattr(pf.settings, name)
    with pytest.raises(error, match=message):
        setattr(pf.settings, name, value)
    assert getattr(pf.settings, name) == before


@pytest.mark.parametrize("device", ["gpu", "cuda"])
def test_a_device_that_is_not_there_is_refused_where_it_is_used(device, fitted):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    pf.settings.device = device
    with pytest.raises(ValueError, match=f"Expected `device` to be .* found '{device}' .*Use 'cpu'"):
        pf.tl.predict_perturbation(fitted, "A")
    with pytest.raises(ValueError, match=f"Expected `accelerator` to be .* found '{device}' .*Use 'cpu'"):
        pf.tl.fit_flow(fitted, max_steps=1, progress_bar=False)
    pf.tl.predict_perturbation(fitted, "A", device="cpu")  # an argument comes first
