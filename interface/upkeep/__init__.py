"""Upkeep of a workspace: its runs, and what is kept beside the results to save time."""
