"""RSNA Screening Mammography."""
