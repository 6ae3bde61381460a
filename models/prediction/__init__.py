"""Scores of images that a person hands in."""
