from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
RateEquations = import_module("_rate_equations").RateEquations


X = np.array([[0.2, 0.5, 0.9], [1.0, 0.3, 0.0]])


def test_arithmetic():
    system = RateEquations(["a", "b", "c"], {"a": "-(a + 2 * b) / c2 ** 2".replace("c2", "(c + 1)"), "c": "1 - 1 * c"})
    a, b, c = X.T
    np.testing.assert_allclose(system(X), np.stack([-(a + 2 * b) / (c + 1) ** 2, 0 * b, 1 - c], axis=1))
    assert system.edges.tolist() == []


def test_activation_is_none_half_and_full_at_the_stated_levels():
    system = RateEquations(["a", "b"], {"b": "fAct(a, 0.45, 1.6)"})
    levels = np.array([[0.0, 1.0], [0.45, 1.0], [1.0, 1.0], [-1e-9, 1.0]])
    np.testing.assert_allclose(system(levels)[:, 1], [0.0, 0.5, 1.0, 0.0], atol=1e-12)
    half = 0.45**1.6
    scale = (half - 1) / (2 * half - 1)
    power = 0.7**1.6
    np.testing.assert_allclose(system(np.array([[0.7, 0.0]]))[0, 1], scale * power / (scale - 1 + power))


def test_logic_of_activations():
    text = (
        "((fAct(a, 0.5, 1.5) + (1 - 1 * fAct(b, 0.4, 1.7)) - fAct(a, 0.5, 1.5) * (1 - 1 * fAct(b, 0.4, 1.7))) - c) / 1"
    )
    system = RateEquations(["a", "b", "c"], {"c": text})
    one, two = (
        RateEquations(["a", "b", "c"], {"c": f"fAct({term})"})(X)[:, 2] for term in ("a, 0.5, 1.5", "b, 0.4, 1.7")
    )
    np.testing.assert_allclose(system(X)[:, 2], 1 - (1 - one) * two - X[:, 2])  # or: not (not a and b)
    assert system.edges.tolist() == [[0, 2], [1, 2]]  # not the decay


def test_variables_without_equation_are_constant():
    assert (RateEquations(["a", "b", "c"], {})(X) == 0).all()


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').getcwd()",
        "a.real",
        "open(a)",
        "fAct(a, b, 2.0)",
        "fAct(z, 0.5, 2.0)",
        "fAct(a, 0.5, n=2.0)",
        "a if b else c",
        "a[0]",
        "z + 1",
        "'a'",
        "True",
        "a // b",
        "(lambda: a)()",
    ],
)
def test_nothing_else_is_read(text):
    with pytest.raises(ValueError, match=r"Expected numbers, known variables, \+ - \* / \*\* and fAct"):
        RateEquations(["a", "b", "c"], {"a": text})


def test_bad_systems():
    with pytest.raises(ValueError, match=r"arithmetic expression as the equation of a, found 'a \+'"):
        RateEquations(["a"], {"a": "a +"})
    with pytest.raises(ValueError, match=r"equations of the variables, found those of \['b'\]"):
        RateEquations(["a"], {"b": "a"})
