"""Keys of AnnData that functions write, and what is checked before a stored fit is used."""
