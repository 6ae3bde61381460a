"""The faces: questions, flags, terminal, report. Only main.py imports them."""
