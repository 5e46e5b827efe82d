"""Keys of AnnData that functions write, what is checked before a stored fit is used, and files replaced as a whole."""

from perturbflow.store._stored_checks import checksum

__all__ = ["checksum"]
