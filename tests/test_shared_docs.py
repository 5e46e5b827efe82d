"""Docstrings that share the descriptions of parameters."""

from __future__ import annotations

import inspect

from perturbflow._docs import shares


def test_what_a_docstring_leaves_out_is_added_in_the_order_of_the_signature():
    @shares({"x": "Cells.", "y": "Other\ncells.", "z": "No parameter."}, raises="ValueError\n    If not.")
    def function(x: int, a: int, b: int, y: int) -> int:
        """Do it.

        More.

        Parameters
        ----------
        a, b
            Own.

        Returns
        -------
        A number.

        Examples
        --------
        >>> 1
        """
        return x + a + b + y

    expected = """
        Do it.

        More.

        Parameters
        ----------
        x
            Cells.
        a, b
            Own.
        y
            Other
            cells.

        Returns
        -------
        A number.

        Raises
        ------
        ValueError
            If not.

        Examples
        --------
        >>> 1
        """
    assert function.__doc__ == inspect.cleandoc(expected)


def test_own_words_come_before_shared_ones():
    @shares({"x": "Shared."}, raises="ValueError\n    Shared.")
    def function(x: int) -> None:
        """Do it.

        Parameters
        ----------
        x
            Own.

        Raises
        ------
        TypeError
            Own.
        """

    assert "Shared" not in str(function.__doc__)
