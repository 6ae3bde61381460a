"""The questions in the terminal: the only package that asks."""
