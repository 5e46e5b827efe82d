"""Rate equations given as text, evaluated for all runs at once."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

OPERATIONS = {ast.Add: np.add, ast.Sub: np.subtract, ast.Mult: np.multiply, ast.Div: np.divide, ast.Pow: np.power}


@dataclass
class _Terms:
    """All distinct terms of the equations, each one row of a table; equal terms share a row.

    Attributes
    ----------
    variables
        Positions of the variables, whose rows come first.
    rows
        Row of every term, by what it is.
    depth
        Number of operations that must come before, for every row.
    operations
        Function and operands (rows) by the row of the result.
    activations
        Variable, EC50 and n by row.
    numbers
        Constants by row.
    regulators
        Variables in the activations of a term, for every row.
    """

    variables: Mapping[str, int]
    rows: dict[tuple[object, ...], int] = field(default_factory=dict)
    depth: list[int] = field(default_factory=list)
    operations: dict[int, tuple[np.ufunc, int, int]] = field(default_factory=dict)
    activations: dict[int, tuple[int, float, float]] = field(default_factory=dict)
    numbers: dict[int, float] = field(default_factory=dict)
    regulators: list[frozenset[int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name in self.variables:
            self._row(("variable", name), depth=0)

    def _row(
        self, key: tuple[object, ...], *, depth: int, regulators: frozenset[int] = frozenset()
    ) -> tuple[int, bool]:
        """Return the row of a term and whether it is new."""
        is_new = key not in self.rows
        if is_new:
            self.rows[key] = len(self.rows)
            self.depth.append(depth)
            self.regulators.append(regulators)
        return self.rows[key], is_new

    def number(self, value: float) -> int:
        """Row of a constant."""
        row, _ = self._row(("number", value), depth=0)
        self.numbers[row] = value
        return row

    def add(self, node: ast.expr) -> int:
        """Row of an expression, which may be made of numbers, variables, + - * / ** and activations, of nothing else."""
        match node:
            case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
                return self.number(float(value))
            case ast.Name(id=name) if name in self.variables:
                return self.rows["variable", name]
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return self._combine(np.subtract, self.number(0.0), self.add(operand))
            case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATIONS:
                return self._combine(OPERATIONS[type(op)], self.add(left), self.add(right))
            case ast.Call(
                func=ast.Name(id="fAct"),
                args=[
                    ast.Name(id=name),
                    ast.Constant(value=int() | float() as ec50),
                    ast.Constant(value=int() | float() as n),
                ],
                keywords=[],
            ) if name in self.variables:
                variable = self.variables[name]
                row, _ = self._row(("fAct", variable, ec50, n), depth=1, regulators=frozenset([variable]))
                self.activations[row] = (variable, ec50, n)
                return row
        msg = (
            f"Expected numbers, known variables, + - * / ** and fAct(variable, EC50, n) in an equation, found "
            f"{ast.unparse(node)!r}."
        )
        raise ValueError(msg)

    def _combine(self, function: np.ufunc, left: int, right: int) -> int:
        """Row of an operation; one that changes nothing is left out."""
        one = self.rows.get(("number", 1.0))
        if function is np.multiply and left == one:
            return right
        if function in (np.multiply, np.divide, np.power) and right == one:
            return left
        row, is_new = self._row(
            (function, left, right),
            depth=1 + max(self.depth[left], self.depth[right]),
            regulators=self.regulators[left] | self.regulators[right],
        )
        if is_new:
            self.operations[row] = (function, left, right)
        return row


class RateEquations:
    r"""Rates of change of d variables from equations given as text.

    The equations may contain numbers, the names of variables, ``+ - * / **`` and parentheses, and the activation
    ``fAct(x, EC50, n)`` of PHOENIX (Hossain et al. 2024),

    .. math:: f(x) = \frac{B x^n}{K + x^n}, \qquad B = \frac{E^n - 1}{2 E^n - 1}, \qquad K = B - 1

    with E = EC50, so that f(0) = 0, f(E) = 1/2 and f(1) = 1. They are parsed, never executed. Terms that occur several
    times are evaluated once, and all operations of one kind that do not depend on each other at once.

    Parameters
    ----------
    variables
        Names of the variables.
    equations
        Right-hand sides by variable. A variable without one is constant.

    Raises
    ------
    ValueError
        If an equation cannot be parsed, contains anything else, or belongs to no variable.
    """

    def __init__(self, variables: Sequence[str], equations: Mapping[str, str]) -> None:
        position = {name: number for number, name in enumerate(variables)}
        if unknown := [name for name in equations if name not in position]:
            msg = f"Expected equations of the variables, found those of {unknown}."
            raise ValueError(msg)
        terms = _Terms(position)
        result = {position[name]: terms.add(_parsed(name, text)) for name, text in equations.items()}

        self.n_variables = len(position)
        self._n_terms = len(terms.rows)
        self._targets = np.array(list(result), dtype=int)
        self._results = np.array(list(result.values()), dtype=int)
        self._numbers = np.array([*terms.numbers.items()]).reshape(-1, 2)
        self._activated = np.array(list(terms.activations), dtype=int)
        self._activators = np.array([variable for variable, _, _ in terms.activations.values()], dtype=int)
        ec50, self._exponents = np.array([row[1:] for row in terms.activations.values()]).reshape(-1, 2).T[..., None]
        half = ec50**self._exponents
        self._scale = (half - 1) / (2 * half - 1)
        groups: dict[tuple[int, np.ufunc], list[list[int]]] = {}
        for row, (function, left, right) in terms.operations.items():
            groups.setdefault((terms.depth[row], function), []).append([row, left, right])
        self._steps = [
            (function, np.array(rows).T)
            for (_, function), rows in sorted(groups.items(), key=lambda group: group[0][0])
        ]
        self._edges = np.array(
            sorted((source, target) for target, row in result.items() for source in terms.regulators[row])
        ).reshape(-1, 2)

    @property
    def edges(self) -> NDArray[np.intp]:
        """Pairs of a variable in an activation and the variable with this equation, shape (E, 2), ascending."""
        return self._edges

    def __call__(self, x: Floats) -> Floats:
        """Return the rates of change (K, d) at levels x (K, d); the activation by levels below 0 is 0."""
        table = np.empty((self._n_terms, len(x)))
        table[: self.n_variables] = x.T
        table[self._numbers[:, 0].astype(int)] = self._numbers[:, 1:]
        power = np.maximum(table[self._activators], 0.0) ** self._exponents
        table[self._activated] = self._scale * power / (self._scale - 1 + power)
        for function, (row, left, right) in self._steps:
            table[row] = function(table[left], table[right])
        rates = np.zeros_like(x)
        rates[:, self._targets] = table[self._results].T
        return rates


def _parsed(name: str, text: str) -> ast.expr:
    """Return the syntax tree of an equation."""
    try:
        return ast.parse(text.strip(), mode="eval").body
    except SyntaxError as error:
        msg = f"Expected an arithmetic expression as the equation of {name}, found {text!r}."
        raise ValueError(msg) from error
