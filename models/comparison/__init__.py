"""Runs beside each other: which differ by more than chance, and what a leak would have claimed."""
