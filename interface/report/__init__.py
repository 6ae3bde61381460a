"""The HTML report: one page of data, models and metrics."""
